"""The runs of the Assistants stand-in: what a model does in a round, and how a run goes from look to look."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.servers.chat import reset
from tests.servers.loopback import Body, Exchange

ACTIVE = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
USAGE: Body = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass(frozen=True)
class Act:
    """What the model does in one round of a run, until it calls tools or the run ends.

    `looks`: how many see it at work; None sees it at work for ever. `messages` are lists of parts. `gap` is in seconds,
    between the pieces of a stream. `created`: a stream tells of a message before its pieces. `ends`: a stream tells of
    the run's end; else it breaks off after its pieces, is torn down if it `resets`, or falls silent if it `hangs`.
    Without `streams` a run is never streamed.
    """

    messages: Sequence[Sequence[Body]] = ()
    calls: Sequence[Body] = ()
    end: str = "completed"
    looks: int | None = 1
    usage: Body | None = None
    reason: str | None = None
    error: Body | None = None
    gap: float = 0.0
    created: bool = True
    ends: bool = True
    hangs: bool = False
    resets: bool = False
    streams: bool = True


def text(value: str) -> Body:
    """A part of a message."""
    return {"type": "text", "text": {"value": value, "annotations": []}}


def says(*messages: str | Sequence[str], calls: Sequence[Body] = (), refusal: str | None = None, **rest: Any) -> Act:
    """An act: messages of one text or of several parts, then calls of tools if there are any."""
    parts = [[text(part) for part in ([one] if isinstance(one, str) else one)] for one in messages]
    if refusal is not None:
        parts.append([{"type": "refusal", "refusal": refusal}])
    end = rest.pop("end", "requires_action" if calls else "completed")
    usage = rest.pop("usage", None if end == "requires_action" else USAGE)
    return Act(parts, calls, end, usage=usage, **rest)


def hangs() -> Act:
    """A run that is at work for ever, in a stream too."""
    return Act(looks=None, ends=False, hangs=True)


@dataclass
class Run:
    """A run; what it was asked with, the assistant it is of, and its act of this round."""

    id: str
    thread: str
    of: Body
    asked: Body
    status: str = "queued"
    act: Act = field(default_factory=Act)
    seen: int = 0
    calls: Sequence[Body] = ()
    called: list[Sequence[Body]] = field(default_factory=list)

    @property
    def assistant(self) -> str:
        return str(self.of["id"])

    def begin(self, act: Act) -> None:
        """A new round."""
        self.act, self.seen, self.status = act, 0, "queued"

    def look(self) -> bool:
        """One look older; whether the round ends with it."""
        if self.status == "cancelling":
            self.status = "cancelled"
        elif self.status in ("queued", "in_progress"):
            self.seen += 1
            self.status = "in_progress"
            return self.act.looks is not None and self.seen > self.act.looks
        return False

    def finish(self) -> Sequence[Sequence[Body]]:
        """The round ends; the messages that it leaves."""
        self.status = self.act.end
        self.calls = self.act.calls
        if self.calls:
            self.called.append(self.calls)
        return self.act.messages

    def body(self) -> Body:
        """The run as it is shown."""
        over = self.status not in ACTIVE
        shown = self.status == self.act.end
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": list(self.calls)}}
        return {
            "id": self.id,
            "object": "thread.run",
            "created_at": 1,
            "assistant_id": self.assistant,
            "thread_id": self.thread,
            "status": self.status,
            "required_action": action if self.status == "requires_action" else None,
            "last_error": self.act.error if shown else None,
            "incomplete_details": {"reason": self.act.reason} if shown and self.act.reason else None,
            "expires_at": None if over else 601,
            "model": self.of["model"],
            "instructions": self.of.get("instructions") or "",
            "tools": self.of.get("tools", []),
            "parallel_tool_calls": True,
            "metadata": {},
            "response_format": self.asked.get("response_format", "auto"),
            "tool_choice": "auto",
            "truncation_strategy": {"type": "auto"},
            "temperature": self.asked.get("temperature", 1.0),
            "max_completion_tokens": self.asked.get("max_completion_tokens"),
            "usage": self.act.usage if shown else None,
        }

    def steps(self) -> list[Body]:
        """The rounds that called tools, as steps of the run."""
        return [
            {
                "id": f"step_{number}",
                "object": "thread.run.step",
                "type": "tool_calls",
                "step_details": {"type": "tool_calls", "tool_calls": list(calls)},
            }
            for number, calls in enumerate(self.called)
        ]


async def streamed(exchange: Exchange, run: Run, act: Act, finish: Callable[[], list[Body]]) -> None:
    """The round as a stream of events; it goes on when nobody listens any more, as a run does."""

    async def tell(name: str, data: Body) -> None:
        await exchange.event(json.dumps(data), name)

    await exchange.start_stream()
    await tell(f"thread.run.{'created' if not run.called else 'queued'}", run.body())
    run.status = "in_progress"
    await tell("thread.run.in_progress", run.body())
    for number, parts in enumerate(act.messages):
        name = f"msg_{run.id}_{len(run.called)}_{number}"
        if act.created:
            made = {"id": name, "object": "thread.message", "created_at": 1, "thread_id": run.thread}
            rest = {"role": "assistant", "run_id": run.id, "content": [], "status": "in_progress"}
            await tell("thread.message.created", {**made, **rest})
        for delta in _deltas(parts):
            content = {"id": name, "object": "thread.message.delta", "delta": {"content": [delta]}}
            await tell("thread.message.delta", content)
            await asyncio.sleep(act.gap)
    if act.hangs:
        await asyncio.Event().wait()
    if act.resets:
        await asyncio.sleep(0.05)  # a reset overtakes what has not been read yet
        await reset()(exchange)
        return
    if act.ends:
        if run.status == "cancelling":
            run.status = "cancelled"
        for message in finish() if run.status == "in_progress" else ():
            await tell("thread.message.completed", message)
        await tell(f"thread.run.{run.status}", run.body())
        await exchange.event("[DONE]", "done")
    await exchange.end_stream(done=False)


def _deltas(parts: Sequence[Body]) -> Iterable[Body]:
    for index, part in enumerate(parts):
        if part["type"] == "refusal":
            yield {"index": index, **part}
            continue
        for line in part["text"]["value"].splitlines(keepends=True):
            yield {"index": index, "type": "text", "text": {"value": line}}
