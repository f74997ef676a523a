"""From the events of a stream, or from a whole response, to one Reply and the items to remember it by."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from master_agent.results import Usage
from master_agent.threads import ModelToolCall, Reply, RunStatus
from master_agent.threads._openai import Server, sendable, usage_of

Item = Mapping[str, Any]

ENDS = ("completed", "incomplete", "failed", "cancelled")
RAISED = ("server_error", "rate_limit_exceeded", "insufficient_quota")
_LASTING = re.compile(r"invalid|context_length|policy|unsupported")


@dataclass
class Answer:
    """One answer as it comes in: `add` every event, or the whole response once, then ask for the `reply`."""

    server: Server
    finish: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)
    _text: list[str] = field(default_factory=list)
    _done: dict[int, Item] = field(default_factory=dict)
    _asides: set[int] = field(default_factory=set)

    def whole(self, body: bytes) -> None:
        """Takes in a response that came at once; ModelError when it is none, or when it is not finished."""
        shown = body[:1000].decode(errors="replace")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise self.server.malformed(shown) from None
        if isinstance(data, Mapping) and data.get("error") and "output" not in data:
            raise self.server.reported(data["error"])
        if not isinstance(data, Mapping) or not isinstance(data.get("output"), list):
            raise self.server.malformed(shown, "a response without an output")
        self._end(data, data.get("status") or "completed")
        if self.finish not in ENDS:
            raise self.server.malformed(shown, f"a response that is only {self.server.clean(self.finish)}")

    def add(self, data: object) -> str:
        """Takes in one event and returns the text that came with it; events of unknown types are passed over."""
        if not isinstance(data, Mapping):
            raise self.server.malformed(json.dumps(data), "an event that cannot be read")
        given = data.get("output_index")
        index = given if isinstance(given, int) else len(self._done)
        match data.get("type"):
            case "response.output_text.delta" if index not in self._asides:
                piece = _string(data.get("delta"))
                self._text.append(piece)
                return sendable(piece)
            case "response.output_item.added" if _aside(_mapping(data.get("item"))):
                self._asides.add(index)
            case "response.output_item.done":
                self._done[index] = _mapping(data.get("item"))
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" as kind:
                response = _mapping(data.get("response"))
                said = response.get("status")
                self._end(response, said if said in ENDS else kind.removeprefix("response."))
            case "error":
                raise self._broken_off(data)
        return ""

    def reply(self, taken: AbstractSet[str] | None) -> tuple[Reply, tuple[Item, ...] | None]:
        """The Reply, and what to remember it by, None where there is nothing to go on from. ModelError if it is none.

        `taken` are the ids of earlier calls, where ids are ours to make; None where the server holds on to its own. A
        refusal is status `failed` with the reason "refused: …". A response that failed is a Reply with the server's
        reason, but with the code `server_error` or `rate_limit_exceeded` a ModelError that can be tried again, and with
        `insufficient_quota` one that cannot.
        """
        items = self._output()
        text, refusal = "".join(_texts(items, "output_text", "text")), "".join(_texts(items, "refusal", "refusal"))
        messages = tuple(item for item in items if item.get("type") == "message")
        match self.finish:
            case "failed":
                return self._ended("failed", text, self._failure()), None
            case "cancelled":
                return self._ended("cancelled", text, None), None
            case "completed" | "incomplete" if refusal:
                return self._ended("failed", text, f"refused: {self.server.clean(refusal)}"), messages
            case "incomplete":
                why = _string(_mapping(self.response.get("incomplete_details")).get("reason"))
                return self._ended("incomplete", text, why or None), messages
            case "completed":
                calls, items = self._calls(items, taken)
                status: RunStatus = "requires_action" if calls else "completed"
                return Reply(status, text, calls, self.usage, self.id), items
        raise self.server.malformed("".join(self._text), "a stream that ended before the reply did")

    @property
    def id(self) -> str | None:
        """The response's id, if it has one."""
        return _string(self.response.get("id")) or None

    @property
    def items(self) -> tuple[Item, ...]:
        """All items of the response."""
        return self._output()

    @property
    def last(self) -> str:
        """The id of the last item, be it one that cannot be sent back; empty where it has none."""
        items = self._found()
        return _string(_mapping(items[-1]).get("id")) if items else ""

    @property
    def usage(self) -> Usage | None:
        """What the response cost, as far as the server tells."""
        return usage_of(self.response.get("usage"))

    @property
    def calls_something(self) -> bool:
        """Whether it holds a call, be it one that was cut off: a server refuses to go on before that is answered."""
        return any(item.get("type") == "function_call" for item in self._output())

    def _end(self, response: Mapping[str, Any], finish: object) -> None:
        self.response = response
        self.finish = str(finish)

    def _output(self) -> tuple[Item, ...]:
        """The items of the response that can be sent back."""
        return tuple(_returnable(item) for item in map(_mapping, self._found()) if _wanted(item))

    def _found(self) -> Sequence[object]:
        """The items of the response; some servers leave them out of its last event, or give nothing but deltas."""
        output = self.response.get("output")
        found = output if isinstance(output, list) and output else [self._done[index] for index in sorted(self._done)]
        if not found and (text := "".join(self._text)):
            found = [{"type": "message", "role": "assistant", "content": text}]
        return found

    def _calls(
        self, items: tuple[Item, ...], taken: AbstractSet[str] | None
    ) -> tuple[tuple[ModelToolCall, ...], tuple[Item, ...]]:
        """The calls among the items, and the items with the ids that the calls are known by."""
        used, calls, known = set(taken or ()), [], []
        for item in items:
            if item.get("type") == "function_call":
                call = self._call(item, used, made=taken is not None)
                used.add(call.id)
                calls.append(call)
                item = {**item, "call_id": call.id, "arguments": call.arguments}  # noqa: PLW2901
            known.append(item)
        return tuple(calls), tuple(known)

    def _call(self, item: Item, used: AbstractSet[str], *, made: bool) -> ModelToolCall:
        name, id_, arguments = _string(item.get("name")), _string(item.get("call_id")), item.get("arguments")
        if not name:
            raise self.server.malformed(json.dumps(dict(item)), "a call of a tool without the tool's name")
        if (not id_ or id_ in used) and not made:
            raise self.server.malformed(json.dumps(dict(item)), "calls of tools whose ids do not tell them apart")
        number = 1
        while not id_ or id_ in used:
            id_, number = f"call_{number}", number + 1
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
        return ModelToolCall(id_, name, text.strip() or "{}")

    def _ended(self, status: RunStatus, text: str, reason: str | None) -> Reply:
        return Reply(status, text, (), self.usage, self.id, reason)

    def _failure(self) -> str | None:
        """Why the response failed; raised where another try, or another account, is what helps."""
        error = _mapping(self.response.get("error"))
        code, message = str(error.get("code") or ""), _string(error.get("message"))
        if code in RAISED or code.isdecimal():
            raise self.server.reported(error)
        return self.server.clean(": ".join(part for part in (code, message) if part)) or None

    def _broken_off(self, event: Mapping[str, Any]) -> Exception:
        """The error that an `error` event reports; the SDK raises those that hold an object `error` by itself."""
        code = _string(event.get("code"))
        return self.server.reported({**event, "type": "invalid_request_error" if _LASTING.search(code) else ""})


def _returnable(item: Item) -> Item:
    """The item as it can be sent back: as it came, but without what is null or no Unicode."""
    known = item.get("type") in ("message", "reasoning", "function_call")
    kept = {name: value for name, value in item.items() if value is not None or not known}
    sent: Item = json.loads(sendable(json.dumps(kept, ensure_ascii=False)))
    return sent


def _wanted(item: Item) -> bool:
    """Whether the item can be sent back at all: of reasoning that it did not keep, a server does not know the id."""
    return bool(item) and (
        item.get("type") != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))
    )


def _aside(item: Item) -> bool:
    """Whether it is a message about the work and not its result."""
    return item.get("phase") == "commentary"


def _texts(items: Iterable[Item], kind: str, name: str) -> Iterable[str]:
    for item in items:
        if item.get("type") != "message" or _aside(item):
            continue
        content = item.get("content")
        if isinstance(content, str):
            content = [{"type": "output_text", "text": content}]
        for part in map(_mapping, content if isinstance(content, list) else ()):
            if part.get("type") == kind:
                yield _string(part.get(name))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
