"""The layers around a request, a tool and a step: what is written down before and after, retried, settled, in time."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from master_agent.context import Inputs
from master_agent.errors import MasterAgentError, ModelError, ToolError
from master_agent.events import Event, ModelCalled, ModelReplied, TextDelta, ToolCalled, ToolReturned
from master_agent.history.spent import calls as spent
from master_agent.journal import Journal, read
from master_agent.layers import asked, deadline, in_time, retried, settled, written_down
from master_agent.plan import AgentStep, Step, ToolStep
from master_agent.results import Artifact, StepResult, Usage
from master_agent.retry import RetryPolicy
from master_agent.state import fold
from master_agent.threads import AgentSpec, CallOptions, CallRequest, Reply, TextPiece, Turn, UserTurn
from master_agent.threads.scripted import Scripted, ScriptedThread, read_script
from master_agent.tools import Tool, ToolCall, ToolOutput, Use, tool
from tests.conftest import calls, says
from tests.virtual_time import run_in_virtual_time

OPTIONS = CallOptions(agent="code", step="a", turn=3, timeout=5)


T = TypeVar("T")


def run(work: Awaitable[T]) -> T:
    """What the work comes to, in real time."""

    async def wait() -> T:
        return await work

    return asyncio.run(wait())


@dataclass
class Record:
    """A journal, what its listeners heard, and what is on its disk."""

    database: Path
    journal: Journal
    heard: list[Event]

    @property
    def types_on_disk(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return [type_ for (type_,) in connection.execute("SELECT type FROM events ORDER BY seq")]

    @property
    def events(self) -> list[Any]:
        """What is read when the journal is closed, which is what was heard and what the state is made of."""
        self.journal.close()
        kept = read(self.database, "run-1")
        assert kept == [event for event in self.heard if not isinstance(event, TextDelta)]
        assert fold(kept) == self.journal.state
        return kept


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    heard: list[Event] = []
    with Journal(tmp_path / "journal.db", "run-1", listeners=[heard.append]) as journal:
        yield Record(tmp_path / "journal.db", journal, heard)


def thread_of(*lines: Mapping[str, Any], model: str | None = "some-model") -> ScriptedThread:
    script = read_script("\n".join(json.dumps(line) for line in lines), source="test")
    return asyncio.run(Scripted(script).open(AgentSpec("code", "Do it.", model=model)))


def request_of(*lines: Mapping[str, Any], **more: Any) -> CallRequest:
    return CallRequest(thread_of(*lines, **more), UserTurn("Please."), OPTIONS)


# A request to a model.


def test_a_request_is_on_the_disk_before_it_goes_out(record: Record) -> None:
    class Looking(ScriptedThread):
        async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
            assert record.types_on_disk == ["model_called"]
            async for part in super().send(turn, options):
                yield part

    thread = Looking(AgentSpec("code", ""), thread_of().state, read_script(json.dumps(says("x")), source="test"))
    reply = run(asked(record.journal, "scripted", None)(CallRequest(thread, UserTurn("Please."), OPTIONS)))
    assert reply.text == "x"


def test_what_is_asked_and_what_is_said_is_written_down(record: Record) -> None:
    line = {"reply": {"text": "Here is all of it.", "usage": {"input_tokens": 9, "output_tokens": 4}}}
    reply = run(asked(record.journal, "scripted", "default")(request_of(line)))
    assert "".join(event.text for event in record.heard if isinstance(event, TextDelta)) == "Here is all of it."
    called, replied = record.events
    assert isinstance(called, ModelCalled)
    assert isinstance(replied, ModelReplied)
    assert (called.agent, called.wire, called.model, called.turn) == ("code", "scripted", "some-model", 3)
    assert called.input == {"role": "user", "text": "Please."}
    assert (called.step, called.attempt, called.call) == (replied.step, replied.attempt, replied.call) == ("a", 1, "m1")
    assert (replied.status, replied.text, replied.usage) == ("completed", reply.text, reply.usage)
    assert [item["role"] for item in replied.items] == ["user", "assistant"]


def test_the_tools_that_a_model_asks_for_are_written_down_as_it_wrote_them(record: Record) -> None:
    run(asked(record.journal, "scripted", None)(request_of(calls(("look", {"at": "é"})))))
    (replied,) = record.events[1:]
    assert replied.status == "requires_action"
    assert replied.calls == [{"id": "call_0_1", "name": "look", "arguments": '{"at": "\\u00e9"}'}]


@pytest.mark.parametrize(("own", "default", "model"), [("a", "b", "a"), (None, "b", "b"), (None, None, None)])
def test_the_model_that_is_asked_is_written_down(
    record: Record, own: str | None, default: str | None, model: str | None
) -> None:
    run(asked(record.journal, "scripted", default)(request_of(says("x"), model=own)))
    assert record.events[0].model == model


def test_each_request_writes_down_only_what_the_thread_gained_by_it(record: Record) -> None:
    call = asked(record.journal, "scripted", None)
    thread = thread_of(says("one"), says("two"))

    async def run() -> None:
        for text in ("first", "second"):
            await call(CallRequest(thread, UserTurn(text), OPTIONS))

    asyncio.run(run())
    replies = [event for event in record.events if isinstance(event, ModelReplied)]
    assert [[item["text"] for item in reply.items] for reply in replies] == [["first", "one"], ["second", "two"]]
    assert [reply.call for reply in replies] == ["m1", "m2"]


def test_a_server_that_tells_no_usage_leaves_it_unknown(record: Record) -> None:
    run(asked(record.journal, "scripted", None)(request_of(says("x"))))
    assert record.events[1].usage == Usage.unknown()
    assert record.journal.state.usage.tokens is None


def test_a_failed_request_is_written_down_with_its_error_and_raised(record: Record) -> None:
    error = {"type": "rate_limited", "message": "slow down", "retryable": True, "retry_after": 2.0}
    with pytest.raises(ModelError, match="slow down"):
        run(asked(record.journal, "scripted", None)(request_of({"error": error})))
    replied = record.events[1]
    assert (replied.status, replied.retry_after, replied.usage.complete) == ("failed", 2.0, False)
    assert replied.error.model_dump() == {
        "type": "rate_limited",
        "message": "slow down",
        "hint": None,
        "retryable": True,
    }


def test_a_stream_without_an_end_is_an_error_that_can_heal(record: Record) -> None:
    class Endless(ScriptedThread):
        async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
            async for part in super().send(turn, options):
                if isinstance(part, TextPiece):
                    yield part

    thread = Endless(AgentSpec("code", ""), thread_of().state, read_script(json.dumps(says("half")), source="test"))
    with pytest.raises(ModelError, match="no end") as caught:
        run(asked(record.journal, "scripted", None)(CallRequest(thread, UserTurn(""), OPTIONS)))
    assert (caught.value.type, caught.value.retryable) == ("malformed_reply", True)
    assert record.events[1].error.type == "malformed_reply"


def test_a_request_that_is_cancelled_is_written_down_as_cancelled(record: Record) -> None:
    waiting = asyncio.Event()

    class Waiting(ScriptedThread):
        async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
            waiting.set()
            async for part in super().send(turn, options):
                yield part

    script = read_script('{"reply": {"hang": true}}', source="test")
    request = CallRequest(Waiting(AgentSpec("code", ""), thread_of().state, script), UserTurn(""), OPTIONS)

    async def cancel_it() -> None:
        call = asyncio.ensure_future(asked(record.journal, "scripted", None)(request))
        await asyncio.wait_for(waiting.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel_it())
    assert [event.type for event in record.events] == ["model_called", "model_replied"]
    assert record.events[1].error.type == "cancelled"


# Tried again.


def test_every_attempt_is_written_down_with_its_number_and_what_it_used(record: Record) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    busy = {"error": {"type": "server_error", "message": "busy", "retryable": True}}
    good = {"reply": {"text": "x", "usage": {"input_tokens": 5, "output_tokens": 1}}}
    call = retried(asked(record.journal, "scripted", None), RetryPolicy(attempts=3), sleep)
    assert run(call(request_of(busy, busy, good))).text == "x"
    assert len(waits) == 2
    assert [(event.type, event.attempt, event.call) for event in record.events] == [
        ("model_called", 1, "m1"),
        ("model_replied", 1, "m1"),
        ("model_called", 2, "m2"),
        ("model_replied", 2, "m2"),
        ("model_called", 3, "m3"),
        ("model_replied", 3, "m3"),
    ]
    used = record.journal.state.used["a"]
    assert (used.calls, used.input_tokens, used.complete) == (3, 5, False)


def test_what_cannot_heal_is_asked_once(record: Record) -> None:
    wrong = {"error": {"type": "authentication", "message": "wrong key"}}
    with pytest.raises(ModelError, match="wrong key"):
        run(retried(asked(record.journal, "scripted", None), RetryPolicy())(request_of(wrong, says("x"))))
    assert len(record.events) == 2


# A tool.


@tool()
async def think(about: str) -> str:
    "Thinks."
    return f"thought about {about}"


@tool(effects={"read"})
async def look(about: str) -> str:
    "Looks."
    return about


@tool(effects={"write", "network"}, timeout=7)
async def save(about: str) -> str:
    "Saves."
    return about


@tool(effects={"pay"})
async def buy(about: str) -> str:
    "Buys."
    return about


TOOLS: dict[str, Tool] = {"think": think, "look": look, "save": save, "buy": buy}


def use_of(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("call_1", name, arguments or {"about": "é"}, "a", Inputs(attempt=2))


def gives(output: Any) -> Use:
    async def use(_: ToolCall) -> ToolOutput:
        if isinstance(output, BaseException):
            raise output
        return output  # type: ignore[no-any-return]

    return use


def test_a_tool_with_an_effect_is_on_the_disk_before_it_is_used(record: Record) -> None:
    async def use(call: ToolCall) -> ToolOutput:
        assert record.types_on_disk == ["tool_called"]
        return ToolOutput("saved")

    run(written_down(use, record.journal, TOOLS)(use_of("save")))
    assert record.events[0].effects == ["network", "write"]


@pytest.mark.parametrize(("name", "waits"), [("think", False), ("look", False), ("save", True)])
def test_only_a_tool_with_an_effect_waits_for_the_disk(record: Record, name: str, waits: bool) -> None:
    async def use_while_the_disk_is_busy() -> None:
        with contextlib.closing(sqlite3.connect(record.database)) as other:
            other.execute("BEGIN IMMEDIATE")
            using = asyncio.ensure_future(written_down(gives(ToolOutput("x")), record.journal, TOOLS)(use_of(name)))
            await asyncio.wait({using}, timeout=0.1 if waits else 9)
            assert using.done() is not waits
            other.rollback()
            await using

    asyncio.run(use_while_the_disk_is_busy())
    assert [event.type for event in record.events] == ["tool_called", "tool_returned"]


def test_what_a_tool_is_given_and_gives_is_written_down(record: Record) -> None:
    artifact = Artifact(path="a.png", media_type="image/png", bytes=3, sha256="0" * 64)
    output = ToolOutput("made it", {"width": 7}, (artifact,), Usage(images=1))
    assert run(written_down(gives(output), record.journal, TOOLS)(use_of("save", about="x"))) is output
    called, returned = record.events
    assert isinstance(called, ToolCalled)
    assert isinstance(returned, ToolReturned)
    assert (called.tool, called.arguments) == ("save", {"about": "x"})
    assert (called.step, called.attempt, called.call) == (returned.step, returned.attempt, returned.call)
    assert (called.step, called.attempt, called.call) == ("a", 2, "t1")
    assert (returned.text, returned.data, returned.artifacts, returned.error) == (
        "made it",
        {"width": 7},
        (artifact,),
        None,
    )
    assert record.journal.state.usage.images == 1


def drawn(provider: str, model: str, count: int) -> ToolOutput:
    return ToolOutput("drawn", {"provider": provider, "model": model}, usage=Usage(images=count))


@pytest.mark.parametrize(
    ("name", "output", "cost", "whole"),
    [
        ("buy", ToolOutput("bought"), None, False),  # who asks money for it and names no sum has not done it for 0
        ("buy", ToolOutput("bought", usage=Usage(input_tokens=5)), None, False),
        ("buy", ToolOutput("bought", usage=Usage(cost_usd=0.5)), 0.5, True),
        ("buy", ToolOutput("bought", usage=Usage(cost_usd=0.5, cost_complete=False)), 0.5, False),
        ("buy", ToolOutput.failed(ToolError("refused")), None, True),
        ("buy", drawn("replicate", "black-forest-labs/flux-schnell", 2), 0.006, True),
        ("buy", drawn("placeholder", "", 1), 0, True),
        ("buy", drawn("openai", "gpt-image-2", 1), None, False),
        ("save", ToolOutput("saved"), None, True),
    ],
)
def test_what_a_tool_costs_is_known_or_said_to_be_unknown(
    record: Record, name: str, output: ToolOutput, cost: float | None, whole: bool
) -> None:
    run(written_down(gives(output), record.journal, TOOLS)(use_of(name)))
    used = record.events[-1].usage
    assert (used.cost_usd, used.cost_complete) == (cost, whole)
    assert record.journal.state.usage == used == sum((one.usage for one in spent(record.events)), Usage())


@pytest.mark.parametrize(("name", "whole"), [("save", True), ("buy", False)])
def test_a_tool_that_is_cancelled_is_written_down_as_cancelled(record: Record, name: str, whole: bool) -> None:
    started = asyncio.Event()

    async def hang(_: ToolCall) -> ToolOutput:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        use = asyncio.ensure_future(written_down(settled(hang), record.journal, TOOLS)(use_of(name)))
        await asyncio.wait_for(started.wait(), 10)
        use.cancel()
        with pytest.raises(asyncio.CancelledError):
            await use

    asyncio.run(run())
    assert record.events[1].error.type == "cancelled"
    assert record.events[1].usage == Usage(cost_complete=whole)  # nobody has seen whether it was paid for


@pytest.mark.parametrize(
    ("error", "type", "text"),
    [
        (ToolError("no such file", hint="List them."), "tool_failed", "error: no such file. List them."),
        (MasterAgentError("x", type="fetch_refused"), "fetch_refused", "error: x."),
        (ZeroDivisionError("by 0"), "tool_failed", "error: the tool save broke: ZeroDivisionError: by 0."),
        (KeyError(), "tool_failed", "error: the tool save broke: KeyError."),
        (TimeoutError(), "tool_failed", "error: the tool save broke: TimeoutError."),
        (SystemExit(3), "tool_failed", "error: the tool save broke: SystemExit: 3."),
        (asyncio.CancelledError(), "tool_failed", "error: the tool save broke: CancelledError."),
        (ExceptionGroup("two", [ValueError("a")]), "tool_failed", "error: the tool save broke: ExceptionGroup: two"),
    ],
    ids=repr,
)
def test_whatever_a_strangers_tool_raises_becomes_an_output(error: BaseException, type: str, text: str) -> None:
    output = run(settled(gives(error))(use_of("save")))
    assert output.error is not None
    assert output.error.type == type
    assert output.text.startswith(text)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (ToolOutput("x", {"when": Path("y")}), "data.when"),  # type: ignore[dict-item]
        (ToolOutput("x", {"a": {1: 2}}), "data.a"),  # type: ignore[dict-item]
        (ToolOutput(5), "text"),  # type: ignore[arg-type]
        (ToolOutput("x", artifacts=({"path": "a"},)), "artifacts"),  # type: ignore[arg-type]
        (ToolOutput("x", {"a": json.loads("[" * 120 + "]" * 120)}), "data: it is nested deeper than 100 levels"),
    ],
)
def test_what_a_strangers_tool_leaves_must_be_something_that_can_be_kept(
    record: Record, output: ToolOutput, said: str
) -> None:
    use = written_down(settled(gives(output)), record.journal, TOOLS)
    told = run(use(use_of("save")))
    assert told.error is not None
    assert f"the tool save left what cannot be kept: {said}" in told.text
    assert record.events[1].error == told.error


def test_a_tool_that_takes_longer_than_its_seconds_is_stopped_and_told_so() -> None:
    ended: list[float] = []

    async def slow(_: ToolCall) -> ToolOutput:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.get_running_loop().time())
        raise AssertionError

    output = run_in_virtual_time(settled(in_time(slow, TOOLS))(use_of("save")))
    assert output.text == "error: the tool save took longer than 7 seconds."
    assert ended == [7]


def test_a_tool_within_its_seconds_gives_what_it_gives() -> None:
    async def quick(_: ToolCall) -> ToolOutput:
        await asyncio.sleep(6.9)
        return ToolOutput("just so")

    assert run_in_virtual_time(in_time(quick, TOOLS)(use_of("save"))).text == "just so"


def test_a_timeout_of_the_tools_own_is_not_taken_for_ours() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        run(in_time(gives(TimeoutError("its own")), TOOLS)(use_of("save")))


# A step.

AGENT_STEP = AgentStep(id="a", agent="code", prompt="x")
TOOL_STEP = ToolStep.model_validate({"id": "a", "tool": "save", "with": {}})


@pytest.mark.parametrize(("step", "who"), [(AGENT_STEP, ("code", None)), (TOOL_STEP, (None, "save"))])
def test_a_step_that_takes_longer_than_its_seconds_is_cancelled_and_has_failed(step: Step, who: Any) -> None:
    ended: list[float] = []

    async def slow(_: Step, inputs: Inputs) -> StepResult:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.get_running_loop().time())
        raise AssertionError

    result = run_in_virtual_time(deadline(slow, 30)(step, Inputs()))
    assert ended == [30]
    assert (result.status, result.agent, result.tool) == ("failed", *who)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("step_timeout", "the step took longer than 30 seconds")
    assert "--step-timeout" in str(result.error.hint)
    assert result.reason == result.error.message


def test_a_step_within_its_seconds_is_left_alone() -> None:
    done = StepResult(status="done")

    async def quick(_: Step, inputs: Inputs) -> StepResult:
        await asyncio.sleep(29)
        return done

    assert run_in_virtual_time(deadline(quick, 30)(AGENT_STEP, Inputs())) is done


def test_a_step_that_is_cancelled_from_outside_has_not_timed_out() -> None:
    async def slow(_: Step, inputs: Inputs) -> StepResult:
        await asyncio.sleep(1000)
        raise AssertionError

    async def run() -> None:
        task = asyncio.ensure_future(deadline(slow, 30)(AGENT_STEP, Inputs()))
        await asyncio.sleep(29)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_in_virtual_time(run())


def test_a_timeout_inside_a_step_is_a_bug_and_not_its_deadline() -> None:
    async def broken(_: Step, inputs: Inputs) -> StepResult:
        raise TimeoutError("inside")

    with pytest.raises(TimeoutError, match="inside"):
        run(deadline(broken, 30)(AGENT_STEP, Inputs()))
