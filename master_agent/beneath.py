"""From a path to an open file beneath one folder, whatever is moved or linked meanwhile; and a file put there whole."""

import errno
import hashlib
import os
import secrets
import stat
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from master_agent.errors import FileRefusedError, SettingsError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TEMPORARY = ".master-agent-"  # begins the name of a file being written; the workspace never lists or reads such a one

Open = Callable[[str, int], int]
"""Opens a path (no `..`, not absolute) beneath the folder with the flags of `os.open`; OSError, ELOOP at a link."""


def open_root(root: Path) -> int:
    """The folder opened; SettingsError when it is missing, is no folder or cannot be written to."""
    hint = "Name a folder that exists and that you may write to, or make it first."
    try:
        fd = os.open(root, FOLDER)
    except FileNotFoundError:
        raise SettingsError(f"the workspace {root} does not exist", hint=hint) from None
    except NotADirectoryError:
        raise SettingsError(f"the workspace {root} is not a folder", hint=hint) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"the workspace {root} cannot be opened: {error}", hint=hint) from None
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=os.access in os.supports_effective_ids):
        os.close(fd)
        raise SettingsError(f"the workspace {root} cannot be written to", hint=hint)
    return fd


def opener(root: int, *, walk: bool) -> Open:
    """The way to open paths beneath an open folder: by the kernel, or, where it cannot or `walk`, name by name."""
    return (None if walk else _by_kernel(root)) or _by_walk(root)


def made_folder(root: int, folder: str) -> int:
    """A folder beneath the open one, opened; it and those above it are made where they are missing."""
    here = os.dup(root)
    try:
        for part in folder.split("/") if folder else ():
            try:
                below = _folder(here, part)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
                below = _folder(here, part)
            os.close(here)
            here = below
    except BaseException:  # whatever it is, no descriptor is left open
        os.close(here)
        raise
    return here


def kind(mode: int) -> str:
    """What a thing in a folder is, in words."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def put(folder: int, name: str, content: bytes, *, replace: bool, mode: int | None = None) -> None:
    """Puts a file into an open folder: written under another name first, then renamed. `mode`: not that of before."""
    there = mode_of_target(folder, name)
    mode = there if mode is None else mode
    temporary = f"{_begins(name, hashlib.sha256(content).hexdigest())}{secrets.token_hex(4)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o666 if mode is None else 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(fd, mode)
            os.fsync(fd)
        if replace or not _linked(folder, temporary, name):
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:  # whatever it is, no half file is left behind
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def clear(folder: int, written: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Removes from an open folder what writes that died have left: half files, or second names of whole ones.

    `written` are the names that were to be written, each with the SHA-256 of the content: what others write stays.
    """
    begins = {_begins(name, sha256) for name, sha256 in written}
    left = [name for name in os.listdir(folder) if name.startswith(TEMPORARY) and name.endswith(".tmp")]
    ours = tuple(sorted(name for name in left if f"{name.rpartition('-')[0]}-" in begins))
    for name in ours:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    return ours


def _begins(name: str, sha256: str) -> str:
    """How the name begins under which a file is written first: by it, what a dead process has left is known again."""
    return f"{TEMPORARY}{hashlib.sha256(f'{name}/{sha256}'.encode()).hexdigest()[:16]}-"


def _linked(folder: int, temporary: str, name: str) -> bool:
    """Gives the file its name by a link, which fails where the name is taken; False where there are no such links."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        raise
    except OSError:
        if mode_of_target(folder, name) is None:
            return False
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
    os.unlink(temporary, dir_fd=folder)
    return True


def mode_of_target(folder: int, name: str) -> int | None:
    """The mode of the file that a write would replace, None where there is none; refused when it may not be."""
    try:
        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        raise FileRefusedError(f'"{name}" is {kind(about.st_mode)}; choose another name')
    if about.st_nlink > 1:
        raise FileRefusedError(f'"{name}" has other names elsewhere (hard links); choose another name')
    if not about.st_mode & 0o222:
        raise FileRefusedError(f'"{name}" is read-only; choose another name')
    return stat.S_IMODE(about.st_mode) & 0o777


def _by_kernel(root: int) -> Open | None:
    """Opens a path beneath the folder by one call of Linux, `openat2`; None where there is no such call."""
    if sys.platform != "linux":
        return None
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    openat2, no_magic_links, no_links, beneath = 437, 0x02, 0x04, 0x08

    def opened(path: str, flags: int) -> int:
        how = struct.pack("QQQ", flags, 0, beneath | no_links | no_magic_links)
        for _ in range(64):
            place = (ctypes.c_int(root), ctypes.c_char_p(os.fsencode(path)))
            fd: int = call(ctypes.c_long(openat2), *place, ctypes.c_char_p(how), ctypes.c_size_t(len(how)))
            if fd >= 0:
                return fd
            if ctypes.get_errno() != errno.EAGAIN:  # EAGAIN: something was renamed meanwhile
                break
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    try:
        os.close(opened(".", FOLDER))
    except OSError:  # an old kernel, or a container that forbids the call
        return None
    return opened


def _by_walk(root: int) -> Open:
    """Opens a path beneath the folder one name after the other, without following a link."""

    def opened(path: str, flags: int) -> int:
        *above, last = path.split("/")
        here = os.dup(root)
        try:
            for part in above:
                below = _folder(here, part)
                os.close(here)
                here = below
            if flags & os.O_DIRECTORY:
                return _folder(here, last)
            return os.open(last, flags | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)

    return opened


def _folder(above: int, name: str) -> int:
    """The folder of that name in an open one, opened. A link is refused."""
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError as error:
        # With O_DIRECTORY the kernel calls a link "not a directory"; say which of the two it is.
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise error from None
