"""Programs under bubblewrap: namespaces of their own for everything, and an allow-list of what is mounted in them."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SandboxError
from master_agent.sandbox import MIB, Outcome, Program, ProgramLimits, launch, places, seccomp

TMP, HERE, HOME = "/tmp", "/tmp/work", "/tmp/home"  # noqa: S108  the sandbox's own
_ETC = {
    "/etc/passwd": b"user:x:1000:1000:user:/tmp/home:/bin/sh\n",
    "/etc/group": b"user:x:1000:\n",
    "/etc/hosts": b"127.0.0.1 localhost\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
}
_HINT = (
    "bubblewrap 0.8 or later is needed, and a kernel that lets it make user namespaces: Ubuntu 24.04 does so with the "
    "AppArmor profile bwrap-userns-restrict (apt install apparmor-profiles)."
)
_SHARED_MEMORY = 64 * MIB
_ALONE = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1"),
    *("--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
)


@dataclass(frozen=True)
class Bubblewrap:
    """Programs in namespaces of their own, by the program `bwrap`."""

    command: Path
    name: str = "bubblewrap"
    gaps: tuple[str, ...] = (
        "the kernel itself: a fault in it is a way out",
        "memory inside the kernel (full pipes, socket pairs, shared memory that nobody maps) is not counted",
        "programs share the processor with everything else, up to their seconds",
    )

    async def run(self, program: Program, limits: ProgramLimits) -> Outcome:
        person = places.stand_in()
        python = places.interpreter(person)
        beside = places.readable(program.readable, person)
        for place in places.of_interpreter(python):
            if not places.under(place, [*places.system(), *beside]):
                beside.append(place)
        with contextlib.ExitStack() as stack:
            etc = {path: stack.enter_context(_bytes(content)) for path, content in _ETC.items()}
            flags = [*_ALONE, *_mounts(places.system(), beside, limits)]
            for path, descriptor in etc.items():
                flags += ["--ro-bind-data", str(descriptor), path]
            flags += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", TMP, "--"]
            command = [str(self.command), *flags, *launch.warden(str(python))]
            job = {
                "environ": {**launch.ENVIRON, "HOME": HOME, "TMPDIR": TMP, "PATH": places.search(python)},
                "scratch": HERE,
                "folders": [HOME],
                "confined": True,
                "filter": seccomp.program_filter(),
                "alone": True,
                "sized": True,
            }
            start = launch.Start(command, job, tuple(etc.values()), person, hint=_HINT)
            return await launch.carried_out(start, program, limits)


def here() -> Bubblewrap:
    """Bubblewrap as it is installed. SandboxError that says what to install when it is not."""
    found = shutil.which("bwrap")
    if found is None or not os.path.isabs(found):  # noqa: PTH117
        raise SandboxError("it is not installed", hint="Install it: apt install bubblewrap")
    if not seccomp.known():
        raise SandboxError("there is no list of system calls for this processor")
    return Bubblewrap(Path(found))


def _mounts(system: Sequence[Path], beside: Sequence[Path], limits: ProgramLimits) -> Iterator[str]:
    """Flags for what is there: the system and what was named to read, and two file systems in memory to write."""
    for path in system:
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))  # noqa: PTH115  as it is written
        else:
            yield from ("--ro-bind", str(path), str(path))
    yield from ("--dev", "/dev", "--size", str(min(_SHARED_MEMORY, limits.disk_bytes)), "--tmpfs", "/dev/shm")  # noqa: S108
    yield from ("--proc", "/proc", "--size", str(limits.disk_bytes), "--perms", "1777", "--tmpfs", TMP)
    for path in beside:
        yield from ("--ro-bind", str(path), str(path))


@contextlib.contextmanager
def _bytes(content: bytes) -> Iterator[int]:
    """A descriptor from which bytes can be read, of no file."""
    descriptor = os.memfd_create("etc")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
