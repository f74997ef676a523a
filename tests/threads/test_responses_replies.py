"""What a server's answers become on the responses wire: streams, endings, calls, usage; and proof of the stand-in."""

import asyncio
import time
from typing import Any

import pytest
from openai import AsyncOpenAI

from master_agent.results import Usage
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    ModelToolCall,
    Reply,
    TextPiece,
    UserTurn,
)
from tests.servers.chat import json_body
from tests.servers.loopback import Body
from tests.servers.responses import Answer, ResponsesServer, call, events, failed_response, reasoning, reply
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, KEY, MODEL, SHAPE, STREAMED, WHOLE, said
from tests.threads.responding import STORES, ask, opened

# Streaming or not


def test_streamed_text_arrives_before_the_reply_is_whole() -> None:
    async def run(server: ResponsesServer) -> list[tuple[float, object]]:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            return [(time.monotonic(), piece) async for piece in thread.send(HELLO, STREAMED)]

    with ResponsesServer([reply(deltas=["One, ", "two, ", "three."], gap=0.15)]) as server:
        came = asyncio.run(run(server))
    assert [piece.text for _, piece in came if isinstance(piece, TextPiece)] == ["One, ", "two, ", "three."]
    assert isinstance(came[-1][1], Reply)
    assert came[-1][1].text == "One, two, three."
    assert came[-1][0] - came[0][0] > 0.3


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
    with ResponsesServer([reply("Yes.")]) as server:
        [answer], _ = ask(server, HELLO, agent=agent, options=options, capabilities=able)
    assert answer.text == "Yes."
    assert ("stream" in server.bodies[0]) is streams


@BOTH
def test_what_a_model_says_about_its_work_is_no_part_of_its_answer(options: CallOptions) -> None:
    async def run(server: ResponsesServer) -> tuple[list[str], Reply]:
        async with opened(server) as wire:
            return await said(await wire.open(AGENT), HELLO, options)

    with ResponsesServer([reply("Blue.", aside="I look at the sky.\n")]) as server:
        pieces, answer = asyncio.run(run(server))
    assert answer.text == "Blue."
    assert "".join(pieces) in ("", "Blue.")


MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}
DELTA = {"type": "response.output_text.delta", "output_index": 0, "delta": "Yes."}
FINISHED = {"type": "response.completed", "response": {"id": "resp_9", "status": "completed", "output": [MESSAGE]}}
EMPTY = {"type": "response.completed", "response": {"id": "resp_9", "output": []}}


@pytest.mark.parametrize(
    "answer",
    [
        json_body(FINISHED["response"]),
        events(DELTA, FINISHED),
        events({"type": "response.new", "x": 1}, {"anything": 2}, FINISHED, "[DONE]"),
        events(DELTA, {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE}, EMPTY),
        events(DELTA, EMPTY),
        events(FINISHED | {"response": {"id": "resp_9", "output": [MESSAGE], "status": "in_progress"}}),
    ],
    ids=["whole", "bare", "unknown", "items", "deltas", "status"],
)
def test_servers_with_habits_of_their_own_are_understood(answer: Answer) -> None:
    with ResponsesServer([answer]) as server:
        [got], state = ask(server, HELLO, options=STREAMED)
    assert (got.status, got.text, got.remote_id) == ("completed", "Yes.", "resp_9")
    assert state.ids == {"response": "resp_9"}


def test_a_call_that_only_its_own_event_brings_is_not_lost() -> None:
    item = {**call("add", {"a": 1}, "one"), "id": "fc_1"}
    done = {"type": "response.output_item.done", "output_index": 1, "item": item}
    with ResponsesServer([events(DELTA, done, {**done, "output_index": 0, "item": MESSAGE}, EMPTY)]) as server:
        [got], state = ask(server, HELLO, agent=ADDER, options=STREAMED, store="none")
    assert (got.status, got.text) == ("requires_action", "Yes.")
    assert got.calls == (ModelToolCall("one", "add", '{"a": 1}'),)
    assert [item["type"] for item in state.items] == ["message", "message", "function_call"]


# How a reply ends


@BOTH
@pytest.mark.parametrize(
    ("answer", "expected", "reason"),
    [
        (reply("Half a sen", status="incomplete", reason="max_output_tokens"), "incomplete", "max_output_tokens"),
        (reply("Half a sen", status="incomplete", reason="content_filter"), "incomplete", "content_filter"),
        (reply("Half a sen", status="incomplete"), "incomplete", None),
        (
            reply(calls=[call("add", '{"a": ', "one")], status="incomplete", reason="max_output_tokens"),
            "incomplete", "max_output_tokens",
        ),
        (reply(refusal="I will not."), "failed", "refused: I will not."),
        (reply("Well,", refusal="I will not.", calls=[call("add", {}, "one")]), "failed", "refused: I will not."),
        (failed_response("invalid_prompt", "Not that"), "failed", "invalid_prompt: Not that"),
        (reply("Half", status="cancelled"), "cancelled", None),
        (reply(calls=[call("add", {}, "one")]), "requires_action", None),
        (reply(), "completed", None),
    ],
)  # fmt: skip
def test_a_reply_says_how_it_ended(answer: Answer, expected: str, reason: str | None, options: CallOptions) -> None:
    with ResponsesServer([answer]) as server:
        [got], _ = ask(server, HELLO, agent=ADDER, options=options)
    assert (got.status, got.reason) == (expected, reason)
    assert bool(got.calls) is (expected == "requires_action"), "a call that was cut off must not be made"


@STORES
@pytest.mark.parametrize(
    "ended",
    [
        reply(calls=[call("add", '{"a": ', "one")], thoughts=[reasoning("secret")], status="incomplete"),
        reply(refusal="I will not.", calls=[call("add", {}, "one")]),
        failed_response("invalid_prompt"),
        reply("Half", status="cancelled"),
        reply("Half a sen", thoughts=[reasoning("secret")], status="incomplete"),
    ],
)
def test_after_a_reply_that_came_to_nothing_the_conversation_can_go_on(ended: Answer, store: str) -> None:
    with ResponsesServer([reply("Hello."), ended, reply("Still here.")]) as server:
        replies, _ = ask(server, HELLO, UserTurn("And?"), UserTurn("Well?"), agent=ADDER, store=store)
        assert server.faults == []
    assert replies[2].text == "Still here."


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (call("add", "", "a"), ModelToolCall("a", "add", "{}")),
        (call("add", "{no JSON", "a"), ModelToolCall("a", "add", "{no JSON")),
        (call("add", {}, "a") | {"arguments": {"a": 1}}, ModelToolCall("a", "add", '{"a": 1}')),
        (call("add", {}, "a") | {"arguments": None}, ModelToolCall("a", "add", "{}")),
        (call("add", "{}", ""), ModelToolCall("call_1", "add", "{}")),
    ],
)
def test_calls_are_read_whatever_habits_the_server_has(item: Body, expected: ModelToolCall) -> None:
    with ResponsesServer([reply(calls=[item]), reply("Done.")]) as server:
        replies, _ = ask(server, HELLO, None, agent=ADDER, store="none")
        assert server.faults == []
    assert replies[0].calls == (expected,)


def test_ids_that_come_again_are_made_unique_where_they_are_ours_to_make() -> None:
    same = [reply(calls=[call("add", {"a": n}, "call_0"), call("add", {"a": n}, "call_0")]) for n in range(2)]
    with ResponsesServer([*same, reply("Done.")]) as server:
        replies, _ = ask(server, HELLO, None, None, agent=ADDER, store="none")
        assert server.faults == []
    assert [one.id for answer in replies for one in answer.calls] == ["call_0", "call_1", "call_2", "call_3"]


# Usage


@BOTH
@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (
            {
                "input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
                "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 32},
                "output_tokens_details": {"reasoning_tokens": 12},
            },
            Usage(
                calls=1, input_tokens=100, cached_tokens=64, cache_write_tokens=32,
                output_tokens=20, reasoning_tokens=12,
            ),
        ),
        (
            {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": None},
            Usage.unknown().model_copy(update={"input_tokens": 100, "output_tokens": 20, "complete": True}),
        ),
        (None, None),
    ],
    ids=["everything", "no details", "nothing"],
)  # fmt: skip
def test_usage_is_what_the_server_reported_and_null_where_it_did_not(
    reported: Body | None, expected: Usage | None, options: CallOptions
) -> None:
    with ResponsesServer([reply("Yes.", usage=reported)]) as server:
        [answer], _ = ask(server, HELLO, options=options)
    assert answer.usage == expected


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_a_reply_that_came_to_nothing_has_its_price_too(status: str) -> None:
    with ResponsesServer([reply("Half", status=status)]) as server:
        [answer], _ = ask(server, HELLO)
    assert answer.usage
    assert answer.usage.tokens == 18


# The stand-in


def test_the_real_client_takes_the_stand_in_for_openai() -> None:
    tool = {"type": "function", "name": "add", "description": "Adds.", "parameters": SHAPE, "strict": True}
    rounds = [reply("Hm.", thoughts=[reasoning("s")], calls=[call("add", {"x": 1}, "one")]), reply("One.\nYes.")]

    async def run(server: ResponsesServer) -> None:
        async with AsyncOpenAI(
            api_key=KEY, base_url=server.base_url, max_retries=0, _strict_response_validation=True
        ) as client:
            held = await client.conversations.create()
            asked: Any = {"model": MODEL, "conversation": held.id, "tools": [tool]}
            first = await client.responses.create(input="Hello?", **asked)
            assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
            assert (first.conversation and first.conversation.id) == held.id
            output: Any = {"type": "function_call_output", "call_id": "one", "output": "1"}
            async with client.responses.stream(input=[output], **asked) as stream:
                numbers = [event.sequence_number async for event in stream]
                final = await stream.get_final_response()
            assert numbers == list(range(len(numbers)))
            assert (final.output_text, final.usage and final.usage.total_tokens) == ("One.\nYes.", 18)
            assert [item.get("type") for item in server.conversations[held.id]] == [
                "message", "reasoning", "message", "function_call", "function_call_output", "message",
            ]  # fmt: skip

    with ResponsesServer(rounds) as server:
        asyncio.run(run(server))
        assert server.faults == []
