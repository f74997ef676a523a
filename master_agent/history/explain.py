"""From a run's step to why it was taken over from an earlier run or not: which parts differ from the nearest one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from master_agent.database import RunRecord, get_blob, reading
from master_agent.done_steps import DoneStep, like
from master_agent.errors import UsageError
from master_agent.events import Event, ReuseRefused, StepFinished, StepStarted
from master_agent.identity import PARTS, what_is_left, without_marks
from master_agent.journal import events_of, read
from master_agent.results import StepResult
from master_agent.state import State, fold
from master_agent.values import suggestion


@dataclass(frozen=True)
class Difference:
    """Something that is not the same: its name within the part, what it was then and what it is now; or nothing."""

    name: str
    then: Any
    now: Any


@dataclass(frozen=True)
class Explained:
    """Why a step was reused or not: `differs` by part, against the step `nearest` of an earlier run, if there is one.

    `refused` are reasons why one of the very same parts was not taken over. A step is not `comparable` when it failed
    before it was known what it is made of.
    """

    run_id: str
    step: str
    doer: str
    status: str
    from_run: str | None = None
    nearest: DoneStep | None = None
    differs: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    same: Sequence[str] = ()
    comparable: bool = True
    refused: Sequence[ReuseRefused] = ()


def explained(database: Path, record: RunRecord, step: str) -> Explained:
    """What there is to say of a step of a run; UsageError where it never began."""
    history = read(database, record.run_id)
    state = fold(history)
    started = state.started.get(step)
    if started is None:
        known = [one.id for one in state.plan.plan] if state.plan else []
        run = f"the run {record.run_id}"
        if step in known:
            raise UsageError(f'the step "{step}" never began in {run}')
        raise UsageError(f'{run} has no step "{step}"{suggestion(step, known)}')
    doer = f"agent {started.agent}" if started.agent else f"tool {started.tool}"
    result = _result(history, step)
    about = Explained(
        record.run_id,
        step,
        doer,
        result.status if result else "not finished",
        result.from_run if result and result.status == "reused" else None,
        comparable=bool(started.parts),
        refused=[event for event in history if isinstance(event, ReuseRefused) and event.step == step],
    )
    if about.from_run is not None:
        return about
    return _compared(database, record, state, started, about)


def _result(history: Sequence[Event], step: str) -> StepResult | None:
    ends = [event.result for event in history if isinstance(event, StepFinished) and event.step == step]
    return ends[-1] if ends else None


def _compared(database: Path, record: RunRecord, state: State, started: StepStarted, about: Explained) -> Explained:
    """With the nearest step that an earlier run has done: most parts the same, then the same id, then the newest."""
    with reading(database) as connection:
        where = (record.workspace or "", record.run_id, started.at or "")
        found = like(connection, about.step, about.doer, *where)
        parts = [_parts(events_of(connection, done)) for done in found]
        if not found or not started.parts:
            return about
        common = [sum(started.parts.get(name) == hash_ for name, hash_ in one.items()) for one in parts]
        place = max(range(len(found)), key=lambda i: (common[i], found[i].step == about.step, -i))
        nearest, then = found[place], parts[place]
        names = [name for name in PARTS if name in started.parts or name in then]
        contents = {
            name: (
                _content(get_blob(connection, then.get(name, ""))),
                _content(get_blob(connection, started.parts.get(name, ""))),
            )
            for name in names
            if then.get(name) != started.parts.get(name)
        }
    before = fold(read(database, nearest.run_id)).results if "inputs" in contents else {}
    if "inputs" in contents:
        contents["inputs"] = (
            _with_results(contents["inputs"][0], before),
            _with_results(contents["inputs"][1], state.results),
        )
    return Explained(
        about.run_id,
        about.step,
        about.doer,
        about.status,
        nearest=nearest,
        differs={name: list(_differences(*pair)) for name, pair in contents.items()},
        same=[name for name in names if name not in contents],
        refused=about.refused,
    )


def _parts(events: Sequence[Event]) -> Mapping[str, str]:
    return next((event.parts for event in reversed(events) if isinstance(event, StepStarted)), {})


def _content(blob: bytes | None) -> Any:
    return None if blob is None else json.loads(without_marks(blob.decode("utf-8", "replace")))


def _with_results(inputs: Any, results: Mapping[str, StepResult]) -> Any:
    """The inputs with what each result had left in the place of its hash."""
    hashes = inputs.get("results") if isinstance(inputs, dict) else None
    if not isinstance(hashes, dict):
        return inputs
    left = {name: what_is_left(results[name]) if name in results else hash_ for name, hash_ in hashes.items()}
    return {**inputs, "results": left}


def _differences(then: Any, now: Any, name: str = "") -> Iterator[Difference]:
    """What differs within two JSON values, as deep as both are objects."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield Difference(name, then, now)
