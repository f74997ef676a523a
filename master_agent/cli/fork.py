"""The commands that make a new run out of an earlier one: `fork` and `continue`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from master_agent.aggregator import project
from master_agent.attachments import Attachment
from master_agent.cli import session
from master_agent.cli.history import check_not_undone, settings_of_then
from master_agent.cli.lineage import files_of, story_of
from master_agent.cli.options import EVERYTHING, Approved, Options, with_options
from master_agent.cli.order import Order
from master_agent.cli.rerun import onto
from master_agent.cli.work import asks_models, given_files, task_text
from master_agent.database import find_run, get_blob, reading
from master_agent.errors import JournalError, UsageError
from master_agent.events import Event, RunStarted
from master_agent.journal import read
from master_agent.settings import state_folder
from master_agent.state import State, fold

Run = Annotated[str, typer.Argument(metavar="RUN", help="the beginning of its id", show_default=False)]
From = Annotated[
    str, typer.Option("--from", metavar="STEP", help="run this step and what follows from it", show_default=False)
]
Words = Annotated[
    list[str] | None, typer.Argument(metavar='"TASK"', help="what shall be different", show_default=False)
]
Files = Annotated[
    list[Path] | None,
    typer.Option("--file", "-f", metavar="PATH", help="give a picture or a text; repeatable", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="run the plan without asking", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("fork", help=_FORK_HELP)(fork)
    app.command("continue", help=_CONTINUE_HELP)(continue_)


_FORK_HELP = """Runs a step of an earlier run and what follows from it anew, as a new run on the results of the first.

The settings said on the command line of the first run hold, unless they are said anew.

\b
Examples:
  master-agent fork 1ng0 --from page
  master-agent fork 1ng0 --from page --model gpt-6-sol --json
"""
_CONTINUE_HELP = """Plans and runs a new task on what an earlier run made, as a new run.

\b
Examples:
  master-agent continue 1ng0 "Make the header darker"
  master-agent continue 1ng0 "Add a page about the team" --yes
"""


@dataclass(frozen=True)
class _Parent:
    """The run that a new one comes from, and where it is kept."""

    run_id: str
    database: Path
    history: Sequence[Event]
    began: RunStarted
    state: State


@with_options(*EVERYTHING)
def fork(options: Options, run: Run, *, from_step: From, yes: Approved = False) -> int:  # noqa: ARG001
    parent = _parent(options, run)
    if parent.state.plan is None:
        raise UsageError(f"the run {parent.run_id} has no plan to fork")
    settings = settings_of_then(options, parent.began)
    team = session.team(settings)
    before = project(parent.state)
    part = onto(parent.state.plan, from_step, before, settings.workspace, source=f"run {parent.run_id}")
    order = Order(
        task=part.plan.task,
        params=part.plan.params,
        planner=False,
        earlier=part.earlier,
        made=files_of(parent.database, parent.run_id),
        asks_models=asks_models(part.plan, part.earlier),
        given=_given(parent),
        parent=parent.run_id,
        origin="fork",
        anew=from_step,
    )
    return session.run(options, settings, team, order, lambda master: master.run_plan(part.plan), yes=True)


@with_options(*EVERYTHING)
def continue_(options: Options, run: Run, words: Words = None, *, file: Files = None, yes: Yes = False) -> int:
    text = task_text(words, f"master-agent continue {run}")
    parent = _parent(options, run)
    settings = settings_of_then(options, parent.began)
    order = Order(
        task=text,
        params=parent.state.params,
        made=files_of(parent.database, parent.run_id),
        given=given_files(file),
        parent=parent.run_id,
        origin="continue",
        before=story_of(parent.database, parent.run_id),
    )
    team = session.team(settings)
    return session.run(options, settings, team, order, lambda master: master.run_task(text, order.params), yes=yes)


def _parent(options: Options, run: str) -> _Parent:
    database = state_folder(session.settings_of(options)) / "journal.db"
    record = find_run(database, run)
    if record.alive:
        raise UsageError(f"the run {record.run_id} is still at work", hint="Wait for its end, or stop it.")
    check_not_undone(database, record)
    history = read(database, record.run_id)
    began = next(event for event in history if isinstance(event, RunStarted))
    return _Parent(record.run_id, database, history, began, fold(history))


def _given(parent: _Parent) -> tuple[Attachment, ...]:
    """The files that were given with the first run, out of its journal."""
    files = []
    with reading(parent.database) as connection:
        for kept in parent.began.given:
            content = get_blob(connection, str(kept["sha256"]))
            if content is None:
                raise JournalError(f"the journal has lost the file {kept['name']} that was given with the run")
            files.append(Attachment(str(kept["name"]), str(kept["media_type"]), content))
    return tuple(files)
