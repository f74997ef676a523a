"""The commands that remove runs from the journal: `purge` and `clean`."""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from master_agent.cli import exit_codes, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.database import RunRecord, find_run, list_runs
from master_agent.errors import UsageError
from master_agent.journal import read
from master_agent.purge import Remote, remotes
from master_agent.purge import purge as take_out
from master_agent.reporters.text import counted, one_line
from master_agent.settings import state_folder

_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
Run = Annotated[str, typer.Argument(metavar="RUN", help="the beginning of its id", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="remove without asking", show_default=False)]
Age = Annotated[
    str, typer.Option("--older-than", metavar="AGE", help="hours, days or weeks: 12h, 30d, 8w", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be removed", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("purge", help=_PURGE_HELP)(purge)
    app.command("clean", help=_CLEAN_HELP)(clean)


_PURGE_HELP = """Removes a run from the journal wholly. The files that it made stay; it cannot be undone afterwards.

What the run left at services is not removed, and is listed.

\b
Examples:
  master-agent purge 1ng0
  master-agent purge 1ng0 --yes --json
"""
_CLEAN_HELP = """Removes from the journal the runs that ended longer ago than an age, as purge does.

\b
Examples:
  master-agent clean --older-than 30d --dry-run
  master-agent clean --older-than 8w --yes
"""


@with_options("state_dir", output=("json",))
def purge(options: Options, run: Run, *, yes: Yes = False) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    return _purge(options, database, [find_run(database, run)], yes=yes)


@with_options("state_dir", output=("json",))
def clean(options: Options, older_than: Age, *, yes: Yes = False, dry_run: DryRun = False) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    latest = time.time() - _age(older_than)
    old = [run for run in list_runs(database) if not run.alive and _ended(run) < latest]
    return _purge(options, database, old, yes=yes, dry_run=dry_run)


def _age(given: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([hdw])", given.strip())
    if found is None:
        raise UsageError(f'--older-than takes hours, days or weeks, as in 12h, 30d or 8w; found "{given}"')
    return int(found[1]) * _SECONDS[found[2]]


def _ended(run: RunRecord) -> float:
    moment = datetime.fromisoformat(run.ended or run.began)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _purge(options: Options, database: Path, runs: Sequence[RunRecord], *, yes: bool, dry_run: bool = False) -> int:
    left = [{"run_id": run.run_id, "kind": r.kind, "id": r.id} for run in runs for r in _remotes(database, run)]
    if not options.json:
        for run in runs:
            streams.write(f"{run.run_id}  {run.began[:19].replace('T', ' ')}  {one_line(run.task or '', 70)}")
    removes = bool(runs) and not dry_run
    if removes and not yes:
        if not streams.interactive():
            raise UsageError("nothing was removed: there is no terminal to ask at", hint="Say so beforehand: --yes")
        removes = typer.confirm(f"Remove {counted(len(runs), 'run')} from the journal?", err=True)
    for run in runs if removes else ():
        take_out(database, run.run_id)
    if options.json:
        names = [run.run_id for run in runs]
        streams.print_json({"purged": names if removes else [], "found": names, "not_removed": left})
    else:
        _tell(len(runs), left, removed=removes)
    return exit_codes.DONE


def _remotes(database: Path, run: RunRecord) -> list[Remote]:
    return remotes(read(database, run.run_id))


def _tell(count: int, left: Sequence[dict[str, str]], *, removed: bool) -> None:
    streams.say(f"{'Removed' if removed else 'Found'}: {counted(count, 'run')}.")
    if left:
        streams.say("Not removed, for it lies at the services:" if removed else "Would stay at the services:")
        for one in left:
            streams.say(f"  {one['kind']} {one['id']} (run {one['run_id']})")
