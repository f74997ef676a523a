"""From the events of a run to the conversation of one of its steps: what was said and done, oldest first."""

from collections.abc import Sequence
from typing import Any

from master_agent.errors import UsageError
from master_agent.events import (
    Event,
    FileChanged,
    FileChangeFailed,
    ModelCalled,
    ModelReplied,
    PlanMade,
    StepFinished,
    StepStarted,
    ToolCalled,
    ToolReturned,
)
from master_agent.values import suggestion

PLANNER = "planner"
Entry = dict[str, Any]


def conversation(history: Sequence[Event], step: str) -> list[Entry]:
    """What was said and done in a step, oldest first; UsageError when the run has no such step.

    Each entry has a `role`: start, user, tools (their outputs, given back), model, tool, output, file,
    file_failed, end.
    """
    known = {event.step for event in history if event.step}
    known |= {one.id for event in history if isinstance(event, PlanMade) for one in event.plan.plan}
    planner = step == PLANNER and step not in known
    if step not in known and not planner:
        raise UsageError(f'the run has no step "{step}"{suggestion(step, sorted(known))}')
    of_it = [event for event in history if event.step == (None if planner else step)]
    return [entry for event in of_it if (entry := _entry(event))]


def _entry(event: Event) -> Entry | None:
    whole = event.model_dump(mode="json", by_alias=True)

    def picked(role: str, *names: str) -> Entry:
        return {"role": role, "at": event.at, **{name: whole[name] for name in names}}

    match event:
        case StepStarted():
            return picked("start", "attempt", "agent", "tool")
        case ModelCalled():
            input_ = dict(event.input)
            role = "tools" if input_.pop("role", None) == "tool" else "user"
            return {**picked(role, "attempt", "turn", "agent", "wire", "model"), **input_}
        case ModelReplied():
            return picked("model", "status", "text", "calls", "sources", "lost", "usage", "seconds", "reason", "error")
        case ToolCalled():
            return picked("tool", "tool", "asked", "arguments", "effects")
        case ToolReturned():
            return picked("output", "tool", "asked", "text", "data", "artifacts", "error", "seconds")
        case FileChanged():
            return picked("file", "file", "before", "removed")
        case FileChangeFailed():
            return picked("file_failed", "file", "error")
        case StepFinished():
            return picked("end", "result")
    return None
