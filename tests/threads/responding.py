"""Conversations with a responses server on loopback, for the tests of the responses wire."""

import json
from functools import partial
from typing import Any

import pytest

from master_agent.errors import ModelError
from master_agent.threads import AgentSpec, CallOptions, ThreadState
from master_agent.threads.responses import Responses
from tests.servers.responses import Answer, ResponsesServer
from tests.threads import chatting
from tests.threads.chatting import AGENT, WHOLE, talk

__all__ = ["STORES", "ask", "failure", "journaled", "opened", "talk"]

STORES = pytest.mark.parametrize("store", ["response", "conversation", "none"])


opened = partial(chatting.wire_to, Responses)
ask = partial(chatting.ask, kind=Responses)


def failure(answer: Answer, options: CallOptions = WHOLE, agent: AgentSpec = AGENT, **settings: Any) -> ModelError:
    """The error that the answer becomes."""
    with ResponsesServer([answer]) as server:
        raised = chatting.refusal(server, options, agent, Responses, **settings)
        assert server.count == 1, "the SDK must not try again by itself"
        return raised


def journaled(state: ThreadState) -> ThreadState:
    """The state as another process reads it."""
    read = json.loads(json.dumps({"wire": state.wire, "ids": dict(state.ids), "items": list(state.items)}))
    return ThreadState(read["wire"], read["ids"], tuple(read["items"]))
