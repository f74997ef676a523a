"""From run objects, messages and stream events of the Assistants wire to one Reply, whatever shape they come in."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from master_agent.errors import ModelError
from master_agent.results import Usage
from master_agent.threads import ModelToolCall, Reply
from master_agent.threads._openai import Server, sendable, usage_of

ACTIVE = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
"""While a run is in one of these, its thread takes neither a message nor another run."""

SETTLED = frozenset({"requires_action", "completed", "failed", "cancelled", "expired", "incomplete"})
"""The run waits for us or is over; nothing changes by looking again."""

_RUN_EVENTS = {f"thread.run.{status}" for status in ("created", *ACTIVE, *SETTLED)}
_AGAIN = ("server_error", "rate_limit_exceeded")
_REASONS = {"max_completion_tokens": "max_output_tokens"}


@dataclass(frozen=True)
class Event:
    """One event of a stream, or an answer that came whole; `poll_after` in seconds, where the server named it."""

    data: object
    name: str = ""
    poll_after: float | None = None


@dataclass
class Round:
    """A run as it was seen last, from the turn that sets it going until it is settled."""

    server: Server
    run: Mapping[str, Any] = field(default_factory=dict)
    poll_after: float | None = None
    lost: bool = False
    """Whether the run was over before it could be told what it waited for."""

    @property
    def id(self) -> str | None:
        return self.run.get("id")

    @property
    def status(self) -> str:
        return str(self.run.get("status", ""))

    @property
    def settled(self) -> bool:
        return self.status in SETTLED

    def add(self, event: Event) -> str:
        """Takes in one event and returns the text that came with it; ModelError for one that reports an error."""
        if event.name == "error":
            raise self.server.reported(event.data)
        data = _mapping(event.data)
        kind = data.get("object") or event.name
        self.poll_after = event.poll_after
        if not event.name or kind == "thread.run" or kind in _RUN_EVENTS:
            self._take(data)
        elif kind == "thread.message.delta":
            return sendable(_text(_mapping(data.get("delta"))))
        return ""

    def _take(self, run: Mapping[str, Any]) -> None:
        id_, status = run.get("id"), run.get("status")
        if not isinstance(id_, str) or not isinstance(status, str) or status not in ACTIVE | SETTLED:
            raise self.server.malformed(f"id {id_!r}, status {status!r}", "a run that cannot be read")
        self.run = run

    @property
    def calls(self) -> tuple[ModelToolCall, ...]:
        """The calls that the run waits for; ModelError when they cannot be answered."""
        asked = _mapping(_mapping(self.run.get("required_action")).get("submit_tool_outputs")).get("tool_calls")
        calls = read_calls(asked)
        if not calls or len({call.id for call in calls}) < len(calls) or not all(c.id and c.name for c in calls):
            raise self.server.malformed(json.dumps(asked), "calls of tools that cannot be answered")
        return calls

    def reply(self, messages: Sequence[Mapping[str, Any]], told: Usage | None) -> Reply:
        """The Reply with the text of these messages; usage without what was `told` of the run before.

        A run that failed for a reason that passes is a retryable ModelError.
        """
        text = sendable("".join(_text(message) for message in messages))
        usage = _since(usage_of(self.run.get("usage")), told)
        refusal = "".join(piece for message in messages for piece in _parts(message, "refusal", "refusal"))
        if refusal:
            return Reply("failed", text, (), usage, self.id, f"refused: {self.server.clean(sendable(refusal))}")
        match self.status:
            case "requires_action":
                return Reply("requires_action", text, self.calls, usage, self.id)
            case "completed" | "cancelled" | "expired" as status:
                return Reply(status, text, (), usage, self.id)
            case "incomplete":
                reason = _string(_mapping(self.run.get("incomplete_details")).get("reason"))
                return Reply("incomplete", text, (), usage, self.id, _REASONS.get(reason, reason) or None)
        return Reply("failed", text, (), usage, self.id, self._failure())

    def _failure(self) -> str | None:
        """Why the run failed; ModelError when another may succeed."""
        error = _mapping(self.run.get("last_error"))
        if error.get("code") in _AGAIN:
            raise self.server.reported(error)
        return self.server.clean(_string(error.get("message")) or _string(error.get("code"))) or None


def status_of(error: ModelError) -> int | None:
    """The HTTP status that an error comes from, if it comes from one."""
    status = getattr(error.__cause__, "status_code", None)
    return status if isinstance(status, int) else None


def id_of(made: Event, server: Server) -> str:
    """The id of what was made; ModelError when there is none."""
    id_ = _mapping(made.data).get("id")
    if not isinstance(id_, str) or not id_:
        raise server.malformed(json.dumps(made.data), "an answer without an id")
    return id_


def read_calls(asked: object) -> tuple[ModelToolCall, ...]:
    """Tool calls as a run or one of its steps lists them."""
    found = []
    for entry in asked if isinstance(asked, list) else ():
        function = _mapping(_mapping(entry).get("function"))
        id_, name, arguments = _string(_mapping(entry).get("id")), function.get("name"), function.get("arguments")
        found.append(
            ModelToolCall(sendable(id_), sendable(_string(name)), sendable(_string(arguments)).strip() or "{}")
        )
    return tuple(found)


def is_message(message: Mapping[str, Any], text: str) -> bool:
    """Whether it is the user's message of that text."""
    return message.get("role") == "user" and _text(message) == text


def _text(message: Mapping[str, Any]) -> str:
    return "".join(_parts(message, "text", "value"))


def _parts(message: Mapping[str, Any], kind: str, inner: str) -> Iterable[str]:
    """The text parts of a message or a delta, or the parts of its refusal; some servers write a text as such."""
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for part in content if isinstance(content, list) else ():
        if _mapping(part).get("type") == kind:
            said = part.get(kind)
            yield said if isinstance(said, str) else _string(_mapping(said).get(inner))


def _since(usage: Usage | None, told: Usage | None) -> Usage | None:
    """Of a number that grows with the run, the part that is new."""
    if usage is None or told is None:
        return usage

    def new(now: int | None, before: int | None) -> int | None:
        return None if now is None else max(0, now - (before or 0))

    return Usage(
        calls=1,
        input_tokens=new(usage.input_tokens, told.input_tokens),
        cached_tokens=new(usage.cached_tokens, told.cached_tokens),
        cache_write_tokens=new(usage.cache_write_tokens, told.cache_write_tokens),
        output_tokens=new(usage.output_tokens, told.output_tokens),
        reasoning_tokens=new(usage.reasoning_tokens, told.reasoning_tokens),
        complete=usage.complete,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
