"""What a server refuses of a request for a response is learnt: the next attempt and all later ones leave it out."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from master_agent.retry import RetryPolicy, retrying
from master_agent.threads import AgentSpec, CallOptions, Capabilities, Reply
from master_agent.threads.responses import Responses
from tests.servers.chat import error
from tests.servers.loopback import Body
from tests.servers.responses import Answer, ResponsesServer, reply
from tests.threads.chatting import ADDER, AGENT, HELLO, SHAPE, SHAPED, STREAMED, WHOLE, said
from tests.threads.responding import opened


async def patiently(wire: Responses, agent: AgentSpec, options: CallOptions, waits: list[float]) -> Reply:
    """The reply through the retry layer, as the program makes it."""
    thread = await wire.open(agent)

    async def attempt(_: int) -> Reply:
        return (await said(thread, HELLO, options))[1]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return await retrying(attempt, RetryPolicy(), sleep=sleep, chance=lambda: 0.0)


def refusing(where: str, told: str, param: str | None = None) -> Callable[[list[Body], Body], Answer]:
    """A server that does not take bodies in whose JSON `where` stands."""
    return lambda _, body: error(400, told, param=param) if where in json.dumps(body) else reply('{"x": 1}')


FULL = replace(SHAPED, temperature=0.2, max_output_tokens=9)
SCHEMA = {"type": "json_schema", "name": "writer", "schema": SHAPE, "strict": True}


@pytest.mark.parametrize(
    ("agent", "options", "where", "told", "param", "left"),
    [
        (
            SHAPED, WHOLE, '"json_schema"', "This text.format type is unavailable now", None,
            {"text": {"format": {"type": "json_object"}}},
        ),
        (
            SHAPED, WHOLE, '"json_schema"', "Invalid schema for response_format 'writer': no", "text.format.schema",
            {"text": {"format": {"type": "json_object"}}},
        ),
        (SHAPED, WHOLE, '"text"', "Unknown parameter: text.format", "text.format", {"text": None}),
        (ADDER, STREAMED, '"stream"', "tools together with stream are not supported", None, {"stream": None}),
        (
            FULL, WHOLE, '"temperature"', "Unsupported parameter: 'temperature' is not supported with this model.",
            "temperature", {"temperature": None, "max_output_tokens": 9, "text": {"format": SCHEMA}},
        ),
        (FULL, WHOLE, '"max_output', "Unknown parameter: 'max_output_tokens'", None, {"max_output_tokens": None}),
        (
            AGENT, WHOLE, '"prompt_cache_key"', "Unrecognized request argument: prompt_cache_key", None,
            {"prompt_cache_key": None},
        ),
        (
            AGENT, WHOLE, '"include"', "Encrypted content is not supported with this model.", "include",
            {"include": None, "store": False},
        ),
        (
            AGENT, WHOLE, '"include"', "Unknown parameter: 'include'.", "include", {"include": None, "store": False},
        ),
    ],
    ids=["schema", "its form", "format", "stream", "temperature", "length", "cache key", "encrypted", "include"],
)  # fmt: skip
def test_what_a_server_refuses_is_left_out_of_the_next_attempt_and_of_every_later_request(
    agent: AgentSpec, options: CallOptions, where: str, told: str, param: str | None, left: Body
) -> None:
    waits: list[float] = []

    async def run(server: ResponsesServer) -> None:
        async with opened(server, store="none") as wire:
            assert (await patiently(wire, agent, options, waits)).status == "completed"
            attempts = server.count
            assert (await patiently(wire, agent, options, waits)).status == "completed"
            assert server.count == attempts + 1, "what was learnt is not asked again"

    with ResponsesServer(refusing(where, told, param)) as server:
        asyncio.run(run(server))
        assert server.count in (3, 4)
        assert set(waits) == {0.0}, "there is nothing to wait for"
        assert {name: server.bodies[-1].get(name) for name in left} == left
        assert server.faults == []


def test_a_tool_that_cannot_be_strict_is_given_again_as_it_is() -> None:
    async def run(server: ResponsesServer) -> None:
        async with opened(server, capabilities=Capabilities(strict_tools=True)) as wire:
            await patiently(wire, ADDER, WHOLE, [])
            assert not wire.capabilities.strict_tools

    with ResponsesServer() as server:
        asyncio.run(run(server))
        assert ["Invalid schema for function 'add'" in fault for fault in server.faults] == [True]
    assert [body["tools"][0]["strict"] for body in server.bodies] == [True, False]


def test_a_schema_that_is_not_strict_is_asked_for_as_any_object() -> None:
    loose = replace(AGENT, output={"type": "object", "properties": {"x": {"type": "integer"}}})

    async def run(server: ResponsesServer) -> None:
        async with opened(server) as wire:
            await patiently(wire, loose, WHOLE, [])

    with ResponsesServer() as server:
        asyncio.run(run(server))
        assert len(server.faults) == 1
    assert [body["text"]["format"]["type"] for body in server.bodies] == ["json_schema", "json_object"]


def test_a_value_that_a_list_includes_is_not_taken_for_a_parameter() -> None:
    told = "Unsupported value: 'temperature'. Supported values include 1"
    asked: list[Any] = []

    async def run(server: ResponsesServer) -> None:
        async with opened(server, store="none") as wire:
            await patiently(wire, FULL, WHOLE, [])

    with ResponsesServer(refusing('"temperature"', told, "temperature")) as server:
        asyncio.run(run(server))
        asked = [("temperature" in body, "include" in body) for body in server.bodies]
    assert asked == [(True, True), (False, True)]
