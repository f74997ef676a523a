"""Conversations with an assistants server on loopback, for the tests of the assistants wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from master_agent.errors import ModelError
from master_agent.threads import AgentSpec, CallOptions, Reply, ThreadState, Turn
from master_agent.threads.assistants import Assistants
from tests.servers.assistants import AssistantsServer
from tests.threads.chatting import AGENT, HELLO, KEY, MODEL, WHOLE, said

__all__ = ["Waits", "asked", "failed", "opened"]


class Waits:
    """A `sleep` that takes no time and remembers what was asked of it, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(server: AssistantsServer, **settings: Any) -> AsyncIterator[Assistants]:
    wire = Assistants(KEY, server.base_url, MODEL, **settings)
    try:
        yield wire
    finally:
        await wire.close()


def asked(
    server: AssistantsServer,
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


def failed(
    server: AssistantsServer, options: CallOptions = WHOLE, agent: AgentSpec = AGENT, **settings: Any
) -> ModelError:
    """The error that a first turn ends with; no run may be left, and the thread must be as it was before."""

    async def run() -> ModelError:
        async with opened(server, **settings) as wire:
            thread = await wire.open(agent)
            with pytest.raises(ModelError) as caught:
                await said(thread, HELLO, options)
            assert thread.state == ThreadState("assistants")
            assert server.running == []
            return caught.value

    return asyncio.run(run())
