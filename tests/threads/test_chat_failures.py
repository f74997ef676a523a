"""What goes wrong on the chat wire: every error as one of ours, bounds on waiting, cancelling, and what is learnt."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from openai import AsyncOpenAI

from master_agent.errors import ErrorType, ModelError
from master_agent.threads import CallOptions
from master_agent.threads._openai import retry_after
from master_agent.threads.chat import Chat
from tests.servers.chat import (
    ChatServer,
    chunks,
    deltas,
    empty_choices,
    error,
    half_json,
    hang_mid_stream,
    html,
    json_body,
    nothing,
    reply,
    reset,
    send_chunk,
    status,
    stream_without_end,
)
from tests.servers.loopback import Behaviour, Exchange
from tests.threads.chatting import (
    AGENT,
    BOTH,
    HELLO,
    KEY,
    MODEL,
    STREAMED,
    ask,
    failure,
    opened,
    said,
)

REPORTED = {"error": {"message": "The engine is overloaded", "code": 503}}


def cut_off(code: int) -> Behaviour:
    """An error whose body breaks off."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head(code, {"content-type": "text/plain", "content-length": "100"})
        exchange.writer.write(b"The serv")
        exchange.keep = False

    return behave


PAYING = {"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}}


@BOTH
@pytest.mark.parametrize(
    ("behaviour", "kind", "retryable", "told"),
    [
        (error(400, "'messages' is too long"), "bad_request", False, "400: 'messages' is too long"),
        (status(422, {"detail": [{"loc": ["body", "n"], "msg": "too big"}]}), "bad_request", False, "body.n: too big"),
        (error(400, "qwen is not a valid model ID: unknown model"), "model_not_found", False, "not a valid model"),
        (error(401, f"Wrong key: {KEY} or sk-abcd***wxyz"), "authentication", False, "401: Wrong key: [key] or [key]"),
        (status(402, {"error": "out of credit"}), "rate_limited", False, "402: out of credit"),
        (error(403, "Country not supported"), "permission", False, "403: Country not supported"),
        (error(404, 'model "qwen" not found, try pulling it'), "model_not_found", False, 'model "qwen" not found'),
        (error(404, "gone", reason="model_not_found"), "model_not_found", False, "404: gone"),
        (status(404, "404 page not found"), "bad_request", False, "404 page not found"),
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
        (half_json(), "malformed_reply", True, '{"id": "chatcmpl-1", "choices"'),
        (json_body([1, 2]), "malformed_reply", True, "[1, 2]"),
        (empty_choices(), "malformed_reply", True, ""),
        (reply(finish_reason="tool_calls"), "malformed_reply", True, "without the tool's name"),
        (reply("Oops", finish_reason="error"), "server_error", True, "broke off with an error"),
        (cut_off(500), "connection", True, "no connection to http://127.0.0.1:"),
        (nothing(), "connection", True, "no connection to http://127.0.0.1:"),
        (reset(), "connection", True, "no connection to http://127.0.0.1:"),
    ],
)
def test_every_failure_is_an_error_of_ours_that_says_whether_trying_again_can_help(
    behaviour: Behaviour, kind: ErrorType, retryable: bool, told: str, options: CallOptions
) -> None:
    raised = failure(behaviour, options)
    assert (raised.type, raised.retryable) == (kind, retryable), raised.message
    assert told in raised.message
    assert "127.0.0.1" in raised.message, "a message names the server"
    assert KEY not in raised.message + (raised.hint or ""), "a key is never shown"


@pytest.mark.parametrize(
    ("behaviour", "kind", "told"),
    [
        (stream_without_end("And then"), "malformed_reply", "a stream that ended before the reply did: 'And then'"),
        (chunks('{"choices": [{"delta": {"content": "a'), "malformed_reply", '{"choices": [{"delta"'),
        (chunks("5"), "malformed_reply", "a chunk that cannot be read: '5'"),
        (chunks(), "malformed_reply", "a stream that ended before the reply did"),
        (chunks(REPORTED), "server_error", "The engine is overloaded"),
        (reset(after="And then"), "connection", "no connection"),
    ],
)
def test_a_stream_that_breaks_is_no_reply_and_can_be_tried_again(
    behaviour: Behaviour, kind: ErrorType, told: str
) -> None:
    raised = failure(behaviour, STREAMED)
    assert (raised.type, raised.retryable) == (kind, True)
    assert told in raised.message


def test_what_could_not_be_read_is_quoted_no_further_than_80_characters() -> None:
    raised = failure(html("<html>" + "x" * 500))
    assert "x" * 60 in raised.message
    assert "x" * 80 not in raised.message


@pytest.mark.parametrize(
    ("behaviour", "named"),
    [
        (status(401), "OPENAI_API_KEY"),
        (status(429, PAYING), "credit"),
        (error(404, "model 'x' not found"), "master-agent models"),
        (error(400, "too long", reason="context_length_exceeded"), "reads more"),
    ],
)
def test_a_hint_says_what_to_do(behaviour: Behaviour, named: str) -> None:
    assert named in (failure(behaviour).hint or "")


def test_an_address_that_ends_oddly_is_asked_about() -> None:
    async def run(base_url: str) -> ModelError:
        wire = Chat(KEY, base_url, MODEL)
        with pytest.raises(ModelError) as caught:
            await said(await wire.open(AGENT), HELLO)
        await wire.close()
        return caught.value

    with ChatServer() as server:
        raised = asyncio.run(run(server.origin))
    assert (raised.type, raised.hint) == ("bad_request", "Check OPENAI_BASE_URL: for most servers it ends in /v1.")


def test_no_server_at_all_names_the_address_without_its_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def run() -> ModelError:
        wire = Chat(KEY, f"http://me:secret@127.0.0.1:{port}/v1", MODEL)
        with pytest.raises(ModelError) as caught:
            await said(await wire.open(AGENT), HELLO)
        await wire.close()
        return caught.value

    raised = asyncio.run(run())
    assert (raised.type, raised.retryable) == ("connection", True)
    assert f"http://127.0.0.1:{port}/v1" in raised.message
    assert raised.hint == "Is the server running? Check OPENAI_BASE_URL."


@pytest.mark.parametrize(
    ("key", "base_url", "kind"),
    [("sk-“quoted”", None, "authentication"), ("k\nk", None, "authentication"), (KEY, "ftp://host/v1", "connection")],
)
def test_a_key_or_an_address_that_cannot_be_one_is_told_before_anything_is_sent(
    key: str, base_url: str | None, kind: ErrorType
) -> None:
    async def run() -> ModelError:
        wire = Chat(key, base_url, MODEL)
        with pytest.raises(ModelError) as caught:
            await said(await wire.open(AGENT), HELLO)
        await wire.close()
        return caught.value

    raised = asyncio.run(run())
    assert (raised.type, raised.retryable) == (kind, False)
    assert "quoted" not in raised.message


def test_nothing_of_the_environment_goes_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://from-the-environment.invalid/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer from-the-environment")
    with ChatServer() as server:
        ask(server, HELLO)

        async def without_key() -> None:
            wire = Chat(None, server.base_url, MODEL, organization="org-mine")
            await said(await wire.open(AGENT), HELLO)
            await wire.close()

        asyncio.run(without_key())
        assert "from-the-environment" not in str([one.headers for one in server.requests])
        assert server.requests[1].headers["openai-organization"] == "org-mine"
        assert "openai-organization" not in server.requests[0].headers
    assert str(Chat(KEY, None, MODEL).client().base_url) == "https://api.openai.com/v1/"


def test_a_client_that_is_given_does_not_try_again_by_itself_either() -> None:
    async def run(server: ChatServer) -> None:
        client = AsyncOpenAI(api_key=KEY, base_url=server.base_url, max_retries=2)
        async with opened(server, client=client) as wire:
            with pytest.raises(ModelError):
                await said(await wire.open(AGENT), HELLO)
        assert client.is_closed()

    with ChatServer([status(500), reply("Too late.")]) as server:
        asyncio.run(run(server))
        assert server.count == 1


# Waiting


def test_retry_after_is_read_in_all_its_forms() -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "3"}, now) == 3
    assert retry_after({"retry-after": "1.5"}, now) == 1.5
    assert retry_after({"retry-after": "60", "retry-after-ms": "250"}, now) == 0.25
    assert retry_after({"retry-after": format_datetime(now + timedelta(seconds=90), usegmt=True)}, now) == 90
    assert retry_after({"retry-after": format_datetime(now - timedelta(seconds=90), usegmt=True)}, now) == 0
    assert retry_after({"retry-after": "soon"}, now) is None
    assert retry_after({"retry-after": "nan"}, now) is None
    assert retry_after({}, now) is None


def test_silence_before_the_first_piece_is_no_reason_to_give_up() -> None:
    async def thinking(exchange: Exchange) -> None:
        await exchange.start_stream()
        await asyncio.sleep(0.4)
        await send_chunk(exchange, {"content": "After thought."}, "stop")
        await exchange.end_stream()

    with ChatServer([thinking]) as server:
        [answer], _ = ask(server, HELLO, options=STREAMED, idle_timeout=0.1)
    assert answer.text == "After thought."


@pytest.mark.parametrize("lost", [hang_mid_stream("Whole.", "stop"), deltas({"content": "Whole."}, usage=None)])
def test_a_reply_that_is_whole_is_not_lost_with_its_usage(lost: Behaviour) -> None:
    with ChatServer([lost]) as server:
        [answer], _ = ask(server, HELLO, options=STREAMED, idle_timeout=0.2)
    assert (answer.status, answer.text, answer.usage) == ("completed", "Whole.", None)
