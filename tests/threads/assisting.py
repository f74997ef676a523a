"""Conversations with an assistants server on loopback, for the tests of the assistants wire."""

import asyncio
from functools import partial
from typing import Any

from master_agent.errors import ModelError
from master_agent.threads import AgentSpec, CallOptions
from master_agent.threads.assistants import Assistants
from tests.servers.assistants import AssistantsServer
from tests.threads import chatting
from tests.threads.chatting import AGENT, WHOLE

__all__ = ["Waits", "asked", "failed", "opened"]


class Waits:
    """A `sleep` that takes no time and remembers what was asked of it, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


opened = partial(chatting.wire_to, Assistants)
asked = partial(chatting.ask, kind=Assistants)


def failed(
    server: AssistantsServer, options: CallOptions = WHOLE, agent: AgentSpec = AGENT, **settings: Any
) -> ModelError:
    """The error that a first turn ends with; no run may be left."""
    raised = chatting.refusal(server, options, agent, Assistants, **settings)
    assert server.running == []
    return raised
