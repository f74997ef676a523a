"""What goes wrong on the assistants wire: every error as one of ours, and no run is left by any of them."""

import asyncio
import time
import warnings
from dataclasses import replace

import pytest

from master_agent.errors import ErrorType, ModelError
from master_agent.threads import CallOptions, Reply
from master_agent.threads.assistants import Assistants
from tests.servers.assistant_runs import says
from tests.servers.assistants import AssistantsServer, Late
from tests.servers.chat import (
    call,
    error,
    half_json,
    hang_before_first_byte,
    html,
    json_body,
    nothing,
    reset,
    status,
)
from tests.servers.loopback import Behaviour, Exchange
from tests.threads.assisting import Waits, asked, failed, opened
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, KEY, MODEL, STREAMED, WHOLE, said

REPORTED = {"error": {"message": "The engine is overloaded", "code": 503}}
PAYING = {"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}}

MISBEHAVIOURS: list[tuple[Behaviour, ErrorType, bool, str]] = [
    (error(400, "'content' is too long"), "bad_request", False, "400: 'content' is too long"),
    (error(401, f"Wrong key: {KEY}"), "authentication", False, "401: Wrong key: [key]"),
    (status(402, {"error": "out of credit"}), "rate_limited", False, "402: out of credit"),
    (error(403, "Country not supported"), "permission", False, "403: Country not supported"),
    (error(404, "gone", reason="model_not_found"), "model_not_found", False, "404: gone"),
    (status(308, {}, {"location": "https://elsewhere.invalid/v1"}), "bad_request", False, "elsewhere.invalid"),
    (status(408), "model_timeout", True, "408"),
    (status(409), "server_error", True, "409"),
    (status(429), "rate_limited", True, "429"),
    (status(429, PAYING), "rate_limited", False, "You exceeded your quota"),
    (status(500), "server_error", True, "500"),
    (status(502, "<html><h1>Bad Gateway</h1></html>"), "server_error", True, "502: <html>"),
    (status(503, ""), "server_error", True, "503"),
    (json_body(REPORTED), "server_error", True, "reported: The engine is overloaded"),
    (html(), "malformed_reply", True, "<html><body>Sign in to the hotel"),
    (json_body([1, 2]), "malformed_reply", True, "[1, 2]"),
    (nothing(), "connection", True, "no connection to http://127.0.0.1:"),
    (reset(), "connection", True, "no connection to http://127.0.0.1:"),
]


def stream_of(*events: tuple[str, str]) -> Behaviour:
    """A stream of exactly these events."""

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        for name, data in events:
            await exchange.event(data, name)
        await exchange.end_stream(done=False)

    return behave


@pytest.mark.parametrize(
    ("kind", "options"), [("message", WHOLE), ("run", WHOLE), ("run", STREAMED)], ids=["message", "run", "streamed"]
)
@pytest.mark.parametrize(("behaviour", "type_", "retryable", "told"), MISBEHAVIOURS)
def test_every_failure_is_an_error_of_ours_that_says_whether_trying_again_can_help(
    kind: str, behaviour: Behaviour, type_: ErrorType, retryable: bool, told: str, options: CallOptions
) -> None:
    with AssistantsServer(faults={kind: [behaviour]}) as server:
        raised = failed(server, options)
        assert len(server.asked(kind)) == 1, "the SDK must not try again by itself"
    assert (raised.type, raised.retryable) == (type_, retryable), raised.message
    assert told in raised.message
    assert "127.0.0.1" in raised.message, "a message names the server"
    assert KEY not in raised.message + (raised.hint or ""), "a key is never shown"


@pytest.mark.parametrize("kind", ["assistant", "thread", "message", "run"])
@pytest.mark.parametrize(
    ("behaviour", "type_", "retryable"),
    [
        (half_json(), "malformed_reply", True),
        (json_body({"id": None}), "malformed_reply", True),
        (status(503), "server_error", True),
        (status(401), "authentication", False),
    ],
)
def test_what_cannot_be_made_is_an_error_wherever_it_is_missing(
    kind: str, behaviour: Behaviour, type_: ErrorType, retryable: bool
) -> None:
    with AssistantsServer(faults={kind: [behaviour]}) as server:
        raised = failed(server)
    assert (raised.type, raised.retryable) == (type_, retryable)


@pytest.mark.parametrize(
    ("behaviour", "type_", "told"),
    [
        (stream_of(), "malformed_reply", "ended before a run began"),
        (stream_of(("message", "5"), ("thread.message.delta", "[]")), "malformed_reply", "ended before a run began"),
        (stream_of(("thread.run.created", '{"id": "run_')), "malformed_reply", '{"id": "run_'),
        (stream_of(("thread.run.created", '{"id": 5}')), "malformed_reply", "a run that cannot be read"),
        (stream_of(("error", '{"message": "Overloaded", "code": "503"}')), "server_error", "reported: Overloaded"),
        (stream_of(("error", '{"error": {"message": "Overloaded"}}')), "server_error", "reported: Overloaded"),
    ],
)
def test_a_stream_that_never_tells_of_its_run_can_be_tried_again(
    behaviour: Behaviour, type_: ErrorType, told: str
) -> None:
    with AssistantsServer(faults={"run": [behaviour]}) as server:
        raised = failed(server, STREAMED)
    assert (raised.type, raised.retryable) == (type_, True)
    assert told in raised.message


@BOTH
@pytest.mark.parametrize("lost", [nothing(), reset(), status(502), html()], ids=["nothing", "reset", "502", "html"])
@pytest.mark.parametrize("kind", ["message", "run"])
def test_what_had_its_effect_though_the_answer_was_lost_is_not_there_twice(
    kind: str, lost: Behaviour, options: CallOptions
) -> None:
    async def run(server: AssistantsServer) -> Reply:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            with pytest.raises(ModelError):
                await said(thread, HELLO, options)
            assert server.running == []
            answer = (await said(thread, HELLO, options))[1]
            [messages] = server.threads.values()
            assert [one["role"] for one in messages] == ["user", "assistant"]
            return answer

    with AssistantsServer([says("One.", looks=50), says("Two.")] if kind == "run" else [says("Two.")],
                          faults={kind: [Late(lost)]}) as server:  # fmt: skip
        assert asyncio.run(run(server)).text == "Two."


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("message", "Can't add messages to thread_1 while a run run_1 is active."),
        ("run", "Thread thread_1 already has an active run run_1."),
    ],
)
def test_a_thread_that_is_busy_is_tried_again(kind: str, complaint: str) -> None:
    with AssistantsServer(faults={kind: [error(400, complaint)]}) as server:
        raised = failed(server)
    assert (raised.type, raised.retryable) == ("server_error", True)


# Looks


@pytest.mark.parametrize(
    ("kind", "behaviour"),
    [
        ("poll", status(429)),
        ("poll", status(500)),
        ("poll", html()),
        ("poll", half_json()),
        ("poll", json_body({"id": 5})),
        ("poll", nothing()),
        ("poll", reset()),
        ("messages", status(503)),
    ],
)
def test_a_look_that_fails_is_repeated_for_the_run_goes_on_without_it(kind: str, behaviour: Behaviour) -> None:
    with AssistantsServer(faults={kind: [behaviour, None, behaviour]}) as server:
        [answer], _ = asked(server, HELLO, sleep=Waits())
        assert answer.text == "You said: Hello?"
        assert (len(server.runs), len(server.asked("cancel"))) == (1, 0)


@pytest.mark.parametrize(
    ("behaviour", "type_", "looks"), [(status(500), "server_error", 3), (status(401), "authentication", 1)]
)
def test_looks_that_keep_failing_end_the_run(behaviour: Behaviour, type_: ErrorType, looks: int) -> None:
    with AssistantsServer(faults={"poll": [behaviour] * 9}) as server:
        assert failed(server, sleep=Waits()).type == type_
        assert len(server.asked("poll")) == looks
        assert len(server.asked("cancel")) == 1


def test_a_look_that_is_refused_is_repeated_no_sooner_than_the_server_says() -> None:
    waits = Waits()
    with AssistantsServer(faults={"poll": [status(429, headers={"retry-after": "7"})]}, poll_after_ms=None) as server:
        asked(server, HELLO, sleep=waits)
    assert waits.seconds == [0.5, 7.0, 0.75]


def test_a_status_that_nobody_knows_is_not_waited_for() -> None:
    with AssistantsServer([says(end="pondering", looks=0)]) as server:
        raised = failed(server, sleep=Waits())
        assert raised.type == "malformed_reply"
        assert "pondering" in raised.message


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [call("add", {}, "one"), call("add", {}, "one")],
        [{"id": "one", "type": "function", "function": {"arguments": "{}"}}],
    ],
    ids=["none", "one id for two", "no name"],
)
@BOTH
def test_calls_that_cannot_be_answered_are_no_reply_and_end_the_run(
    calls: list[dict[str, object]], options: CallOptions
) -> None:
    with AssistantsServer([says(calls=calls, end="requires_action")]) as server:
        raised = failed(server, options, ADDER)
    assert (raised.type, raised.retryable) == ("malformed_reply", True)
    assert "calls of tools that cannot be answered" in raised.message


def test_arguments_that_are_no_json_are_passed_on_as_they_are() -> None:
    with AssistantsServer([says(calls=[call("add", '{"a": ', "one")])]) as server:
        [answer], _ = asked(server, HELLO, agent=ADDER)
    assert answer.calls[0].arguments == '{"a":'


def test_usage_that_is_not_reported_is_unknown() -> None:
    with AssistantsServer([says("Yes.", usage=None)]) as server:
        [answer], _ = asked(server, HELLO)
    assert answer.usage is None


@pytest.mark.parametrize(
    ("kind", "options"), [("assistant", WHOLE), ("message", WHOLE), ("run", WHOLE), ("run", STREAMED), ("poll", WHOLE)]
)
def test_a_server_that_hangs_is_given_up_when_the_time_is_over(kind: str, options: CallOptions) -> None:
    begun = time.monotonic()
    with AssistantsServer(faults={kind: [hang_before_first_byte()] * 3}) as server:
        raised = failed(server, replace(options, timeout=0.3))
    assert time.monotonic() - begun < 7
    assert (raised.type, raised.retryable) == ("model_timeout", True)
    assert "did not finish its reply within 0.3 s" in raised.message


@BOTH
@pytest.mark.parametrize(("wait", "expected"), [({"retry-after": "7"}, 7.0), ({"retry-after-ms": "40"}, 0.04)])
def test_an_error_carries_how_long_the_server_asks_to_wait(
    wait: dict[str, str], expected: float, options: CallOptions
) -> None:
    with AssistantsServer(faults={"run": [status(429, headers=wait)]}) as server:
        assert failed(server, options).retry_after == expected


# Servers without this API


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1/"])
def test_openais_own_address_is_refused_before_anything_is_asked(base_url: str | None) -> None:
    with pytest.raises(ModelError, match="switched its Assistants API off on 2026-08-26") as caught:
        Assistants(KEY, base_url, MODEL)
    assert (caught.value.type, caught.value.retryable) == ("no_model", False)
    assert "--wire responses" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["assistant", "thread"])
def test_a_server_without_this_api_is_explained_and_its_404_is_not_shown_raw(kind: str) -> None:
    with AssistantsServer(faults={kind: [error(404, "Invalid URL (POST /v1/assistants)")]}) as server:
        raised = failed(server)
    assert (raised.type, raised.retryable) == ("no_model", False)
    assert "has no Assistants API" in raised.message
    assert "2026-08-26" in raised.message
    assert "Invalid URL" not in raised.message
    assert "--wire chat" in (raised.hint or "")


def test_no_deprecation_of_the_sdk_is_heard() -> None:
    with warnings.catch_warnings(record=True) as heard, AssistantsServer() as server:
        warnings.simplefilter("always")
        asked(server, HELLO, options=STREAMED)
        asked(server, HELLO, options=WHOLE)
    assert [one.message for one in heard if issubclass(one.category, DeprecationWarning)] == []
