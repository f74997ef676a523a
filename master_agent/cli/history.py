"""The commands that go on with runs and look back at them: `resume`, `runs`, `show`."""

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from master_agent.aggregator import has_ended, project, so_far
from master_agent.changes import changes_of
from master_agent.cli import addresses, exit_codes, reporting, session, streams, vault
from master_agent.cli.conversation import tell
from master_agent.cli.lineage import files_of, story_of
from master_agent.cli.options import EVERYTHING, Options, one_of, with_options
from master_agent.cli.order import Order
from master_agent.cli.work import asks_models
from master_agent.database import RunRecord, find_run, list_runs, undone_by
from master_agent.errors import UsageError
from master_agent.events import Event, RunStarted, StepStarted, to_json
from master_agent.history.conversation import conversation
from master_agent.history.titles import titles
from master_agent.journal import read
from master_agent.remember import Unverified
from master_agent.reporters.text import counted, one_line, visible
from master_agent.results import RunStatus
from master_agent.settings import Settings, load, state_folder
from master_agent.state import State, fold
from master_agent.values import suggestion

RunName = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="the beginning of its id; by default the newest", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("resume", help=_RESUME_HELP)(resume)
    app.command("runs", help=_RUNS_HELP)(runs)
    app.command("show", help=_SHOW_HELP)(show)


_RESUME_HELP = """Goes on with a run that was interrupted, failed or died, from where its journal ends.

What is done is not done again, and what was paid for is not paid for again. The settings said on the command line of
the run hold, unless they are said anew.

\b
Examples:
  master-agent resume
  master-agent resume 1ng0 --timeout 600
"""
_RUNS_HELP = """Lists the runs, the newest first: id, how it ended, when it began, its task or the steps of its plan.

\b
Examples:
  master-agent runs
  master-agent runs --status failed --json
"""
_SHOW_HELP = """Shows what became of a run: its results as they were reported, its events, or a step's conversation.

The step "planner" is the conversation that made the plan.

\b
Examples:
  master-agent show
  master-agent show 1ng0 --events
  master-agent show 1ng0 --thread page
  master-agent show 1ng0 --json > result.json
"""
STATUSES = (*get_args(RunStatus), "running", "died")
Yes = Annotated[bool, typer.Option("--yes", "-y", help="run a plan that nobody approved yet", show_default=False)]
Retry = Annotated[
    bool,
    typer.Option(
        "--retry-unverified", help="do again what may have been done and cannot be looked up", show_default=False
    ),
]
Thread = Annotated[
    str | None,
    typer.Option("--thread", metavar="STEP", help="the conversation of a step, or of the planner", show_default=False),
]
Skip = Annotated[
    bool,
    typer.Option("--skip-unverified", help="leave what may have been done and cannot be looked up", show_default=False),
]


@with_options(*EVERYTHING)
def resume(
    options: Options,
    run: RunName = None,
    *,
    yes: Yes = False,
    retry_unverified: Retry = False,
    skip_unverified: Skip = False,
) -> int:
    if retry_unverified and skip_unverified:
        raise UsageError("--retry-unverified and --skip-unverified exclude each other")
    now = session.settings_of(options)
    database = state_folder(now) / "journal.db"
    record = find_run(database, run)
    if record.status == "done":
        raise UsageError(f"the run {record.run_id} is done; there is nothing to go on with")
    history, state = _whole(database, record.run_id)
    began = next((event for event in history if isinstance(event, RunStarted)), None)
    if began is None:
        raise UsageError(f"the run {record.run_id} never began")
    check_not_undone(database, record)
    settings = settings_of_then(options, began)
    _check_same_folder(settings, began, history)
    if state.plan is None and began.planned and not record.alive:  # of one at work, taking hold of it says so
        raise UsageError(
            f"the run {record.run_id} died before it had taken in its plan; nothing was done",
            hint="Run the plan again: master-agent run PLAN",
        )
    done = {step_id for step_id, result in state.results.items() if result.usable}
    order = Order(
        task=state.task,
        params=state.params,
        asks_models=state.plan is None or asks_models(state.plan, done),
        resume=record.run_id,
        history=history,
        mark=began.mark,
        made=files_of(database, began.parent),
        before=story_of(database, began.parent) if began.parent and began.origin == "continue" else "",
    )
    approved = yes or began.planned or any(isinstance(event, StepStarted) for event in history)
    said: Unverified | None = "retry" if retry_unverified else "skip" if skip_unverified else None
    team = session.team(settings, Path(began.folder) if began.folder else None)
    return session.run(options, settings, team, order, lambda m: m.resume(), yes=approved, unverified=said)


def _whole(database: Path, run_id: str) -> tuple[list[Event], State]:
    """All that happened in a run, and what it came to."""
    gc.disable()
    try:
        history = read(database, run_id)
        return history, fold(history)
    finally:
        gc.freeze()  # it stays to the end: nobody needs to look again and again whether it is garbage
        gc.enable()


def check_not_undone(database: Path, record: RunRecord) -> None:
    """UsageError where there is nothing to build on: the run is an undo, or was undone."""
    if record.origin == "undo":
        raise UsageError(
            f"{record.run_id} is an undo", hint=f"To go on with it: master-agent undo {record.parent or 'RUN'}"
        )
    if undo := undone_by(list_runs(database), record.run_id):
        raise UsageError(
            f"the run {record.run_id} was undone by {undo}",
            hint=f"Bring its files back first: master-agent undo {undo}",
        )


def settings_of_then(options: Options, began: RunStarted) -> Settings:
    """The settings now, with what the command line of the run said where this one says nothing."""
    said = {name: value for name, value in options.flags.items() if value not in (None, [], ())}
    flags = {"workspace": began.workspace, **began.flags, **said}
    if "workspace" not in said:
        flags["workspace"] = began.workspace
    settings = load(flags, os.environ, Path(began.folder) if began.folder else Path.cwd(), vault.lookup())
    addresses.check(settings)
    return settings


def _check_same_folder(settings: Settings, began: RunStarted, history: Sequence[Event]) -> None:
    """UsageError where files of one run would lie in two folders, so that nobody could undo them."""
    then = Path(began.workspace) if began.workspace else None
    if then is None or settings.workspace.resolve() == then or not then.is_dir():
        return
    if changes_of(history):
        raise UsageError(
            f"the run has changed files in {then}; it cannot go on in another workspace",
            hint="Fork it instead: master-agent fork RUN --from STEP --workspace DIR",
        )


@with_options("state_dir", output=("json",))
def runs(
    options: Options,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help=f"only those that ended so ({', '.join(STATUSES)})",
            show_default=False,
            autocompletion=one_of(STATUSES),
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", metavar="NUMBER", min=0, help="how many; default 20", show_default=False)
    ] = 20,
) -> int:
    if status is not None and status not in STATUSES:
        raise UsageError(f'no run ends "{status}"{suggestion(status, STATUSES)}')
    database = state_folder(session.settings_of(options)) / "journal.db"
    records = list_runs(database)
    found = [record for record in records if status is None or _status(record) == status]
    chosen = found[:most]
    undone = {record.run_id: undone_by(records, record.run_id) for record in chosen}
    if options.json:
        listed = [{**_data(record), "undone_by": undone[record.run_id]} for record in chosen]
        streams.print_object("runs", runs=listed)
        return exit_codes.DONE
    if not found:
        streams.say("no runs" + (f" that ended {status}" if status else " yet"))
    called = titles(database, chosen)
    for record in chosen:
        began = record.began[:19].replace("T", " ")
        told = [one_line(visible(called[record.run_id]), 70)]
        told += [f"({_HOW[record.origin]} {record.parent})"] if record.origin in _HOW else []
        told += [f"(undone by {undone[record.run_id]})"] if undone[record.run_id] else []
        streams.write(
            f"{record.run_id}  {_status(record):<9}  {began}  {' '.join(filter(None, told))}".rstrip(), hang=2
        )
    if len(chosen) < len(found):
        streams.say(f"{len(chosen)} of {counted(len(found), 'run')}; --most {len(found)} lists all")
    return exit_codes.DONE


@with_options("state_dir", output=("json", "events", "verbose", "quiet"))
def show(options: Options, run: RunName = None, *, thread: Thread = None) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    record = find_run(database, run)
    history = read(database, record.run_id)
    if thread is not None:
        if options.events:
            raise UsageError("--thread and --events exclude each other")
        return _show_thread(options, record, history, thread)
    if options.events:
        for event in history:
            streams.write_json_line(to_json(event))
        return exit_codes.DONE
    if record.parent and not options.json:
        streams.say(f"{record.run_id}: {record.origin} of {record.parent}")
    if not options.json and (undo := undone_by(list_runs(database), record.run_id)):
        streams.say(f"{record.run_id}: undone by {undo}")
    if record.origin == "undo" and not options.json:
        for change in changes_of(history):
            streams.write(f"{'removed' if change.removed else 'restored'} {change.file.path}")
    ended = has_ended(history)  # which may have come after what the list of runs says
    if not ended and not options.json:
        on = f"its process died; go on with it: master-agent resume {record.run_id}"
        streams.say(f"{record.run_id}: {'at work; this is how far it has come' if record.alive else on}")
    result = project(fold(history)) if ended else so_far(history, alive=record.alive)
    with reporting.open_reporter(options, None) as (reporter, _):
        reporter.finish(result)
    return exit_codes.DONE


def _show_thread(options: Options, record: RunRecord, history: Sequence[Event], step: str) -> int:
    entries = conversation(history, step)
    if options.json:
        streams.print_object("thread", run_id=record.run_id, step=step, thread=entries)
    else:
        tell(entries)
    return exit_codes.DONE


_HOW = {"fork": "fork of", "continue": "goes on from"}


def _status(record: RunRecord) -> str:
    return record.status or ("running" if record.alive else "died")


def _data(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "status": _status(record),
        "task": record.task,
        "began": record.began,
        "ended": record.ended,
        "workspace": record.workspace,
        "parent": record.parent,
        "origin": record.origin,
    }
