"""From a task in words to a checked Plan: one agent without tools is asked, and shown its faults."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from master_agent.answers import find_plan
from master_agent.attachments import Attachment
from master_agent.catalogue import Agent
from master_agent.checker import check
from master_agent.context import Boundaries, tell_files
from master_agent.errors import PlanError, PlanningError
from master_agent.plan import STEP_ID, Plan
from master_agent.prompts import Prompts
from master_agent.remember import Memory
from master_agent.threads import AgentSpec, Call, CallOptions, CallRequest, Thread, UserTurn, Wire
from master_agent.tools import Tool

MOST_FILES = 200
SHORT = 8_192  # tokens: a model that reads no more at once is told in short
MOST_FILES_SHORT = 20


@dataclass(frozen=True)
class Planner:
    """Turns a task into a plan. It has no tools, so planning changes nothing.

    `before` tells of the run that the task goes on from, if there is one.
    """

    wire: Wire
    call: Call
    prompts: Prompts
    agents: Mapping[str, Agent]
    tools: Mapping[str, Tool]
    boundaries: Boundaries
    options: CallOptions
    model: str | None = None
    repairs: int = 1
    given: tuple[Attachment, ...] = ()
    memory: Memory = field(default_factory=lambda: Memory({}, ""))
    before: str = ""

    async def make(self, task: str, params: Mapping[str, str], files: Iterable[tuple[str, int]] = ()) -> Plan:
        """The plan for a task; `files` are the names and sizes in bytes of what is in the workspace.

        PlanningError when the model gives no plan that can be run; ModelError when it gives no answer.
        """
        prompt = self._prompt(task, params, files)
        spec = AgentSpec("planner", prompt.instructions, self.model, output=self._schema())
        thread = await self.wire.open(spec, self.memory.thread(None))
        turn = UserTurn(prompt.message, tuple(file for file in self.given if file.is_picture))
        try:
            return await self._ask(thread, turn, task, params)
        except BaseException:  # a cancellation too: nothing is left running at the server
            await thread.cancel()
            raise

    async def _ask(self, thread: Thread, turn: UserTurn, task: str, params: Mapping[str, str]) -> Plan:
        for asked in range(self.repairs + 1):
            reply = await self.call(CallRequest(thread, turn, replace(self.options, turn=asked + 1)))
            try:
                found = find_plan(reply)
                return check(
                    found.raw,
                    self.agents,
                    self.tools,
                    lenient=True,
                    task=task,
                    params=params,
                    repaired=found.repaired or asked > 0,
                )
            except PlanError as error:
                fault = error
            turn = UserTurn(self.prompts.fill("repair", faults=fault.message).message)
        times = "once" if self.repairs == 0 else f"{self.repairs + 1} times"
        raise PlanningError(
            f"the model was asked {times} and gave no plan that can be run: {fault.message}",
            hint="Say the task in other words, try another --planner-model, or allow more --plan-repairs.",
        )

    @property
    def _short(self) -> bool:
        """Whether the model reads little at once; one of which that is not known is told all."""
        context = self.wire.capabilities.context
        return context is not None and context <= SHORT

    @property
    def _offered(self) -> Mapping[str, Tool]:
        """The tools that it may plan with; in short without those that run code, which agents have all the same."""
        return {name: t for name, t in self.tools.items() if not (self._short and "execute" in t.effects)}

    def _schema(self) -> dict[str, Any]:
        if self._short:
            return short_plan_schema(self.agents, self._offered, exact=self.wire.capabilities.grammar)
        return (exact_plan_schema if self.wire.capabilities.grammar else plan_schema)(self.agents, self.tools)

    def _prompt(self, task: str, params: Mapping[str, str], files: Iterable[tuple[str, int]]) -> Any:
        given = json.dumps(dict(params), ensure_ascii=False, indent=2) if params else ""
        listed = [f"{name} ({size} bytes)" for name, size in files]
        most = MOST_FILES_SHORT if self._short else MOST_FILES
        more = [f"({len(listed) - most} more files)"] if len(listed) > most else []
        there = "\n".join([*listed[:most], *more])
        wrap = self.boundaries.wrap
        shown = tell_files(self.given, self.boundaries)
        return self.prompts.fill(
            "plan_short" if self._short else "plan",
            agents="\n".join(_agent_lines(agent, short=self._short) for agent in self.agents.values()),
            tools="\n".join(map(_tool_in_short if self._short else _tool_lines, self._offered.values())) or "(none)",
            mark=self.boundaries.mark,
            task=task,
            params=f"\nParameters of the task:\n{wrap(given, kind='params')}\n" if given else "",
            files=f"\nFiles in the workspace:\n{wrap(there, kind='files')}\n" if there else "",
            given=f"\nGiven with the task, and to every agent too:\n{shown}\n" if shown else "",
            before=self._before(),
        )

    def _before(self) -> str:
        """What is told of the run that this one goes on from."""
        if not self.before:
            return ""
        told = self.boundaries.wrap(f"\n{self.before}\n", kind="earlier run")
        return f"\n{self.prompts.fill('continue', before=told).message}\n"


def plan_schema(agents: Iterable[str], tools: Iterable[str]) -> dict[str, Any]:
    """The strict wire form of a plan: every field required, no defaults, no free maps."""
    text = {"type": "string"}
    value = {"anyOf": [text, {"type": "number"}, {"type": "boolean"}, {"type": "array", "items": text}]}
    step = {
        "id": text,
        "agent": {"type": ["string", "null"], "enum": [*agents, None]},
        "prompt": {"type": ["string", "null"]},
        "tool": {"type": ["string", "null"], "enum": [*tools, None]},
        "with": {"type": "array", "items": _object({"name": text, "value": value})},
        "needs": {"type": "array", "items": text},
    }
    return _object({"plan": {"type": "array", "items": _object(step)}})


def exact_plan_schema(agents: Collection[str], tools: Collection[str]) -> dict[str, Any]:
    """The same form with all that a grammar can hold a model to: a step is of one of two kinds, an id looks like one.

    Servers without a grammar of their own refuse some of it.
    """
    schema = plan_schema(agents, tools)
    steps = schema["properties"]["plan"]
    properties = {**steps["items"]["properties"], "id": {"type": "string", "pattern": STEP_ID}}
    text, nothing = {"type": "string", "minLength": 1}, {"type": "null"}
    none = {**properties["with"], "maxItems": 0}
    of_agent = {"agent": {"type": "string", "enum": [*agents]}, "prompt": text, "tool": nothing, "with": none}
    of_tool = {"agent": nothing, "prompt": nothing, "tool": {"type": "string", "enum": [*tools]}}
    steps["minItems"] = 1
    kinds = [kind for kind, there in ((of_agent, agents), (of_tool, tools)) if there]
    steps["items"] = {"anyOf": [_object({**properties, **kind}) for kind in kinds]}
    return schema


def short_plan_schema(agents: Collection[str], tools: Mapping[str, Tool], *, exact: bool) -> dict[str, Any]:
    """The form for a model that reads little: a step has only what its kind has, a tool's arguments are its own.

    `exact`: the engine's grammar holds the model to an id that is one, and to words where words must be.
    """
    text = {"type": "string", "minLength": 1} if exact else {"type": "string"}
    id_ = {"type": "string", "pattern": STEP_ID} if exact else text
    needs = {"type": "array", "items": text}
    kinds = [_object({"id": id_, "agent": {"type": "string", "enum": [*agents]}, "prompt": text, "needs": needs})]
    for tool in tools.values():
        named = {"id": id_, "tool": {"type": "string", "enum": [tool.name]}}
        kinds.append(_object({**named, "with": _arguments(tool), "needs": needs}))
    steps = {"type": "array", "items": {"anyOf": kinds if agents else kinds[1:]}}
    return _object({"plan": {**steps, "minItems": 1} if exact else steps})


def _arguments(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, as far as its types and choices go."""

    def plain(shape: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: shape[name] for name in ("type", "enum") if name in shape}
        if "anyOf" in shape:
            kept["anyOf"] = [plain(one) for one in shape["anyOf"] if one.get("type") != "null"]
        if "items" in shape:
            kept["items"] = plain(shape["items"])
        return kept

    properties = {name: plain(shape) for name, shape in tool.parameters["properties"].items()}
    return {**_object(properties), "required": list(tool.parameters.get("required", []))}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _agent_lines(agent: Agent, *, short: bool) -> str:
    said = f"{agent.description} Use it when: {agent.when}" if agent.when and not short else agent.description
    tools = f" It has the tools {', '.join(agent.tools)}." if agent.tools and not short else ""
    return f"- `{agent.name}`: {' '.join(said.split())}{tools}"


def _tool_lines(tool: Tool) -> str:
    properties, required = tool.parameters["properties"], tool.parameters.get("required", [])
    arguments = ", ".join(
        f"{name}: {_type(shape)}{'' if name in required else ' (may be left out)'}"
        for name, shape in properties.items()
    )
    return f"- `{tool.name}`({arguments}): {' '.join(tool.description.split())}"


def _tool_in_short(tool: Tool) -> str:
    required = tool.parameters.get("required", [])
    arguments = ", ".join(f"{name}{'' if name in required else '?'}" for name in tool.parameters["properties"])
    return f"- `{tool.name}`({arguments}): {' '.join(tool.description.split()).split('. ')[0].rstrip('.')}."


def _type(shape: Mapping[str, Any]) -> str:
    if shape.get("format") == "step-id":
        return "id of an earlier step"
    if "enum" in shape:
        return " | ".join(json.dumps(value) for value in shape["enum"])
    if "anyOf" in shape:
        return " | ".join(_type(option) for option in shape["anyOf"] if option.get("type") != "null")
    return str(shape.get("type", "any"))
