"""What the wires share that make one request a turn: bounds on waits, connections let go of, many threads at once."""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from types import AsyncGeneratorType
from typing import Any

import pytest

from master_agent.catalogue import HOSTED
from master_agent.errors import ModelError
from master_agent.threads import CallOptions, Capabilities, TextPiece, ThreadState, UserTurn, Wire
from master_agent.threads.chat import Chat
from master_agent.threads.responses import Responses
from tests.servers import chat, responses
from tests.servers.chat import ChatServer, error, hang_before_first_byte, status
from tests.servers.responses import ResponsesServer
from tests.threads.chatting import AGENT, BOTH, HELLO, KEY, MODEL, SHAPED, STREAMED, WHOLE, ask, refusal, said, wire_to


@dataclass(frozen=True)
class Side:
    """A wire, its server, and what makes the server's answers."""

    wire: Callable[..., Wire]
    server: Callable[..., Any]
    answers: Any

    def error(self, answer: Any, options: CallOptions = WHOLE, **settings: Any) -> ModelError:
        """The error that an answer becomes."""
        with self.server([answer]) as server:
            raised = refusal(server, options, kind=self.wire, **settings)
            assert server.count == 1, "the SDK must not try again by itself"
            return raised


SIDES = {
    "chat": Side(Chat, ChatServer, chat),
    "responses": Side(Responses, ResponsesServer, responses),
    "responses in a conversation": Side(partial(Responses, store="conversation"), ResponsesServer, responses),
    "responses kept here": Side(partial(Responses, store="none"), ResponsesServer, responses),
}
EVERY = pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
ONE_OF_EACH = pytest.mark.parametrize("side", [SIDES["chat"], SIDES["responses"]], ids=["chat", "responses"])


@ONE_OF_EACH
@BOTH
def test_an_error_carries_how_long_the_server_asks_to_wait(side: Side, options: CallOptions) -> None:
    assert side.error(status(429, headers={"retry-after": "7"}), options).retry_after == 7
    assert side.error(status(503, headers={"retry-after-ms": "40"}), options).retry_after == 0.04
    assert side.error(status(429), options).retry_after is None


@ONE_OF_EACH
@BOTH
@pytest.mark.parametrize("late", [False, True], ids=["hangs", "late"])
def test_a_request_is_given_up_when_its_time_is_over(side: Side, options: CallOptions, *, late: bool) -> None:
    begun = time.monotonic()
    answer = side.answers.reply("Late.", delay=30) if late else hang_before_first_byte()
    raised = side.error(answer, replace(options, timeout=0.2))
    assert time.monotonic() - begun < 2
    assert (raised.type, raised.retryable) == ("model_timeout", True)
    assert "did not finish its reply within 0.2 s" in raised.message


@ONE_OF_EACH
def test_a_stream_that_trickles_is_given_up_when_its_time_is_over(side: Side) -> None:
    begun = time.monotonic()
    raised = side.error(side.answers.reply(deltas=["."] * 100, gap=0.05), replace(STREAMED, timeout=0.4))
    assert time.monotonic() - begun < 2
    assert raised.type == "model_timeout"


@ONE_OF_EACH
def test_a_stream_that_falls_silent_is_given_up_long_before_its_time_is_over(side: Side) -> None:
    begun = time.monotonic()
    raised = side.error(side.answers.hang_mid_stream(), STREAMED, idle_timeout=0.2)
    assert time.monotonic() - begun < 3
    assert (raised.type, raised.retryable) == ("model_timeout", True)
    assert "fell silent for 0.2 s" in raised.message


@EVERY
@BOTH
@pytest.mark.parametrize("amid", [False, True], ids=["before", "amid"])
def test_cancelling_closes_the_connection_at_once(side: Side, options: CallOptions, *, amid: bool) -> None:
    async def run(server: Any) -> None:
        async with wire_to(side.wire, server) as wire:
            thread = await wire.open(AGENT)
            task = asyncio.ensure_future(said(thread, HELLO, options))
            assert await asyncio.to_thread(server.wait_for, lambda: server.count == 1 and server.open_requests == 1)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.wait_for, lambda: server.closed_by_client == 1, 1)
            assert server.open_requests == 0
            assert thread.state == ThreadState(wire.name)

    with side.server([side.answers.hang_mid_stream() if amid else hang_before_first_byte()]) as server:
        asyncio.run(run(server))


@ONE_OF_EACH
def test_a_reader_who_leaves_early_closes_the_connection(side: Side) -> None:
    async def run(server: Any) -> None:
        async with wire_to(side.wire, server) as wire:
            thread = await wire.open(AGENT)
            async with aclosing(thread.send(HELLO, STREAMED)) as pieces:
                async for piece in pieces:
                    assert piece == TextPiece("And then")
                    break
            assert await asyncio.to_thread(server.wait_for, lambda: server.closed_by_client == 1, 1)

    with side.server([side.answers.hang_mid_stream()]) as server:
        asyncio.run(run(server))


def test_nothing_is_left_half_read_of_a_stream_that_the_server_keeps_open_after_its_end() -> None:
    delta = {"index": 0, "delta": {"content": "Done."}, "finish_reason": "stop"}
    chunk = json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(f"data: {chunk}\n\ndata: [DONE]\n\n".encode())
        await writer.drain()
        while await reader.read(1024):  # until the client lets go
            continue
        writer.close()
        await writer.wait_closed()

    async def run() -> list[str]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        wire = Chat(KEY, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", MODEL)
        assert (await said(await wire.open(AGENT), HELLO, STREAMED))[1].text == "Done."
        await wire.close()
        there = (one for one in gc.get_objects() if isinstance(one, AsyncGeneratorType))
        left = [one.__qualname__ for one in there if (frame := one.ag_frame) is not None and frame.f_lasti > 0]
        server.close()
        return left

    assert asyncio.run(run()) == []


@EVERY
def test_closing_the_wire_closes_its_connections(side: Side, recwarn: pytest.WarningsRecorder) -> None:
    with side.server() as server:
        ask(server, HELLO, options=STREAMED, kind=side.wire)
    gc.collect()
    assert [str(one.message) for one in recwarn if issubclass(one.category, ResourceWarning)] == []


@ONE_OF_EACH
def test_threads_of_one_wire_can_ask_at_the_same_time(side: Side) -> None:
    async def run(server: Any) -> list[str]:
        async with wire_to(side.wire, server) as wire:
            threads = [await wire.open(AGENT) for _ in range(5)]
            answers = await asyncio.gather(*(said(one, UserTurn(str(n)), STREAMED) for n, one in enumerate(threads)))
            return [answer.text for _, answer in answers]

    def echo(asked: Any, _: Any = None) -> Any:
        """The last thing that was said: of a body's messages, or of the items."""
        items = asked["messages"] if isinstance(asked, dict) else asked
        return side.answers.reply(items[-1]["content"], delay=0.2)

    with side.server(echo) as server:
        assert asyncio.run(run(server)) == ["0", "1", "2", "3", "4"]
        assert server.most_open == 5


@ONE_OF_EACH
def test_the_models_of_a_server_are_listed(side: Side) -> None:
    async def run(server: Any) -> list[str]:
        async with wire_to(side.wire, server) as wire:
            return await wire.models()

    with side.server(models=["b", "a"], key=KEY) as server:
        assert asyncio.run(run(server)) == ["b", "a"]
    with side.server(key="another-key") as server, pytest.raises(ModelError) as caught:
        asyncio.run(run(server))
    assert caught.value.type == "authentication"


@EVERY
def test_opening_a_thread_asks_nothing(side: Side) -> None:
    async def run(server: Any) -> Wire:
        wire = side.wire(KEY, server.base_url, MODEL)
        thread = await wire.open(AGENT)
        assert (thread.agent, thread.state) == (AGENT, ThreadState(wire.name))
        await thread.cancel()
        await wire.close()
        return wire

    with side.server() as server:
        made = asyncio.run(run(server))
        assert server.requests == []
    hosted = frozenset(HOSTED) if made.name == "responses" else frozenset[str]()
    assert (made.name, made.capabilities) == (side.answers.__name__.split(".")[-1], Capabilities(hosted_tools=hosted))


def test_the_sdk_is_not_imported_before_the_first_request() -> None:
    program = (
        "import sys, master_agent.threads.chat as c, master_agent.threads.responses as r\n"
        "c.Chat('k', None, 'm'), r.Responses('k', None, 'm'); print('openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@ONE_OF_EACH
def test_a_refusal_can_be_read_in_the_wires_capabilities_and_in_the_error(side: Side) -> None:
    name = "response_format" if side.wire is Chat else "text.format"

    async def run(server: Any) -> tuple[ModelError, Capabilities]:
        async with wire_to(side.wire, server) as wire:
            assert wire.capabilities.schema == "strict"
            with pytest.raises(ModelError) as caught:
                await said(await wire.open(SHAPED), HELLO)
            return caught.value, wire.capabilities

    with side.server([error(400, f"{name} of type json_schema is not supported")]) as server:
        raised, able = asyncio.run(run(server))
    assert (raised.type, raised.retryable, raised.retry_after) == ("bad_request", True, 0.0)
    assert f"without {name} json_schema" in raised.message
    assert able.schema == "object"


@ONE_OF_EACH
@pytest.mark.parametrize(
    "told",
    [
        "Invalid 'temperature': above 2",
        "max_tokens is too large: 9. It supports at most 8",
        "max_output_tokens is too small: 9. Expected at least 16",
        "Your text is bad",
    ],
)
def test_a_value_that_is_wrong_is_told_and_not_left_out_in_silence(side: Side, told: str) -> None:
    with side.server([error(400, told)]) as server:
        raised = refusal(server, agent=replace(SHAPED, temperature=0.2, max_output_tokens=9), kind=side.wire)
    assert (raised.type, raised.retryable) == ("bad_request", False)
    assert told in raised.message
