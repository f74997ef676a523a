"""The assistants wire against a stateful server on loopback: rounds, streams, ends of runs and looks at them."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from master_agent.attachments import Attachment
from master_agent.errors import ModelError
from master_agent.results import Usage
from master_agent.threads import (
    CallOptions,
    Capabilities,
    ModelToolCall,
    Output,
    Reply,
    TextPiece,
    ThreadState,
    ToolOutputs,
    UserTurn,
)
from master_agent.threads.assistants import Assistants
from tests.servers.assistant_runs import Act, says
from tests.servers.assistants import AssistantsServer
from tests.servers.chat import call, error
from tests.threads.assisting import Waits, asked, opened
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, KEY, SHAPED, STREAMED, WHOLE, outputs, said

ROOT = Path(__file__).parent.parent.parent
ADD = call("add", {"a": 1}, "one")
ONE = ToolOutputs((Output("one", "output of one"),))


# Rounds


@BOTH
def test_a_question_gets_its_answer(options: CallOptions) -> None:
    with AssistantsServer([says("Hello.\nAnd bye.")]) as server:
        [answer], state = asked(server, HELLO, options=options)
    assert (answer.status, answer.text, answer.calls, answer.reason) == ("completed", "Hello.\nAnd bye.", (), None)
    [run] = server.runs
    assert answer.remote_id == run
    assert answer.usage == Usage(
        calls=1, input_tokens=11, output_tokens=7, cached_tokens=None, cache_write_tokens=None, reasoning_tokens=None
    )
    assert server.bodies("message") == [{"role": "user", "content": "Hello?"}]
    assert state.wire == "assistants"
    assert state.ids["run"] == run
    assert state.items == ()
    assert {request.headers["openai-beta"] for request in server.requests} == {"assistants=v2"}
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.bad_bodies == []


@BOTH
def test_tools_are_called_over_several_rounds_and_two_in_one(options: CallOptions) -> None:
    acts = [
        says("Let me see.", calls=[call("add", {"a": 1}, "one"), call("add", {"a": 2}, "two")]),
        says(calls=[call("add", {"a": 3}, "three")]),
        says("Six."),
    ]

    async def run(server: AssistantsServer) -> tuple[Reply, Reply, Reply]:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            _, first = await said(thread, HELLO, options)
            _, second = await said(thread, outputs(first), options)
            _, third = await said(thread, outputs(second), options)
            return first, second, third

    with AssistantsServer(acts) as server:
        first, second, third = asyncio.run(run(server))
    assert server.bad_bodies == []
    assert (first.status, first.text) == ("requires_action", "Let me see.")
    assert first.calls == (ModelToolCall("one", "add", '{"a": 1}'), ModelToolCall("two", "add", '{"a": 2}'))
    assert (second.status, second.text) == ("requires_action", "")
    assert second.calls == (ModelToolCall("three", "add", '{"a": 3}'),)
    assert (third.status, third.text) == ("completed", "Six.")
    assert len(server.runs) == 1, "a run lasts across its tool rounds"
    assert [body["tool_outputs"] for body in server.bodies("submit")] == [
        [{"tool_call_id": "one", "output": "output of one"}, {"tool_call_id": "two", "output": "output of two"}],
        [{"tool_call_id": "three", "output": "output of three"}],
    ], "all outputs of a round go back at once"


def test_all_messages_of_a_run_and_all_their_parts_are_its_text() -> None:
    with AssistantsServer([says(["One, ", "two, "], "three.")]) as server:
        [answer], _ = asked(server, HELLO)
    assert answer.text == "One, two, three."


def test_a_second_turn_gets_the_second_answer_only() -> None:
    with AssistantsServer([says("One."), says("Two.")]) as server:
        answers, _ = asked(server, HELLO, UserTurn("And then?"))
        assert [answer.text for answer in answers] == ["One.", "Two."]
        assert len(server.runs) == 2
        assert len(server.asked("thread")) == 1


def test_pictures_are_named_to_a_model_that_cannot_be_shown_them() -> None:
    picture = Attachment("cat.png", "image/png", b"...")
    with AssistantsServer([says(calls=[ADD]), says("Yes.")]) as server:
        turns = UserTurn("A cat?", (picture,)), ToolOutputs((Output("one", "here", (picture,)),))
        asked(server, *turns, agent=ADDER)
        unseen = "cat.png (this model cannot be shown the picture)"
        assert server.bodies("message")[0]["content"] == f"A cat?\n{unseen}"
        assert server.bodies("submit")[0]["tool_outputs"][0]["output"] == f"here\n{unseen}"
    assert not Assistants(KEY, server.base_url, "test-model").capabilities.pictures


def test_more_messages_than_one_page_holds_are_all_read() -> None:
    with AssistantsServer([says(*(f"{number};" for number in range(230)))]) as server:
        [answer], _ = asked(server, HELLO)
    assert answer.text == "".join(f"{number};" for number in range(230))


def test_usage_that_grows_with_the_run_is_counted_once() -> None:
    acts = [says(calls=[ADD], usage={"prompt_tokens": 10, "completion_tokens": 2}),
            says("Two.", usage={"prompt_tokens": 25, "completion_tokens": 5})]  # fmt: skip
    with AssistantsServer(acts) as server:
        answers, _ = asked(server, HELLO, ONE, agent=ADDER)
    assert [(a.usage.input_tokens, a.usage.output_tokens) for a in answers if a.usage] == [(10, 2), (15, 3)]


def test_an_assistant_is_what_the_agent_is_and_a_run_says_the_rest() -> None:
    agent = replace(ADDER, model="other-model", temperature=0.2, max_output_tokens=50, output=SHAPED.output)
    with AssistantsServer() as server:
        asked(server, HELLO, agent=agent)
    [made] = server.bodies("assistant")
    function = {"name": "add", "description": "Adds.", "parameters": dict(ADDER.tools[0].parameters)}
    assert made["metadata"].keys() == {"master_agent"}
    assert {name: made[name] for name in made if name != "metadata"} == {
        "model": "other-model", "name": "writer", "instructions": "You write.",
        "tools": [{"type": "function", "function": function}],
    }  # fmt: skip
    [run] = server.bodies("run")
    assert run.pop("assistant_id").startswith("asst_")
    assert run == {
        "temperature": 0.2,
        "max_completion_tokens": 50,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "writer", "schema": SHAPED.output, "strict": True},
        },
    }


def test_what_a_server_refuses_is_left_out_from_then_on() -> None:
    refusals = [error(400, "response_format of type json_schema is not supported"),
                error(400, "Unsupported parameter: temperature")]  # fmt: skip

    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(replace(SHAPED, temperature=0.2))
            for told in ("without response_format json_schema", "without temperature"):
                with pytest.raises(ModelError, match=told) as caught:
                    await said(thread, HELLO)
                assert (caught.value.retryable, caught.value.retry_after) == (True, 0.0)
            await said(thread, HELLO)
            assert wire.capabilities.schema == "object"

    with AssistantsServer(faults={"run": refusals}) as server:
        asyncio.run(run(server))
        assert [body.keys() - {"assistant_id"} for body in server.bodies("run")] == [
            {"response_format", "temperature"}, {"response_format", "temperature"}, {"response_format"},
        ]  # fmt: skip
        assert server.bodies("run")[2]["response_format"] == {"type": "json_object"}
        assert len(server.asked("message")) == 1, "the message of an attempt that came to nothing is used again"
        assert server.asked("runs") == [], "what was refused is not looked for"


def test_outputs_are_given_without_a_stream_where_the_server_refuses_one() -> None:
    async def run(server: AssistantsServer) -> Reply:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            _, first = await said(thread, HELLO, STREAMED)
            with pytest.raises(ModelError, match="from now on without stream") as caught:
                await said(thread, outputs(first), STREAMED)
            assert caught.value.retryable
            return (await said(thread, outputs(first), STREAMED))[1]

    refusal = error(400, "Unsupported parameter: stream")
    with AssistantsServer([says(calls=[ADD]), says("Two.")], faults={"submit": [refusal]}) as server:
        assert asyncio.run(run(server)).text == "Two."
        assert ["stream" in body for body in server.bodies("submit")] == [True, False]


# Streams


def test_streamed_text_arrives_before_the_run_is_over() -> None:
    async def run(server: AssistantsServer) -> list[tuple[float, object]]:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            return [(time.monotonic(), piece) async for piece in thread.send(HELLO, STREAMED)]

    with AssistantsServer([says("One,\ntwo,\nthree.", gap=0.15)]) as server:
        came = asyncio.run(run(server))
        assert server.asked("poll") == []
    assert [piece.text for _, piece in came if isinstance(piece, TextPiece)] == ["One,\n", "two,\n", "three."]
    assert isinstance(came[-1][1], Reply)
    assert came[-1][0] - came[0][0] > 0.3


def streamed(act: Act, **settings: Any) -> tuple[str, Reply, AssistantsServer]:
    async def run(server: AssistantsServer) -> tuple[list[str], Reply]:
        async with opened(server, **settings) as wire:
            return await said(await wire.open(AGENT), HELLO, STREAMED)

    with AssistantsServer([act]) as server:
        pieces, answer = asyncio.run(run(server))
    return "".join(pieces), answer, server


def test_a_server_that_sends_pieces_of_a_message_it_never_told_of_is_understood() -> None:
    pieces, answer, _ = streamed(says("One,\ntwo.", created=False))
    assert (pieces, answer.text) == ("One,\ntwo.", "One,\ntwo.")


def test_a_server_that_cannot_stream_is_looked_at_instead() -> None:
    pieces, answer, server = streamed(says("Whole.", streams=False))
    assert (pieces, answer.status, answer.text) == ("", "completed", "Whole.")
    assert len(server.asked("poll")) == 2


@pytest.mark.parametrize("how", [{"ends": False}, {"resets": True}, {"hangs": True}], ids=str)
def test_a_stream_that_breaks_is_not_the_end_of_its_run(how: dict[str, Any]) -> None:
    pieces, answer, server = streamed(says("One,\ntwo.", **how), idle_timeout=0.2)
    assert (answer.status, answer.text) == ("completed", "One,\ntwo.")
    assert "One,\ntwo.".startswith(pieces)
    assert len(server.runs) == 1


@pytest.mark.parametrize(
    ("settings", "options", "streams"),
    [
        ({}, STREAMED, True),
        ({}, WHOLE, False),
        ({"capabilities": Capabilities(stream=False)}, STREAMED, False),
        ({"capabilities": Capabilities(stream_with_tools=False)}, STREAMED, False),
    ],
)
def test_a_run_is_streamed_when_caller_and_server_are_for_it(
    settings: dict[str, Any], options: CallOptions, streams: bool
) -> None:
    with AssistantsServer([says(calls=[ADD]), says("Two.")]) as server:
        asked(server, HELLO, ONE, agent=ADDER, options=options, **settings)
        assert ["stream" in body for body in server.bodies("run") + server.bodies("submit")] == [streams, streams]


# How runs end


@BOTH
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (says("Half", end="incomplete", reason="max_completion_tokens"), ("incomplete", "Half", "max_output_tokens")),
        (says("", end="incomplete", reason="max_prompt_tokens"), ("incomplete", "", "max_prompt_tokens")),
        (says("", end="incomplete"), ("incomplete", "", None)),
        (says(refusal="I will not."), ("failed", "", "refused: I will not.")),
        (
            says(end="failed", error={"code": "invalid_prompt", "message": "That is no prompt"}),
            ("failed", "", "That is no prompt"),
        ),
        (says(end="failed"), ("failed", "", None)),
        (says(end="cancelled"), ("cancelled", "", None)),
        (says(end="expired"), ("expired", "", None)),
    ],
)
def test_every_end_of_a_run_is_a_reply_that_says_why(
    act: Act, expected: tuple[str, str, str | None], options: CallOptions
) -> None:
    with AssistantsServer([act]) as server:
        [answer], _ = asked(server, HELLO, options=options)
    assert (answer.status, answer.text, answer.reason) == expected


@BOTH
@pytest.mark.parametrize(("code", "kind"), [("rate_limit_exceeded", "rate_limited"), ("server_error", "server_error")])
def test_a_run_that_failed_for_a_reason_that_passes_is_tried_again_with_the_same_message(
    code: str, kind: str, options: CallOptions
) -> None:
    async def run(server: AssistantsServer) -> Reply:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            with pytest.raises(ModelError, match="a moment, please") as caught:
                await said(thread, HELLO, options)
            assert (caught.value.type, caught.value.retryable) == (kind, True)
            assert thread.state == ThreadState("assistants")
            return (await said(thread, HELLO, options))[1]

    acts = [says(end="failed", error={"code": code, "message": "a moment, please"}), says("Now.")]
    with AssistantsServer(acts) as server:
        assert asyncio.run(run(server)).text == "Now."
        assert len(server.asked("message")) == 1
        assert server.asked("cancel") == [], "a run that is over is not cancelled"


# Looking


def test_a_run_is_looked_at_no_faster_than_the_server_says() -> None:
    waits = Waits()
    with AssistantsServer([says("Yes.", looks=3)], poll_after_ms=1234) as server:
        asked(server, HELLO, sleep=waits)
        assert len(server.asked("poll")) == 4
    assert waits.seconds == [1.234] * 4


def test_a_run_is_looked_at_ever_less_often_where_the_server_says_nothing() -> None:
    waits = Waits()
    with AssistantsServer([says("Yes.", looks=6)], poll_after_ms=None) as server:
        asked(server, HELLO, sleep=waits)
    assert waits.seconds == [0.5, 0.75, 1.125, 1.6875, 2.0, 2.0, 2.0]


def test_a_server_that_asks_for_no_pause_gets_a_short_one() -> None:
    waits = Waits()
    with AssistantsServer([says("Yes.", looks=1)], poll_after_ms=0) as server:
        asked(server, HELLO, sleep=waits)
    assert waits.seconds == [0.05, 0.05]
