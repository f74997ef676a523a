"""The system calls that a program may not make, as the bytes of a filter for the kernel (classic BPF).

Out: no sockets but pairs that are connected for good, no looking into other processes, no mounts or namespaces, no
kernel objects that hold memory which belongs to no process. Numbers are from the kernel's tables
(arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h). The table of aarch64 has not been run.
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
    "open_tree_attr": 467,
}
_BY_NAME_EVERYWHERE = {"fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469}
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
    "modify_ldt": 154,
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
    "shmat": 30,
    "shmctl": 31,
    "semget": 64,
    "semop": 65,
    "semctl": 66,
    "semtimedop": 220,
    "msgget": 68,
    "msgsnd": 69,
    "msgrcv": 70,
    "msgctl": 71,
    "mq_open": 240,
    "mq_unlink": 241,
}
_BY_NAME_X86_64 = {
    "chmod": 90,
    "chown": 92,
    "lchown": 94,
    "utime": 132,
    "utimes": 235,
    "futimesat": 261,
    "fchownat": 260,
    "fchmodat": 268,
    "setxattr": 188,
    "lsetxattr": 189,
    "removexattr": 197,
    "lremovexattr": 198,
    "inotify_add_watch": 254,
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
    "shmctl": 195,
    "shmat": 196,
    "semget": 190,
    "semctl": 191,
    "semtimedop": 192,
    "semop": 193,
    "msgget": 186,
    "msgctl": 187,
    "msgrcv": 188,
    "msgsnd": 189,
    "mq_open": 180,
    "mq_unlink": 181,
}
_BY_NAME_AARCH64 = {
    "fchmodat": 53,
    "fchownat": 54,
    "setxattr": 5,
    "lsetxattr": 6,
    "removexattr": 14,
    "lremovexattr": 15,
    "inotify_add_watch": 27,
}
_CHANGES_OPEN_X86_64 = {"fchmod": 91, "fchown": 93, "fsetxattr": 190, "fremovexattr": 199, "utimensat": 280}
_CHANGES_OPEN_AARCH64 = {"fchmod": 52, "fchown": 55, "fsetxattr": 7, "fremovexattr": 16, "utimensat": 88}
_JUDGED_X86_64 = {
    "clone": 56,
    "clone3": 435,
    "ioctl": 16,
    "prlimit64": 302,
    "socketpair": 53,
    "utimensat": 280,
    "setpriority": 141,
    "ioprio_set": 251,
    "sched_setparam": 142,
    "sched_setscheduler": 144,
    "sched_setaffinity": 203,
    "sched_setattr": 314,
}
_JUDGED_AARCH64 = {
    "clone": 220,
    "clone3": 435,
    "ioctl": 29,
    "prlimit64": 261,
    "socketpair": 199,
    "utimensat": 88,
    "setpriority": 140,
    "ioprio_set": 30,
    "sched_setparam": 118,
    "sched_setscheduler": 119,
    "sched_setaffinity": 122,
    "sched_setattr": 274,
}
# The architecture's mark, the calls refused, those refused where names lead to the user's files, those refused where
# such files can be opened, and those whose arguments decide.
_TABLES = {
    "x86_64": (0xC000003E, _X86_64, _BY_NAME_X86_64, _CHANGES_OPEN_X86_64, _JUDGED_X86_64),
    "aarch64": (0xC00000B7, _AARCH64, _BY_NAME_AARCH64, _CHANGES_OPEN_AARCH64, _JUDGED_AARCH64),
}
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW… but time, which clone() cannot ask for
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # typing into a terminal
_SET_FLAGS, _SET_ATTRIBUTES = 0x40086602, 0x401C5820  # of open files (FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR)
_STREAM, _PACKETS = 1, 5  # kinds of sockets
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets into struct seccomp_data


def known(machine: str | None = None) -> bool:
    """Whether there is a table for this architecture."""
    return _machine(machine) in _TABLES


def _machine(machine: str | None) -> str:
    return {"arm64": "aarch64"}.get(name := machine or platform.machine(), name)


def program_filter(machine: str | None = None, *, by_name: bool = True, opened: bool = True) -> bytes:
    """The filter for a program in a sandbox. KeyError for an architecture without a table.

    `by_name` says whether it may change owners, modes and times of files, and watch them, by their names; `opened`
    whether it may change those of files that it has opened: not where they can be the user's own, for who may read a
    file may change those of it.
    """
    mark, refused, by_names, of_open, judged = _TABLES[_machine(machine)]
    refuse, unknown, allow = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS, (_RETURN, 0, 0, _ALLOW)
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, mark), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if mark == _TABLES["x86_64"][0]:
        lines += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # the x32 way to the same calls
    numbers = [*refused.values(), *_SAME_EVERYWHERE.values()]
    if not by_name:
        numbers += [*by_names.values(), *_BY_NAME_EVERYWHERE.values()]
        path = [_argument(1), (_EQUAL, 0, 3, 0), _argument(1, upper=True), (_EQUAL, 0, 1, 0), allow]
        lines += _call(judged["utimensat"], [*path, (_RETURN, 0, 0, refuse)]) if opened else []
    typing, flags = [(_EQUAL, _TIOCSTI), (_EQUAL, _TIOCLINUX)], [(_EQUAL, _SET_FLAGS), (_EQUAL, _SET_ATTRIBUTES)]
    if not opened:
        numbers += of_open.values()
    for number in numbers:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    # Arguments of clone3 lie where a filter cannot look; without it, libraries use clone.
    lines += [(_EQUAL, 0, 1, judged["clone3"]), (_RETURN, 0, 0, unknown)]
    lines += _unless(judged["clone"], 0, [(_ANY_BIT, _NEW_NAMESPACES)], refuse)
    lines += _unless(judged["ioctl"], 1, typing if opened else [*typing, *flags], refuse)
    # A process may change its own limits and place in the queue, which the name 0 says; not those of the warden.
    for name in ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"):
        lines += _unless(judged[name], 0, [(_AT_LEAST, 1)], refuse)
    for name in ("setpriority", "ioprio_set"):
        lines += _unless(judged[name], 1, [(_AT_LEAST, 1)], refuse)
    # A pair of datagram sockets could be pointed at any socket that has a name.
    streams = [_argument(1), (_AND, 0, 0, 0xF), (_EQUAL, 1, 0, _STREAM), (_EQUAL, 0, 1, _PACKETS), allow]
    lines += _call(judged["socketpair"], [*streams, (_RETURN, 0, 0, refuse)])
    return b"".join(struct.pack("=HBBI", *line) for line in [*lines, allow])


def _argument(index: int, *, upper: bool = False) -> tuple[int, int, int, int]:
    """Loads half of an argument of the call."""
    return _LOAD, 0, 0, _ARGUMENTS + 8 * index + (4 if upper else 0)


def _call(number: int, body: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """What is done with one call; the body ends in a return."""
    return [(_EQUAL, 0, len(body), number), *body]


def _unless(number: int, argument: int, tests: list[tuple[int, int]], refuse: int) -> list[tuple[int, int, int, int]]:
    """Refuses a call when any test of (the lower half of) one argument holds, and allows it otherwise."""
    body = [_argument(argument)]
    for code, value in tests:
        body += [(code, 0, 1, value), (_RETURN, 0, 0, refuse)]
    return _call(number, [*body, (_RETURN, 0, 0, _ALLOW)])
