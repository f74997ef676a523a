"""Replies from a file, in the format of a cassette: the public fake for the demo, for tests and for users' own tests.

One JSON object a line. A line answers one request of a model; `agent`, `step`, `turn` and `when` (a text that the turn
contains) say which, and those that are left out match anything. The first unused line that matches is used up, unless
it says `"repeat": true`.

```json
{"port": "thread", "agent": "planner", "reply": {"text": {"plan": []}}}
{"port": "thread", "step": "hero", "turn": 1, "reply": {"calls": [{"name": "generate_image", "arguments": {}}]}}
{"port": "thread", "step": "page", "reply": {"text": "…", "seconds": 0.5, "usage": {"input_tokens": 9}}}
{"port": "thread", "step": "page", "error": {"type": "rate_limited", "message": "slow down", "retryable": true}}
```
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from master_agent.attachments import Attachment
from master_agent.catalogue import HOSTED
from master_agent.errors import ErrorType, ModelError, SettingsError
from master_agent.results import Usage
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    ModelToolCall,
    Reply,
    RunStatus,
    Source,
    TextPiece,
    ThreadState,
    Turn,
    UserTurn,
)
from master_agent.threads._fitting import LeftOut

PIECE = 12  # characters of a streamed piece
OTHER_PORTS = ("image", "fetch")  # of a recorded run


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ScriptedCall(_Line):
    name: str
    arguments: dict[str, JsonValue] | str = Field(default_factory=dict)
    id: str | None = None


class ScriptedFile(_Line):
    """A file that a tool of the server's own made; the content in Base64."""

    name: str = ""
    media_type: str
    content: Base64Bytes


class ScriptedSource(_Line):
    title: str
    url: str


class ScriptedReply(_Line):
    """A reply; `seconds` is how long it takes, spread over its text; `hang` never ends."""

    text: JsonValue = ""
    calls: tuple[ScriptedCall, ...] = ()
    status: RunStatus | None = None
    reason: str | None = None
    usage: dict[str, int] | None = None
    files: tuple[ScriptedFile, ...] = ()
    lost: tuple[str, ...] = ()
    sources: tuple[ScriptedSource, ...] = ()
    seconds: float = 0.0
    hang: bool = False


class ScriptedError(_Line):
    """A failed request."""

    type: ErrorType = "server_error"
    message: str = "a scripted failure"
    retryable: bool = False
    retry_after: float | None = None
    hint: str | None = None


class ScriptLine(_Line):
    """One line of a script. `request`, `attempt` and `sha256` are of a recorded run, and matter to a replay only."""

    port: Literal["thread"] = "thread"
    agent: str | None = None
    step: str | None = None
    turn: int | None = None
    when: str | None = None
    repeat: bool = False
    reply: ScriptedReply | None = None
    error: ScriptedError | None = None
    attempt: int | None = None
    request: dict[str, JsonValue] | None = None
    sha256: str | None = None


@dataclass
class Script:
    """The lines of a file, each used once."""

    lines: list[ScriptLine]
    used: set[int] = field(default_factory=set)
    _by_step: dict[str | None, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, line in enumerate(self.lines):
            self._by_step.setdefault(line.step, []).append(i)

    def take(self, turn: Turn, options: CallOptions) -> ScriptLine:
        """The line that answers this turn; ModelError when the script has none."""
        text = turn.text if isinstance(turn, UserTurn) else "\n".join(output.text for output in turn.outputs)
        candidates = self._by_step.get(options.step, []) if options.step is not None else []
        for i in sorted([*candidates, *self._by_step.get(None, [])]):
            line = self.lines[i]
            if (
                i not in self.used
                and line.agent in (None, options.agent)
                and line.turn in (None, options.turn)
                and (line.when is None or line.when in text)
            ):
                if not line.repeat:
                    self.used.add(i)
                return line
        who = f"step {options.step}" if options.step else options.agent
        raise ModelError(
            f"the script has no reply left for {who}, turn {options.turn}",
            type="bad_request",
            hint="Add a line for it to the script, or correct the plan.",
        )


def read_script(content: str, *, source: str) -> Script:
    """The script that a text holds; SettingsError with the number of the line that is wrong."""
    lines: list[ScriptLine] = []
    for number, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            raw = json.loads(text)
            if isinstance(raw, dict) and (raw.get("kind") == "cassette" or raw.get("port") in OTHER_PORTS):
                continue
            line = ScriptLine.model_validate(raw)
        except json.JSONDecodeError as error:
            raise SettingsError(f"{source}, line {number} is not JSON: {error.msg}") from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise SettingsError(f"{source}, line {number}: {where}: {fault['msg']}") from None
        if line.reply is None and line.error is None:
            raise SettingsError(f"{source}, line {number} has neither a reply nor an error")
        lines.append(line)
    return Script(lines)


class Scripted:
    """The wire of a script: no network, no key, no SDK."""

    name = "scripted"
    capabilities = Capabilities(hosted_tools=frozenset(HOSTED))  # what they would leave is not scripted
    left_out: LeftOut | None = None  # nothing ever is

    def __init__(self, script: Script) -> None:
        self._script = script

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> "ScriptedThread":
        return ScriptedThread(agent, state or ThreadState("scripted"), self._script)

    async def models(self) -> list[str]:
        return []

    def keep_threads(self) -> None:
        """The script keeps nothing."""

    async def close(self) -> None:
        """Nothing is held."""


class Lines(Protocol):
    """Where the answers are."""

    def take(self, turn: Turn, options: CallOptions) -> ScriptLine:
        """The line that answers a turn; raises when there is none."""


class ScriptedThread:
    """A conversation that follows the lines of a file."""

    def __init__(self, agent: AgentSpec, state: ThreadState, script: Lines) -> None:
        self.agent = agent
        self.state = state
        self._script = script

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        line = self._script.take(turn, options)
        if line.error:
            raise ModelError(**line.error.model_dump())
        assert line.reply is not None
        reply = _reply(line.reply, len(self.state.items))
        try:
            async with asyncio.timeout(options.timeout):
                if line.reply.hang:
                    await asyncio.Event().wait()
                async for piece in _pieces(reply.text if options.stream else "", line.reply.seconds):
                    yield piece
        except TimeoutError:
            message = f"the model did not answer within {options.timeout:g} seconds"
            raise ModelError(message, type="model_timeout", retryable=True) from None
        self.state = ThreadState(self.state.wire, {}, (*self.state.items, turn.to_data(), _said(reply)))
        yield reply

    @property
    def capabilities(self) -> Capabilities:
        return Scripted.capabilities

    def amend(self, text: str) -> None:
        """Puts `text` in the place of what the last Reply said."""
        *before, last = self.state.items
        self.state = ThreadState(self.state.wire, {}, (*before, {**last, "text": text}))

    async def cancel(self) -> None:
        """Nothing runs anywhere else."""


async def _pieces(text: str, seconds: float) -> AsyncIterator[TextPiece]:
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    if seconds and not pieces:
        await asyncio.sleep(seconds)
    for piece in pieces:
        if seconds:
            await asyncio.sleep(seconds / len(pieces))
        yield TextPiece(piece)


def _reply(line: ScriptedReply, turn: int) -> Reply:
    calls = tuple(
        ModelToolCall(
            id=call.id or f"call_{turn}_{i}",
            name=call.name,
            arguments=call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
        )
        for i, call in enumerate(line.calls, 1)
    )
    text = line.text if isinstance(line.text, str) else json.dumps(line.text, ensure_ascii=False)
    status: RunStatus = line.status or ("requires_action" if calls else "completed")
    return Reply(
        status=status,
        text=text,
        calls=calls,
        usage=None if line.usage is None else _usage(line.usage),
        reason=line.reason,
        files=tuple(Attachment(file.name, file.media_type, file.content) for file in line.files),
        lost=line.lost,
        sources=tuple(Source(source.title, source.url) for source in line.sources),
    )


def _usage(given: dict[str, int]) -> Usage:
    """Tokens that the script does not give are unknown, not 0."""
    names = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    tokens: dict[str, Any] = {name: given.get(name) for name in names}
    complete = bool(given.get("complete", True))
    return Usage(calls=given.get("calls", 1), images=given.get("images", 0), complete=complete, **tokens)


def _said(reply: Reply) -> dict[str, JsonValue]:
    calls: list[JsonValue] = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in reply.calls]
    return {"role": "assistant", "text": reply.text, "calls": calls}
