"""Conversations with a chat server on loopback, for the tests of the chat wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

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
)
from master_agent.threads.chat import Chat
from tests.servers.chat import ChatServer
from tests.servers.loopback import Behaviour

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


@asynccontextmanager
async def opened(server: ChatServer, **settings: Any) -> AsyncIterator[Chat]:
    wire = Chat(KEY, server.base_url, MODEL, **settings)
    try:
        yield wire
    finally:
        await wire.close()


async def said(thread: Thread, turn: Turn, options: CallOptions = WHOLE) -> tuple[list[str], Reply]:
    """The pieces and the Reply, which must come once and last."""
    came = [piece async for piece in thread.send(turn, options)]
    assert isinstance(came[-1], Reply)
    assert all(isinstance(piece, TextPiece) for piece in came[:-1])
    return [piece.text for piece in came[:-1] if isinstance(piece, TextPiece)], came[-1]


def ask(
    server: ChatServer,
    *turns: Turn,
    agent: AgentSpec = AGENT,
    options: CallOptions = WHOLE,
    state: ThreadState | None = None,
    **settings: Any,
) -> tuple[list[Reply], ThreadState]:
    """A whole conversation: its replies and its state in the end."""

    async def run() -> tuple[list[Reply], ThreadState]:
        async with opened(server, **settings) as wire:
            thread = await wire.open(agent, state)
            return [(await said(thread, turn, options))[1] for turn in turns], thread.state

    return asyncio.run(run())


def failure(
    behaviour: Behaviour, options: CallOptions = WHOLE, agent: AgentSpec = AGENT, **settings: Any
) -> ModelError:
    """The error that the behaviour becomes; the thread must be as it was before."""

    async def run(server: ChatServer) -> ModelError:
        async with opened(server, **settings) as wire:
            thread = await wire.open(agent)
            with pytest.raises(ModelError) as caught:
                await said(thread, HELLO, options)
            assert thread.state.items == ()
            return caught.value

    with ChatServer([behaviour]) as server:
        raised = asyncio.run(run(server))
        assert server.count == 1, "the SDK must not try again by itself"
        return raised


def outputs(reply: Reply) -> ToolOutputs:
    return ToolOutputs(tuple(Output(one.id, f"output of {one.id}") for one in reply.calls))
