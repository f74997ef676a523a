"""From a model's answer to the plan in it: past what surrounds it and its slips of syntax, but never to half of it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from master_agent.brackets import region
from master_agent.errors import PlanError
from master_agent.plan import MAX_BYTES
from master_agent.threads import Reply

MOST_STARTS = 500  # brackets that a plan is looked for at

_OPENING = re.compile(r"[{\[]")
_PLAN_KEY = re.compile(r"(?<!\w)plan[\"'”’]?\s*:\s*\Z")
_LIST_OF_STEPS = re.compile(r"\[\s*\{\s*[\"'“‘]?(?:id|agent|tool|prompt|needs|with)\b")
_LIKE_JSON = re.compile(r"\{\s*(?:[\"'“‘]|//|/\*|\w+\s*(?::|\Z)|\Z)|\[\s*(?:\{|\Z)")


@dataclass(frozen=True)
class FoundPlan:
    """JSON that was found in an answer; `repaired` when its syntax had to be mended."""

    raw: object
    repaired: bool = False


def find_plan(reply: Reply) -> FoundPlan:
    """The last plan in an answer; PlanError when there is none, or when something has no end.

    An answer that was cut off is a fault, never repaired: half a prompt would parse.
    """
    if reply.status == "incomplete":
        raise _cut_off()
    if reply.status == "failed":
        raise PlanError(f"there is no plan in the answer: {reply.reason or 'the model refused'}")
    if len(reply.text) > MAX_BYTES:
        raise PlanError(f"the answer holds {len(reply.text):,} characters; a plan may hold {MAX_BYTES:,} bytes")
    plan: object = None
    bare: object = None
    repaired = seen = False
    for value, mended in _values(reply.text):
        seen = True
        if (inside := _plan_in(value)) is not None:
            plan, repaired = inside, mended
        elif _are_steps(value):
            bare = {"plan": value}
    if plan is not None:
        return FoundPlan(plan, repaired)
    if bare is not None:
        return FoundPlan(bare, repaired=True)
    raise PlanError(
        'the answer is JSON, but no object with a list "plan"' if seen else "there is no JSON object in the answer"
    )


def _cut_off() -> PlanError:
    return PlanError("the answer was cut off before its end; write a shorter plan")


def _values(text: str) -> Iterator[tuple[Any, bool]]:
    """Every JSON value in a text, the outermost ones, and whether it had to be mended, which only a plan is."""
    position = 0
    for _ in range(MOST_STARTS):
        opening = _OPENING.search(text, position)
        if opening is None:
            return
        start = opening.start()
        value, end = _decoded(text, start)
        if end is not None:
            yield value, False
            position = end
            continue
        end, plan = _region(text, start)
        if end is None and _LIKE_JSON.match(text, start):
            raise _cut_off()
        if end is not None and plan:
            yield _mended(text, start, end), True
        position = end if end is not None and plan else start + 1


def _region(text: str, start: int) -> tuple[int | None, bool]:
    """Where what is opened at `start` is closed again, if anywhere, and whether it looks like a plan."""
    plan = [_LIST_OF_STEPS.match(text, start) is not None]

    def opened(depth: int, here: int) -> None:
        if depth == 1 and _PLAN_KEY.search(text, max(start, here - 40), here):
            plan[0] = True

    return region(text, start, opened).end, plan[0]


def _decoded(text: str, start: int) -> tuple[Any, int | None]:
    """The JSON value that begins here and where it ends; nowhere when it is no JSON."""
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, None


def _mended(text: str, start: int, end: int) -> object:
    import json_repair

    unreadable = PlanError("the plan in the answer is not JSON; write it again as one JSON object")
    if re.compile(r"\s*[}\]\"']").match(text, end):
        raise unreadable  # its end is not where its brackets say: it cannot be told what belongs to it
    try:
        value = json_repair.loads(text[start:end])
    except (ValueError, RecursionError):
        raise unreadable from None
    if _plan_in(value) is None and not _are_steps(value):
        raise unreadable
    return value


def _plan_in(value: object) -> object:
    """The object with a list "plan" that a value is or holds."""
    if isinstance(value, dict) and isinstance(value.get("plan"), list):
        return value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((plan for item in inside if (plan := _plan_in(item)) is not None), None)


def _are_steps(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("agent" in item or "tool" in item) for item in value)
    )
