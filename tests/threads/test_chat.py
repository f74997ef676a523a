"""The chat wire against a real server on loopback: rounds, streams, state and usage."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from master_agent.errors import ModelError
from master_agent.results import Usage
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    ModelToolCall,
    Reply,
    TextPiece,
    ThreadState,
    UserTurn,
)
from master_agent.threads.chat import Chat
from tests.servers.chat import USAGE, ChatServer, call, chunks, deltas, json_body, reply
from tests.servers.loopback import Behaviour, Body
from tests.threads.chatting import (
    ADDER,
    AGENT,
    BOTH,
    HELLO,
    KEY,
    MODEL,
    STREAMED,
    TOOL,
    WHOLE,
    ask,
    opened,
    outputs,
    said,
)

# Rounds


@BOTH
def test_a_question_gets_its_answer_and_both_are_remembered(options: CallOptions) -> None:
    with ChatServer([reply("Hello.\nAnd bye.")]) as server:
        [answer], state = ask(server, HELLO, options=options)
    assert (answer.status, answer.text, answer.calls, answer.reason) == ("completed", "Hello.\nAnd bye.", (), None)
    assert answer.remote_id == "chatcmpl-1"
    assert server.bodies[0]["messages"] == [
        {"role": "system", "content": "You write."},
        {"role": "user", "content": "Hello?"},
    ]
    assert state == ThreadState(
        "chat", {}, ({"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello.\nAnd bye."})
    )
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@BOTH
def test_tools_are_called_over_several_rounds_and_two_in_one(options: CallOptions) -> None:
    rounds = [
        reply("Let me see.", calls=[call("add", {"a": 1}, "one"), call("add", {"a": 2}, "two")]),
        reply(calls=[call("add", {"a": 3}, "three")]),
        reply("Six."),
    ]

    async def run(server: ChatServer) -> tuple[Reply, Reply, Reply]:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            _, first = await said(thread, HELLO, options)
            _, second = await said(thread, outputs(first), options)
            _, third = await said(thread, outputs(second), options)
            return first, second, third

    with ChatServer(rounds) as server:
        first, second, third = asyncio.run(run(server))
    assert server.faults == []
    assert (first.status, first.text) == ("requires_action", "Let me see.")
    assert first.calls == (ModelToolCall("one", "add", '{"a": 1}'), ModelToolCall("two", "add", '{"a": 2}'))
    assert (second.status, second.calls) == ("requires_action", (ModelToolCall("three", "add", '{"a": 3}'),))
    assert (third.status, third.text) == ("completed", "Six.")
    assert [message["role"] for message in server.bodies[2]["messages"]] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "tool",
    ]  # fmt: skip
    assert server.bodies[2]["messages"][4] == {"role": "tool", "tool_call_id": "two", "content": "output of two"}
    assert server.bodies[0]["tools"] == [
        {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": dict(TOOL.parameters)}}
    ]


def test_strict_tools_are_asked_for_where_the_server_has_them() -> None:
    with ChatServer() as server:
        ask(server, HELLO, agent=ADDER, capabilities=Capabilities(strict_tools=True))
    assert server.bodies[0]["tools"][0]["function"]["strict"] is True


def test_streamed_text_arrives_before_the_reply_is_whole() -> None:
    async def run(server: ChatServer) -> list[tuple[float, object]]:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            return [(time.monotonic(), piece) async for piece in thread.send(HELLO, STREAMED)]

    with ChatServer([reply(deltas=["One, ", "two, ", "three."], gap=0.15)]) as server:
        came = asyncio.run(run(server))
    assert [piece.text for _, piece in came if isinstance(piece, TextPiece)] == ["One, ", "two, ", "three."]
    assert isinstance(came[-1][1], Reply)
    assert came[-1][1].text == "One, two, three."
    assert came[-1][0] - came[0][0] > 0.3


def test_a_thread_goes_on_from_its_state_with_the_very_same_request() -> None:
    def rounds() -> list[Behaviour]:
        return [reply(calls=[call("add", {"a": 1}, "one")]), reply("Two."), reply("Three.")]

    async def in_one(server: ChatServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            _, first = await said(thread, HELLO)
            await said(thread, outputs(first))
            await said(thread, UserTurn("And then?"))

    async def in_three(server: ChatServer) -> None:
        state, turn = None, HELLO
        for following in (None, UserTurn("And then?"), None):
            async with opened(server) as wire:
                thread = await wire.open(ADDER, state)
                _, answer = await said(thread, turn)
                state = ThreadState(**json.loads(json.dumps(vars(thread.state))))
                turn = following or outputs(answer)  # type: ignore[assignment]

    with ChatServer(rounds()) as server, ChatServer(rounds()) as other:
        asyncio.run(in_one(server))
        asyncio.run(in_three(other))
        assert [one.raw for one in server.requests] == [one.raw for one in other.requests]
        assert len(server.requests) == 3


def test_the_state_of_another_wire_is_refused() -> None:
    with ChatServer() as server, pytest.raises(ModelError, match="began on the wire 'responses'"):
        ask(server, HELLO, state=ThreadState("responses", {"response": "resp_1"}))


def test_an_agents_own_model_temperature_and_length_are_asked_for() -> None:
    agent = replace(AGENT, model="other-model", temperature=0.2, max_output_tokens=50)
    with ChatServer() as server:
        ask(server, HELLO, agent=agent)
    assert {name: server.bodies[0][name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "other-model", "temperature": 0.2, "max_tokens": 50,
    }  # fmt: skip


def test_openais_own_address_is_asked_in_its_own_words() -> None:
    wire = Chat(KEY, None, MODEL)
    body = wire.request(replace(AGENT, max_output_tokens=50), (), WHOLE)
    assert body["max_completion_tokens"] == 50
    assert "max_tokens" not in body
    assert len(body["prompt_cache_key"]) == 32
    assert "prompt_cache_key" not in Chat(KEY, "http://127.0.0.1:9/v1", MODEL).request(AGENT, (), WHOLE)
    assert str(wire.client().base_url) == "https://api.openai.com/v1/"


def test_text_that_is_no_unicode_is_sent_as_well_as_it_can_be() -> None:
    with ChatServer([reply("Fine.")]) as server:
        ask(server, UserTurn("a file named \udcff.txt"))
    assert server.bodies[0]["messages"][-1]["content"] == "a file named �.txt"


# Streaming or not


@pytest.mark.parametrize(
    ("agent", "options", "able", "streams"),
    [
        (AGENT, STREAMED, Capabilities(), True),
        (AGENT, WHOLE, Capabilities(), False),
        (AGENT, STREAMED, Capabilities(stream=False), False),
        (ADDER, STREAMED, Capabilities(), True),
        (ADDER, STREAMED, Capabilities(stream_with_tools=False), False),
        (AGENT, STREAMED, Capabilities(stream_with_tools=False), True),
    ],
)
def test_a_reply_is_streamed_when_caller_and_server_are_for_it(
    agent: AgentSpec, options: CallOptions, able: Capabilities, streams: bool
) -> None:
    with ChatServer([reply("Yes.")]) as server:
        [answer], _ = ask(server, HELLO, agent=agent, options=options, capabilities=able)
    assert answer.text == "Yes."
    assert ("stream" in server.bodies[0]) is streams
    assert ("stream_options" in server.bodies[0]) is streams


def test_a_server_that_answers_a_stream_with_a_whole_reply_is_understood() -> None:
    message = {"choices": [{"message": {"role": "assistant", "content": "Whole."}, "finish_reason": "stop"}]}
    with ChatServer([json_body(message)]) as server:
        [answer], _ = ask(server, HELLO, options=STREAMED)
    assert (answer.status, answer.text) == ("completed", "Whole.")


def fragment(arguments: str | None = None, name: str | None = None, **rest: Any) -> Body:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{**rest, "type": "function", "function": function}]}


ONE_TWO = [("a", "add", '{"a": 1}'), ("b", "add", '{"a": 2}')]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param(
            [fragment("", "add", index=0, id="a"), fragment("", "add", index=1, id="b"),
             fragment('{"a"', index=0), fragment('{"a"', index=1),
             fragment(": 1}", index=0), fragment(": 2}", index=1)],
            ONE_TWO, id="fragments of two calls in turn",
        ),
        pytest.param(
            [fragment('{"a": 1}', "add", index=0, id="a"), fragment('{"a": 2}', "add", index=1, id="b")],
            ONE_TWO, id="whole calls",
        ),
        pytest.param(
            [fragment('{"a": 1}', "add", index=0, id="a"), fragment('{"a": 2}', "add", index=0, id="b")],
            ONE_TWO, id="index 0 again with a new id",
        ),
        pytest.param(
            [fragment("", "add", index=0, id="a"), fragment("", "add", index=0, id="b")],
            [("a", "add", "{}"), ("b", "add", "{}")], id="index 0 again and no arguments",
        ),
        pytest.param(
            [fragment('{"a"', "add", id="a"), fragment(": 1}"), fragment('{"a"', "add", id="b"), fragment(": 2}")],
            ONE_TWO, id="no index",
        ),
        pytest.param(
            [fragment('{"a"', "add", id="a"), fragment(": 1}", id="a"), fragment('{"a": 2}', "add", id="b")],
            ONE_TWO, id="no index but the id each time",
        ),
        pytest.param(
            [fragment('{"a": 1}', "add", index=0), fragment('{"a": 2}', "add", index=0)],
            [("call_1", "add", '{"a": 1}'), ("call_2", "add", '{"a": 2}')], id="index 0 again and no ids",
        ),
        pytest.param(
            [fragment('{"a"', "add", index=0, id=""), fragment(": 1}", "add", index=0, id="")],
            [("call_1", "add", '{"a": 1}')], id="the name repeated in each fragment",
        ),
        pytest.param(
            [fragment('{"a": 1}', "add", index=0, id="a"), fragment('{"a": 2}', "add", index=1, id="a")],
            [("a", "add", '{"a": 1}'), ("call_1", "add", '{"a": 2}')], id="an id for two calls",
        ),
        pytest.param(
            [{"tool_calls": [{"index": 0, "id": "a", "function": {"name": "add", "arguments": {"a": 1}}}]}],
            [("a", "add", '{"a": 1}')], id="arguments that are no text",
        ),
        pytest.param([fragment(None, "add", index=0, id="a")], [("a", "add", "{}")], id="no arguments at all"),
        pytest.param(
            [{"function_call": {"name": "add", "arguments": '{"a"'}}, {"function_call": {"arguments": ": 1}"}}],
            [("call_1", "add", '{"a": 1}')], id="a function call of old",
        ),
    ],
)  # fmt: skip
def test_streamed_calls_are_put_together_whatever_habits_the_server_has(
    parts: Sequence[Body], expected: Sequence[tuple[str, str, str]]
) -> None:
    with ChatServer([deltas(*parts, finish_reason="stop"), reply("Done.")]) as server:

        async def run() -> Reply:
            async with opened(server) as wire:
                thread = await wire.open(ADDER)
                _, answer = await said(thread, HELLO, STREAMED)
                await said(thread, outputs(answer), STREAMED)
                return answer

        answer = asyncio.run(run())
    assert answer.status == "requires_action"
    assert [(one.id, one.name, one.arguments) for one in answer.calls] == expected
    assert server.faults == [], "the ids of the calls and of their outputs must agree in the next request"


def test_ids_that_come_again_in_a_later_round_are_made_unique() -> None:
    same = [reply(calls=[call("add", {"a": n}, "call_0"), call("add", {"a": n}, "call_0")]) for n in range(2)]

    async def run(server: ChatServer) -> list[str]:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            _, first = await said(thread, HELLO)
            _, second = await said(thread, outputs(first))
            await said(thread, outputs(second))
            return [one.id for answer in (first, second) for one in answer.calls]

    with ChatServer([*same, reply("Done.")]) as server:
        ids = asyncio.run(run(server))
    assert ids == ["call_0", "call_1", "call_2", "call_3"]
    assert server.faults == []


def test_what_a_server_signs_its_calls_with_is_given_back_to_it() -> None:
    signed = {
        "id": "a",
        "index": 0,
        "function": {"name": "add", "arguments": "{}"},
        "extra_content": {"signature": "s"},
    }
    with ChatServer(
        [deltas({"reasoning_content": "Hm."}, {"tool_calls": [signed]}, finish_reason="tool_calls")]
    ) as server:
        _, state = ask(server, HELLO, agent=ADDER, options=STREAMED)
    assert state.items[1]["tool_calls"][0]["extra_content"] == {"signature": "s"}
    assert state.items[1]["reasoning_content"] == "Hm."


# How a reply ends


@BOTH
@pytest.mark.parametrize(
    ("behaviour", "expected", "reason"),
    [
        (reply("Half a sen", finish_reason="length"), "incomplete", "max_output_tokens"),
        (reply("Half a sen", finish_reason="content_filter"), "incomplete", "content_filter"),
        (reply(calls=[call("add", '{"a": ', "one")], finish_reason="length"), "incomplete", "max_output_tokens"),
        (reply(refusal="I will not."), "failed", "refused: I will not."),
        (reply(calls=[call("add", {}, "one")], finish_reason="stop"), "requires_action", None),
        (reply("Done.", finish_reason="eos"), "completed", None),
    ],
)
def test_a_reply_says_how_it_ended(
    behaviour: Behaviour, expected: str, reason: str | None, options: CallOptions
) -> None:
    with ChatServer([behaviour]) as server:
        [answer], state = ask(server, HELLO, agent=ADDER, options=options)
    assert (answer.status, answer.reason) == (expected, reason)
    assert bool(answer.calls) is (expected == "requires_action"), "a call that was cut off must not be made"
    assert ("tool_calls" in state.items[-1]) is bool(answer.calls)


# Usage


@BOTH
@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (
            {
                "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 32},
                "completion_tokens_details": {"reasoning_tokens": 12},
            },
            Usage(
                calls=1, input_tokens=100, cached_tokens=64, cache_write_tokens=32,
                output_tokens=20, reasoning_tokens=12,
            ),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            Usage.unknown().model_copy(update={"input_tokens": 100, "output_tokens": 20, "complete": True}),
        ),
        (
            {"prompt_tokens": 100, "prompt_tokens_details": None},
            Usage.unknown().model_copy(update={"input_tokens": 100}),
        ),
        (None, None),
    ],
    ids=["everything", "no details", "only half", "nothing"],
)  # fmt: skip
def test_usage_is_what_the_server_reported_and_null_where_it_did_not(
    reported: Body | None, expected: Usage | None, options: CallOptions
) -> None:
    with ChatServer([reply("Yes.", usage=reported)]) as server:
        [answer], _ = ask(server, HELLO, options=options)
    assert answer.usage == expected


def test_usage_that_comes_before_the_last_chunk_is_kept() -> None:
    told = {"choices": [{"delta": {"content": "Yes."}, "finish_reason": "stop"}], "usage": USAGE}
    with ChatServer([chunks(told, {"choices": [], "usage": None})]) as server:
        [answer], _ = ask(server, HELLO, options=STREAMED)
    assert answer.usage and answer.usage.tokens == 18
