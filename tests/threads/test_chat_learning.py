"""What a server refuses is learnt: the next attempt and every later request leave it out."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from master_agent.retry import RetryPolicy, retrying
from master_agent.threads import AgentSpec, CallOptions, Capabilities, Reply
from master_agent.threads.chat import Chat
from tests.servers.chat import ChatServer, error, reply
from tests.servers.loopback import Behaviour, Body
from tests.threads.chatting import ADDER, AGENT, HELLO, SHAPE, SHAPED, STREAMED, WHOLE, ask, opened, said


async def patiently(wire: Chat, agent: AgentSpec, options: CallOptions, waits: list[float]) -> Reply:
    """The reply through the retry layer, as the program makes it."""
    thread = await wire.open(agent)

    async def attempt(_: int) -> Reply:
        return (await said(thread, HELLO, options))[1]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return await retrying(attempt, RetryPolicy(), sleep=sleep, chance=lambda: 0.0)


def refusing(where: str, told: str) -> Callable[[Body], Behaviour]:
    """A server that does not take bodies in whose JSON `where` stands."""
    return lambda body: error(400, told) if where in json.dumps(body) else reply('{"x": 1}')


FULL = replace(SHAPED, temperature=0.2, max_output_tokens=9)


@pytest.mark.parametrize(
    ("agent", "options", "where", "told", "left"),
    [
        (
            SHAPED, WHOLE, '"json_schema"', "This response_format type is unavailable now",
            {"response_format": {"type": "json_object"}},
        ),
        (SHAPED, WHOLE, '"response_format"', "Unknown field: response_format", {"response_format": None}),
        (
            AGENT, STREAMED, '"stream_options"', "body.stream_options: Extra inputs are not permitted",
            {"stream_options": None, "stream": True},
        ),
        (ADDER, STREAMED, '"stream"', "tools together with stream are not supported", {"stream": None}),
        (ADDER, WHOLE, '"strict"', "Unknown field strict", {}),
        (
            ADDER, WHOLE, '"parallel_tool_calls"', "Unknown field: parallel_tool_calls", {"parallel_tool_calls": None},
        ),
        (
            FULL, WHOLE, '"temperature"', "Unsupported value: 'temperature' does not support 0.2 with this model",
            {"temperature": None, "max_tokens": 9},
        ),
        (
            FULL, WHOLE, '"max_tokens"', "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            {"max_tokens": None, "max_completion_tokens": 9, "temperature": 0.2},
        ),
        (
            FULL, WHOLE, '"max_', "Unrecognized arguments: max_tokens, max_completion_tokens",
            {"max_tokens": None, "max_completion_tokens": None},
        ),
    ],
    ids=["schema", "format", "stream_options", "stream", "strict", "parallel", "temperature", "length", "any length"],
)  # fmt: skip
def test_what_a_server_refuses_is_left_out_of_the_next_attempt_and_of_every_later_request(
    agent: AgentSpec, options: CallOptions, where: str, told: str, left: Body
) -> None:
    waits: list[float] = []

    async def run(server: ChatServer) -> None:
        async with opened(server, capabilities=Capabilities(strict_tools=True, parallel_tools=False)) as wire:
            assert (await patiently(wire, agent, options, waits)).status == "completed"
            attempts = server.count
            assert (await patiently(wire, agent, options, waits)).status == "completed"
            assert server.count == attempts + 1, "what was learnt is not asked again"

    with ChatServer(refusing(where, told)) as server:
        asyncio.run(run(server))
        assert server.count in (3, 4)
        assert set(waits) == {0.0}, "there is nothing to wait for"
        assert {name: server.bodies[-1].get(name) for name in left} == left
        assert server.faults == []


def test_what_one_model_refuses_another_of_the_same_server_is_still_asked_for() -> None:
    warm = replace(AGENT, temperature=0.2)

    def respond(body: Body) -> Behaviour:
        cold = body["model"] == "cold" and "temperature" in body
        return error(400, "temperature is not supported") if cold else reply("Yes.")

    async def run(server: ChatServer) -> None:
        async with opened(server) as wire:
            await patiently(wire, replace(warm, model="cold"), WHOLE, [])
            await patiently(wire, warm, WHOLE, [])

    with ChatServer(respond) as server:
        asyncio.run(run(server))
    assert [body.get("temperature") for body in server.bodies] == [0.2, None, 0.2]


def test_a_schema_is_asked_for_as_far_as_the_server_can() -> None:
    def asked(schema: Any) -> object:
        with ChatServer() as server:
            ask(server, HELLO, agent=replace(SHAPED, name="räume 1"), capabilities=Capabilities(schema=schema))
        return server.bodies[0].get("response_format")

    named = {"name": "r_ume_1", "schema": SHAPE, "strict": True}
    assert asked("strict") == {"type": "json_schema", "json_schema": named}
    assert asked("object") == {"type": "json_object"}
    assert asked("none") is None
