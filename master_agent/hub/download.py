"""From a file at the hub to the same file on the user's shelf: what broke off is gone on with, what is wrong goes away.

The file has the name of a part until it is whole and checked, so nothing is on the shelf that was not. A part belongs
to one process at a time; beside it stands which file it is a part of.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from master_agent.embedded.memory import gigabytes
from master_agent.embedded.shelf import PART, Shelf
from master_agent.errors import FetchRefusedError, SettingsError, ToolError
from master_agent.fetch import Fetcher, UnreachableError
from master_agent.gguf import ModelFile, read_gguf
from master_agent.hub import Source, failed

Sleep = Callable[[float], Awaitable[object]]
_SPARE = 200 << 20  # bytes that are left on the disk
_TRIES, _WAIT = 5, 1.0  # tries that bring nothing, and seconds between them
_AT_ONCE = 1 << 20  # bytes


async def pull(
    fetcher: Fetcher, source: Source, shelf: Shelf, told: Callable[[int], None], sleep: Sleep = asyncio.sleep
) -> ModelFile:
    """The file on the shelf, whole and checked; `told` gets the bytes that are there, again and again.

    ModelError when it cannot be had, SettingsError when there is no room for it or it is no model. What came stays for
    the next try, however this one ends, unless it is wrong.
    """
    with _part(shelf, source) as part:
        await part.read()
        told(part.there)
        await _fetch(fetcher, source, part, told, sleep)
        if (found := part.digest.hexdigest()) != source.sha256:
            part.forget()
            raise failed(
                f"what came of {source.name} is not what the hub has: its sha256 is {found}, not {source.sha256}",
                hint="It was thrown away. Try once more; if that does not help, something changes it on its way.",
            )
        part.flush()
        try:
            read_gguf(part.path)
        except SettingsError:
            part.forget()
            raise
        part.finish(shelf.path(source.name))
    return shelf.find(source.name)


class _Part:
    """A file that is not whole yet: what is there of it, its digest, and the mark of its version at the server."""

    def __init__(self, file: IO[bytes], path: Path, source: Source) -> None:
        self.path = path
        self.digest = hashlib.sha256()
        self.there = 0
        self._file = file
        self._note = path.with_name(path.name + ".json")
        self._of = source

    async def read(self) -> None:
        """Takes in what an earlier try has left, if it is of the same file."""
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            noted = {}
        if noted.get("sha256") != self._of.sha256 or os.fstat(self._file.fileno()).st_size > self._of.bytes:
            self.restart()
            return
        self._file.seek(0)
        while piece := self._file.read(_AT_ONCE):
            self.digest.update(piece)
            self.there += len(piece)
            await asyncio.sleep(0)  # so that Ctrl-C comes through

    @property
    def etag(self) -> str | None:
        """The mark of the version that what is there came from."""
        try:
            etag = json.loads(self._note.read_text(encoding="utf-8"))["etag"]
        except (OSError, ValueError, KeyError):
            return None
        return str(etag) if etag else None

    def keep(self, etag: str) -> None:
        """Notes which version comes; a weak mark says nothing of its bytes."""
        strong = etag if etag.startswith('"') else None
        of = self._of
        noted = {"sha256": of.sha256, "etag": strong, "asked": of.asked, "bytes": of.bytes}
        self._note.write_text(json.dumps(noted), encoding="utf-8")

    def add(self, piece: bytes) -> None:
        self._file.write(piece)
        self.digest.update(piece)
        self.there += len(piece)

    def flush(self) -> None:
        """Lets others read what is there."""
        self._file.flush()

    def restart(self) -> None:
        """Throws away what is there."""
        self._file.seek(0)
        self._file.truncate()
        self.digest, self.there = hashlib.sha256(), 0

    def forget(self) -> None:
        """Takes away what is there, and what was noted of it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Gives the file its name, once its bytes are on the disk."""
        os.fsync(self._file.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


@contextmanager
def _part(shelf: Shelf, source: Source) -> Iterator[_Part]:
    """The part of a file, for this process alone; SettingsError where it cannot be written or there is no room."""
    path = shelf.path(source.name)
    path = path.with_name(path.name + PART)
    try:
        shelf.folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            missing = source.bytes - os.fstat(file.fileno()).st_size
            free, needed = shutil.disk_usage(shelf.folder).free, missing + _SPARE
            if needed > free:
                raise SettingsError(
                    f"{source.name} needs {gigabytes(needed)} in {shelf.folder}, and {gigabytes(free)} are free",
                    hint="Make room, or name another folder: --cache-dir FOLDER",
                )
            yield _Part(file, path, source)
    except BlockingIOError:
        raise SettingsError(f"another process downloads {source.name} at this moment") from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}", hint="Name another folder: --cache-dir FOLDER"
        ) from None


async def _fetch(fetcher: Fetcher, source: Source, part: _Part, told: Callable[[int], None], sleep: Sleep) -> None:
    """Fetches what is missing, with patience for as long as each try brings something."""
    in_vain = 0
    while part.there < source.bytes:
        had, why = part.there, "its server ended it too early"
        try:
            await _once(fetcher, source, part, told)
        except UnreachableError as error:
            why = error.message
        except FetchRefusedError as error:
            raise SettingsError(error.message, hint=error.hint) from None
        except ToolError as error:
            raise failed(f"{source.name} cannot be downloaded: {error.message}") from None
        if part.there >= source.bytes:
            return
        in_vain = 1 if part.there > had else in_vain + 1
        if in_vain >= _TRIES:
            there = f"{gigabytes(part.there)} of {gigabytes(source.bytes)} are there"
            hint = "The same command goes on from there."
            raise failed(f"the download of {source.name} broke off: {why}; {there}", hint=hint)
        await sleep(_WAIT)


async def _once(fetcher: Fetcher, source: Source, part: _Part, told: Callable[[int], None]) -> None:
    """One try, from where the last one ended; a signed address is found anew each time, for it soon expires."""
    at, headers = part.there, dict[str, str]()
    if at:
        headers["range"] = f"bytes={at}-"
        if etag := part.etag:
            headers["if-range"] = etag
    async with fetcher.stream(source.url, limit=source.bytes, headers=headers) as answer:
        if answer.status == 416 or (answer.status == 206 and not _goes_on(answer.headers, at, source.bytes)):
            part.restart()
            return
        if answer.status not in (200, 206):
            message = f"its server answered {answer.status}"
            heals = answer.status in (408, 429) or answer.status >= 500
            raise UnreachableError(message, sent=True) if heals else ToolError(message)
        if at and answer.status == 200:  # another version than the one begun, or a server that knows no ranges
            part.restart()
        part.keep(answer.headers.get("etag", ""))
        async for piece in answer.pieces():
            part.add(piece)
            told(part.there)


def _goes_on(headers: Mapping[str, str], at: int, size: int) -> bool:
    """Whether an answer is the rest of the file from there on."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("content-range", ""))
    return found is not None and int(found[1]) == at and found[2] in (str(size), "*")
