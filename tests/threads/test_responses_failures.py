"""What goes wrong on the responses wire: every error as one of ours, threads that are lost, bounds on waiting."""

import asyncio
import re
from dataclasses import replace

import pytest
from openai import AsyncOpenAI

from master_agent.errors import ErrorType, ModelError
from master_agent.threads import CallOptions, ThreadState, UserTurn
from master_agent.threads.responses import Responses
from tests.servers.chat import error, hang_before_first_byte, html, json_body, nothing, status
from tests.servers.loopback import Behaviour, Body, Exchange
from tests.servers.responses import (
    Answer,
    ResponsesServer,
    Said,
    Stream,
    call,
    events,
    failed_response,
    half_json,
    hang_mid_stream,
    message,
    reply,
    reset,
    response_of,
    stream_without_end,
)
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, KEY, MODEL, STREAMED, WHOLE, said
from tests.threads.responding import STORES, ask, failure, opened

PAYING = {"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}}
SLOW_DOWN = {"type": "too_many_requests", "code": "rate_limit_exceeded", "message": "Slow down", "param": None}


@BOTH
@pytest.mark.parametrize(
    ("answer", "kind", "retryable", "told"),
    [
        (error(400, "'input' is too long"), "bad_request", False, "400: 'input' is too long"),
        (error(422, "body.input: too big"), "bad_request", False, "422: body.input: too big"),
        (error(401, f"Wrong key: {KEY} or sk-abcd***wxyz"), "authentication", False, "401: Wrong key: [key] or [key]"),
        (error(403, "Country not supported"), "permission", False, "403: Country not supported"),
        (error(404, 'model "qwen" not found'), "model_not_found", False, 'model "qwen" not found'),
        (status(404, "404 page not found"), "bad_request", False, "404 page not found"),
        (status(308, {}, {"location": "https://elsewhere.invalid/v1"}), "bad_request", False, "elsewhere.invalid"),
        (status(408), "model_timeout", True, "408"),
        (error(409, "Another process is on this conversation"), "server_error", True, "409"),
        (error(400, "Retry soon.", param="conversation", reason="conversation_locked"), "server_error", True, "soon"),
        (status(429), "rate_limited", True, "429"),
        (status(429, PAYING), "rate_limited", False, "You exceeded your quota"),
        (status(500), "server_error", True, "500"),
        (status(501, "no"), "bad_request", False, "501"),
        (status(503, ""), "server_error", True, "503"),
        (json_body({"error": {"message": "Overloaded", "code": 503}}), "server_error", True, "reported: Overloaded"),
        (html(), "malformed_reply", True, "<html><body>Sign in to the hotel"),
        (half_json(), "malformed_reply", True, '{"'),
        (json_body([1, 2]), "malformed_reply", True, "[1, 2]"),
        (json_body({"id": "resp_1"}), "malformed_reply", True, "without an output"),
        (json_body({"id": "r", "status": "queued", "output": []}), "malformed_reply", True, "that is only queued"),
        (json_body({"output": []}), "malformed_reply", False, "a response without an id"),
        (reply(calls=[call("", {}, "one")]), "malformed_reply", True, "without the tool's name"),
        (reply(calls=[call("add", {}, "")]), "malformed_reply", True, "do not tell them apart"),
        (reply(calls=[call("add", {}, "a"), call("add", {}, "a")]), "malformed_reply", True, "do not tell them apart"),
        (failed_response("server_error", "Oh no"), "server_error", True, "reported: Oh no"),
        (failed_response("503", "Overloaded"), "server_error", True, "reported: Overloaded"),
        (failed_response("rate_limit_exceeded", "Slow"), "rate_limited", True, "reported: Slow"),
        (failed_response("insufficient_quota", "No money"), "rate_limited", False, "reported: No money"),
        (nothing(), "connection", True, "no connection to http://127.0.0.1:"),
        (reset(), "connection", True, "no connection to http://127.0.0.1:"),
    ],
)
def test_every_failure_is_an_error_of_ours_that_says_whether_trying_again_can_help(
    answer: Answer, kind: ErrorType, retryable: bool, told: str, options: CallOptions
) -> None:
    raised = failure(answer, options)
    assert (raised.type, raised.retryable) == (kind, retryable), raised.message
    assert told in raised.message
    assert "127.0.0.1" in raised.message, "a message names the server"
    assert KEY not in raised.message + (raised.hint or ""), "a key is never shown"


@pytest.mark.parametrize(
    ("answer", "kind", "retryable", "told"),
    [
        (stream_without_end("And then"), "malformed_reply", True, "ended before the reply did: 'And then'"),
        (events("5"), "malformed_reply", True, "an event that cannot be read: '5'"),
        (events('{"type": "resp'), "malformed_reply", True, '{"type": "resp'),
        (events(), "malformed_reply", True, "a stream that ended before the reply did"),
        (events({"type": "error", "error": SLOW_DOWN}), "rate_limited", True, "Slow down"),
        (events({**SLOW_DOWN, "type": "error"}), "rate_limited", True, "Slow down"),
        (events({"type": "error", "code": "server_error", "message": "Oh"}), "server_error", True, "Oh"),
        (events({"type": "error", "code": "invalid_prompt", "message": "No"}), "bad_request", False, "No"),
        (events({"type": "error", "code": None, "message": "Broken"}), "server_error", True, "Broken"),
        (reset(after="And then"), "connection", True, "no connection"),
    ],
)
def test_a_stream_that_breaks_is_no_reply(answer: Answer, kind: ErrorType, retryable: bool, told: str) -> None:
    raised = failure(answer, STREAMED)
    assert (raised.type, raised.retryable) == (kind, retryable)
    assert told in raised.message


# Servers without what is needed


@pytest.mark.parametrize("code", [404, 405, 501])
def test_a_server_that_does_not_speak_responses_is_met_with_another_wire(code: int) -> None:
    raised = failure(status(code, {"detail": "Not Found"}))
    assert (raised.type, raised.retryable) == ("bad_request", False)
    assert "--wire chat" in (raised.hint or "")


@pytest.mark.parametrize("answer", [error(404, "No model 'x'"), error(404, "Item 'rs_1' not found", param="input")])
def test_something_else_that_is_missing_is_no_reason_for_another_wire(answer: Answer) -> None:
    assert "--wire" not in (failure(answer).hint or "")


@pytest.mark.parametrize("behaviour", [status(404, "404 page not found"), html(), json_body({"no": "id"})])
def test_a_server_without_conversations_is_told_so(behaviour: Behaviour) -> None:
    with ResponsesServer(conversing=behaviour) as server, pytest.raises(ModelError) as caught:
        ask(server, HELLO, store="conversation")
    assert server.count == 0
    assert "--thread-store response" in (caught.value.hint or "") or caught.value.type == "malformed_reply"
    assert not caught.value.retryable or caught.value.type == "malformed_reply"


@BOTH
@pytest.mark.parametrize(
    ("store", "ids"), [("response", {"response": "resp_gone"}), ("conversation", {"conversation": "conv_gone"})]
)
def test_a_thread_that_the_server_has_forgotten_is_named_and_not_asked_for_again(
    store: str, ids: dict[str, str], options: CallOptions
) -> None:
    with ResponsesServer() as server, pytest.raises(ModelError) as caught:
        ask(server, HELLO, state=ThreadState("responses", ids), store=store, options=options)
    assert (caught.value.type, caught.value.retryable) == ("bad_request", False)
    assert f"no longer knows {next(iter(ids.values()))}" in caught.value.message
    assert "--thread-store none" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "told",
    [
        "Previous response cannot be used for this organization due to Zero Data Retention.",
        "Unsupported parameter: previous_response_id",
        "'store' must be false",
    ],
)
def test_a_server_that_may_not_keep_anything_is_met_with_threads_on_this_side(told: str) -> None:
    assert "--thread-store none" in (failure(error(400, told)).hint or "")


def test_a_server_that_forgets_what_was_said_does_not_go_unnoticed() -> None:
    async def run(server: ResponsesServer) -> ModelError:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            await said(thread, HELLO)
            before = thread.state
            with pytest.raises(ModelError) as caught:
                await said(thread, UserTurn("And?"))
            assert thread.state == before
            return caught.value

    with ResponsesServer([reply("Hello."), reply("Who are you?", previous_response_id=None)]) as server:
        raised = asyncio.run(run(server))
    assert (raised.type, raised.retryable) == ("malformed_reply", False)
    assert "without what was said before" in raised.message
    assert "--thread-store none" in (raised.hint or "")


@STORES
def test_after_an_error_the_same_turn_can_be_sent_again(store: str) -> None:
    async def run(server: ResponsesServer) -> None:
        async with opened(server, store=store) as wire:
            thread = await wire.open(ADDER)
            await said(thread, HELLO)
            before = thread.state
            for options in (WHOLE, STREAMED):
                with pytest.raises(ModelError):
                    await said(thread, UserTurn("lost"), options)
                assert thread.state == before
            assert (await said(thread, UserTurn("And?")))[1].text == "Yes."

    rounds: list[Answer] = [reply("Hello."), status(500), stream_without_end(), reply("Yes.")]
    with ResponsesServer(rounds) as server:
        asyncio.run(run(server))
        assert len(server.conversations) == (store == "conversation"), "and in the same conversation"
    assert [item.get("content") for item in server.bodies[-1]["input"] if item.get("role") == "user"][-1] == "And?"
    assert "lost" not in str(server.bodies[-1])


# Waiting


def test_making_a_conversation_and_the_first_turn_share_one_deadline() -> None:
    async def slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await exchange.send_json(200, {"id": "conv_1"})

    with ResponsesServer([hang_before_first_byte()], conversing=slowly) as server:
        server.conversations["conv_1"] = []
        with pytest.raises(ModelError) as caught:
            ask(server, HELLO, store="conversation", options=replace(WHOLE, timeout=0.6))
    assert caught.value.type == "model_timeout"
    left = re.search(r"did not finish its reply within ([\d.]+) s", caught.value.message)
    assert left
    assert float(left[1]) < 0.35


def test_silence_before_the_first_event_is_no_reason_to_give_up() -> None:
    async def thinking(exchange: Exchange) -> None:
        await exchange.start_stream()
        await asyncio.sleep(0.4)
        part: Body = {"type": "output_text", "text": "After thought.", "annotations": []}
        response = response_of(exchange, Said((message(part),)))
        await Stream(exchange).send("response.completed", response=response)
        await exchange.end_stream(done=False)

    with ResponsesServer([thinking]) as server:
        [answer], _ = ask(server, HELLO, options=STREAMED, idle_timeout=0.1)
    assert answer.text == "After thought."


def test_a_reply_that_is_whole_is_not_lost_when_its_stream_does_not_end() -> None:
    with ResponsesServer([hang_mid_stream("Whole.", whole=True)]) as server:
        [answer], _ = ask(server, HELLO, options=STREAMED, idle_timeout=0.2)
    assert (answer.status, answer.text) == ("completed", "Whole.")
    assert answer.usage


def test_openais_own_address_gets_no_hint_at_another_wire() -> None:
    async def run(server: ResponsesServer) -> ModelError:
        wire = Responses(KEY, None, MODEL, client=AsyncOpenAI(api_key=KEY, base_url=server.base_url))
        with pytest.raises(ModelError) as caught:
            await said(await wire.open(AGENT), HELLO)
        await wire.close()
        return caught.value

    with ResponsesServer([status(404, "not found")]) as server:
        assert asyncio.run(run(server)).hint is None
    assert str(Responses(KEY, None, MODEL).client().base_url) == "https://api.openai.com/v1/"
