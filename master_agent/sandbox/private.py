"""A scratch folder for a program that has no file system of its own: a private temporary folder, gone afterwards."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from master_agent.sandbox.launch import undisturbed
from master_agent.sandbox.places import Person


@dataclass(frozen=True)
class Private:
    """The folder, with one for the files, one for HOME and one for TMPDIR inside."""

    top: Path

    @property
    def job(self) -> Mapping[str, Any]:
        """What the warden is told of it."""
        others = [str(self.top / "home"), str(self.top / "tmp")]
        return {"scratch": str(self.top / "work"), "folders": others, "erase": str(self.top)}

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables that name it."""
        return {"HOME": str(self.top / "home"), "TMPDIR": str(self.top / "tmp")}


@contextlib.asynccontextmanager
async def private(person: Person | None) -> AsyncIterator[Private]:
    """Makes the folder, for this user or another; takes it away when the warden has not."""
    top = _made()
    try:
        if person:
            os.chown(top, person.number, person.number)
        yield Private(top)
    finally:
        await undisturbed(asyncio.to_thread(shutil.rmtree, top, ignore_errors=True))


def _made() -> Path:
    return Path(tempfile.mkdtemp(prefix="master-agent-")).resolve()


def processes_now(person: Person | None) -> int:
    """How many processes and threads the program's user has already: the kernel's limit counts them too."""
    if person:
        return 1
    own, count = os.getuid(), 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == own:
                count += len(os.listdir(folder / "task"))  # noqa: PTH208  names are enough
    return count
