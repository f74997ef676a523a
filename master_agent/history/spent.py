"""From the events of a run to what each call of a model or tool has used, by step."""

from collections.abc import Iterable
from dataclasses import dataclass

from master_agent.events import Event, ModelCalled, ModelReplied, ToolCalled, ToolReturned
from master_agent.results import Usage

_PERHAPS_PAID = Usage(cost_complete=False)  # of a tool that costs money, and whose end nobody has seen


@dataclass(frozen=True)
class Spent:
    """What one request to a model, or one use of a tool, has used. `name` is the model or the tool."""

    step: str | None
    call: str
    name: str | None
    usage: Usage
    status: str


def calls(history: Iterable[Event]) -> list[Spent]:
    """Everything that used something, in order; a request whose answer died with its process is among them."""
    found: list[Spent] = []
    open_calls: dict[tuple[str | None, str | None], int] = {}
    for event in history:
        key = (event.step, event.call)
        match event:
            case ModelCalled():
                open_calls[key] = len(found)
                found.append(Spent(event.step, event.call or "", event.model, Usage.unknown(), "no answer"))
            case ModelReplied() if (place := open_calls.pop(key, None)) is not None:
                asked = found[place]
                found[place] = Spent(asked.step, asked.call, asked.name, event.usage, event.status)
            case ToolCalled() if "pay" in event.effects:
                open_calls[key] = len(found)
                found.append(Spent(event.step, event.call or "", event.tool, _PERHAPS_PAID, "no answer"))
            case ToolReturned():
                place = open_calls.pop(key, None)
                if place is None:
                    found.append(_ended(event))
                else:
                    found[place] = _ended(event)
    return [one for one in found if one.usage != Usage()]


def _ended(event: ToolReturned) -> Spent:
    """A use of a tool that came back."""
    status = "completed" if event.error is None else "cancelled" if event.error.type == "cancelled" else "failed"
    return Spent(event.step, event.call or "", event.tool, event.usage, status)


def by_step(spent: Iterable[Spent]) -> dict[str | None, list[Spent]]:
    """The calls of each step, in the order in which steps began; None is the planner."""
    steps: dict[str | None, list[Spent]] = {}
    for one in spent:
        steps.setdefault(one.step, []).append(one)
    return steps
