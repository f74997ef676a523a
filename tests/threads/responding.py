"""Conversations with a responses server on loopback, for the tests of the responses wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from master_agent.errors import ModelError
from master_agent.threads import AgentSpec, CallOptions, Reply, Thread, ThreadState, ToolOutputs, Turn
from master_agent.threads.responses import Responses
from tests.servers.responses import Answer, ResponsesServer
from tests.threads.chatting import AGENT, HELLO, KEY, MODEL, WHOLE, outputs, said

STORES = pytest.mark.parametrize("store", ["response", "conversation", "none"])


@asynccontextmanager
async def opened(server: ResponsesServer, **settings: Any) -> AsyncIterator[Responses]:
    wire = Responses(KEY, server.base_url, MODEL, **settings)
    try:
        yield wire
    finally:
        await wire.close()


async def talk(thread: Thread, *turns: Turn | None, options: CallOptions = WHOLE) -> list[Reply]:
    """The replies to these turns; None answers the calls of the reply before."""
    replies: list[Reply] = []
    for turn in turns:
        said_next: Turn | ToolOutputs = turn or outputs(replies[-1])
        replies.append((await said(thread, said_next, options))[1])
    return replies


def ask(
    server: ResponsesServer,
    *turns: Turn | None,
    agent: AgentSpec = AGENT,
    options: CallOptions = WHOLE,
    state: ThreadState | None = None,
    **settings: Any,
) -> tuple[list[Reply], ThreadState]:
    """A whole conversation: its replies and its state in the end."""

    async def run() -> tuple[list[Reply], ThreadState]:
        async with opened(server, **settings) as wire:
            thread = await wire.open(agent, state)
            return await talk(thread, *turns, options=options), thread.state

    return asyncio.run(run())


def failure(answer: Answer, options: CallOptions = WHOLE, agent: AgentSpec = AGENT, **settings: Any) -> ModelError:
    """The error that the answer becomes; the thread must be as it was before."""

    async def run(server: ResponsesServer) -> ModelError:
        async with opened(server, **settings) as wire:
            thread = await wire.open(agent)
            with pytest.raises(ModelError) as caught:
                await said(thread, HELLO, options)
            assert thread.state == ThreadState("responses")
            return caught.value

    with ResponsesServer([answer]) as server:
        raised = asyncio.run(run(server))
        assert server.count == 1, "the SDK must not try again by itself"
        return raised


def journaled(state: ThreadState) -> ThreadState:
    """The state as another process reads it."""
    read = json.loads(json.dumps({"wire": state.wire, "ids": dict(state.ids), "items": list(state.items)}))
    return ThreadState(read["wire"], read["ids"], tuple(read["items"]))
