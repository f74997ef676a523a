"""From what tools want saved to files in the workspace, each reported to its run before it changes."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from master_agent.errors import FileRefusedError
from master_agent.results import Artifact
from master_agent.workspace import Workspace, described

INLINE = 1024 * 1024  # bytes; more than that is written in a thread
MOST_NAMES = 10_000
LARGEST_BEFORE = 100 * 1024 * 1024  # bytes of a file that is replaced; a larger one cannot be kept, so it is left alone


@dataclass(frozen=True)
class Before:
    """What is there before a file is written: its bytes and mode, if there is a file; the folders that are missing."""

    content: bytes | None = None
    mode: int | None = None
    folders: tuple[str, ...] = ()


Report = Callable[[Artifact, Before, str | None], Awaitable[None]]
"""Told of each file before it changes: what is to be written, what is there now, the step."""


class RunFiles:
    """The files of one run. It knows which paths this run made; `made` are those of its earlier processes.

    `written` gives the path under which an earlier process wrote a content, by step and SHA-256: what is saved again
    under a new name gets that one again.

    Saves come one after the other, so that what was there before is true when it is reported.
    """

    def __init__(
        self,
        workspace: Workspace,
        report: Report,
        made: Collection[str] = (),
        written: Mapping[tuple[str | None, str], str] | None = None,
    ) -> None:
        self._workspace = workspace
        self._report = report
        self._made = set(made)
        self._written = dict(written or {})
        self._turn = asyncio.Lock()

    def for_step(self, step_id: str | None) -> "StepFiles":
        """What a step's tools save with."""
        return StepFiles(self, step_id)

    async def save(self, path: str, content: bytes, *, overwrite: bool, step: str | None) -> Artifact:
        """Writes the file. One that this run did not make is kept, with FileRefusedError, unless `overwrite`."""
        name = self._workspace.name(path)
        async with self._turn:
            replace = overwrite or name in self._made
            if not replace and self._workspace.exists(name):
                raise FileRefusedError(
                    f'"{name}" exists already and was not made by this run; pass overwrite: true to replace it, '
                    "or choose another name"
                )
            return await _unbroken(self._write(name, content, step, replace=replace))

    async def save_new(self, stem: str, suffix: str, content: bytes, *, step: str | None) -> Artifact:
        """Writes the file under the first free name: stem.suffix, stem-2.suffix, …"""
        ending = "." + suffix.removeprefix(".") if suffix else ""
        async with self._turn:
            again = self._written.pop((step, hashlib.sha256(content).hexdigest()), None)
            if again is not None and self._workspace.digest(again) in (None, hashlib.sha256(content).hexdigest()):
                return await _unbroken(self._write(again, content, step, replace=True))
            for number in range(1, MOST_NAMES):
                name = self._workspace.name(f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}")
                if not self._workspace.exists(name):
                    return await _unbroken(self._write(name, content, step, replace=False))
        raise FileRefusedError(f'"{stem}{ending}" and {MOST_NAMES:,} names like it are taken; choose another name')

    async def _write(self, name: str, content: bytes, step: str | None, *, replace: bool) -> Artifact:
        before = self._before(name) if replace else Before(folders=self._workspace.missing_folders(name))
        artifact = described(name, content)
        # Known before it happens: whatever dies after this, the run can tell what it did to whose file.
        await self._report(artifact, before, step)
        if len(content) <= INLINE:
            self._workspace.write(name, content, replace=replace)
        else:
            await asyncio.to_thread(self._workspace.write, name, content, replace=replace)
        self._made.add(name)
        return artifact

    def _before(self, name: str) -> Before:
        mode = self._workspace.mode(name)
        content = None if mode is None else self._workspace.read(name, LARGEST_BEFORE)
        return Before(content, mode, self._workspace.missing_folders(name))


@dataclass(frozen=True)
class StepFiles:
    """Saves files for one step."""

    files: RunFiles
    step: str | None

    async def save(self, path: str, content: bytes, *, overwrite: bool) -> Artifact:
        """Writes the file whole or not at all. A file that this run did not make needs `overwrite`."""
        return await self.files.save(path, content, overwrite=overwrite, step=self.step)

    async def save_new(self, stem: str, suffix: str, content: bytes) -> Artifact:
        """Writes the file under the first free name: stem.suffix, stem-2.suffix, …"""
        return await self.files.save_new(stem, suffix, content, step=self.step)


async def _unbroken(work: Coroutine[Any, Any, Artifact]) -> Artifact:
    """Does the work to its end even when cancelled meanwhile: a file that was written is always reported."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody warns of it
        raise
