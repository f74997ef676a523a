"""From JSON that a person or a model wrote to a checked Plan, or to every fault at once."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

from pydantic import JsonValue, ValidationError

from master_agent.errors import PlanError
from master_agent.plan import MAX_BYTES, MAX_NEEDS, MAX_STEPS, STEP_ID, AgentStep, Order, Plan, Step, ToolStep
from master_agent.references import FIELDS, Malformed, Reference, find, rename
from master_agent.values import bounded, clean, kind, quoted, suggestion

MOST_CIRCLES = 50
MOST_COMPARED = 30_000  # ids that are compared with wrong ones, to find the nearest

MAY = "may"
"""What `check` says beside a plan; it is passed over, for what a plan may do is found out by whoever runs it."""

_ID = re.compile(STEP_ID)


class ToolSignature(Protocol):
    """What a check must know of a tool."""

    @property
    def step_parameters(self) -> Collection[str]:
        """The parameters that name another step of the plan."""

    def faults(self, arguments: Mapping[str, JsonValue]) -> Iterable[tuple[str, str]]:
        """The faults of arguments, each with the parameter's name; references count as any value."""


def load(content: bytes, *, source: str) -> object:
    """The JSON value of a plan file; PlanError when it is too large, not UTF-8, empty or not JSON."""
    if len(content) > MAX_BYTES:
        raise PlanError(f"{source} holds {len(content):,} bytes; a plan may hold {MAX_BYTES:,}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlanError(f"{source} is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise PlanError(f"{source} is empty", hint='A plan is a JSON object such as {"plan": [{"agent", "prompt"}]}.')
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:  # a number with thousands of digits
        raise PlanError(f"{source} cannot be read: {error}") from None
    except RecursionError:
        raise PlanError(f"{source} is nested too deeply to be a plan") from None


def check(
    raw: object,
    agents: Collection[str],
    tools: Mapping[str, ToolSignature],
    *,
    lenient: bool = False,
    task: str | None = None,
    params: Mapping[str, str] | None = None,
    repaired: bool = False,
) -> Plan:
    """The Plan that `raw` describes; PlanError with every fault, its path and the nearest right name.

    `lenient` forgives what models write: hyphens in ids, arguments as a list of {name, value}. `task` and `params`,
    where given, take the place of the plan's own.
    """
    try:
        return _Checker(agents, tools, lenient).plan(clean(bounded(raw)), clean(task), clean(params), repaired)
    except RecursionError:
        raise PlanError("the plan is nested too deeply") from None


@dataclass
class _Checker:
    agents: Collection[str]
    tools: Mapping[str, ToolSignature]
    lenient: bool
    faults: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    needed: dict[str, list[str]] = field(default_factory=dict)
    edges: int = 0
    compared: int = 0

    def fault(self, path: str, message: str) -> None:
        self.faults.append(f"{path}: {message}")

    def no_step(self, name: str) -> str:
        # To look for the nearest of 10,000 ids takes a while: once is helpful, 10,000 times is a standstill.
        self.compared += len(self.ids)
        return f"no step {quoted(name)}{suggestion(name, self.ids) if self.compared <= MOST_COMPARED else ''}"

    def plan(self, raw: object, task: str | None, params: Mapping[str, str] | None, repaired: bool) -> Plan:
        if not isinstance(raw, dict) or not isinstance(raw.get("plan"), list):
            raise PlanError(
                f'no plan: expected an object with a list "plan", found {kind(raw)}',
                hint='The smallest plan is {"plan": [{"agent": "code", "prompt": "…"}]}.',
            )
        if raw.get("kind") == "result":
            raw = {name: raw[name] for name in ("task", "params", "order", "plan") if name in raw}
        steps = raw["plan"]
        if not steps:
            raise PlanError("the plan has no steps")
        if len(steps) > MAX_STEPS:
            raise PlanError(f"the plan has {len(steps):,} steps; {MAX_STEPS:,} is the most")
        self._envelope(raw)
        given = dict(params) if params is not None else {}
        own = raw.get("params")
        merged = {**({str(k): _as_text(v) for k, v in own.items()} if isinstance(own, dict) else {}), **given}
        entries = [self._entry(entry) if isinstance(entry, dict) else None for entry in steps]
        self._ids(steps, entries)
        order = self._order(raw, entries)
        built = [self._step(i, e, order, merged) for i, e in enumerate(entries) if e is not None]
        made = tuple(step for step in built if step is not None)
        self._acyclic()
        if self.faults:
            faults = tuple(dict.fromkeys(self.faults))
            raise PlanError(f"the plan has {len(faults)} fault{'s' if len(faults) > 1 else ''}", faults)
        own_task = raw.get("task")
        return Plan(
            task=task if task is not None else own_task,
            params=merged,
            order=order,
            repaired=repaired or raw.get("repaired") is True,
            plan=made,
        )

    def _envelope(self, raw: Mapping[str, Any]) -> None:
        known = Plan.model_fields
        for name in raw:
            if name not in known and name != MAY:
                self.fault(name, f'unknown field "{name}"{suggestion(name, known)}')
        if raw.get("kind", "plan") not in ("plan", None):
            self.fault("kind", f'expected "plan", found {quoted(raw["kind"])}')
        if raw.get("version", 1) not in (1, None) or raw.get("version") is True:
            self.fault("version", f"expected 1, found {quoted(raw['version'])}; a newer master-agent wrote this plan")
        if not isinstance(raw.get("task"), str | None):
            self.fault("task", f"expected text, found {quoted(raw['task'])}")
        if not isinstance(raw.get("params"), dict | None):
            self.fault("params", f"expected an object of names and values, found {quoted(raw['params'])}")
        if raw.get("order") not in ("sequence", "graph", None):
            self.fault("order", f'expected "sequence" or "graph", found {quoted(raw["order"])}')

    def _entry(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The entry without fields that say nothing: null in place of what the other kind of step has."""
        without = ["with"] if entry.get("agent") else ["prompt"] if entry.get("tool") else []
        if self.lenient:
            without += ["id", "agent", "tool"]
        return {name: value for name, value in entry.items() if name not in without or value not in ("", [], {})}

    def _ids(self, steps: list[Any], entries: list[dict[str, Any] | None]) -> None:
        for i, entry in enumerate(entries):
            if entry is None:
                self.fault(f"plan[{i}]", f"expected an object, found {quoted(steps[i])}")
            elif entry.get("id") is not None:
                self._given_id(i, entry)
        numbers: Counter[str] = Counter()
        for entry in entries:
            if entry is not None and entry.get("id") is None:
                stem = re.sub(r"[^a-z0-9]+", "_", str(entry.get("agent") or entry.get("tool") or "step").lower())
                stem = stem.strip("_")[:50] or "step"
                stem = stem if stem[0].isalpha() else f"step_{stem}"
                numbers[stem] += 1
                while f"{stem}_{numbers[stem]}" in self.ids:
                    numbers[stem] += 1
                entry["id"] = f"{stem}_{numbers[stem]}"
                self.ids[entry["id"]] = -1
        self.ids = {entry["id"]: i for i, entry in enumerate(entries) if entry is not None}
        # "" stands where an id is wrong, so that the steps after it have no fault of their own.
        self.names = ["" if e is None or self.ids[e["id"]] != i else e["id"] for i, e in enumerate(entries)]

    def _given_id(self, i: int, entry: dict[str, Any]) -> None:
        path, given = f"plan[{i}].id", entry["id"]
        name = self._name(given) if isinstance(given, str) else given
        if not isinstance(name, str) or not _ID.fullmatch(name):
            rule = "an id is 1 to 63 small letters, digits and underscores, and starts with a letter"
            better = re.sub(r"[^a-z0-9]+", "_", given.lower()).strip("_") if isinstance(given, str) else ""
            near = f'; "{better}" would do' if _ID.fullmatch(better) else ""
            self.fault(path, f"{quoted(given)} is no id: {rule}{near}")
            # Known by the wrong id all the same: what refers to it has no fault of its own.
            entry["id"] = name if isinstance(name, str) else f"unnamed_{i}"
            self.ids.setdefault(entry["id"], i)
        elif name == "params":
            self.fault(path, '"params" is taken: ${params.…} are the parameters of the task')
        elif name in self.ids:
            self.fault(path, f'"{name}" is the id of plan[{self.ids[name]}] already')
        else:
            entry["id"] = name
            self.ids[name] = i

    def _name(self, given: str) -> str:
        return given.strip().replace("-", "_").lower() if self.lenient else given

    def _order(self, raw: Mapping[str, Any], entries: list[dict[str, Any] | None]) -> Order:
        if raw.get("order") in ("sequence", "graph"):
            order: Order = raw["order"]
            return order
        return "graph" if any(entry is not None and "needs" in entry for entry in entries) else "sequence"

    def _step(self, i: int, entry: dict[str, Any], order: Order, params: Mapping[str, str]) -> Step | None:
        path = f"plan[{i}]"
        before = len(self.faults)
        known = ("id", "agent", "prompt", "tool", "with", "needs")
        for name in entry:
            if name not in known:
                self.fault(f"{path}.{name}", f'unknown field "{name}"{suggestion(name, known)}')
        needs = self.needed[entry["id"]] = self._needs(i, entry, order)
        if not _ID.fullmatch(entry["id"]):  # told already; what else is wrong with the step is told too
            entry["id"] = f"unnamed_{i}"
        agent, tool = entry.get("agent"), entry.get("tool")
        if (agent is None) == (tool is None):
            both = "an agent and a tool" if agent is not None else "neither an agent nor a tool"
            self.fault(path, f"has {both}; a step has one of them")
            return None
        step = self._agent_step(path, entry, params) if agent is not None else self._tool_step(path, entry, params)
        if len(self.faults) > before or step is None:
            return None
        referred = self._referred(step)
        if order == "sequence":
            for name in referred:
                if self.ids[name] >= i:
                    later = "itself" if self.ids[name] == i else f'"{name}", which comes later in the sequence'
                    self.fault(path, f"refers to {later}")
            return step.model_copy(update={"needs": tuple(needs)})
        needs = self.needed[step.id] = list(dict.fromkeys([*needs, *referred]))
        return step.model_copy(update={"needs": tuple(needs)})

    def _agent_step(self, path: str, entry: Mapping[str, Any], params: Mapping[str, str]) -> Step | None:
        before, agent, prompt = len(self.faults), entry["agent"], entry.get("prompt")
        name = agent.strip().lower() if isinstance(agent, str) else None
        if name is None or name not in self.agents:
            self.fault(f"{path}.agent", f"no agent {quoted(agent)}{suggestion(str(agent), self.agents)}")
        if entry.get("with") is not None:
            self.fault(f"{path}.with", "only a step with a tool has arguments; tell an agent in its prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            self.fault(f"{path}.prompt", f"expected what the agent shall do, found {quoted(prompt)}")
        elif self.lenient:
            prompt = str(rename(prompt, self._name))
        if isinstance(prompt, str):
            self._references(f"{path}.prompt", prompt, params)
        if len(self.faults) > before or not isinstance(prompt, str) or name is None:
            return None
        return AgentStep(id=entry["id"], agent=name, prompt=prompt)

    def _tool_step(self, path: str, entry: Mapping[str, Any], params: Mapping[str, str]) -> Step | None:
        before, tool = len(self.faults), entry["tool"]
        if not isinstance(tool, str) or tool not in self.tools:
            self.fault(f"{path}.tool", f"no tool {quoted(tool)}{suggestion(str(tool), self.tools)}")
        if entry.get("prompt") is not None:
            self.fault(f"{path}.prompt", 'a step with a tool has no prompt; its arguments are in "with"')
        arguments = self._arguments(f"{path}.with", entry.get("with"))
        if arguments is None or len(self.faults) > before:
            return None
        signature = self.tools[tool]
        for name in signature.step_parameters:
            value = arguments.get(name)
            if isinstance(value, str) and self.lenient:
                arguments[name] = value = self._name(value)
            if isinstance(value, str) and value not in self.ids and not any(find(value)):
                self.fault(f"{path}.with.{name}", self.no_step(value))
        for name, message in signature.faults(arguments):
            self.fault(f"{path}.with.{name}" if name else f"{path}.with", message)
        for name, given in arguments.items():
            self._references(f"{path}.with.{name}", given, params)
        if len(self.faults) > before:
            return None
        try:
            return ToolStep.model_validate({"id": entry["id"], "tool": tool, "with": arguments})
        except ValidationError:  # the only thing left that can be wrong with JSON
            self.fault(f"{path}.with", "nested too deeply")
            return None

    def _arguments(self, path: str, given: object) -> dict[str, JsonValue] | None:
        if given is None:
            return {}
        if self.lenient and isinstance(given, list):
            pairs = [item for item in given if isinstance(item, dict) and isinstance(item.get("name"), str)]
            if len(pairs) == len(given):
                given = {pair["name"]: pair.get("value") for pair in pairs}
        if not isinstance(given, dict):
            self.fault(path, f"expected an object of arguments, found {quoted(given)}")
            return None
        if self.lenient:
            given = {name: rename(value, self._name) for name, value in given.items()}
        return dict(given)

    def _needs(self, i: int, entry: Mapping[str, Any], order: Order) -> list[str]:
        given, path = entry.get("needs"), f"plan[{i}].needs"
        before = self.names[max(i - 1, 0) : i]
        if given is None:
            return self._counted(before if order == "sequence" else self.names[:i])
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            self.fault(path, f"expected a list of step ids, found {quoted(given)}")
            return []
        names = list(dict.fromkeys(self._name(name) for name in given))
        for name in names:
            if name == entry["id"]:
                self.fault(path, f'"{name}" needs itself')
            elif name not in self.ids:
                self.fault(path, self.no_step(name))
        if order == "sequence" and names != before and "" not in before:
            self.fault(path, 'in a sequence a step needs the one before it; drop "needs", or set "order" to "graph"')
        return self._counted([name for name in names if name in self.ids and name != entry["id"]])

    def _counted(self, needs: list[str]) -> list[str]:
        self.edges += len(needs)
        if self.edges > MAX_NEEDS:
            raise PlanError(
                f"the steps of the plan need each other more than {MAX_NEEDS:,} times",
                hint='A step without "needs" needs everything before it: list what it needs, or [] for nothing.',
            )
        return needs

    def _references(self, path: str, value: JsonValue, params: Mapping[str, str]) -> None:
        for reference in find(value):
            match reference:
                case Malformed(text):
                    self.fault(path, f"{text} is no reference; write ${{step.text}}, or $${{ for a plain ${{")
                case Reference("params", (name, *rest)):
                    if name not in params or rest:
                        self.fault(path, f"{reference}: no parameter {quoted(name)}{suggestion(name, params)}")
                case Reference(source, (part, *rest)):
                    if source not in self.ids:
                        self.fault(path, f"{reference}: {self.no_step(source)}")
                    elif part not in FIELDS:
                        self.fault(path, f'{reference}: a step has text, path and data, no "{part}"')
                    elif (part == "data") != bool(rest):
                        self.fault(path, f"{reference}: write ${{{source}.data.name}}, or text or path alone")

    def _referred(self, step: Step) -> list[str]:
        value: JsonValue = step.prompt if isinstance(step, AgentStep) else step.arguments
        names = [r.source for r in find(value) if isinstance(r, Reference) and r.source != "params"]
        if isinstance(step, ToolStep):
            parameters = self.tools[step.tool].step_parameters
            given = [step.arguments.get(name) for name in parameters]
            names += [name for name in given if isinstance(name, str) and name in self.ids]
        return names

    def _acyclic(self) -> None:
        """A fault for each circle of needs; what shares a step with one that was told is not told again."""
        graph: Mapping[str, Collection[str]] = self.needed
        for _ in range(MOST_CIRCLES):
            try:
                TopologicalSorter(graph).prepare()
            except CycleError as error:
                cycle: list[str] = list(reversed(error.args[1]))
                said = " → ".join(cycle if len(cycle) <= 20 else [*cycle[:10], "…", *cycle[-10:]])
                first = min(self.ids[name] for name in cycle)
                self.fault(f"plan[{first}].needs", f"steps that need each other can never start: {said}")
                told = set(cycle)
                graph = {name: [n for n in needs if n not in told] for name, needs in graph.items() if name not in told}
            else:
                return


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
