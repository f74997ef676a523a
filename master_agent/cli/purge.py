"""The commands that remove runs from the journal: `purge` and `clean`."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from master_agent.cli import exit_codes, leftovers, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.database import RunRecord, find_run, list_runs
from master_agent.errors import UsageError
from master_agent.events import Event
from master_agent.history.purge import Remote, remotes
from master_agent.history.purge import purge as take_out
from master_agent.history.titles import titles
from master_agent.journal import read
from master_agent.reporters.text import counted, one_line, visible
from master_agent.settings import state_folder

if TYPE_CHECKING:
    from master_agent.threads.removal import Gone

_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
Run = Annotated[str, typer.Argument(metavar="RUN", help="the beginning of its id", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="remove without asking", show_default=False)]
Age = Annotated[
    str, typer.Option("--older-than", metavar="AGE", help="hours, days or weeks: 12h, 30d, 8w", show_default=False)
]
LocalOnly = Annotated[
    bool, typer.Option("--local-only", help="remove nothing at services, only list it", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be removed", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("purge", help=_PURGE_HELP)(purge)
    app.command("clean", help=_CLEAN_HELP)(clean)


_PURGE_HELP = """Removes a run wholly, at services too. The files that it made stay; it cannot be undone afterwards.

Responses, conversations, threads and containers that it left at the model's server are removed there too. What cannot
be is listed, with exit code 3; the run is removed from the journal all the same.

\b
Examples:
  master-agent purge 1ng0
  master-agent purge 1ng0 --yes --json
  master-agent purge 1ng0 --local-only
"""
_CLEAN_HELP = """Removes old runs wholly, as purge does: those that ended longer ago than an age.

\b
Examples:
  master-agent clean --older-than 30d --dry-run
  master-agent clean --older-than 8w --yes
"""


@with_options("state_dir", output=("json",))
def purge(options: Options, run: Run, *, yes: Yes = False, local_only: LocalOnly = False) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    return _purge(options, database, [find_run(database, run)], yes=yes, local=local_only)


@with_options("state_dir", output=("json",))
def clean(
    options: Options, older_than: Age, *, yes: Yes = False, local_only: LocalOnly = False, dry_run: DryRun = False
) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    latest = time.time() - _age(older_than)
    old = [run for run in list_runs(database) if not run.alive and _ended(run) < latest]
    return _purge(options, database, old, yes=yes, local=local_only, dry_run=dry_run)


def _age(given: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([hdw])", given.strip())
    if found is None:
        raise UsageError(f'--older-than takes hours, days or weeks, as in 12h, 30d or 8w; found "{given}"')
    return int(found[1]) * _SECONDS[found[2]]


def _ended(run: RunRecord) -> float:
    moment = datetime.fromisoformat(run.ended or run.began)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _purge(
    options: Options, database: Path, runs: Sequence[RunRecord], *, yes: bool, local: bool, dry_run: bool = False
) -> int:
    histories = {run.run_id: read(database, run.run_id) for run in runs}
    things = {run_id: remotes(history) for run_id, history in histories.items()}
    if not options.json:
        called = titles(database, runs)
        for run in runs:
            title = one_line(visible(called[run.run_id]), 70)
            streams.write(f"{run.run_id}  {run.began[:19].replace('T', ' ')}  {title}".rstrip())
    removes = bool(runs) and not dry_run
    if removes and not yes:
        if not streams.interactive():
            raise UsageError("nothing was removed: there is no terminal to ask at", hint="Say so beforehand: --yes")
        removes = typer.confirm(_question(len(runs), sum(map(len, things.values())), local=local), err=True)
    ended: dict[str, list[Gone]] = {}
    for run in runs if removes else ():
        history, left = histories[run.run_id], things[run.run_id]

        def elsewhere(still_ours: Callable[[], None], run_id: str = run.run_id, history: list[Event] = history) -> None:
            ended[run_id] = leftovers.delete(options, history, things[run_id], still_ours)

        take_out(database, run.run_id, elsewhere if left and not local else lambda _: None)
    if not removes or local:
        ended = {run_id: [_kept(one, local=local) for one in left] for run_id, left in things.items()}
    if options.json:
        _print(list(histories), ended, removed=removes)
    else:
        _tell(len(runs), ended, removed=removes)
        if removes:
            _tell_by_hand(options, histories, ended)
    failed = removes and not local and any(map(_failed, (one for gone in ended.values() for one in gone)))
    return exit_codes.PARTIAL if failed else exit_codes.DONE


def _question(runs: int, things: int, *, local: bool) -> str:
    there = f", and {counted(things, 'thing')} that lie{'s' if things == 1 else ''} at services"
    return f"Remove {counted(runs, 'run')} from the journal{there if things and not local else ''}?"


def _kept(one: Remote, *, local: bool) -> "Gone":
    from master_agent.threads.removal import Gone

    return Gone(one.kind, one.id, "left", "--local-only was said" if local else "")


def _failed(one: "Gone") -> bool:
    return one.how == "left" and one.kind != "prediction"  # which nobody could have removed


def _print(found: list[str], ended: Mapping[str, "Sequence[Gone]"], *, removed: bool) -> None:
    def listed(how: str) -> list[dict[str, str]]:
        return [
            {"run_id": run_id, "kind": one.kind, "id": one.id, **({"why": one.why} if one.why else {})}
            for run_id, gone in ended.items()
            for one in gone
            if one.how == how
        ]

    streams.print_object(
        "purge",
        purged=found if removed else [],
        found=found,
        removed=listed("deleted"),
        gone_before=listed("gone_before"),
        not_removed=listed("left"),
    )


_SAID = {"deleted": "removed there too", "gone_before": "was gone there already", "left": "stays there"}


def _tell(count: int, ended: Mapping[str, "Sequence[Gone]"], *, removed: bool) -> None:
    streams.say(f"{'Removed' if removed else 'Found'}: {counted(count, 'run')}.")
    every = [(run_id, one) for run_id, gone in ended.items() for one in gone]
    if every:
        streams.say("At the services:")
    for run_id, one in every:
        how = f": {_SAID[one.how]}" if removed else ""
        streams.say(f"  {one.kind} {one.id} (run {run_id}){how}{f': {one.why}' if one.why else ''}")


def _tell_by_hand(
    options: Options, histories: Mapping[str, Sequence[Event]], ended: Mapping[str, "Sequence[Gone]"]
) -> None:
    left = [(histories[run_id], one.kind) for run_id, gone in ended.items() for one in gone if _failed(one)]
    if left:
        streams.say("By hand:")
    for command in leftovers.by_hand(options, left) if left else ():
        streams.say(f"  {command}")
