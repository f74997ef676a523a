"""From what tools want saved to files in the workspace, each reported to its run before it changes."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from master_agent.errors import FileRefusedError, FileTakenError
from master_agent.media import described
from master_agent.results import Artifact
from master_agent.secrets import HIDDEN
from master_agent.workspace import Workspace

INLINE = 1024 * 1024  # bytes; more than that is written in a thread
MOST_NAMES = 10_000
LARGEST_BEFORE = 100 * 1024 * 1024  # bytes of a file that is replaced; a larger one cannot be kept, so it is left alone


@dataclass(frozen=True)
class Before:
    """What is there before a file is written: its bytes and mode, if there is a file; the folders that are missing."""

    content: bytes | None = None
    mode: int | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rivals:
    """Which steps have written a file, and what becomes of one that another step wants to write at the same time.

    `at_once` says of two steps whether neither needs the other; `told` is told of the path, the step and its rival.
    """

    at_once: Callable[[str, str], bool]
    told: Callable[[str, str, str], object]
    writers: dict[str, list[str]]

    def check(self, path: str, step: str | None) -> None:
        """FileRefusedError where the content of a step would be lost that this one has not even seen."""
        others = (by for by in reversed(self.writers.get(path, ())) if step is not None and by != step)
        rival = next((by for by in others if self.at_once(by, step or "")), None)
        if step is not None and rival is not None:
            self.told(path, step, rival)
            raise FileRefusedError(
                f'"{path}" was written by the step "{rival}", which runs at the same time as this one; its content '
                "stays: choose another name"
            )

    def wrote(self, path: str, step: str | None) -> None:
        """The step's content is the one that counts from now on."""
        if step is not None:
            self.writers.setdefault(path, []).append(step)


Report = Callable[[Artifact, Before, str | None], Awaitable[None]]
"""Told of each file before it changes: what is to be written, what is there now, the step."""

Failed = Callable[[Artifact, FileRefusedError, str | None], object]
"""Told of a file that was to be written, and could not be: it is as it was."""


class RunFiles:
    """The files of one run. It knows which paths this run made; `made` are those of its earlier processes.

    `written` gives the path under which an earlier process wrote a content, by step and SHA-256: what is saved again
    under a new name gets that one again. `rivals` keeps steps that run at the same time from writing each other's
    files.

    Saves come one after the other, so that what was there before is true when it is reported.
    """

    def __init__(
        self,
        workspace: Workspace,
        report: Report,
        made: Collection[str] = (),
        written: Mapping[tuple[str | None, str], str] | None = None,
        rivals: Rivals | None = None,
        failed: Failed = lambda *_: None,
    ) -> None:
        self._workspace = workspace
        self._report = report
        self._made = set(made)
        self._written = dict(written or {})
        self._rivals = rivals or Rivals(lambda *_: False, lambda *_: None, {})
        self._failed = failed
        self._turn = asyncio.Lock()

    def adopt(self, paths: Collection[str]) -> None:
        """Takes files for this run's own, so that it may replace them."""
        self._made.update(paths)

    def for_step(self, step_id: str | None) -> "StepFiles":
        """What a step's tools save with."""
        return StepFiles(self, step_id)

    async def save(self, path: str, content: bytes, *, overwrite: bool, step: str | None) -> Artifact:
        """Writes the file. One that this run did not make is kept, with FileRefusedError, unless `overwrite`."""
        name = self._workspace.name(path)
        async with self._turn:
            self._rivals.check(name, step)
            replace = overwrite or name in self._made
            if not replace and self._workspace.exists(name):
                raise FileTakenError(
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
        _check_nothing_hidden_is_lost(name, before.content, content)
        artifact = described(name, content)
        # Known before it happens: whatever dies after this, the run can tell what it did to whose file.
        await self._report(artifact, before, step)
        try:
            if len(content) <= INLINE:
                self._workspace.write(name, content, replace=replace)
            else:
                await asyncio.to_thread(self._workspace.write, name, content, replace=replace)
        except FileRefusedError as error:
            if not self._workspace.holds(name, artifact.sha256):
                self._failed(artifact, error, step)
                for folder in reversed(before.folders):  # of those that it made, none stays for nothing
                    self._workspace.remove_folder(folder)
            raise
        self._rivals.wrote(name, step)
        self._made.add(name)
        return artifact

    def _before(self, name: str) -> Before:
        mode = self._workspace.mode(name)
        content = None if mode is None else self._workspace.read(name, LARGEST_BEFORE)
        return Before(content, mode, self._workspace.missing_folders(name))


def _check_nothing_hidden_is_lost(name: str, before: bytes | None, content: bytes) -> None:
    """FileRefusedError where the sign that a model saw in place of a key would take the key's place in the file."""
    sign = HIDDEN.encode()
    if before is not None and content.count(sign) > before.count(sign):
        raise FileRefusedError(
            f'"{name}" holds something that you were not shown, and {HIDDEN} would be written over it: it would be '
            "lost. The file stays as it is: change it by a program that leaves that place alone, write what you have "
            "under another name, or say what is to be changed there by hand"
        )


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
