"""What of the machine a program may read, which Python runs the warden, and who a program is when we are root."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SandboxError

SYSTEM = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"),
    *(f"/usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "include", "share")),
    *(f"/usr/local/{name}" for name in ("bin", "sbin", "lib", "lib64", "libexec", "include", "share")),
    *(
        f"/etc/{name}"
        for name in ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone")
    ),
    *(f"/etc/{name}" for name in ("fonts", "mime.types", "perl", "ssl/certs", "ssl/openssl.cnf")),
)
"""Interpreters, libraries, and what these read of /etc. No folder of a user, no key, no password."""

SEARCH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_PARTS = ("pyvenv.cfg", "bin", "lib", "lib64", "include", "share")
"""What a virtual environment consists of."""

_UNUSED = 1_879_048_192
"""The first user number that neither distributions nor containers give out (systemd's list of UIDs and GIDs)."""

_NOBODY = 65534


def system() -> list[Path]:
    """The system's own places that are there."""
    return [path for name in SYSTEM if os.path.lexists(path := Path(name))]


def under(path: Path, places: Sequence[Path]) -> bool:
    """Whether a path is one of these places or lies in one of them."""
    return any(path.is_relative_to(place) for place in places)


@dataclass(frozen=True)
class Person:
    """A user that has nothing: who a program is when the one who started us is root."""

    number: int


def stand_in() -> Person | None:
    """Who to be instead of root; None when we are somebody else. The number is for this process alone."""
    if os.geteuid() != 0:
        return None
    number = _UNUSED + os.getpid()
    try:
        spans = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return Person(_NOBODY)
    there = any(int(first) <= number < int(first) + int(count) for first, _outside, count in spans)
    return Person(number if there else _NOBODY)


def open_to_all(path: Path) -> bool:
    """Whether a user who owns nothing can read a place: every folder above it lets everybody through."""
    real = path.resolve()
    try:
        above = all(folder.stat().st_mode & 0o001 for folder in real.parents)
        mode = real.stat().st_mode
    except OSError:
        return False
    wanted = 0o005 if real.is_dir() else 0o004
    return above and mode & wanted == wanted


def interpreter(person: Person | None) -> Path:
    """The Python that runs the warden: our own without its virtual environment, or the system's.

    SandboxError when root has given up its rights and no Python is left that everybody may run.
    """
    own = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for path in (own, Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        if path.is_file() and os.access(path, os.X_OK) and (person is None or open_to_all(path)):
            return path.resolve()
    raise SandboxError(
        f"root runs programs as a user without rights, and such a user may not run {own}",
        hint="Install the system's Python (apt install python3), or start master-agent as an ordinary user.",
    )


def search(python: Path) -> str:
    """Where commands are looked for: first beside the warden's Python, for machines that have no other."""
    own = str(python.parent)
    return SEARCH if own in SEARCH.split(":") else f"{own}:{SEARCH}"


def of_interpreter(path: Path) -> list[Path]:
    """The folders that an interpreter reads: its own programs and its libraries, nothing beside them."""
    prefix = path.parent.parent
    return [folder for name in ("bin", "lib", "lib64") if (folder := prefix / name).is_dir()]


def readable(folders: Sequence[Path], person: Person | None) -> list[Path]:
    """What a program may read beside the system: folders; of virtual environments no more than an interpreter reads.

    SandboxError for one that is no folder, that would open too much, or that its user could not read.
    """
    found: list[Path] = []
    for folder in folders:
        for place in _of_environment(folder.absolute()) or [folder.absolute()]:
            if not place.exists():
                raise SandboxError(f"{str(place)!r} is to be readable in the sandbox, and is no folder")
            if _home().is_relative_to(place.resolve()):
                raise SandboxError(
                    f"{str(place)!r} would open the whole machine or the whole home folder to a program",
                    hint="Name the virtual environment itself.",
                )
            if person and not open_to_all(place):
                raise SandboxError(
                    f"root runs programs as a user without rights, and such a user may not read {str(place)!r}",
                    hint="Put it where everybody may read, such as /opt, or start master-agent as an ordinary user.",
                )
            if not under(place, [*system(), *found]):
                found.append(place)
    return found


def _home() -> Path:
    """The user's home folder; the top of the machine for a user who has none."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  which does not fail for a user whom nobody knows
    return home.resolve() if home.is_absolute() else Path("/")


def _of_environment(folder: Path) -> list[Path]:
    """What a virtual environment consists of, with the folders of the Python that it was made from; else nothing.

    It may share its folder with a project. SandboxError where a part of it is a link to somewhere else.
    """
    if not is_environment(folder):
        return []
    parts = [part for name in _PARTS if (part := folder / name).exists()]
    for part in parts:
        if not part.resolve().is_relative_to(folder.resolve()):
            raise SandboxError(f"{str(part)!r} leads out of its environment, to {str(part.resolve())!r}")
    return [*parts, *of_interpreter((folder / "bin" / "python").resolve())]


def is_environment(folder: Path) -> bool:
    """Whether a folder is a virtual environment."""
    return (folder / "pyvenv.cfg").is_file() and (folder / "bin" / "python").exists()
