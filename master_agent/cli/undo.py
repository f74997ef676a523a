"""The command `undo`: every file that a run changed gets its bytes and mode back."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from master_agent.changes import folders, origins
from master_agent.cli import exit_codes, session, streams
from master_agent.cli.build import new_run_id
from master_agent.cli.options import Approved, Options, with_options
from master_agent.cli.workshop import PROGRAM
from master_agent.database import RunRecord, find_run, get_blob, held, list_runs, reading
from master_agent.errors import UsageError
from master_agent.events import Event, FileChanged, RunResumed, RunStarted
from master_agent.history import undo as undoing
from master_agent.history.provenance import changes
from master_agent.history.undo import Undone
from master_agent.journal import Journal, read
from master_agent.reporters.text import counted
from master_agent.settings import state_folder
from master_agent.workspace import Workspace

Run = Annotated[str, typer.Argument(metavar="RUN", help="the beginning of its id", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("undo", help=_HELP)(undo)


_HELP = """Gives every file that a run changed its bytes and mode back, and removes what the run made.

Where one of the files was changed since, each is named and nothing is touched. An undo can be undone, by its own id.

\b
Examples:
  master-agent undo 1ng0
  master-agent undo 1ng0 --json
"""


@with_options("workspace", "state_dir", output=("json",))
def undo(options: Options, run: Run, *, yes: Approved = False) -> int:  # noqa: ARG001
    database = state_folder(session.settings_of(options)) / "journal.db"
    record = find_run(database, run)
    with held(database, record.run_id) as still_ours:
        history = read(database, record.run_id)
        folder = Path(str(options.flags["workspace"] or workspace_of(history)))
        with Workspace(folder) as workspace:
            undo_id, done = _undo(database, record, history, workspace, still_ours)
    if options.json:
        streams.print_object("undo", run_id=undo_id, undoes=record.run_id, **asdict(done))
    else:
        _tell(record, undo_id, done)
    return exit_codes.DONE


def workspace_of(history: Sequence[Event]) -> str:
    """The folder that a run worked in; UsageError when it never came so far."""
    for event in history:
        if isinstance(event, RunStarted) and event.workspace:
            return event.workspace
    raise UsageError("that run changed nothing: it never began")


def _undo(
    database: Path, record: RunRecord, history: Sequence[Event], workspace: Workspace, still_ours: Callable[[], None]
) -> tuple[str | None, Undone]:
    made = changes(database)
    broken_off = next((run for run in list_runs(database) if _is_open_undo(run, record.run_id)), None)
    for run_id in (record.run_id, *([broken_off.run_id] if broken_off else [])):
        done = (event for event in read(database, run_id) if isinstance(event, FileChanged))
        workspace.clear((event.file.path, event.file.sha256) for event in done)

    def known(path: str, sha256: str) -> str | None:
        where = Path(record.workspace or "") / path
        found = (one.run_id for one in made if one.place == where and one.sha256 == sha256)
        return next((run_id for run_id in found if run_id != record.run_id), None)

    with reading(database) as connection:
        files = origins(history)
        todo = undoing.to_undo(workspace, files, known, lambda sha256: get_blob(connection, sha256) is not None)
    if not todo and broken_off is None:
        return None, Undone()
    undo_id = broken_off.run_id if broken_off else new_run_id()
    started = RunStarted(
        task=f"undo {record.run_id}",
        workspace=str(workspace.root.resolve()),
        folder=str(Path.cwd()),
        program=PROGRAM,
        parent=record.run_id,
        origin="undo",
    )
    with Journal(database, undo_id, resume=broken_off is not None) as journal:
        event = RunResumed(program=PROGRAM) if broken_off else started
        return undo_id, asyncio.run(
            undoing.undo(journal, event, workspace, todo, folders(history), journal.blob, still_ours),
        )


def _is_open_undo(run: RunRecord, undone: str) -> bool:
    return (run.parent, run.origin) == (undone, "undo") and run.status != "done"


def _tell(record: RunRecord, undo_id: str | None, done: Undone) -> None:
    for path in done.restored:
        streams.write(f"restored {path}")
    for path in (*done.removed, *(f"{folder}/" for folder in done.folders)):
        streams.write(f"removed {path}")
    if undo_id is None:
        streams.say(f"Nothing to undo: the files of {record.run_id} are as they were before it.")
        return
    files = counted(len(done.restored) + len(done.removed), "file")
    streams.say(f"Undone: {files} of {record.run_id}. To bring it all back: master-agent undo {undo_id}")
