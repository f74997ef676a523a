"""The command `cost`: what a run has used, by call, step and run, in tokens, pictures and money."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from master_agent.cli import exit_codes, session, streams
from master_agent.cli.history import RunName
from master_agent.cli.options import Options, with_options
from master_agent.database import find_run
from master_agent.history.spent import Spent, by_step, calls
from master_agent.journal import read
from master_agent.reporters.words import money
from master_agent.results import Usage
from master_agent.settings import state_folder

_NUMBERS = {
    "input_tokens": "in",
    "cached_tokens": "cached",
    "cache_write_tokens": "written",
    "output_tokens": "out",
    "reasoning_tokens": "reasoning",
    "images": "pictures",
}
_UNKNOWN = "unknown"
_LEAST = ("reasoning", "written", "cached", "pictures")  # what a narrow terminal does without, in this order
_GAP = 2


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("cost", help=_HELP)(cost)


_HELP = """Says what a run has used, by step and call: tokens read, from the cache, written to it, written, thought.

The requests to models are m1, m2, … in the order of the whole run, the uses of tools that cost something t1, t2, ….
What a server did not report, and what has no known price, is unknown; a sum that lacks something has a + behind it.
Prices of models come with the extra `cost`; they are those of the time of the call.

\b
Examples:
  master-agent cost
  master-agent cost 1ng0 --json
"""


@with_options("state_dir", output=("json",))
def cost(options: Options, run: RunName = None) -> int:
    database = state_folder(session.settings_of(options)) / "journal.db"
    run_id = find_run(database, run).run_id
    steps = by_step(calls(read(database, run_id)))
    if options.json:
        streams.print_object("cost", **_data(run_id, steps))
    else:
        lines, left_out = _table(steps, streams.width_of(sys.stdout))
        for line in lines:
            streams.write(line)
        if left_out:
            streams.say(f"The terminal is too narrow for {', '.join(left_out)}; --json tells all.")
    return exit_codes.DONE


def _total(spent: Iterable[Spent]) -> Usage:
    return sum((one.usage for one in spent), Usage())


def _data(run_id: str, steps: Mapping[str | None, Sequence[Spent]]) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "total": _total(one for each in steps.values() for one in each).model_dump(mode="json"),
        "steps": [
            {
                "step": step,
                "usage": _total(each).model_dump(mode="json"),
                "calls": [
                    {
                        "call": one.call,
                        "name": one.name,
                        "status": one.status,
                        "usage": one.usage.model_dump(mode="json"),
                    }
                    for one in each
                ],
            }
            for step, each in steps.items()
        ],
    }


def _table(steps: Mapping[str | None, Sequence[Spent]], most: int | None) -> tuple[list[str], list[str]]:
    """Lines of equal columns: each step with its calls under it, and the whole; and what `most` leaves no room for."""
    rows = [["", *_NUMBERS.values(), "cost"]]
    for step, each in steps.items():
        rows.append([step or "(planner)", *_cells(each)])
        for one in each:
            said = "" if one.status in ("completed", "requires_action") else f" ({one.status})"
            rows.append([f"  {one.call} {one.name or 'model unknown'}{said}", *_cells([one])])
    rows.append(["whole run", *_cells([one for each in steps.values() for one in each])])
    widths = {name: max(len(row[place]) for row in rows) for place, name in enumerate(rows[0])}
    left_out: list[str] = []
    for name in _LEAST:
        if most is not None and sum(widths.values()) + _GAP * (len(widths) - 1) > most:
            del widths[name]
            left_out.append(name)
    places = {name: rows[0].index(name) for name in widths}
    lines = [
        (" " * _GAP)
        .join(row[place].rjust(widths[name]) if place else row[0].ljust(widths[name]) for name, place in places.items())
        .rstrip()
        for row in rows
    ]
    return lines, left_out


def _cells(spent: Sequence[Spent]) -> list[str]:
    return [*(_number([getattr(one.usage, name) for one in spent]) for name in _NUMBERS), _money(_total(spent))]


def _number(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if values and not known:
        return _UNKNOWN
    return f"{sum(known):,}" + ("" if len(known) == len(values) else "+")


def _money(usage: Usage) -> str:
    if usage.cost_usd is None:
        return "$0.0000" if usage == Usage() else _UNKNOWN
    return money(usage.cost_usd) + ("" if usage.cost_complete else "+")
