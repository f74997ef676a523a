"""The command `why`: which run, step, prompt and model made a file, and from what."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from master_agent.cli import exit_codes, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.errors import UsageError
from master_agent.events import Event
from master_agent.history.provenance import Made, Outcome, changes, explained, of_file, outcome
from master_agent.journal import read
from master_agent.reporters.text import one_line
from master_agent.settings import state_folder

MOST_TOLD = 3
WIDTH = 100
File = Annotated[str, typer.Argument(metavar="FILE", help="a file that a run may have made", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("why", help=_HELP)(why)


_HELP = """Tells which run, step, prompt and model made a file, and from what.

The file is looked for by its place and by its bytes. Exit code 1 when no run made it, as far as is known.

\b
Examples:
  master-agent why index.html
  master-agent why images/hero.png --json
"""


@with_options("state_dir", output=("json",))
def why(options: Options, file: File) -> int:
    if not file:
        raise UsageError("the name of the file is empty")
    place = (Path.cwd() / file).resolve()
    database = state_folder(session.settings_of(options)) / "journal.db"
    sha256 = _digest(place)
    related = of_file(changes(database), place, sha256)
    histories = {run_id: read(database, run_id) for run_id in {made.run_id for made in related}}
    status, chosen = _judged([_of(made, histories[made.run_id]) for made in related], place, sha256)
    told = [_explained(change, relation, histories) for relation, change in chosen]
    if options.json:
        streams.print_object("why", file=str(place), sha256=sha256, status=status, made_by=told)
    else:
        _tell(file, status, told)
    return exit_codes.FAILED if status in _BY_NOBODY else exit_codes.DONE


@dataclass(frozen=True)
class _Change:
    made: Made
    outcome: Outcome


def _of(made: Made, history: Sequence[Event]) -> _Change:
    return _Change(made, outcome(made, history))


def _explained(change: _Change, relation: str, histories: Mapping[str, Sequence[Event]]) -> dict[str, Any]:
    about = explained(change.made, histories[change.made.run_id])
    return {"relation": relation, **about, "outcome": change.outcome.how, "why_not": change.outcome.why}


def _digest(place: Path) -> str | None:
    try:
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}") from None


def _judged(related: Sequence[_Change], place: Path, sha256: str | None) -> tuple[str, list[tuple[str, _Change]]]:
    """What is to be said of the file, and the changes that tell why, each with what it has to do with the file."""
    here = [change for change in related if change.made.place == place]
    same = [change for change in related if sha256 is not None and change.made.sha256 == sha256]
    # What is there now tells of a change of which nothing else does.
    own = [change for change in same if change.made.place == place and change.outcome.how != "failed"]
    elsewhere = [change for change in same if change.made.place != place and change.outcome.how == "done"]
    done = [change for change in here if change.outcome.how == "done"]
    if own:
        return "as_made", [*_first(own, "made_it", "made_the_same_before"), *_all(elsewhere, "made_the_same_elsewhere")]
    if elsewhere:
        return "copy", _all(elsewhere, "made_the_same_elsewhere")
    if done:
        return "missing" if sha256 is None else "changed_since", _first(done, "wrote_it_last", "wrote_it_before")
    if here:
        return "not_written" if here[0].outcome.how == "failed" else "not_known", _all(here, "meant_to")
    return "unknown", []


def _all(changes_: Sequence[_Change], relation: str) -> list[tuple[str, _Change]]:
    return [(relation, change) for change in changes_]


def _first(changes_: Sequence[_Change], first: str, others: str) -> list[tuple[str, _Change]]:
    return [*_all(changes_[:1], first), *_all(changes_[1:], others)]


_STATUS = {
    "as_made": "{file} is as a run made it.",
    "copy": "{file} was not made here by a run; its bytes are those of another file that was.",
    "changed_since": "{file} has changed since a run last wrote it.",
    "missing": "{file} is not there any more; a run had written it.",
    "not_written": "No run made {file}: one that meant to write it could not.",
    "not_known": "Whether a run made {file} is not known: one was about to write it.",
    "unknown": "No run made {file}: neither its place nor its bytes are in the journal.",
}
_BY_NOBODY = ("not_written", "not_known", "unknown")
_HEADINGS = {  # of changes beside the first one, which the status speaks of
    "made_the_same_before": "The same bytes were written here before:",
    "made_the_same_elsewhere": "The same bytes were written into other files too:",
    "wrote_it_before": "Before that, it was written by:",
    "meant_to": "Before that, it was to be written by:",
}


def _tell(file: str, status: str, told: Sequence[Mapping[str, Any]]) -> None:
    streams.write(_STATUS[status].format(file=file))
    first, others = told[:1], told[1:MOST_TOLD]
    for one in first:
        _tell_one(one)
    for relation, alike in groupby(others, lambda one: str(one["relation"])):
        streams.write(f"\n{_HEADINGS[relation]}")
        for one in alike:
            _tell_one(one)
    if len(told) > MOST_TOLD:
        streams.write(f"\nand {len(told) - MOST_TOLD} more; --json tells all")


def _tell_one(one: Mapping[str, Any]) -> None:
    streams.write("")
    for name, value in _rows(one):
        streams.write(f"{name:<8}{one_line(str(value), WIDTH)}")


def _rows(one: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What is known of a change, a row for each thing; what is not there has none."""
    how = f" ({one['origin']} of {one['parent']})" if one["parent"] else ""
    rows = [
        ("file", one["file"]),
        ("run", f"{one['run_id']}{how}, {one['at'][:19].replace('T', ' ')}"),
        ("task", one["task"]),
        ("step", one["step"]),
        ("agent", one["agent"]),
        ("model", one["model"]),
        ("tool", one["tool"]),
        ("prompt", one["prompt"]),
        ("but", f"not written: {one['why_not']}" if one["outcome"] == "failed" else one["why_not"]),
    ]
    for source in one["from"]:
        rows.append(("from", f"{source['step']}: {', '.join([*source['files'], source['text']])}"))
    rows += [("given", name) for name in one["given"]]
    return [(name, value) for name, value in rows if value]
