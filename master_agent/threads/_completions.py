"""From the chunks of a stream, or from a whole completion, to one Reply: whatever shape the server gives them."""

import json
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from master_agent.results import Usage
from master_agent.threads import ModelToolCall, Reply
from master_agent.threads._openai import Server, sendable, usage_of

_MARKS = re.compile(r"\\.|[\"{}\[\]]", re.DOTALL)
"""What opens, closes, or is escaped in JSON."""


@dataclass
class _Call:
    """A tool call as it grows. `extra` is what a server wants to see again (Gemini signs its calls in it)."""

    id: str = ""
    name: str = ""
    written: list[str] = field(default_factory=list)
    extra: Any = None
    _read: int = 0
    _depth: int = 0
    _in_text: bool = False
    _held: str = ""

    @property
    def arguments(self) -> str:
        return "".join(self.written)

    @property
    def whole(self) -> bool:
        """Whether its arguments have come to the end of what they began with; each fragment is read once for it."""
        for piece in self.written[self._read :]:
            self._count(self._held + piece)
        self._read = len(self.written)
        return bool(self.name) and self._depth == 0 and any(map(str.strip, self.written))

    def _count(self, piece: str) -> None:
        """Goes on counting the brackets that are open."""
        cut = (len(piece) - len(piece.rstrip("\\"))) % 2  # what follows is escaped, and comes later
        self._held = piece[len(piece) - cut :]
        for mark in _MARKS.findall(piece[: len(piece) - cut]):
            if mark == '"':
                self._in_text = not self._in_text
            elif not self._in_text:
                self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark, 0)


@dataclass
class Answer:
    """One answer as it comes in: `add` every chunk, or the whole completion once, then ask for the `reply`."""

    server: Server
    finish: str = ""
    usage: Usage | None = None
    id: str | None = None
    calls: list[_Call] = field(default_factory=list)
    _at: dict[int, _Call] = field(default_factory=dict)
    _text: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)

    def whole(self, body: bytes) -> None:
        """Takes in a completion that came at once; ModelError when it is none."""
        shown = body[:1000].decode(errors="replace")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise self.server.malformed(shown) from None
        if isinstance(data, Mapping) and data.get("error"):
            raise self.server.reported(data["error"])
        choice = _choice(data)
        message = choice.get("message")
        if not isinstance(message, Mapping):
            raise self.server.malformed(shown, "a completion without a choice")
        if isinstance(calls := message.get("tool_calls"), list):
            # Here each entry is a call of its own; only in streams do entries belong together.
            numbered = [{**_mapping(call), "index": index} for index, call in enumerate(calls)]
            data = {**data, "choices": [{**choice, "message": {**message, "tool_calls": numbered}}]}
        self.add(data)
        self.finish = self.finish or "stop"

    def add(self, data: object) -> str:
        """Takes in one chunk and returns the text that came with it."""
        if not isinstance(data, Mapping):
            raise self.server.malformed(json.dumps(data), "a chunk that cannot be read")
        self.id = self.id or _string(data.get("id")) or None
        self.usage = usage_of(data.get("usage")) or self.usage
        choice = _choice(data)  # absent from the chunk that brings the usage
        said = _mapping(choice.get("delta") or choice.get("message"))
        self.finish = _string(choice.get("finish_reason")).lower() or self.finish
        self._refusal.append(_string(said.get("refusal")))
        self._reasoning.append(_string(said.get("reasoning_content")))
        calls = said.get("tool_calls")
        for fragment in calls if isinstance(calls, list) else ():
            self._add_call(_mapping(fragment))
        if old := _mapping(said.get("function_call")):
            self._add_call({"index": 0, "function": old})
        piece = _text(said.get("content"))
        self._text.append(piece)
        return sendable(piece)

    def _add_call(self, fragment: Mapping[str, Any]) -> None:
        function = _mapping(fragment.get("function"))
        index, id_, name = fragment.get("index"), _string(fragment.get("id")), _string(function.get("name"))
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        call = self._at.get(index) if isinstance(index, int) else self._latest(id_)
        if call is None or _starts_another(call, id_, name, arguments or ""):
            call = _Call()
            self.calls.append(call)
        if isinstance(index, int):
            self._at[index] = call
        call.id, call.name = call.id or id_, call.name or name
        call.written.append(arguments or "")
        call.extra = fragment.get("extra_content", call.extra)

    def _latest(self, id_: str) -> _Call | None:
        """For servers that leave out the index: the call of that id, or else the one that grew last."""
        same = (call for call in self.calls if id_ and call.id == id_)
        return next(same, self.calls[-1] if self.calls else None)

    def reply(self, taken: AbstractSet[str]) -> tuple[Reply, dict[str, Any]]:
        """The Reply, and the message to remember it by; `taken` are the ids of earlier calls. ModelError if it is none.

        A refusal is status `failed` with the reason "refused: …"; a reply that was cut off is `incomplete` with the
        reason `max_output_tokens` or `content_filter`, and its calls, which may be cut off too, are left out.
        """
        text, refusal = sendable("".join(self._text)), sendable("".join(self._refusal))
        if self.finish == "error":
            raise self.server.reported({"message": "the model broke off with an error"})
        if refusal:
            return self._ended("failed", text, f"refused: {self.server.clean(refusal)}", refusal)
        if self.finish in ("length", "content_filter"):
            return self._ended("incomplete", text, "max_output_tokens" if self.finish == "length" else self.finish)
        if not self.finish:
            raise self.server.malformed(text, "a stream that ended before the reply did")
        if not self.calls and self.finish not in ("tool_calls", "function_call"):
            return self._ended("completed", text, None)
        if not self.calls or not all(call.name for call in self.calls):
            raise self.server.malformed(text, "a call of a tool without the tool's name")
        calls = tuple(_identified(self.calls, taken))
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if reasoning := "".join(self._reasoning):  # who sent it with a call wants to see it with the call's output
            message["reasoning_content"] = sendable(reasoning)
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({"extra_content": raw.extra} if raw.extra is not None else {})
            for call, raw in zip(calls, self.calls, strict=True)
        ]
        return Reply("requires_action", text, calls, self.usage, self.id), message

    def _ended(self, status: Any, text: str, reason: str | None, said: str = "") -> tuple[Reply, dict[str, Any]]:
        message = {"role": "assistant", "content": text or said}
        return Reply(status, text, (), self.usage, self.id, reason), message


def _starts_another(call: _Call, id_: str, name: str, arguments: str) -> bool:
    """Whether a fragment in the place of `call` is another call: some servers give every call the index 0."""
    if id_ and call.id:
        return id_ != call.id
    # Some repeat the name in each fragment, so that only a call that is whole can be followed by another of no id.
    return bool(name) and call.whole and (bool(arguments) or name != call.name)


def _identified(calls: Iterable[_Call], taken: AbstractSet[str]) -> Iterable[ModelToolCall]:
    """The calls, each with an id of its own in this conversation: a made one where it is missing or doubled."""
    used = set(taken)
    for call in calls:
        id_ = call.id
        number = 1
        while not id_ or id_ in used:
            id_, number = f"call_{number}", number + 1
        used.add(id_)
        yield ModelToolCall(sendable(id_), sendable(call.name), sendable(call.arguments).strip() or "{}")


def _choice(data: object) -> Mapping[str, Any]:
    choices = data.get("choices") if isinstance(data, Mapping) else None
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text(content: object) -> str:
    """Text as such or in parts, as some servers write it."""
    if isinstance(content, list):
        return "".join(_string(_mapping(part).get("text")) for part in content)
    return _string(content)
