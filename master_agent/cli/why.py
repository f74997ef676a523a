"""The command `why`: which run, step, prompt and model made a file, and from what."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from master_agent.cli import exit_codes, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.errors import UsageError
from master_agent.journal import read
from master_agent.provenance import Made, changes, explained, of_file
from master_agent.reporters.text import counted, one_line
from master_agent.settings import state_folder

MOST_TOLD = 3
WIDTH = 100
File = Annotated[str, typer.Argument(metavar="FILE", help="a file that a run may have made", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("why", help=_HELP)(why)


_HELP = """Tells which run, step, prompt and model made a file, and from what.

The file is looked for by its place and by its bytes. Exit code 1 when no run made it.

\b
Examples:
  master-agent why index.html
  master-agent why images/hero.png --json
"""


@with_options("state_dir", output=("json",))
def why(options: Options, file: File) -> int:
    place = (Path.cwd() / file).resolve()
    database = state_folder(session.settings_of(options)) / "journal.db"
    sha256 = _digest(place)
    related = of_file(changes(database), place, sha256)
    status, chosen = _judged(related, place, sha256)
    told = [explained(made, read(database, made.run_id)) for made in chosen]
    if options.json:
        streams.print_json({"file": str(place), "sha256": sha256, "status": status, "made_by": told})
    else:
        _tell(file, status, told)
    return exit_codes.FAILED if status == "unknown" else exit_codes.DONE


def _digest(place: Path) -> str | None:
    try:
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}") from None


def _judged(related: Sequence[Made], place: Path, sha256: str | None) -> tuple[str, list[Made]]:
    """What is to be said of the file, and the changes that tell why, those of its own place first."""
    here = [made for made in related if made.place == place]
    same = [made for made in related if sha256 is not None and made.sha256 == sha256]
    if same:
        own = [made for made in same if made.place == place]
        return ("as_made" if own else "copy"), own + [made for made in same if made.place != place]
    if not here:
        return "unknown", []
    return ("missing" if sha256 is None else "changed_since"), here


_STATUS = {
    "as_made": "{file} is as a run made it.",
    "copy": "{file} was not made here by a run; its bytes are those of another file that was.",
    "changed_since": "{file} has changed since a run last wrote it.",
    "missing": "{file} is not there any more; a run had written it.",
    "unknown": "No run made {file}: neither its place nor its bytes are in the journal.",
}


def _tell(file: str, status: str, told: Sequence[Mapping[str, Any]]) -> None:
    streams.write(_STATUS[status].format(file=file))
    for one in told[:MOST_TOLD]:
        streams.write("")
        for name, value in _rows(one):
            streams.write(f"{name:<8}{one_line(str(value), WIDTH)}")
    if len(told) > MOST_TOLD:
        streams.write(f"\nand {counted(len(told) - MOST_TOLD, 'earlier change')}; --json tells all")


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
    ]
    for source in one["from"]:
        rows.append(("from", f"{source['step']}: {', '.join([*source['files'], source['text']])}"))
    rows += [("given", name) for name in one["given"]]
    return [(name, value) for name, value in rows if value]
