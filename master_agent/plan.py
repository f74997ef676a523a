"""The plan contract: a Plan and its steps, with their ids, order and needs written out."""

import json
from collections.abc import Iterable
from graphlib import TopologicalSorter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from master_agent.values import quoted

MAX_STEPS = 10_000
MAX_NEEDS = 1_000_000
MAX_BYTES = 10 * 1024 * 1024
STEP_ID = r"^[a-z][a-z0-9_]{0,62}$"

StepId = Annotated[str, Field(pattern=STEP_ID)]
Order = Literal["sequence", "graph"]


class _Contract(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True, defer_build=True
    )


class AgentStep(_Contract):
    """A step that an agent works on: its prompt, and the steps it needs."""

    id: StepId
    agent: str
    prompt: str
    needs: tuple[StepId, ...] = ()

    @property
    def title(self) -> str:
        return self.prompt


class ToolStep(_Contract):
    """A step that is one use of a tool: its arguments are known, so no model is asked."""

    id: StepId
    tool: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict, alias="with")
    needs: tuple[StepId, ...] = ()

    @property
    def title(self) -> str:
        return ", ".join(f"{name}={quoted(value)}" for name, value in self.arguments.items())


Step = AgentStep | ToolStep


class Plan(_Contract):
    """A checked list of steps. Ids, order and needs are always written out."""

    kind: Literal["plan"] = "plan"
    version: Literal[1] = 1
    task: str | None = None
    params: dict[str, str] = Field(default_factory=dict)
    order: Order = "graph"
    repaired: bool = False
    plan: tuple[Step, ...]

    def step(self, step_id: str) -> Step:
        """The step of that id; KeyError where there is none."""
        for step in self.plan:
            if step.id == step_id:
                return step
        raise KeyError(step_id)

    def after(self, step_id: str) -> frozenset[str]:
        """The ids of the step and of all that follows from it."""
        found = {step_id}
        for step in _in_order_of_needs(self.plan):
            if found.intersection(step.needs):
                found.add(step.id)
        return frozenset(found)

    def at_once(self, one: str, other: str) -> bool:
        """Whether two steps of the plan may run at the same time: neither follows from the other."""
        known = {step.id for step in self.plan}
        return {one, other} <= known and other not in self.after(one) and one not in self.after(other)

    def to_json(self) -> str:
        """The plan as it is printed and saved: two spaces, a newline at the end."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def _in_order_of_needs(steps: tuple[Step, ...]) -> Iterable[Step]:
    by_id = {step.id: step for step in steps}
    for step_id in TopologicalSorter({step.id: step.needs for step in steps}).static_order():
        yield by_id[step_id]
