"""The work that everybody does in the benchmark: four shapes of a task, and how long each of their requests takes.

A request says what it is for by a phrase in its prompt, and the mock of the wire answers by that phrase, so that each
contestant is free in how it asks.
"""

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

LAYERS, STEPS, MOST = 9, 200, 2.0
Plan = list[dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """A task. `calls` is the length of its critical path in requests of the usual way, `plan` the planner's answer.

    `factors` are the latencies of steps in terms of the usual one; what is not named has 1.
    """

    name: str
    about: str
    plan: Plan
    calls: float
    factors: dict[str, float] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The words that a person would say."""
        return f"Plan the {self.name} work."


def prompt_of(step: str) -> str:
    """What the agent of a step is told; the mock knows it by that."""
    return f"Do part {step} of the work."


def _step(name: str, needs: list[str], agent: str = "code") -> dict[str, Any]:
    return {"id": name, "agent": agent, "prompt": prompt_of(name), "tool": None, "with": [], "needs": needs}


def _sequence() -> Plan:
    saved = [{"name": "step", "value": "page"}, {"name": "path", "value": "index.html"}]
    save = {"id": "save", "agent": None, "prompt": None, "tool": "save_result", "with": saved, "needs": ["page"]}
    return [_step("hero", [], "image"), _step("page", ["hero"]), save]


def _fan() -> Plan:
    wide = [f"s{i}" for i in range(16)]
    return [*(_step(name, []) for name in wide), _step("join", wide)]


def _graph() -> Plan:
    layers = [[f"s{i}" for i in range(STEPS) if i % LAYERS == layer] for layer in range(LAYERS)]
    plan = [_step(name, []) for name in layers[0]]
    for above, layer in itertools.pairwise(layers):
        plan += [_step(n, [above[i % len(above)], above[(i + 1) % len(above)]]) for i, n in enumerate(layer)]
    return plan


def _longest(plan: Plan, factors: dict[str, float]) -> float:
    ends: dict[str, float] = {}
    for step in plan:  # which is in the order of needs
        ends[step["id"]] = max((ends[need] for need in step["needs"]), default=0.0) + factors.get(step["id"], 1.0)
    return max(ends.values())


def _uneven(plan: Plan) -> dict[str, float]:
    """From a tenth to twice the usual latency, the same in every run, so that the longest way is 9 usual ones."""
    chance = random.Random(20)
    drawn = {step["id"]: chance.uniform(0.1, MOST) for step in plan}
    scale = LAYERS / _longest(plan, drawn)
    return {name: round(factor * scale, 3) for name, factor in drawn.items()}


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("sequence", "a picture, a page that shows it, the page saved", _sequence(), 7),
        Shape("fan-out", "16 steps at once, then one that joins them", _fan(), 3),
        Shape("graph", f"{STEPS} steps, {LAYERS} deep, each with two needs", _graph(), 1 + LAYERS),
        Shape("uneven", "the same graph, its latencies from a tenth to twice", _graph(), 1 + LAYERS, _uneven(_graph())),
    )
}
