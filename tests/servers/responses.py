"""A loopback server that speaks Responses and Conversations, and keeps both: what each request gets, a brain says.

    with ResponsesServer([reply("Hello.")]) as server:
        Responses("sk-test", server.base_url, "test-model")

A brain is given all items as the model would see them, and the body; behaviours of the chat server's that know nothing
of completions (`status`, `html`, `nothing`, …) serve here too. As OpenAI does, the server refuses bodies that do
not fit the SDK's own types, ids that it does not know, calls without their outputs, and strict schemas that are not.
"""

import asyncio
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.servers.chat import error, json_body
from tests.servers.chat import reset as reset_connection
from tests.servers.loopback import Behaviour, Body, Exchange, Loopback, Recorded
from tests.servers.responses_keeping import Keeping
from tests.servers.responses_rules import Fault, body_fault, order_fault

USAGE: Body = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 18,
}
ENCRYPTED = "reasoning.encrypted_content"


@dataclass(frozen=True)
class Said:
    """A response that the server makes of it, keeps and sends, streamed if that was asked for."""

    output: tuple[Body, ...]
    status: str = "completed"
    reason: str | None = None
    error: Body | None = None
    usage: Body | None = None
    deltas: tuple[str, ...] | None = None
    delay: float = 0.0
    gap: float = 0.0
    changes: tuple[tuple[str, Any], ...] = ()
    lost: bool = False


Answer = Said | Behaviour
Brain = Callable[[list[Body], Body], Answer]


def call(name: str, arguments: Mapping[str, Any] | str, id: str | None = None) -> Body:  # noqa: A002
    """A function call for `reply`; without an id the server makes one."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"type": "function_call", "call_id": id, "name": name, "arguments": text, "status": "completed"}


def reasoning(secret: str, **more: Any) -> Body:
    """A reasoning item for `reply`; its encrypted content is given only to those who ask for it."""
    return {"type": "reasoning", "summary": [], "encrypted_content": secret, **more}


def message(*parts: Body, phase: str | None = None) -> Body:
    """An output message of these parts."""
    made = {"type": "message", "role": "assistant", "status": "completed", "content": list(parts)}
    return made | ({"phase": phase} if phase else {})


def reply(
    text: str = "",
    *,
    calls: Sequence[Body] = (),
    thoughts: Sequence[Body] = (),
    aside: str | None = None,
    refusal: str | None = None,
    status: str = "completed",
    reason: str | None = None,
    usage: Body | None = USAGE,
    deltas: Sequence[str] | None = None,
    delay: float = 0.0,
    gap: float = 0.0,
    lost: bool = False,
    **changes: Any,
) -> Said:
    """A response: reasoning, a message aside from the result, the text, a refusal, function calls.

    `delay` is in seconds before it, `gap` between its deltas; `changes` are fields that the response gets in the end.
    One that is `lost` is kept by the server, and the connection breaks off before it can be sent.
    """
    whole = text or "".join(deltas or ())
    said = [{"type": "output_text", "text": whole, "annotations": [], "logprobs": []}] if whole else []
    refused = [{"type": "refusal", "refusal": refusal}] if refusal else []
    besides = [message(_text(aside), phase="commentary")] if aside else []
    output = (*thoughts, *besides, *([message(*said, *refused)] if said or refused else []), *calls)
    parts = None if deltas is None else tuple(deltas)
    return Said(output, status, reason, None, usage, parts, delay, gap, tuple(changes.items()), lost)


def failed_response(code: str, message: str = "It went wrong", text: str = "") -> Said:
    """A response that the server says has failed, with status 200."""
    output = (globals()["message"](_text(text)),) if text else ()
    return Said(output, "failed", error={"code": code, "message": message})


def _text(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class Stream:
    """Server-sent events as OpenAI numbers them."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._number = 0

    async def send(self, kind: str, **fields: Any) -> None:
        await self._exchange.event(json.dumps({"type": kind, "sequence_number": self._number, **fields}), kind)
        self._number += 1

    async def begin(self, response: Body) -> None:
        begun = {**response, "status": "in_progress", "output": [], "usage": None}
        begun |= {"error": None, "incomplete_details": None}
        await self._exchange.start_stream()
        await self.send("response.created", response=begun)
        await self.send("response.in_progress", response=begun)

    async def item(self, index: int, item: Body, deltas: Sequence[str] | None, gap: float) -> None:
        """All events of one item of the output."""
        blank: dict[str, Body] = {
            "message": {"content": []}, "function_call": {"arguments": ""}, "image_generation_call": {"result": None},
        }  # fmt: skip
        added = {**item, **blank.get(item["type"], {})} | ({"status": "in_progress"} if "status" in item else {})
        await self.send("response.output_item.added", output_index=index, item=added)
        where: Body = {"item_id": item["id"], "output_index": index}
        for place, part in enumerate(item["content"] if item["type"] == "message" else ()):
            await self._part({**where, "content_index": place}, part, deltas, gap)
        if item["type"] == "function_call":
            half = len(item["arguments"]) // 2
            for fragment in (item["arguments"][:half], item["arguments"][half:]):
                await self.send("response.function_call_arguments.delta", **where, delta=fragment)
            done = {"arguments": item["arguments"], "name": item["name"]}
            await self.send("response.function_call_arguments.done", **where, **done)
        await self.send("response.output_item.done", output_index=index, item=item)

    async def _part(self, where: Body, part: Body, deltas: Sequence[str] | None, gap: float) -> None:
        name = "text" if part["type"] == "output_text" else "refusal"
        event = "response.output_text" if name == "text" else "response.refusal"
        extra: Body = {"logprobs": []} if name == "text" else {}
        await self.send("response.content_part.added", **where, part={**part, name: ""})
        for delta in deltas if deltas is not None and name == "text" else part[name].splitlines(keepends=True):
            await self.send(f"{event}.delta", **where, delta=delta, **extra)
            await asyncio.sleep(gap)
        for number, one in enumerate(part.get("annotations", ())):
            await self.send("response.output_text.annotation.added", **where, annotation=one, annotation_index=number)
        await self.send(f"{event}.done", **where, **{name: part[name]}, **extra)
        await self.send("response.content_part.done", **where, part=part)


def response_of(exchange: Exchange, said: Said) -> Body:
    """The whole response as OpenAI would send it."""
    body, number = exchange.request.body, exchange.number
    held = body.get("conversation")
    made: Body = {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": said.status,
        "error": said.error,
        "incomplete_details": {"reason": said.reason} if said.reason else None,
        "instructions": body.get("instructions"),
        "previous_response_id": body.get("previous_response_id"),
        "conversation": {"id": held} if isinstance(held, str) else held,
        "output": [_item(body, number, place, item) for place, item in enumerate(said.output)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools", []),
        "store": body.get("store", True),
        "usage": said.usage,
    }
    return made | dict(said.changes)


def _item(body: Body, number: int, place: int, item: Body) -> Body:
    prefix = {"message": "msg", "function_call": "fc", "reasoning": "rs"}.get(item["type"], "it")
    made = {"id": f"{prefix}_{number}_{place}", **item}
    if made["type"] == "function_call" and made["call_id"] is None:
        made["call_id"] = f"call_{number}_{place}"
    if made["type"] == "reasoning" and ENCRYPTED not in body.get("include", ()):
        made["encrypted_content"] = None
    if made["type"] == "code_interpreter_call" and "code_interpreter_call.outputs" not in body.get("include", ()):
        made["outputs"] = None
    return made


async def _send(exchange: Exchange, said: Said, response: Body) -> None:
    await asyncio.sleep(said.delay)
    if not exchange.streaming:
        await exchange.send_json(200, response)
        return
    stream = Stream(exchange)
    await stream.begin(response)
    for place, item in enumerate(response["output"]):
        aside = item.get("phase") == "commentary"
        await stream.item(place, item, None if aside else said.deltas, said.gap)
    await stream.send(f"response.{said.status}", response=response)
    await exchange.end_stream(done=False)


def events(*data: Body | str) -> Behaviour:
    """A stream of exactly these events; text is sent as it is."""

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        for one in data:
            await exchange.event(one if isinstance(one, str) else json.dumps(one))
        await exchange.end_stream(done=False)

    return behave


def half_json() -> Behaviour:
    """An answer that breaks off in the middle of its JSON, as if that were all."""

    async def behave(exchange: Exchange) -> None:
        if exchange.streaming:
            await exchange.start_stream()
            await exchange.event('{"type": "response.output_text.del')
            await exchange.end_stream(done=False)
        else:
            await exchange.send(200, b'{"id": "resp_1", "output": [{"type": "mes', "application/json")

    return behave


async def _begin(exchange: Exchange, text: str) -> Stream:
    stream = Stream(exchange)
    begun = response_of(exchange, Said((message(_text(text)),)))
    await stream.begin(begun)
    item = begun["output"][0]
    await stream.send("response.output_item.added", output_index=0, item={**item, "content": []})
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    await stream.send("response.content_part.added", **where, part=_text(""))
    await stream.send("response.output_text.delta", **where, delta=text, logprobs=[])
    return stream


def reset(after: str | None = None) -> Behaviour:
    """Tears the connection down, at once or in the stream after some text."""

    async def behave(exchange: Exchange) -> None:
        if after is not None:
            await _begin(exchange, after)
            await asyncio.sleep(0.05)  # a reset overtakes what has not been read yet
        await reset_connection()(exchange)

    return behave


def hang_mid_stream(text: str = "And then", *, whole: bool = False) -> Behaviour:
    """Streams some text, or even the whole response, and falls silent."""

    async def behave(exchange: Exchange) -> None:
        stream = await _begin(exchange, text)
        if whole:
            said = Said((message(_text(text)),), usage=USAGE)
            await stream.send("response.completed", response=response_of(exchange, said))
        await asyncio.Event().wait()

    return behave


def stream_without_end(text: str = "And then") -> Behaviour:
    """A stream that ends properly but says nowhere that the response is whole."""

    async def behave(exchange: Exchange) -> None:
        await _begin(exchange, text)
        await exchange.end_stream(done=False)

    return behave


def respond(items: list[Body], _: Body) -> Answer:
    """The brain of a server that is given none: says again what it was told last."""
    last = items[-1]
    return reply(f"You said: {last.get('content') or last.get('output')}")


class ResponsesServer(Loopback):
    """The server; a list of answers is used up in order, and what comes after its end is refused.

    `faults` are the bodies it refused for their form; `kept` the items up to and with each response, and
    `conversations` those of each Conversation. With a `key` it wants to be shown that one; `conversing` is what
    somebody gets who asks for a Conversation.
    """

    def __init__(
        self,
        answers: Brain | Sequence[Answer] = respond,
        *,
        models: Sequence[str] = ("test-model",),
        key: str | None = None,
        conversing: Behaviour | None = None,
    ) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.kept: dict[str, list[Body]] = {}
        self.conversations: dict[str, list[Body]] = {}
        self.keeping = Keeping(self.kept, self.conversations)
        self._brain = answers if callable(answers) else _in_order(answers)
        self._models = models
        self._key = key
        self._conversing = conversing

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def asked(self) -> list[Recorded]:
        """The requests for a response."""
        return [one for one in self.requests if one.path.endswith("/responses")]

    @property
    def bodies(self) -> list[Body]:
        """The bodies of the requests for a response."""
        return [one.body for one in self.asked]

    @property
    def count(self) -> int:
        """How many responses were asked for."""
        return len(self.asked)

    def behaviour(self, request: Recorded) -> Behaviour:
        if self._key is not None and request.headers.get("authorization") != f"Bearer {self._key}":
            return error(401, "Incorrect API key provided", reason="invalid_api_key")
        match request.method, request.path:
            case "GET", "/v1/models":
                data = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in self._models]
                return json_body({"object": "list", "data": data})
            case "POST", "/v1/conversations" if self._conversing:
                return self._conversing
            case "POST", "/v1/conversations":
                name = f"conv_{len(self.requests)}"
                self.conversations[name] = list(request.body.get("items") or ())
                return json_body({"id": name, "object": "conversation", "created_at": 1, "metadata": None})
            case "POST", "/v1/responses":
                return self._respond(request.body)
            case "DELETE" | "GET", _ if answer := self.keeping.answer(request.method, request.path):
                return answer
        return error(404, f"Invalid URL ({request.method} {request.path})")

    def _respond(self, body: Body) -> Behaviour:
        given = body.get("input") or []
        new = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
        fault = body_fault(body) or self._unknown(body)
        before = [] if fault else self._before(body)
        if refused := fault or order_fault(before, new, stored=body.get("store", True)):
            self.faults.append(refused[1])
            code, told, param, reason = refused
            return error(code, told, param=param, reason=reason)
        answer = self._brain([*before, *new], body)
        return functools.partial(self._answer, answer, [*before, *new]) if isinstance(answer, Said) else answer

    async def _answer(self, said: Said, items: list[Body], exchange: Exchange) -> None:
        body, response = exchange.request.body, response_of(exchange, said)
        if said.status in ("completed", "incomplete"):
            if name := _conversation(body):
                self.conversations[name] = [*items, *response["output"]]
            if body.get("store", True):
                self.kept[response["id"]] = [*items, *response["output"]]
        await (reset_connection()(exchange) if said.lost else _send(exchange, said, response))

    def _unknown(self, body: Body) -> Fault | None:
        previous, name = body.get("previous_response_id"), _conversation(body)
        if previous and name:
            told = "Mutually exclusive parameters: 'previous_response_id' and 'conversation'."
            return 400, told, None, "mutually_exclusive_parameters"
        if previous and previous not in self.kept:
            told = f"Previous response with id '{previous}' not found."
            return 400, told, "previous_response_id", "previous_response_not_found"
        if name and name not in self.conversations:
            return 404, f"Conversation with id '{name}' not found.", None, None
        return None

    def _before(self, body: Body) -> list[Body]:
        if previous := body.get("previous_response_id"):
            return self.kept[previous]
        return self.conversations[name] if (name := _conversation(body)) else []


def _conversation(body: Body) -> str | None:
    held = body.get("conversation")
    name: str | None = held["id"] if isinstance(held, dict) else held
    return name


def _in_order(answers: Sequence[Answer]) -> Brain:
    left = iter(answers)

    def next_one(_: list[Body], __: Body) -> Answer:
        return next(left, None) or error(400, "the test's list of answers has come to its end")

    return next_one
