"""What the assistants wire leaves behind: no run that runs, no assistant and no thread, however it ends."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from master_agent.errors import ModelError
from master_agent.threads import (
    CallOptions,
    Output,
    Reply,
    TextPiece,
    ThreadState,
    ToolOutputs,
    UserTurn,
)
from tests.servers.assistant_runs import hangs, says
from tests.servers.assistants import AssistantsServer, Late, Slow
from tests.servers.chat import call, error, hang_before_first_byte, status
from tests.servers.loopback import Behaviour
from tests.threads.assisting import asked, failed, opened
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, STREAMED, WHOLE, said

ROOT = Path(__file__).parent.parent.parent
ADD = call("add", {"a": 1}, "one")
ONE = ToolOutputs((Output("one", "output of one"),))


RETOLD = '[{"tool": "add", "arguments": "{\\"a\\": 1}", "output": "output of one"}]'


# What is not left running


@BOTH
def test_cancelling_in_mid_air_leaves_no_run_running(options: CallOptions) -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            task = asyncio.ensure_future(said(thread, HELLO, options))
            assert await asyncio.to_thread(server.wait_for, lambda: len(server.running) == 1)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.running == []
            assert thread.state == ThreadState("assistants")

    with AssistantsServer([hangs()]) as server:
        asyncio.run(run(server))


@BOTH
def test_a_run_whose_making_was_not_yet_answered_is_found_and_cancelled(options: CallOptions) -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            task = asyncio.ensure_future(said(await wire.open(AGENT), HELLO, options))
            assert await asyncio.to_thread(server.wait_for, lambda: len(server.running) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.running == []

    with AssistantsServer([hangs()], faults={"run": [Late(hang_before_first_byte())]}) as server:
        asyncio.run(run(server))


def test_cancelling_twice_still_cancels_the_run() -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            task = asyncio.ensure_future(said(await wire.open(AGENT), HELLO))
            assert await asyncio.to_thread(server.wait_for, lambda: len(server.running) == 1)
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.wait_for, lambda: server.running == [])

    with AssistantsServer([hangs()]) as server:
        asyncio.run(run(server))


def test_a_reader_who_leaves_early_cancels_the_run() -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            async with aclosing(thread.send(HELLO, STREAMED)) as pieces:
                async for piece in pieces:
                    assert piece == TextPiece("One,\n")
                    break
            assert server.running == []

    with AssistantsServer([says("One,\ntwo.", hangs=True, looks=None)]) as server:
        asyncio.run(run(server))


@BOTH
def test_a_run_is_cancelled_when_its_time_is_over(options: CallOptions) -> None:
    begun = time.monotonic()
    with AssistantsServer([hangs()]) as server:
        raised = failed(server, replace(options, timeout=0.4))
        assert len(server.asked("cancel")) == 1
    assert time.monotonic() - begun < 2
    assert (raised.type, raised.retryable) == ("model_timeout", True)
    assert "did not finish its reply within 0.4 s" in raised.message


def test_the_wait_between_looks_ends_with_the_time_too() -> None:
    begun = time.monotonic()
    with AssistantsServer([hangs()], poll_after_ms=60_000) as server:
        assert failed(server, replace(WHOLE, timeout=0.3)).type == "model_timeout"
        assert server.asked("poll") == []
    assert time.monotonic() - begun < 2


def test_a_run_that_cannot_be_cancelled_does_not_hold_anybody_up() -> None:
    begun = time.monotonic()
    with AssistantsServer([hangs()], faults={"cancel": [hang_before_first_byte()]}) as server:

        async def run() -> None:
            async with opened(server) as wire:
                with pytest.raises(ModelError, match="did not finish its reply"):
                    await said(await wire.open(AGENT), HELLO, replace(WHOLE, timeout=0.2))
                assert len(server.running) == 1

        asyncio.run(run())
        assert server.running == [], "closing the wire tries again"
    assert time.monotonic() - begun < 5


def test_a_thread_that_is_given_up_while_tools_work_leaves_no_run_waiting() -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            await said(thread, HELLO)
            assert len(server.running) == 1
            await thread.cancel()
            assert server.running == []

    with AssistantsServer([says(calls=[ADD])]) as server:
        asyncio.run(run(server))


@pytest.mark.parametrize("faults", [{}, {"cancel": [error(400, "Cannot cancel run with status 'completed'.")]}])
def test_a_question_while_a_run_waits_for_outputs_ends_that_run_first(faults: dict[str, list[Behaviour]]) -> None:
    with AssistantsServer([says(calls=[ADD]), says("Never mind.")], faults=faults) as server:
        answers, _ = asked(server, HELLO, UserTurn("Stop."), agent=ADDER)
        assert answers[-1].text == "Never mind."
        assert [run.status for run in server.runs.values()] == ["cancelled", "completed"]


def test_outputs_are_not_lost_when_the_run_was_cancelled_over_a_deadline() -> None:
    async def run(server: AssistantsServer) -> Reply:
        async with opened(server) as wire:
            thread = await wire.open(ADDER)
            await said(thread, HELLO)
            with pytest.raises(ModelError, match="did not finish"):
                await said(thread, ONE, replace(WHOLE, timeout=0.3))
            return (await said(thread, ONE))[1]

    with AssistantsServer([says(calls=[ADD]), hangs(), says("Two.")]) as server:
        assert asyncio.run(run(server)).text == "Two."
        assert server.bodies("message")[-1]["content"] == RETOLD


def test_a_question_that_got_no_reply_is_taken_back_before_another_is_asked() -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            with pytest.raises(ModelError):
                await said(thread, HELLO)
            await said(thread, UserTurn("Or else?"))
            [messages] = server.threads.values()
            assert [one["content"][0]["text"]["value"] for one in messages] == ["Or else?", "You said: Or else?"]

    with AssistantsServer(faults={"run": [status(503)]}) as server:
        asyncio.run(run(server))


# What is made once, and deleted


def test_threads_of_one_agent_share_its_assistant_even_when_they_begin_together() -> None:
    async def run(server: AssistantsServer) -> list[str]:
        async with opened(server) as wire:
            threads = [await wire.open(agent) for agent in (AGENT, AGENT, AGENT, ADDER)]
            answers = await asyncio.gather(*(said(one, UserTurn(str(n))) for n, one in enumerate(threads)))
            threads.append(await wire.open(replace(AGENT, temperature=1.0)))
            await said(threads[-1], HELLO)
            return [answer.text for _, answer in answers]

    with AssistantsServer() as server:
        assert asyncio.run(run(server)) == [f"You said: {number}" for number in range(4)]
        assert sorted(len(body["tools"]) for body in server.bodies("assistant")) == [0, 1]
        assert len(server.asked("thread")) == 5


def test_an_assistant_that_could_not_be_made_is_made_by_the_next_attempt() -> None:
    async def run(server: AssistantsServer) -> Reply:
        async with opened(server) as wire:
            thread = await wire.open(AGENT)
            with pytest.raises(ModelError):
                await said(thread, HELLO)
            return (await said(thread, HELLO))[1]

    with AssistantsServer(faults={"assistant": [status(503)]}) as server:
        assert asyncio.run(run(server)).text == "You said: Hello?"
        assert len(server.asked("message")) == 1


@BOTH
def test_assistants_and_threads_are_deleted_at_the_end(options: CallOptions) -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            await said(await wire.open(AGENT), HELLO, options)
            await said(await wire.open(ADDER), HELLO, options)
            assert len(server.existing) == 4
        assert wire.left == []

    with AssistantsServer([says("One."), says(calls=[ADD])]) as server:
        asyncio.run(run(server))
        assert server.existing == []
        assert server.running == [], "a run that waits for outputs is cancelled with its thread"


@pytest.mark.parametrize("kind", ["assistant", "thread"])
def test_what_nobody_waits_for_any_more_is_deleted_too(kind: str) -> None:
    async def run(server: AssistantsServer) -> None:
        async with opened(server) as wire:
            task = asyncio.ensure_future(said(await wire.open(AGENT), HELLO))
            assert await asyncio.to_thread(server.wait_for, lambda: len(server.asked(kind)) == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with AssistantsServer(faults={kind: [Slow(0.3)]}) as server:
        asyncio.run(run(server))
        assert server.existing == []


def test_an_assistant_is_made_for_the_others_even_if_the_first_to_need_it_is_cancelled() -> None:
    async def run(server: AssistantsServer) -> Reply:
        async with opened(server) as wire:
            first = asyncio.ensure_future(said(await wire.open(AGENT), HELLO))
            second = asyncio.ensure_future(said(await wire.open(AGENT), HELLO))
            assert await asyncio.to_thread(server.wait_for, lambda: len(server.asked("message")) == 2)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return (await second)[1]

    with AssistantsServer(faults={"assistant": [Slow(0.5)]}) as server:
        assert asyncio.run(run(server)).text == "You said: Hello?"
        assert len(server.asked("assistant")) == 1


def test_what_must_go_on_later_is_kept() -> None:
    with AssistantsServer([says(calls=[ADD])]) as server:
        asked(server, HELLO, agent=ADDER, keep=True)
        assert (len(server.existing), len(server.running)) == (2, 1)


def test_what_cannot_be_deleted_is_named_and_holds_nobody_up() -> None:
    async def run(server: AssistantsServer) -> list[str]:
        async with opened(server) as wire:
            await said(await wire.open(AGENT), HELLO)
        return wire.left

    begun = time.monotonic()
    with AssistantsServer(faults={"delete": [status(500), hang_before_first_byte()]}) as server:
        left = asyncio.run(run(server))
        assert len(left) == 2
        assert all(any(name in line for line in left) for name in server.existing)
    assert time.monotonic() - begun < 8


def test_a_thread_that_was_begun_elsewhere_is_not_deleted() -> None:
    with AssistantsServer() as server:
        _, state = asked(server, HELLO, keep=True)
        asked(server, HELLO, state=state)
        assert len(server.threads) == 1
