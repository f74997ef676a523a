"""From a task in words to a checked Plan: one agent without tools is asked, and shown its faults."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from master_agent.catalogue import Agent
from master_agent.context import Boundaries
from master_agent.errors import PlanError, PlanningError
from master_agent.plan import Plan, check
from master_agent.prompts import Prompts
from master_agent.threads import AgentSpec, Call, CallOptions, CallRequest, Reply, UserTurn, Wire
from master_agent.tools import Tool

MOST_FILES = 200


@dataclass(frozen=True)
class FoundPlan:
    """JSON that was found in an answer; `repaired` when its syntax had to be mended."""

    raw: object
    repaired: bool = False


@dataclass(frozen=True)
class Planner:
    """Turns a task into a plan. It has no tools, so planning changes nothing."""

    wire: Wire
    call: Call
    prompts: Prompts
    agents: Mapping[str, Agent]
    tools: Mapping[str, Tool]
    boundaries: Boundaries
    options: CallOptions
    model: str | None = None
    repairs: int = 1

    async def make(self, task: str, params: Mapping[str, str], files: Iterable[tuple[str, int]] = ()) -> Plan:
        """The plan for a task; `files` are the names and sizes in bytes of what is in the workspace.

        PlanningError when the model gives no plan that can be run; ModelError when it gives no answer.
        """
        prompt = self._prompt(task, params, files)
        spec = AgentSpec("planner", prompt.instructions, self.model, output=plan_schema(self.agents, self.tools))
        thread = await self.wire.open(spec)
        turn = UserTurn(prompt.message)
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

    def _prompt(self, task: str, params: Mapping[str, str], files: Iterable[tuple[str, int]]) -> Any:
        given = json.dumps(dict(params), ensure_ascii=False, indent=2) if params else ""
        there = "\n".join(f"{name} ({size} bytes)" for name, size in list(files)[:MOST_FILES])
        wrap = self.boundaries.wrap
        return self.prompts.fill(
            "plan",
            agents="\n".join(_agent_lines(agent) for agent in self.agents.values()),
            tools="\n".join(_tool_lines(tool) for tool in self.tools.values()) or "(none)",
            mark=self.boundaries.mark,
            task=task,
            params=f"\nParameters of the task:\n{wrap(given, kind='params')}\n" if given else "",
            files=f"\nFiles in the workspace:\n{wrap(there, kind='files')}\n" if there else "",
        )


def find_plan(reply: Reply) -> FoundPlan:
    """The plan in an answer, whatever surrounds it or is wrong with its syntax; PlanError when there is none.

    An answer that was cut off is a fault, never repaired: half a prompt would parse.
    """
    cut = PlanError("the answer was cut off before its end; write a shorter plan")
    if reply.status == "incomplete":
        raise cut
    if reply.status == "failed":
        raise PlanError(f"there is no plan in the answer: {reply.reason or 'the model refused'}")
    text = reply.text.strip()
    for candidate in (text, *_fenced(text)):
        try:
            return _as_plan(json.loads(candidate))
        except (json.JSONDecodeError, PlanError):
            continue
    embedded = _embedded(text)
    if embedded is not None:
        return embedded
    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    if start < 0:
        raise PlanError("there is no JSON object in the answer")
    end = _balanced_end(text, start)
    if end is None:
        raise cut
    import json_repair

    return replace(_as_plan(json_repair.loads(text[start:end])), repaired=True)


def _as_plan(value: object) -> FoundPlan:
    match value:
        case {"plan": list()}:
            return FoundPlan(value)
        case [dict(), *_]:
            return FoundPlan({"plan": value}, repaired=True)
    raise PlanError('the answer is JSON, but no object with a list "plan"')


def _fenced(text: str) -> list[str]:
    return re.findall(r"```[a-zA-Z]*[ \t]*\n(.*?)\n[ \t]*```", text, re.DOTALL)


def _embedded(text: str) -> FoundPlan | None:
    """A whole JSON object with a plan somewhere in other words."""
    decoder = json.JSONDecoder()
    for opening in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, opening.start())
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and isinstance(value.get("plan"), list):
            return FoundPlan(value)
    return None


def _balanced_end(text: str, start: int) -> int | None:
    """Where the brackets opened at `start` are all closed again; None when the text ends before."""
    depth, inside, i = 0, False, start
    while i < len(text):
        char = text[i]
        if inside:
            if char == "\\":
                i += 1
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth <= 0:
                return i + 1
        i += 1
    return None


def plan_schema(agents: Iterable[str], tools: Iterable[str]) -> dict[str, Any]:
    """The strict wire form of a plan: every field required, no defaults, no free maps."""
    text = {"type": "string"}
    value = {"anyOf": [text, {"type": "number"}, {"type": "boolean"}]}
    step = {
        "id": text,
        "agent": {"type": ["string", "null"], "enum": [*agents, None]},
        "prompt": {"type": ["string", "null"]},
        "tool": {"type": ["string", "null"], "enum": [*tools, None]},
        "with": {"type": "array", "items": _object({"name": text, "value": value})},
        "needs": {"type": "array", "items": text},
    }
    return _object({"plan": {"type": "array", "items": _object(step)}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _agent_lines(agent: Agent) -> str:
    return f"- `{agent.name}`: {agent.description}" + (f" Use it when: {agent.when}" if agent.when else "")


def _tool_lines(tool: Tool) -> str:
    properties, required = tool.parameters["properties"], tool.parameters.get("required", [])
    arguments = ", ".join(
        f"{name}: {_type(shape)}{'' if name in required else ' (may be left out)'}"
        for name, shape in properties.items()
    )
    return f"- `{tool.name}`({arguments}): {' '.join(tool.description.split())}"


def _type(shape: Mapping[str, Any]) -> str:
    if shape.get("format") == "step-id":
        return "id of an earlier step"
    if "enum" in shape:
        return " | ".join(json.dumps(value) for value in shape["enum"])
    if "anyOf" in shape:
        return " | ".join(_type(option) for option in shape["anyOf"] if option.get("type") != "null")
    return str(shape.get("type", "any"))
