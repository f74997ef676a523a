"""The scratch folder of a program, seen by the warden: laid out, measured, handed out, erased.

This goes to an isolated interpreter as text, as warden.py does, and imports nothing of the package.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    Job = dict[str, Any]

MOST_FILES, MOST_LEFT_OUT, DEEPEST, LONGEST_PATH = 10_000, 1_000, 64, 1_000
SMALLEST = 1024
"""Bytes that a file counts at least against the disk limit: an empty one takes memory too."""


def exactly(content: BinaryIO, size: int) -> bytes:
    """So many bytes; EOFError when whoever gives them has gone away."""
    got = content.read(size)
    if len(got) < size:
        raise EOFError
    return got


def lay_out(job: Job, content: BinaryIO) -> None:
    """Makes the scratch folder, goes there, and fills it with the given files."""
    for folder in (*job["folders"], job["scratch"]):
        os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103  pathlib costs milliseconds of every start
    os.chdir(job["scratch"])
    for path, size, executable in job["files"]:
        if folder := os.path.dirname(path):  # noqa: PTH120
            os.makedirs(folder, 0o755, exist_ok=True)  # noqa: PTH103
        with open(path, "xb") as file:  # noqa: PTH123
            file.write(exactly(content, size))
            os.fchmod(file.fileno(), 0o755 if executable else 0o644)


def sizes(enough: int, folders: list[str]) -> Iterator[int]:
    """What each thing of the scratch folder and of the other folders takes; more than enough when too deep to tell."""
    for top in (".", *folders):
        waiting = [(top, 0)]
        while waiting:
            folder, depth = waiting.pop()
            if depth > DEEPEST:
                yield enough + 1
                return
            try:
                for entry in os.scandir(folder):
                    yield max(SMALLEST, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
            except OSError:
                continue


def frame(out: BinaryIO, kind: bytes, *parts: bytes) -> None:
    """One piece of what is handed out."""
    out.write(kind + sum(map(len, parts)).to_bytes(8, "big"))
    for part in parts:
        out.write(part)


class Files:
    """The scratch folder, file by file, as far as it can be the user's."""

    def __init__(self, out: BinaryIO, limits: dict[str, Any]) -> None:
        self.out, self.most, self.room = out, limits["file_bytes"], limits["disk_bytes"]
        self.count, self.left, self.more = 0, 0, 0

    def hand_out(self) -> None:
        """Walks without following anything; nothing of the program runs any more, so nothing moves."""
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self.walk(top, b"", 0)
        if self.more:
            self.leave(b".", f"{self.more} more things are not listed", said=True)

    def walk(self, folder: int, above: bytes, depth: int) -> None:
        """One folder; closes it."""
        deeper: list[bytes] = []
        for name in sorted(os.fsencode(entry) for entry in os.listdir(folder)):
            path = above + name
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if len(path) > LONGEST_PATH:
                self.leave(path[:200] + b"...", f"its path has more than {LONGEST_PATH} bytes")
            elif not sound(path):
                self.leave(path, "its name is not UTF-8")
            elif stat.S_ISDIR(about.st_mode):
                deeper.append(name)
            elif stat.S_ISREG(about.st_mode):
                self.file(folder, name, path, about)
            elif stat.S_ISLNK(about.st_mode):
                self.leave(path, "a link to " + ascii(os.readlink(name, dir_fd=folder))[2:-1][:200])
            else:
                self.leave(path, "a FIFO, device or socket")
        for name in deeper:
            if depth == DEEPEST:
                self.leave(above + name, f"it lies deeper than {DEEPEST} folders")
                continue
            os.chmod(name, 0o700, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            self.walk(inner, above + name + b"/", depth + 1)
        os.close(folder)

    def file(self, folder: int, name: bytes, path: bytes, about: os.stat_result) -> None:
        """One file, when it is within the limits."""
        if about.st_size > self.most:
            self.leave(path, f"{about.st_size} bytes, more than {self.most}")
        elif about.st_size > self.room:
            self.leave(path, "all files together are too much")
        elif self.count == MOST_FILES:
            self.leave(path, f"more than {MOST_FILES} files")
        else:
            self.count += 1
            self.room -= about.st_size
            if not about.st_mode & 0o400:
                os.chmod(name, 0o600, dir_fd=folder)
            with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
                mode = b"x" if about.st_mode & 0o100 else b"-"
                frame(self.out, b"F", len(path).to_bytes(2, "big"), path, mode, file.read())

    def leave(self, path: bytes, why: str, *, said: bool = False) -> None:
        """Says of something that it stays behind, and why."""
        if self.left == MOST_LEFT_OUT and not said:
            self.more += 1
            return
        self.left += 1
        name = path if sound(path) else ascii(path)[2:-1].encode()
        frame(self.out, b"L", len(name).to_bytes(2, "big"), name, why.encode())


def sound(path: bytes) -> bool:
    """Whether a name is text."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def erase(top: str) -> None:
    """Takes a folder away with all that is in it, however deep: what lies deep is brought up first."""
    waiting, seen, upper = [top], [], top.count("/")
    while waiting:
        folder = waiting.pop()
        seen.append(folder)
        os.chmod(folder, 0o700)  # noqa: PTH101
        for entry in os.scandir(folder):
            path = entry.path
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(path)  # noqa: PTH108
                continue
            if path.count("/") - upper > DEEPEST:
                path = f"{top}/{os.urandom(20).hex()}"
                os.rename(entry.path, path)  # noqa: PTH104
            waiting.append(path)
    for folder in reversed(seen):
        os.rmdir(folder)  # noqa: PTH106
