"""The command `explain`: why a step was taken over from an earlier run, or what differed."""

import difflib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from master_agent.cli import exit_codes, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.database import find_run
from master_agent.history.explain import Difference, Explained, explained
from master_agent.reporters.text import one_line
from master_agent.settings import state_folder

MOST_LINES = 20
WIDTH = 100
Run = Annotated[str, typer.Argument(metavar="RUN", help="the beginning of its id", show_default=False)]
Step = Annotated[str, typer.Argument(metavar="STEP", help="the id of a step", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("explain", help=_HELP)(explain)


_HELP = """Tells why a step was reused or not: which of its parts differ from those of the nearest earlier one.

The parts are the agent, the prompt (or a tool's arguments), the inputs, the tools and the model.

\b
Examples:
  master-agent explain 1ng0 page
  master-agent explain 1ng0 page --json
"""


@with_options("state_dir", output=("json",))
def explain(options: Options, run: Run, step: Step) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    told = explained(database, find_run(database, run), step)
    if options.json:
        streams.print_object("explain", **_data(told))
    else:
        for line in _lines(told):
            streams.write(line)
    return exit_codes.DONE


def _data(told: Explained) -> dict[str, Any]:
    near = told.nearest
    return {
        "run_id": told.run_id,
        "step": told.step,
        "status": told.status,
        "reused": told.from_run is not None,
        "from_run": told.from_run,
        "nearest": {"run_id": near.run_id, "step": near.step, "at": near.at} if near else None,
        "differs": {
            part: [{"name": one.name, "then": one.then, "now": one.now} for one in found]
            for part, found in told.differs.items()
        },
        "same": list(told.same),
        "refused": [{"from_run": event.from_run, "reason": event.reason} for event in told.refused],
        "why": why(told),
    }


def why(told: Explained) -> str:
    """The reason in a line."""
    if told.from_run is not None:
        return f"it was reused from {told.from_run}: agent, prompt, inputs, tools and model are the same"
    if told.refused:
        return f"it was not reused from {told.refused[-1].from_run}: {told.refused[-1].reason}"
    if not told.comparable:
        return "it was not reused: a reference in it led to nothing, so that there was nothing to compare"
    if told.nearest is None:
        return (
            "it was not reused: no earlier run in this folder has done a step of that id, or by the same agent or tool"
        )
    near = f"{told.nearest.step} of {told.nearest.run_id}, the nearest that is done"
    if told.differs:
        are = "is not that" if len(told.differs) == 1 and "inputs" not in told.differs else "are not those"
        return f"it was not reused: its {_listed(list(told.differs))} {are} of {near}"
    return f"it was not reused, though all is as in {near}: steps are only reused with --reuse"


def _lines(told: Explained) -> Iterator[str]:
    yield f"{told.step} ({told.doer}) of {told.run_id}: {told.status}"
    yield why(told)
    for part, found in told.differs.items():
        yield ""
        yield f"{part}:"
        for one in found:
            yield from _shown(one)
    if told.differs and told.same:
        yield ""
        yield f"the same: {', '.join(told.same)}"


def _shown(one: Difference) -> Iterator[str]:
    """Then and now, texts as the lines that differ."""
    if one.name:
        yield f"  {one.name}"
    if isinstance(one.then, str) and isinstance(one.now, str):
        lines = list(difflib.unified_diff(one.then.splitlines(), one.now.splitlines(), lineterm="", n=1))[2:]
    else:
        lines = [f"- {_plain(one.then)}", f"+ {_plain(one.now)}"]
    yield from (f"    {one_line(line, WIDTH)}" for line in lines[:MOST_LINES] if not line.startswith("@@"))
    if len(lines) > MOST_LINES:
        yield f"    … {len(lines) - MOST_LINES} more lines; --json tells all"


def _plain(value: Any) -> str:
    return "(nothing)" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
