"""The one folder a run may touch: every path is opened beneath it, or refused with a reason.

No path is compared as a string to decide where it leads. The kernel resolves it beneath the folder (`openat2`), or it
is walked name by name without following a link. Links are refused even where they stay inside: a link would be a second
name for a file that may not be touched, such as `.env`.
"""

import errno
import hashlib
import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from master_agent.beneath import FOLDER, clear, kind, made_folder, mode_of_target, open_root, opener, put
from master_agent.errors import FileRefusedError
from master_agent.media import described
from master_agent.results import Artifact
from master_agent.values import suggestion

READ_LIMIT = 10 * 1024 * 1024  # bytes of one file
SCAN_LIMIT = 20_000  # names that one listing looks at
NAME_LIMIT = 255  # bytes of one name
PATH_LIMIT = 4_000  # bytes of a whole path

_SECRETS = re.compile(
    r"""\.git | \.master-agent(-.*)? | \.ssh | \.gnupg | \.aws | \.kube | \.netrc | \.pgpass | \.pypirc | \.npmrc
      | \.git-credentials | \.env(?!\.(example|sample|template)$).* | id_(rsa|dsa|ecdsa|ed25519)(_sk)?
      | .*\.(pem|key|p8|p12|pfx|ppk|jks|keystore|kdbx)
    """,
    re.VERBOSE | re.DOTALL,
)
_SHORT = re.compile(r"(git|gitcre|git-cr|master|ssh|gnupg|aws|kube|netrc|pgpass|pypirc|npmrc|env\w*)~\d.*", re.DOTALL)
"""The second names that FAT and NTFS give to such files, as Linux takes them too."""


@dataclass(frozen=True)
class Entry:
    """A file beneath the workspace and its size."""

    path: str
    bytes: int


class Workspace:
    """Reading and writing beneath one folder; close it, or use it as a context manager.

    SettingsError when the folder is missing, is no folder or cannot be written to. Every other refusal is a
    FileRefusedError whose message says what to do instead. `walk` forces the way that needs no `openat2`.
    """

    def __init__(self, root: Path, *, walk: bool = False) -> None:
        self.root = root.absolute()
        self._apart: set[str] = set()
        self._looked: dict[Path, tuple[int, int] | None] = {}
        self._fd = open_root(root)
        about = os.fstat(self._fd)
        self._here = about.st_dev, about.st_ino
        self._open = opener(self._fd, walk=walk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives the folder back; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def name(self, path: str) -> str:
        """The path as results spell it (`./a//b` is `a/b`); FileRefusedError when it names no file to touch."""
        name = self._normal(path)
        if name == ".":
            raise FileRefusedError(f'"{path}" is the workspace itself; name a file in it')
        return name

    def keep_apart(self, path: Path) -> None:
        """Leaves a file or folder of the program's own to itself: wherever it lies, it is neither listed nor touched.

        It does nothing where it is the workspace itself or a folder above it; `lies_in` tells of that.
        """
        place = Path(os.path.realpath(path))
        for above in place.parents:
            if self._known(above) == self._here:
                self._apart.add(_plain(place.relative_to(above).as_posix()))

    def lies_in(self, folder: Path) -> bool:
        """Whether the workspace is that folder or lies beneath it, under whatever name either was given."""
        about, above = self._known(folder), Path(os.path.realpath(self.root)).parents
        return about is not None and (about == self._here or about in map(self._known, above))

    def _known(self, folder: Path) -> tuple[int, int] | None:
        """What tells the folder from every other: names are not compared, for some file systems know no case."""
        if folder not in self._looked:
            try:
                about = folder.stat()
                self._looked[folder] = about.st_dev, about.st_ino
            except OSError:  # what is not there holds nothing
                self._looked[folder] = None
        return self._looked[folder]

    def _normal(self, path: str) -> str:
        """The path as results spell it; FileRefusedError where nothing of that name may be touched."""
        name = _normal(path)
        if self._is_apart(name):
            raise FileRefusedError(f"{_shown(path)} is a place of the program's own; choose another name")
        return name

    def _is_apart(self, name: str) -> bool:
        plain = f"{_plain(name)}/" if self._apart else ""
        return any(plain.startswith(f"{apart}/") for apart in self._apart)

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """The bytes of a file that holds no more than `limit`."""
        with self._regular(path) as (fd, size):
            if size > limit:
                raise FileRefusedError(f'"{path}" holds {size:,} bytes; no more than {limit:,} are read')
            with os.fdopen(fd, "rb", closefd=False) as file:
                content = file.read(limit + 1)
            if len(content) > limit:
                raise FileRefusedError(f'"{path}" holds more than {limit:,} bytes')
            return content

    def exists(self, path: str) -> bool:
        """Whether anything has that name: a file, a folder, a link that leads nowhere."""
        folder, _, base = self.name(path).rpartition("/")
        try:
            with self._folder(folder or ".") as fd:
                os.stat(base, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _refusal(path, error) from None
        return True

    def digest(self, path: str) -> str | None:
        """The SHA-256 of the file's bytes, in hex; None when nothing has that name."""
        if not self.exists(path):
            return None
        with self._regular(path) as (fd, _), os.fdopen(fd, "rb", closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def holds(self, path: str, sha256: str) -> bool:
        """Whether the file can be read and its bytes have that SHA-256."""
        try:
            return self.digest(path) == sha256
        except FileRefusedError:
            return False

    def mode(self, path: str) -> int | None:
        """The mode of a file that may be replaced; None when nothing has that name."""
        folder, _, base = self.name(path).rpartition("/")
        try:
            with self._folder(folder or ".") as fd:
                return mode_of_target(fd, base)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _refusal(path, error) from None

    def missing_folders(self, path: str) -> tuple[str, ...]:
        """The folders above a file that are not there, from the top down."""
        parts = self.name(path).split("/")[:-1]
        above = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        return tuple(folder for folder in above if not self.exists(folder))

    def remove(self, path: str, sha256: str) -> None:
        """Removes the file, if its bytes still have that SHA-256; FileRefusedError where they have not."""
        if self.digest(path) != sha256:
            raise FileRefusedError(f'"{path}" has changed; it is not removed')
        folder, _, base = self.name(path).rpartition("/")
        try:
            with self._folder(folder or ".") as fd:
                os.unlink(base, dir_fd=fd)
                os.fsync(fd)
        except OSError as error:
            raise _refusal(path, error, "removed") from None

    def remove_folder(self, path: str) -> bool:
        """Removes a folder that holds nothing; False where there is none, or something is in it."""
        folder, _, base = self.name(path).rpartition("/")
        try:
            with self._folder(folder or ".") as fd:
                os.rmdir(base, dir_fd=fd)
                os.fsync(fd)
        except OSError:
            return False
        return True

    def write(self, path: str, content: bytes, *, replace: bool = True, mode: int | None = None) -> Artifact:
        """Writes the file whole or not at all, with the folders above it; an existing file keeps its mode.

        `mode` is the mode it gets instead. With `replace=False` a file of that name stays as it is and FileRefusedError
        is raised, even when it appears in the last moment.
        """
        name = self.name(path)
        folder, _, base = name.rpartition("/")
        try:
            fd = made_folder(self._fd, folder)
            try:
                put(fd, base, content, replace=replace, mode=mode)
            finally:
                os.close(fd)
        except OSError as error:
            raise _refusal(path, error, "written") from None
        return described(name, content)

    def clear(self, written: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """Removes what writes of these files, by path and SHA-256, have left when the process died in them."""
        by_folder: dict[str, list[tuple[str, str]]] = {}
        for path, sha256 in written:
            folder, _, base = self.name(path).rpartition("/")
            by_folder.setdefault(folder or ".", []).append((base, sha256))
        removed: list[str] = []
        for folder, files in by_folder.items():
            with suppress(OSError), self._folder(folder) as fd:  # a folder that is gone holds nothing
                removed += [name if folder == "." else f"{folder}/{name}" for name in clear(fd, files)]
        return tuple(removed)

    def entries(self, folder: str = ".", most: int = 500) -> list[Entry]:
        """The files beneath a folder, sorted by path; when there are more than `most`, the less deep ones.

        Links are not followed, and files that may not be touched are left out.
        """
        start = self._normal(folder)
        found: list[Entry] = []
        waiting = deque([start])
        looked = 0
        while waiting and len(found) < most and looked < SCAN_LIMIT:
            here = waiting.popleft()
            try:
                folders, files, seen = self._scan(here, SCAN_LIMIT - looked)
            except OSError as error:
                if here == start:
                    raise self._missing(folder, error) from None
                continue  # it went away, or is not ours to read
            looked += seen
            found += files[: most - len(found)]
            waiting.extend(folders)
        return sorted(found, key=lambda entry: entry.path)

    def _scan(self, folder: str, most: int) -> tuple[list[str], list[Entry], int]:
        """The folders and files in one folder, and how many names were looked at."""
        folders: list[str] = []
        files: list[Entry] = []
        seen = 0
        above = "" if folder == "." else folder + "/"
        with self._folder(folder) as fd, os.scandir(fd) as items:
            for item in islice(items, most):
                seen += 1
                if _fault(item.name) or self._is_apart(above + item.name):
                    continue
                with suppress(FileNotFoundError):
                    about = item.stat(follow_symlinks=False)
                    if stat.S_ISDIR(about.st_mode):
                        folders.append(above + item.name)
                    elif stat.S_ISREG(about.st_mode):
                        files.append(Entry(above + item.name, about.st_size))
        return sorted(folders), sorted(files, key=lambda entry: entry.path), seen

    @contextmanager
    def _folder(self, folder: str) -> Iterator[int]:
        fd = self._open(folder, FOLDER)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _regular(self, path: str) -> Iterator[tuple[int, int]]:
        """A regular file opened for reading, and its size."""
        name = self.name(path)
        try:
            fd = self._open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a FIFO must not hang us
        except OSError as error:
            raise self._missing(path, error) from None
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise FileRefusedError(f'"{path}" is {kind(about.st_mode)}, not a file')
            yield fd, about.st_size
        except OSError as error:
            raise _refusal(path, error) from None
        finally:
            os.close(fd)

    def _missing(self, path: str, error: OSError) -> FileRefusedError:
        """The refusal; where nothing has that name, with the nearest names that exist."""
        if error.errno == errno.ENOENT and path != ".":
            return FileRefusedError(f'"{path}" does not exist{suggestion(path, (e.path for e in self.entries()))}')
        return _refusal(path, error)


def _normal(path: str) -> str:
    """The path without `.` and double slashes; FileRefusedError with the reason why it may not be touched."""
    fault = None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path:
        fault = "it is empty"
    elif path.startswith("/"):
        fault = "it is absolute; paths are relative to the workspace"
    elif ".." in parts:
        fault = 'it holds ".."; paths stay beneath the workspace'
    elif len(path.encode(errors="surrogatepass")) > PATH_LIMIT:
        fault = f"it is longer than {PATH_LIMIT:,} bytes"
    else:
        fault = next(filter(None, map(_fault, parts)), None)
    if fault:
        raise FileRefusedError(f"{_shown(path)} may not be touched: {fault}")
    return "/".join(parts) or "."


def _fault(name: str) -> str | None:
    """Why no file or folder of that name may be touched, if so."""
    try:
        if len(name.encode()) > NAME_LIMIT:
            return f"a name in it is longer than {NAME_LIMIT} bytes"
    except UnicodeEncodeError:
        return "it is not Unicode text"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "it holds a control character"
    before_colon = _plain(name.partition(":")[0])  # on NTFS, what follows names a part of the same file
    if _SECRETS.fullmatch(_plain(name)) or _SECRETS.fullmatch(before_colon) or _SHORT.fullmatch(_plain(name)):
        return f'"{name}" may hold secrets, or steers what others run; choose another name'
    return None


def _plain(path: str) -> str:
    """The path as some file systems take it: they know no case, no compositions, no invisible characters, and no dots
    and spaces at the end of a name."""
    plain = unicodedata.normalize("NFKC", path).casefold()
    plain = "".join(character for character in plain if unicodedata.category(character) != "Cf")
    return "/".join(name.rstrip(". ") for name in plain.split("/"))


def _shown(path: str) -> str:
    shown = ascii(path)[1:-1] if not path.isprintable() else path
    return f'"{shown}"' if len(shown) <= 120 else f'"{shown[:117]}…"'


def _refusal(path: str, error: OSError, verb: str = "read") -> FileRefusedError:
    """What an error of the system means for the path, in words."""
    match error.errno:
        case errno.ELOOP | errno.EXDEV:
            reason = "is a link or lies behind one, and links are not followed; name the file itself"
        case errno.ENOENT:
            reason = "does not exist"
        case errno.ENOTDIR:
            reason = "lies in something that is not a folder, or is not one itself"
        case errno.EISDIR:
            reason = "is a folder; name a file"
        case errno.ENXIO | errno.ENODEV:
            reason = "is a socket or a device, not a file"
        case errno.EEXIST:
            reason = "exists already; choose another name"
        case _:
            reason = f"cannot be {verb}: {error.strerror or error}"
    return FileRefusedError(f"{_shown(path)} {reason}")
