"""The plan contract: from JSON that a person or a model wrote to a checked Plan, or to every fault at once."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from master_agent.errors import PlanError
from master_agent.references import FIELDS, Malformed, Reference, find, rename

MAX_STEPS = 10_000
MAX_BYTES = 10 * 1024 * 1024
STEP_ID = r"^[a-z][a-z0-9_]{0,62}$"

StepId = Annotated[str, Field(pattern=STEP_ID)]
Order = Literal["sequence", "graph"]


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


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
        return ", ".join(f"{name}={_quoted(value)}" for name, value in self.arguments.items())


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

    def to_json(self) -> str:
        """The plan as it is printed and saved: two spaces, a newline at the end."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


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
    return _Checker(agents, tools, lenient).plan(raw, task, params, repaired)


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the given one, where one is near."""
    found = difflib.get_close_matches(given.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(given: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the known names, or nothing."""
    names = sorted(known)
    near = nearest(given, names)
    if near:
        return f'; did you mean "{near}"?'
    return f" (there are: {', '.join(names[:20])})" if names else ""


@dataclass
class _Checker:
    agents: Collection[str]
    tools: Mapping[str, ToolSignature]
    lenient: bool
    faults: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def fault(self, path: str, message: str) -> None:
        self.faults.append(f"{path}: {message}")

    def plan(self, raw: object, task: str | None, params: Mapping[str, str] | None, repaired: bool) -> Plan:
        if not isinstance(raw, dict) or not isinstance(raw.get("plan"), list):
            raise PlanError(
                f'no plan: expected an object with a list "plan", found {_kind(raw)}',
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
        entries = [dict(entry) if isinstance(entry, dict) else None for entry in steps]
        self._ids(steps, entries)
        order = self._order(raw, entries)
        built = [self._step(i, e, order, merged) for i, e in enumerate(entries) if e is not None]
        made = tuple(step for step in built if step is not None)
        if not self.faults:
            self._acyclic(made)
        if self.faults:
            count = len(self.faults)
            raise PlanError(f"the plan has {count} fault{'s' if count > 1 else ''}", tuple(self.faults))
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
            if name not in known:
                self.fault(name, f'unknown field "{name}"{suggestion(name, known)}')
        if raw.get("kind", "plan") not in ("plan", None):
            self.fault("kind", f'expected "plan", found {_quoted(raw["kind"])}')
        if raw.get("version", 1) not in (1, None) or raw.get("version") is True:
            self.fault("version", f"expected 1, found {_quoted(raw['version'])}; a newer master-agent wrote this plan")
        if not isinstance(raw.get("task"), str | None):
            self.fault("task", f"expected text, found {_quoted(raw['task'])}")
        if not isinstance(raw.get("params"), dict | None):
            self.fault("params", f"expected an object of names and values, found {_quoted(raw['params'])}")
        if raw.get("order") not in ("sequence", "graph", None):
            self.fault("order", f'expected "sequence" or "graph", found {_quoted(raw["order"])}')

    def _ids(self, steps: list[Any], entries: list[dict[str, Any] | None]) -> None:
        for i, entry in enumerate(entries):
            if entry is None:
                self.fault(f"plan[{i}]", f"expected an object, found {_quoted(steps[i])}")
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
        self.names = list(self.ids)

    def _given_id(self, i: int, entry: dict[str, Any]) -> None:
        path, given = f"plan[{i}].id", entry["id"]
        name = self._name(given) if isinstance(given, str) else given
        if not isinstance(name, str) or not re.match(STEP_ID, name):
            rule = "an id is 1 to 63 small letters, digits and underscores, and starts with a letter"
            better = re.sub(r"[^a-z0-9]+", "_", given.lower()).strip("_") if isinstance(given, str) else ""
            near = f'; "{better}" would do' if re.match(STEP_ID, better) else ""
            self.fault(path, f"{_quoted(given)} is no id: {rule}{near}")
            entry["id"] = f"unnamed_{i}"
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
        agent, tool = entry.get("agent"), entry.get("tool")
        if (agent is None) == (tool is None):
            both = "an agent and a tool" if agent is not None else "neither an agent nor a tool"
            self.fault(path, f"has {both}; a step has one of them")
            return None
        needs = self._needs(i, entry, order)
        step = self._agent_step(path, entry, params) if agent is not None else self._tool_step(path, entry, params)
        if len(self.faults) > before or step is None:
            return None
        referred = self._referred(step)
        if order == "sequence":
            for name in referred:
                if self.ids[name] >= i:
                    self.fault(path, f'refers to "{name}", which comes later in the sequence')
            return step.model_copy(update={"needs": tuple(needs)})
        return step.model_copy(update={"needs": tuple(dict.fromkeys([*needs, *referred]))})

    def _agent_step(self, path: str, entry: Mapping[str, Any], params: Mapping[str, str]) -> Step | None:
        before, agent, prompt = len(self.faults), entry["agent"], entry.get("prompt")
        name = agent.strip().lower() if isinstance(agent, str) else None
        if name is None or name not in self.agents:
            self.fault(f"{path}.agent", f"no agent {_quoted(agent)}{suggestion(str(agent), self.agents)}")
        if entry.get("with") is not None:
            self.fault(f"{path}.with", "only a step with a tool has arguments; tell an agent in its prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            self.fault(f"{path}.prompt", f"expected what the agent shall do, found {_quoted(prompt)}")
        elif self.lenient:
            prompt = rename(prompt, self._name)
        if isinstance(prompt, str):
            self._references(f"{path}.prompt", prompt, params)
        if len(self.faults) > before or not isinstance(prompt, str) or name is None:
            return None
        return AgentStep(id=entry["id"], agent=name, prompt=prompt)

    def _tool_step(self, path: str, entry: Mapping[str, Any], params: Mapping[str, str]) -> Step | None:
        before, tool = len(self.faults), entry["tool"]
        if not isinstance(tool, str) or tool not in self.tools:
            self.fault(f"{path}.tool", f"no tool {_quoted(tool)}{suggestion(str(tool), self.tools)}")
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
                self.fault(f"{path}.with.{name}", f"no step {_quoted(value)}{suggestion(value, self.ids)}")
        for name, message in signature.faults(arguments):
            self.fault(f"{path}.with.{name}" if name else f"{path}.with", message)
        self._references(f"{path}.with", arguments, params)
        return ToolStep(id=entry["id"], tool=tool, arguments=arguments) if len(self.faults) == before else None

    def _arguments(self, path: str, given: object) -> dict[str, JsonValue] | None:
        if given is None:
            return {}
        if self.lenient and isinstance(given, list):
            pairs = [item for item in given if isinstance(item, dict) and isinstance(item.get("name"), str)]
            if len(pairs) == len(given):
                given = {pair["name"]: pair.get("value") for pair in pairs}
        if not isinstance(given, dict):
            self.fault(path, f"expected an object of arguments, found {_quoted(given)}")
            return None
        if self.lenient:
            given = {n: rename(v, self._name) if isinstance(v, str) else v for n, v in given.items()}
        return dict(given)

    def _needs(self, i: int, entry: Mapping[str, Any], order: Order) -> list[str]:
        given, path = entry.get("needs"), f"plan[{i}].needs"
        before = self.names[max(i - 1, 0) : i]
        if given is None:
            return before if order == "sequence" else self.names[:i]
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            self.fault(path, f"expected a list of step ids, found {_quoted(given)}")
            return []
        names = list(dict.fromkeys(self._name(name) for name in given))
        for name in names:
            if name == entry["id"]:
                self.fault(path, f'"{name}" needs itself')
            elif name not in self.ids:
                self.fault(path, f"no step {_quoted(name)}{suggestion(name, self.ids)}")
        if order == "sequence" and names != before:
            self.fault(path, 'in a sequence a step needs the one before it; drop "needs", or set "order" to "graph"')
        return [name for name in names if name in self.ids]

    def _references(self, path: str, value: JsonValue, params: Mapping[str, str]) -> None:
        for reference in find(value):
            match reference:
                case Malformed(text):
                    self.fault(path, f"{text} is no reference; write ${{step.text}}, or $${{ for a plain ${{")
                case Reference("params", (name, *rest)):
                    if name not in params or rest:
                        self.fault(path, f"{reference}: no parameter {_quoted(name)}{suggestion(name, params)}")
                case Reference(source, (part, *rest)):
                    if source not in self.ids:
                        self.fault(path, f"{reference}: no step {_quoted(source)}{suggestion(source, self.ids)}")
                    elif part not in FIELDS:
                        self.fault(path, f'{reference}: a step has text, path and data, no "{part}"')
                    elif (part == "data") != bool(rest):
                        self.fault(path, f"{reference}: write ${{{source}.data.name}}, or text or path alone")

    def _referred(self, step: Step) -> list[str]:
        value: JsonValue = step.prompt if isinstance(step, AgentStep) else step.arguments
        names = [r.source for r in find(value) if isinstance(r, Reference) and r.source != "params"]
        if isinstance(step, ToolStep):
            parameters = self.tools[step.tool].step_parameters
            names += [str(step.arguments[name]) for name in parameters if step.arguments.get(name) in self.ids]
        return names

    def _acyclic(self, steps: tuple[Step, ...]) -> None:
        try:
            TopologicalSorter({step.id: step.needs for step in steps}).prepare()
        except CycleError as error:
            cycle = " → ".join(reversed(error.args[1]))
            self.fault("plan", f"steps that need each other can never start: {cycle}")


def _in_order_of_needs(steps: tuple[Step, ...]) -> Iterable[Step]:
    by_id = {step.id: step for step in steps}
    for step_id in TopologicalSorter({step.id: step.needs for step in steps}).static_order():
        yield by_id[step_id]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _quoted(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _kind(raw: object) -> str:
    match raw:
        case dict():
            return f"an object with {', '.join(map(_quoted, list(raw)[:8])) or 'nothing in it'}"
        case list():
            return "a list"
    return _quoted(raw)
