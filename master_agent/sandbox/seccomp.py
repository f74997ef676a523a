"""The system calls that a program may not make, as the bytes of a filter for the kernel (classic BPF).

Out: no sockets but pairs, no looking into other processes, no mounts or namespaces, no kernel objects that hold memory
which belongs to no process. Numbers are from the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h). The table of aarch64 has not been run.
"""

import errno
import platform
import struct

_SAME_EVERYWHERE = {
    "pidfd_getfd": 438,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "memfd_secret": 447,
}
_X86_64 = {
    "socket": 41,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "bpf": 321,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "chroot": 161,
    "setns": 308,
    "unshare": 272,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "kexec_load": 246,
    "kexec_file_load": 320,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "swapon": 167,
    "reboot": 169,
    "syslog": 103,
    "acct": 163,
    "quotactl": 179,
    "memfd_create": 319,
    "shmget": 29,
    "msgget": 68,
    "semget": 64,
    "mq_open": 240,
}
_AARCH64 = {
    "socket": 198,
    "ptrace": 117,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "kcmp": 272,
    "bpf": 280,
    "perf_event_open": 241,
    "userfaultfd": 282,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "mount": 40,
    "umount2": 39,
    "pivot_root": 41,
    "chroot": 51,
    "setns": 268,
    "unshare": 97,
    "name_to_handle_at": 264,
    "open_by_handle_at": 265,
    "kexec_load": 104,
    "kexec_file_load": 294,
    "init_module": 105,
    "finit_module": 273,
    "delete_module": 106,
    "swapon": 224,
    "reboot": 142,
    "syslog": 116,
    "acct": 89,
    "quotactl": 60,
    "memfd_create": 279,
    "shmget": 194,
    "msgget": 186,
    "semget": 190,
    "mq_open": 180,
}
# The architecture's mark, the calls refused, and the calls whose arguments decide.
_TABLES = {
    "x86_64": (0xC000003E, _X86_64, {"clone": 56, "clone3": 435, "ioctl": 16, "prlimit64": 302}),
    "aarch64": (0xC00000B7, _AARCH64, {"clone": 220, "clone3": 435, "ioctl": 29, "prlimit64": 261}),
}
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW… but time, which clone() cannot ask for
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # typing into a terminal
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets into struct seccomp_data


def known(machine: str | None = None) -> bool:
    """Whether there is a table for this architecture."""
    return _machine(machine) in _TABLES


def _machine(machine: str | None) -> str:
    return {"arm64": "aarch64"}.get(name := machine or platform.machine(), name)


def program_filter(machine: str | None = None) -> bytes:
    """The filter for a program in a sandbox. KeyError for an architecture without a table."""
    mark, refused, judged = _TABLES[_machine(machine)]
    refuse, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, mark), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine_is_x86(mark):
        lines += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # the x32 way to the same calls
    for number in (*refused.values(), *_SAME_EVERYWHERE.values()):
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    # Arguments of clone3 lie where a filter cannot look; without it, libraries use clone.
    lines += [(_EQUAL, 0, 1, judged["clone3"]), (_RETURN, 0, 0, unknown)]
    lines += _judge(judged["clone"], 0, [(_ANY_BIT, _NEW_NAMESPACES)], refuse)
    lines += _judge(judged["ioctl"], 1, [(_EQUAL, _TIOCSTI), (_EQUAL, _TIOCLINUX)], refuse)
    # A process may change its own limits, which its name 0 says; not those of the warden.
    lines += _judge(judged["prlimit64"], 0, [(_AT_LEAST, 1)], refuse)
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def machine_is_x86(mark: int) -> bool:
    """Whether an architecture's mark is that of x86_64."""
    return mark == _TABLES["x86_64"][0]


def _judge(number: int, argument: int, tests: list[tuple[int, int]], refuse: int) -> list[tuple[int, int, int, int]]:
    """Refuses a call when any test of (the lower half of) one argument holds, and allows it otherwise."""
    body = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
    for code, value in tests:
        body += [(code, 0, 1, value), (_RETURN, 0, 0, refuse)]
    body.append((_RETURN, 0, 0, _ALLOW))
    return [(_EQUAL, 0, len(body), number), *body]
