"""A wire around a wire, for models that call tools in their text: they are told of them in words, and understood.

Whether a call counts that stands in a text is said by the agent's file, or else by what is known of the server. A
thread's state is that of the wire within, so that a conversation can be gone on with by either.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from master_agent.context import Boundaries
from master_agent.prompts import Prompts
from master_agent.quick import beside_waiting
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    ModelToolCall,
    OwnThread,
    Reply,
    TextPiece,
    ThreadState,
    ToolCalls,
    ToolOutputs,
    ToolSpec,
    Turn,
    UserTurn,
)
from master_agent.threads._fitting import LeftOut

if TYPE_CHECKING:
    from master_agent.threads._heard import Heard
    from master_agent.threads._showing import Shown

_READING = "master_agent.threads._showing"
_SAID = "said"
"""How the ids of calls begin that stood in a text: said_PLACE_NUMBER."""


class OwnWire(Protocol):
    """A wire whose conversations are kept on this side."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    left_out: LeftOut | None
    """What a model is told of answers that were left out of a conversation which grew too long."""

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> OwnThread: ...

    async def models(self) -> list[str]: ...

    def keep_threads(self) -> None: ...

    async def close(self) -> None: ...


class Spoken:
    """The wire `inner`, with tools in words where they are wanted so; otherwise it is as it was."""

    def __init__(self, inner: OwnWire, prompts: Prompts, boundaries: Boundaries) -> None:
        self.inner = inner
        self._prompts, self._boundaries = prompts, boundaries
        inner.left_out = lambda count: prompts.fill("left_out", count=str(count)).message

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> "SpokenThread":
        thread = await self.inner.open(agent, state)
        return SpokenThread(self, agent, thread)

    async def models(self) -> list[str]:
        return await self.inner.models()

    def keep_threads(self) -> None:
        self.inner.keep_threads()

    async def close(self) -> None:
        await self.inner.close()

    def told(self, agent: AgentSpec) -> AgentSpec:
        """The agent as a model is told of it that knows of no tools: they stand in its instructions.

        A schema would keep it from calling any, so it is left to whoever reads the answer.
        """
        if not agent.tools:
            return agent
        listed = "\n".join(map(_line, agent.tools))
        prompt = self._prompts.fill(
            "tools", instructions=agent.instructions, tools=listed, mark=self._boundaries.mark
        ).message
        return replace(agent, instructions=prompt, tools=(), output=None)

    def outputs(self, outputs: ToolOutputs) -> UserTurn:
        """The outputs of a round, in the order of its calls, as a turn in words."""
        told = "\n".join(output.text for output in outputs.outputs)
        pictures = tuple(picture for output in outputs.outputs for picture in output.pictures)
        return UserTurn(self._prompts.fill("outputs", outputs=told).message, pictures)


class SpokenThread:
    """A conversation in which calls may stand in the text."""

    def __init__(self, wire: Spoken, agent: AgentSpec, thread: OwnThread) -> None:
        self.agent = agent
        self._wire = wire
        self._thread = thread
        self._opened: ToolCalls = "native"

    @property
    def state(self) -> ThreadState:
        return self._thread.state

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One request; what is streamed holds no part of a call."""
        mode = self.agent.tool_calls or self._thread.capabilities.tool_calls
        await self._reopen(mode)
        beside_waiting(_READING)  # what reads an answer takes longer to make than all else before a request
        shown: Shown | None = None
        async with aclosing(self._thread.send(self._in_words(turn), options)) as parts:
            async for part in parts:
                if mode == "native":
                    yield part
                    continue
                shown = shown or _shown(self.agent)
                if isinstance(part, TextPiece):
                    if piece := shown.add(part.text):
                        yield TextPiece(piece)
                else:
                    reply = self._understood(part, eager=mode == "text" and isinstance(turn, UserTurn))
                    if options.stream and (rest := shown.rest(reply.text)):
                        yield TextPiece(rest)
                    yield reply

    async def cancel(self) -> None:
        await self._thread.cancel()

    async def _reopen(self, mode: ToolCalls) -> None:
        """Tells the model of its tools in words, or as the server has it; a server may have shown that it cannot."""
        if (mode == "text") != (self._opened == "text"):
            agent = self._wire.told(self.agent) if mode == "text" else self.agent
            self._thread = await self._wire.inner.open(agent, self._thread.state)
        self._opened = mode

    def _in_words(self, turn: Turn) -> Turn:
        """The turn; outputs of calls that stood in a text come back as text."""
        if isinstance(turn, ToolOutputs) and all(one.call_id.startswith(f"{_SAID}_") for one in turn.outputs):
            return self._wire.outputs(turn)
        return turn

    def _understood(self, reply: Reply, *, eager: bool) -> Reply:
        """The reply with the calls of its text; the thread remembers it without what followed them."""
        if reply.status != "completed":
            return reply
        from master_agent.threads._heard import hear

        heard = hear(reply.text, self.agent.tools, eager=eager)
        if heard.kept != reply.text:
            self._thread.amend(heard.kept)
        if heard.calls:
            return replace(reply, status="requires_action", text=heard.text, calls=self._calls(heard))
        if heard.fault:
            return replace(reply, status="requires_action", text=heard.text, reason=heard.fault)
        return replace(reply, text=heard.text)

    def _calls(self, heard: "Heard") -> tuple[ModelToolCall, ...]:
        place = len(self._thread.state.items)
        return tuple(
            ModelToolCall(f"{_SAID}_{place}_{number}", call.name, call.arguments)
            for number, call in enumerate(heard.calls, 1)
        )


def _shown(agent: AgentSpec) -> "Shown":
    from master_agent.threads._showing import Shown

    return Shown(tool.name for tool in agent.tools)


def _line(tool: ToolSpec) -> str:
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps(described, ensure_ascii=False)
