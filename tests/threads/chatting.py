"""Conversations with a server on loopback, for the tests of the wires; what is not said is that of the chat wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import pytest

from master_agent.errors import ModelError
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Output,
    Reply,
    TextPiece,
    Thread,
    ThreadState,
    ToolOutputs,
    ToolSpec,
    Turn,
    UserTurn,
    Wire,
)
from master_agent.threads.chat import Chat
from tests.servers.chat import ChatServer
from tests.servers.loopback import Behaviour

W = TypeVar("W", bound=Wire)
KEY = "test-key-0123456789"
MODEL = "test-model"
AGENT = AgentSpec("writer", "You write.")
TOOL = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
ADDER = replace(AGENT, tools=(TOOL,))
SHAPE = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
SHAPED = replace(AGENT, output=SHAPE)
WHOLE = CallOptions("writer", stream=False, timeout=10)
STREAMED = CallOptions("writer", stream=True, timeout=10)
BOTH = pytest.mark.parametrize("options", [WHOLE, STREAMED], ids=["whole", "streamed"])
HELLO = UserTurn("Hello?")


class Speaks(Protocol):
    """A server that a wire can be pointed at."""

    @property
    def base_url(self) -> str: ...


@asynccontextmanager
async def wire_to(kind: Callable[..., W], server: Speaks, **settings: Any) -> AsyncIterator[W]:
    """A wire of that kind to the server."""
    wire = kind(KEY, server.base_url, MODEL, **settings)
    try:
        yield wire
    finally:
        await wire.close()


opened = partial(wire_to, Chat)


async def said(thread: Thread, turn: Turn, options: CallOptions = WHOLE) -> tuple[list[str], Reply]:
    """The pieces and the Reply, which must come once and last."""
    came = [piece async for piece in thread.send(turn, options)]
    assert isinstance(came[-1], Reply)
    assert all(isinstance(piece, TextPiece) for piece in came[:-1])
    return [piece.text for piece in came[:-1] if isinstance(piece, TextPiece)], came[-1]


async def talk(thread: Thread, *turns: Turn | None, options: CallOptions = WHOLE) -> list[Reply]:
    """The replies to these turns; None answers the calls of the reply before."""
    replies: list[Reply] = []
    for turn in turns:
        replies.append((await said(thread, turn or outputs(replies[-1]), options))[1])
    return replies


def ask(
    server: Speaks,
    *turns: Turn | None,
    kind: Callable[..., Wire] = Chat,
    agent: AgentSpec = AGENT,
    options: CallOptions = WHOLE,
    state: ThreadState | None = None,
    **settings: Any,
) -> tuple[list[Reply], ThreadState]:
    """A whole conversation: its replies and its state in the end."""

    async def run() -> tuple[list[Reply], ThreadState]:
        async with wire_to(kind, server, **settings) as wire:
            thread = await wire.open(agent, state)
            return await talk(thread, *turns, options=options), thread.state

    return asyncio.run(run())


def refusal(
    server: Speaks,
    options: CallOptions = WHOLE,
    agent: AgentSpec = AGENT,
    kind: Callable[..., Wire] = Chat,
    **settings: Any,
) -> ModelError:
    """The error that a first turn ends with; the thread must be as it was before."""

    async def run() -> ModelError:
        async with wire_to(kind, server, **settings) as wire:
            thread = await wire.open(agent)
            with pytest.raises(ModelError) as caught:
                await said(thread, HELLO, options)
            assert thread.state == ThreadState(wire.name)
            return caught.value

    return asyncio.run(run())


def failure(
    behaviour: Behaviour, options: CallOptions = WHOLE, agent: AgentSpec = AGENT, **settings: Any
) -> ModelError:
    """The error that the behaviour of a chat server becomes."""
    with ChatServer([behaviour]) as server:
        raised = refusal(server, options, agent, **settings)
        assert server.count == 1, "the SDK must not try again by itself"
        return raised


def outputs(reply: Reply) -> ToolOutputs:
    return ToolOutputs(tuple(Output(one.id, f"output of {one.id}") for one in reply.calls))
