"""A loopback server that speaks Chat Completions: what each request gets is a Behaviour, chosen by a brain or a list.

    with ChatServer([reply("Hello.")]) as server:
        Chat("sk-test", server.base_url, "test-model")

As OpenAI does, it refuses bodies that do not fit the SDK's own types and conversations whose calls are not answered.
"""

import asyncio
import functools
import json
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tests.servers.loopback import Behaviour, Body, Exchange, Loopback, Recorded

USAGE: Body = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
Brain = Callable[[Body], Behaviour]


def envelope(exchange: Exchange, kind: str, **rest: Any) -> Body:
    """The fields that every chunk and every completion has, and the rest."""
    made = {"id": f"chatcmpl-{exchange.number}", "object": kind, "created": 1, "model": exchange.request.body["model"]}
    return {**made, **rest}


async def send_chunk(
    exchange: Exchange, delta: Body | None, finish: str | None = None, usage: Body | None = None
) -> None:
    """One chunk of a completion; without a delta one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    await exchange.event(json.dumps(envelope(exchange, "chat.completion.chunk", choices=choices, usage=usage)))


def call(name: str, arguments: Mapping[str, Any] | str, id: str | None = None) -> Body:  # noqa: A002
    """A tool call for `reply`; without an id the server makes one."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def reply(
    text: str = "",
    *,
    calls: Sequence[Body] = (),
    finish_reason: str | None = None,
    usage: Body | None = USAGE,
    deltas: Sequence[str] | None = None,
    refusal: str | None = None,
    delay: float = 0.0,
    gap: float = 0.0,
) -> Behaviour:
    """A completion, streamed if that was asked for: `delay` seconds before it, `gap` seconds between its deltas."""
    finish = finish_reason or ("tool_calls" if calls else "stop")

    async def behave(exchange: Exchange) -> None:
        made = [{**one, "id": one["id"] or f"call_{exchange.number}_{place}"} for place, one in enumerate(calls)]
        await asyncio.sleep(delay)
        if not exchange.streaming:
            message: Body = {"role": "assistant", "content": text or None, "refusal": refusal}
            choice = {"index": 0, "message": message | ({"tool_calls": made} if made else {}), "finish_reason": finish}
            await exchange.send_json(200, envelope(exchange, "chat.completion", choices=[choice], usage=usage))
            return
        await exchange.start_stream()
        await send_chunk(exchange, {"role": "assistant", "content": ""})
        for delta in deltas if deltas is not None else text.splitlines(keepends=True):
            await send_chunk(exchange, {"content": delta})
            await asyncio.sleep(gap)
        if refusal:
            await send_chunk(exchange, {"refusal": refusal})
        for place, one in enumerate(made):
            for fragment in _fragments(place, one):
                await send_chunk(exchange, {"tool_calls": [fragment]})
        await send_chunk(exchange, {}, finish)
        if usage and exchange.request.body.get("stream_options", {}).get("include_usage"):
            await send_chunk(exchange, None, usage=usage)
        await exchange.end_stream()

    return behave


def _fragments(place: int, one: Body) -> Iterable[Body]:
    function = one["function"]
    yield {"index": place, **one, "function": {"name": function["name"], "arguments": ""}}
    middle = len(function["arguments"]) // 2
    for part in (function["arguments"][:middle], function["arguments"][middle:]):
        yield {"index": place, "function": {"arguments": part}}


def chunks(*data: Body | str, done: bool = True) -> Behaviour:
    """A stream of exactly these chunks; text is sent as it is."""

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        for one in data:
            await exchange.event(one if isinstance(one, str) else json.dumps(one))
        await exchange.end_stream(done=done)

    return behave


def deltas(*parts: Body, finish_reason: str | None = "stop", usage: Body | None = USAGE) -> Behaviour:
    """A stream of exactly these deltas, of servers with habits of their own."""

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        for delta in parts:
            await send_chunk(exchange, delta)
        if finish_reason:
            await send_chunk(exchange, {}, finish_reason, usage)
        await exchange.end_stream()

    return behave


def status(code: int, body: object = None, headers: Mapping[str, str] | None = None) -> Behaviour:
    """A status with a JSON body, or with text as it is; without one OpenAI's shape of an error."""
    told = (
        {"error": {"message": f"status {code}", "type": "test", "param": None, "code": None}} if body is None else body
    )

    async def behave(exchange: Exchange) -> None:
        if isinstance(told, str):
            await exchange.send(code, told.encode(), "text/html", headers)
        else:
            await exchange.send_json(code, told, headers)

    return behave


def error(code: int, message: str, *, param: str | None = None, reason: str | None = None) -> Behaviour:
    """A status with an error in OpenAI's shape."""
    return status(code, {"error": {"message": message, "type": "test", "param": param, "code": reason}})


def json_body(body: object) -> Behaviour:
    """Status 200 and this JSON, whatever was asked for."""
    return status(200, body)


def html(text: str = "<html><body>Sign in to the hotel's network</body></html>") -> Behaviour:
    """Status 200 and a page, as a portal or a proxy gives it."""
    return status(200, text)


def half_json() -> Behaviour:
    """An answer that breaks off in the middle of its JSON, as if that were all."""

    async def behave(exchange: Exchange) -> None:
        if exchange.streaming:
            await exchange.start_stream()
            await exchange.event('{"id": "chatcmpl-1", "choices": [{"index": 0, "del')
            await exchange.end_stream()
        else:
            await exchange.send(200, b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mes', "application/json")

    return behave


def empty_choices() -> Behaviour:
    """A completion without a choice in it."""

    async def behave(exchange: Exchange) -> None:
        if exchange.streaming:
            await exchange.start_stream()
            await send_chunk(exchange, None, usage=USAGE)
            await exchange.end_stream()
        else:
            await exchange.send_json(200, envelope(exchange, "chat.completion", choices=[], usage=USAGE))

    return behave


def nothing() -> Behaviour:
    """Closes the connection without a byte."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False

    return behave


def reset(after: str | None = None) -> Behaviour:
    """Tears the connection down, at once or in the stream after some text."""

    async def behave(exchange: Exchange) -> None:
        if after is not None:
            await exchange.start_stream()
            await send_chunk(exchange, {"content": after})
            await asyncio.sleep(0.05)  # a reset overtakes what has not been read yet
        connection: socket.socket = exchange.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.writer.transport.abort()
        exchange.keep = False

    return behave


def hang_before_first_byte() -> Behaviour:
    """Takes the request and never answers."""

    async def behave(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    return behave


def hang_mid_stream(text: str = "And then", finish_reason: str | None = None) -> Behaviour:
    """Streams some text, or even the last chunk, and falls silent."""

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        await send_chunk(exchange, {"content": text}, finish_reason)
        await asyncio.Event().wait()

    return behave


def stream_without_end(text: str = "And then") -> Behaviour:
    """A stream that ends properly but says nowhere that the reply is whole."""

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        await send_chunk(exchange, {"content": text})
        await exchange.end_stream(done=False)

    return behave


def respond(body: Body) -> Behaviour:
    """The brain of a server that is given none: says again what it was told last."""
    return reply(f"You said: {body['messages'][-1]['content']}")


class ChatServer(Loopback):
    """The server; a list of behaviours is used up in order, and what comes after its end is refused.

    `faults` are the bodies it refused for their form. With a `key` it wants to be shown that one.
    """

    def __init__(
        self,
        behaviours: Brain | Sequence[Behaviour] = respond,
        *,
        models: Sequence[str] = ("test-model",),
        key: str | None = None,
    ) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._brain = behaviours if callable(behaviours) else _in_order(behaviours)
        self._models = models
        self._key = key

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def bodies(self) -> list[Body]:
        """The bodies of the requests for a completion."""
        return [one.body for one in self.requests if one.path.endswith("/chat/completions")]

    @property
    def count(self) -> int:
        """How many completions were asked for."""
        return len(self.bodies)

    def behaviour(self, request: Recorded) -> Behaviour:
        if self._key is not None and request.headers.get("authorization") != f"Bearer {self._key}":
            return error(401, "Incorrect API key provided", reason="invalid_api_key")
        match request.method, request.path:
            case "GET", "/v1/models":
                data = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in self._models]
                return json_body({"object": "list", "data": data})
            case "POST", "/v1/chat/completions":
                if fault := body_fault(request.body):
                    self.faults.append(fault)
                    return error(400, fault)
                return self._brain(request.body)
        return error(404, f"Invalid URL ({request.method} {request.path})")


def _in_order(behaviours: Sequence[Behaviour]) -> Brain:
    left = iter(behaviours)

    def next_one(_: Body) -> Behaviour:
        return next(left, None) or error(400, "the test's list of behaviours has come to its end")

    return next_one


@functools.cache
def _adapter() -> tuple[TypeAdapter[Any], frozenset[str]]:
    from openai.types.chat.completion_create_params import (
        CompletionCreateParamsNonStreaming,
        CompletionCreateParamsStreaming,
    )

    names = {*CompletionCreateParamsNonStreaming.__annotations__, *CompletionCreateParamsStreaming.__annotations__}
    return TypeAdapter(CompletionCreateParamsNonStreaming | CompletionCreateParamsStreaming), frozenset(names)


def type_fault(body: Body, adapter: TypeAdapter[Any], names: AbstractSet[str]) -> str | None:
    """What is wrong with a request by the SDK's types, of which `names` are the fields; None if nothing."""
    if unknown := body.keys() - names:
        return f"Unrecognized request argument supplied: {', '.join(sorted(unknown))}"
    try:
        _walk(adapter.validate_python(body))
    except ValidationError as faults:
        return str(faults)
    return None


def _walk(value: object) -> None:
    """Goes through all of a value, for pydantic looks into an Iterable only as it is walked through."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            _walk(one)


def body_fault(body: Body) -> str | None:
    """What is wrong with a request, by the SDK's types and by the order of calls and their outputs; None if nothing."""
    if fault := type_fault(body, *_adapter()):
        return fault
    waiting: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return f"messages with role 'tool' must answer a preceding call: {message['tool_call_id']}"
            waiting.discard(message["tool_call_id"])
        elif waiting:
            break
        waiting |= {one["id"] for one in message.get("tool_calls") or ()}
    return f"these tool_call_ids did not have response messages: {', '.join(sorted(waiting))}" if waiting else None
