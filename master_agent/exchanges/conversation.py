"""From a request to a model and its reply to what a cassette keeps of them, in the form of a script."""

from collections.abc import Callable
from typing import Any

from master_agent.cassette import Data
from master_agent.threads import AgentSpec, CallOptions, Reply, Turn, UserTurn


def who_asks(options: CallOptions) -> Data:
    """By what a line is found."""
    return {
        "port": "thread",
        "agent": options.agent,
        "step": options.step,
        "turn": options.turn,
        "attempt": options.attempt,
    }


def what_is_told(agent: AgentSpec, turn: Turn, model: str | None) -> Data:
    """What a model is told, without what is another in every run; tool calls are known by their order."""
    said = turn.to_data()
    if not isinstance(turn, UserTurn):
        outputs = (output.to_data() for output in turn.outputs)
        said["outputs"] = [{name: part for name, part in output.items() if name != "call_id"} for output in outputs]
    told: dict[str, Any] = {
        "agent": agent.name,
        "model": agent.model or model,
        "instructions": agent.instructions,
        "temperature": agent.temperature,
        "max_output_tokens": agent.max_output_tokens,
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
            for tool in agent.tools
        ],
        "hosted": list(agent.hosted),
        "tool_calls": agent.tool_calls,
        "output": None if agent.output is None else dict(agent.output),
        "turn": said,
    }
    return {name: value for name, value in told.items() if value not in (None, [])}


def what_is_said(reply: Reply, coded: Callable[[bytes], str]) -> Data:
    """A reply as a script has it; what is empty is left out."""
    priced = {"cost_usd", "cost_complete"}  # by this side, not by the server
    usage = None if reply.usage is None else reply.usage.model_dump(exclude_none=True, exclude=priced)
    kept: dict[str, Any] = {
        "text": reply.text,
        "calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in reply.calls],
        "status": reply.status,
        "reason": reply.reason,
        "usage": usage,
        "files": [
            {"name": file.name, "media_type": file.media_type, "content": coded(file.content)} for file in reply.files
        ],
        "lost": list(reply.lost),
        "sources": [source.to_data() for source in reply.sources],
    }
    return {name: value for name, value in kept.items() if value not in (None, [], "")}
