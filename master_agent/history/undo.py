"""From a run to its files as they were before it: everything is looked at first, then put back or nothing is.

An undo is a run of its own in the journal, with what it changes written down before it changes: undoing the undo brings
everything back, and one that died goes on where it stopped.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from master_agent.changes import Origin
from master_agent.errors import FileRefusedError
from master_agent.events import FileChanged, FileChangeFailed, RunFinished, RunResumed, RunStarted
from master_agent.journal import Journal
from master_agent.media import described
from master_agent.results import ErrorInfo, RunStatus
from master_agent.run_files import LARGEST_BEFORE
from master_agent.workspace import Workspace

Known = Callable[[str, str], str | None]
"""Whose bytes are in a file, by its path and their SHA-256: the id of another run, if it is one."""


@dataclass(frozen=True)
class Undone:
    """What an undo did: files put back, files and folders removed."""

    restored: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def to_undo(workspace: Workspace, files: Iterable[Origin], known: Known, kept: Callable[[str], bool]) -> list[Origin]:
    """The files that are not yet as they were; FileRefusedError that names each one that may not be touched.

    `kept` tells whether the journal still has a content, by its SHA-256.
    """
    open_, obstacles = [], []
    for file in files:
        try:
            obstacle, there = _look(workspace, file, known)
        except FileRefusedError as error:
            obstacle, there = error.message, None
        if obstacle:
            obstacles.append(obstacle)
        elif there != file.before:
            open_.append(file)
            if file.before and not kept(file.before):
                obstacles.append(f'"{file.path}" cannot be put back: the journal has lost what it was')
    if obstacles:
        raise FileRefusedError(
            "nothing was undone:" + "".join(f"\n  {obstacle}" for obstacle in obstacles),
            hint="Put aside what is newer, or undo the later runs first; then undo again.",
        )
    return open_


def _look(workspace: Workspace, file: Origin, known: Known) -> tuple[str | None, str | None]:
    """Why the file may not be touched, if so, and the hash of what is there."""
    mode = workspace.mode(file.path)
    if mode is None:
        gone = file.before is not None and None not in file.left
        return (f'"{file.path}" is no longer there' if gone else None), None
    there = workspace.digest(file.path)
    if there not in {*file.left, file.before}:
        other = known(file.path, there) if there else None
        since = f" by the run {other}" if other else ""
        return f'"{file.path}" was changed since{since}', there
    if there != file.before:
        workspace.read(file.path, LARGEST_BEFORE)  # what cannot be kept is not undone
    return None, there


async def undo(
    journal: Journal,
    started: RunStarted | RunResumed,
    workspace: Workspace,
    files: Iterable[Origin],
    folders: Iterable[str],
    content: Callable[[str], bytes],
    still_ours: Callable[[], None],
) -> Undone:
    """Puts the files back, each written down before; then removes the folders that nothing is left in.

    `content` gives what was kept, by its SHA-256. `still_ours` raises when the run has gone to another process.
    """
    await journal.append(started)
    status: RunStatus = "failed"
    error: ErrorInfo | None = None
    restored: list[str] = []
    removed: list[str] = []
    try:
        for file in files:
            still_ours()
            before = None if file.before is None else content(file.before)
            await _put_back(journal, workspace, file, before)
            (removed if before is None else restored).append(file.path)
        deepest_first = sorted(set(folders), key=lambda folder: folder.count("/"), reverse=True)
        gone = tuple(folder for folder in deepest_first if workspace.remove_folder(folder))
        status = "done"
    except FileRefusedError as refused:
        error = ErrorInfo.of(refused)
        raise
    finally:
        await journal.append(RunFinished(status=status, error=error))
    return Undone(tuple(restored), tuple(removed), gone)


async def _put_back(journal: Journal, workspace: Workspace, file: Origin, before: bytes | None) -> None:
    mode = workspace.mode(file.path)
    now = None if mode is None else workspace.read(file.path, LARGEST_BEFORE)
    there = None if now is None else described(file.path, now)
    sha256 = there.sha256 if there else None
    if sha256 not in {*file.left, file.before}:
        raise FileRefusedError(f'"{file.path}" was changed this very moment; what came before it is undone')
    blobs = {} if there is None or now is None else {there.sha256: now}
    if before is not None:
        missing = workspace.missing_folders(file.path)
        change = FileChanged(file=described(file.path, before), before=sha256, mode=mode, folders=missing)
        await journal.append(change, blobs)
        with _told_if_it_fails(journal, change, lambda: workspace.holds(file.path, change.file.sha256)):
            workspace.write(file.path, before, mode=file.mode)
    elif there is not None:
        change = FileChanged(file=there, before=sha256, mode=mode, removed=True)
        await journal.append(change, blobs)
        with _told_if_it_fails(journal, change, lambda: not workspace.exists(file.path)):
            workspace.remove(file.path, there.sha256)


@contextmanager
def _told_if_it_fails(journal: Journal, change: FileChanged, is_so: Callable[[], bool]) -> Iterator[None]:
    """Writes down that a change did not come to be, unless it `is_so` all the same."""
    try:
        yield
    except FileRefusedError as error:
        if not is_so():
            journal.note(FileChangeFailed(file=change.file, error=ErrorInfo.of(error)))
        raise
