"""The dispatcher: each step starts the moment its last need is done, so many at once, and every end is written down."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from master_agent.checker import check
from master_agent.context import Inputs
from master_agent.dispatcher import Dispatcher, go_on
from master_agent.errors import ErrorType, JournalError
from master_agent.events import Event, StepFinished, StepStarted
from master_agent.plan import Plan, Step
from master_agent.results import ErrorInfo, StepResult
from tests.virtual_time import run_in_virtual_time


def graph(**needs: Iterable[str]) -> Plan:
    steps = [{"id": name, "agent": "code", "prompt": "x", "needs": list(given)} for name, given in needs.items()]
    return check({"plan": steps, "order": "graph"}, ["code"], {})


def sequence(*names: str) -> Plan:
    return check({"plan": [{"id": name, "agent": "code", "prompt": "x"} for name in names]}, ["code"], {})


def failed(type: ErrorType = "tool_failed") -> StepResult:
    return StepResult(status="failed", agent="code", error=ErrorInfo(type=type, message="no"))


@dataclass
class Performance:
    """Performs a plan in virtual time, with scripted latencies and ends; remembers when what ran."""

    plan: Plan
    seconds: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 4
    earlier: Mapping[str, StepResult] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    given: dict[str, Inputs] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    crowds: list[int] = field(default_factory=list)

    async def perform(self, step: Step, inputs: Inputs) -> StepResult:
        loop = asyncio.get_running_loop()
        self.began[step.id] = loop.time()
        self.given[step.id] = replace(inputs, results=dict(inputs.results))  # as they are now
        self.running.add(step.id)
        self.crowds.append(len(self.running))
        try:
            await asyncio.sleep(self.seconds.get(step.id, 1.0))
        finally:
            self.running.discard(step.id)
            self.ended[step.id] = loop.time()
        end = self.ends.get(step.id, StepResult(status="done", agent="code", text=f"the text of {step.id}"))
        if isinstance(end, BaseException):
            raise end
        assert isinstance(end, StepResult)
        return end

    async def dispatch(self) -> Mapping[str, StepResult]:
        clock = asyncio.get_running_loop().time
        return await Dispatcher(
            self.plan, self.perform, self.events.append, self.concurrency, self.earlier, clock=clock
        ).run()

    def run(self) -> Mapping[str, StepResult]:
        results = run_in_virtual_time(self.dispatch())
        self.every_end_is_written_down_once()
        return results

    @property
    def written(self) -> dict[str, StepResult]:
        return {event.step: event.result for event in self.events if isinstance(event, StepFinished) and event.step}

    @property
    def statuses(self) -> dict[str, str]:
        return {step: result.status for step, result in self.written.items()}

    def every_end_is_written_down_once(self) -> None:
        finished = [event.step for event in self.events if isinstance(event, StepFinished)]
        assert sorted(map(str, finished)) == sorted({step.id for step in self.plan.plan} - set(self.earlier))
        started = [event.step for event in self.events if isinstance(event, StepStarted)]
        assert sorted(map(str, started)) == sorted(self.began)


def test_a_step_starts_the_moment_its_last_need_is_done_and_waits_for_nobody_else() -> None:
    plan = graph(fast=[], slow=[], after_fast=["fast"], after_both=["fast", "slow"], last=["after_fast"])
    told = Performance(plan, {"fast": 1, "slow": 100, "after_fast": 2, "last": 3, "after_both": 1})
    results = told.run()
    assert told.began == {"fast": 0, "slow": 0, "after_fast": 1, "last": 3, "after_both": 100}
    assert told.ended["after_both"] == 101
    assert {result.status for result in results.values()} == {"done"}


def test_a_sequence_goes_one_after_the_other_however_many_may_run() -> None:
    told = Performance(sequence("a", "b", "c"), {"a": 2, "b": 3}, concurrency=9)
    told.run()
    assert (told.began, max(told.crowds)) == ({"a": 0, "b": 2, "c": 5}, 1)


@pytest.mark.parametrize("concurrency", [1, 2, 3, 7, 50])
def test_no_more_run_at_once_than_allowed_and_no_fewer_than_could(concurrency: int) -> None:
    names = [f"s{i}" for i in range(20)]
    told = Performance(graph(**{name: [] for name in names}), concurrency=concurrency)
    told.run()
    assert max(told.crowds) == min(concurrency, 20)
    assert max(told.ended.values()) == -(-20 // concurrency)
    assert [told.began[name] for name in names] == [i // concurrency for i in range(20)], "in the order of the plan"


def test_a_place_that_comes_free_is_taken_at_once() -> None:
    told = Performance(graph(a=[], b=[], c=[], d=[]), {"a": 10, "b": 1, "c": 2, "d": 4}, concurrency=2)
    told.run()
    assert told.began == {"a": 0, "b": 0, "c": 1, "d": 3}


def test_a_failed_step_skips_what_needs_it_and_nothing_else() -> None:
    plan = graph(bad=[], good=[], needs_bad=["bad", "good"], needs_that=["needs_bad"], needs_good=["good"], free=[])
    told = Performance(plan, {"good": 5}, {"bad": failed()})
    results = told.run()
    assert {name: result.status for name, result in results.items()} == {
        "bad": "failed",
        "good": "done",
        "needs_bad": "skipped",
        "needs_that": "skipped",
        "needs_good": "done",
        "free": "done",
    }
    assert results["needs_bad"].reason == 'it needs "bad", which failed'
    assert results["needs_that"].reason == 'it needs "needs_bad", which was skipped'
    assert results["needs_bad"].agent == "code"


def test_in_a_sequence_everything_after_a_failed_step_is_skipped() -> None:
    told = Performance(sequence("a", "b", "c", "d"), ends={"b": failed()})
    told.run()
    assert told.statuses == {"a": "done", "b": "failed", "c": "skipped", "d": "skipped"}


def test_a_key_that_is_refused_stops_what_has_not_started_and_lets_the_rest_come_to_its_end() -> None:
    plan = graph(key=[], long=[], waiting=[], after_long=["long"], after_key=["key"])
    told = Performance(plan, {"long": 9}, {"key": failed("authentication")}, concurrency=2)
    told.run()
    assert told.statuses == {
        "key": "failed",
        "long": "done",
        "waiting": "not_started",
        "after_long": "not_started",
        "after_key": "skipped",
    }


@pytest.mark.parametrize("type", ["rate_limited", "tool_failed", "connection"])
def test_other_failures_stop_nothing(type: ErrorType) -> None:
    step = sequence("a").plan[0]
    assert go_on(step, failed(type)) == "go_on"
    assert go_on(step, failed("authentication")) == "stop"
    assert go_on(step, StepResult(status="done")) == "go_on"


def cancelled_after(seconds: float, told: Performance) -> Performance:
    async def run() -> None:
        task = asyncio.create_task(told.dispatch())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_in_virtual_time(run())
    told.every_end_is_written_down_once()
    return told


def test_when_it_is_cancelled_every_step_has_its_end_written_down() -> None:
    plan = graph(done=[], runs=[], after_done=["done"], waits=[], after_runs=["runs"])
    told = cancelled_after(3, Performance(plan, {"done": 1, "runs": 60, "waits": 60}, concurrency=2))
    assert told.statuses == {
        "done": "done",
        "runs": "cancelled",
        "after_done": "not_started",
        "waits": "cancelled",
        "after_runs": "not_started",
    }
    assert told.running == set()
    assert told.ended["runs"] == 3
    assert (told.written["runs"].reason, told.written["runs"].seconds) == ("cancelled while it ran", 3)
    assert told.written["after_runs"].reason == "the run ended before it could start"


def test_a_step_that_comes_to_its_end_though_cancelled_keeps_its_result_and_starts_nothing() -> None:
    class Stubborn(Performance):
        async def perform(self, step: Step, inputs: Inputs) -> StepResult:
            try:
                return await super().perform(step, inputs)
            except asyncio.CancelledError:
                return StepResult(status="done", text="all the same")

    told = cancelled_after(3, Stubborn(graph(a=[], b=[], after_a=["a"]), {"a": 60, "b": 60}, concurrency=2))
    assert told.statuses == {"a": "done", "b": "done", "after_a": "not_started"}
    assert told.written["a"].text == "all the same"


def test_a_bug_surfaces_as_itself_and_is_written_down_with_all_the_rest() -> None:
    bug = ZeroDivisionError("a bug")
    told = Performance(graph(bad=[], runs=[], waits=[], after=["bad"]), {"runs": 60}, {"bad": bug}, concurrency=2)
    with pytest.raises(ZeroDivisionError) as caught:
        run_in_virtual_time(told.dispatch())
    assert caught.value is bug
    told.every_end_is_written_down_once()
    assert told.statuses == {"bad": "failed", "runs": "cancelled", "waits": "not_started", "after": "not_started"}
    error = told.written["bad"].error
    assert error is not None
    assert (error.type, error.message) == ("bug", "ZeroDivisionError: a bug")


def test_two_bugs_at_one_moment_surface_as_one_of_them() -> None:
    told = Performance(graph(a=[], b=[]), ends={"a": KeyError("a"), "b": ValueError("b")})
    with pytest.raises(KeyError):
        run_in_virtual_time(told.dispatch())


def test_a_note_that_cannot_be_taken_ends_the_run_as_itself() -> None:
    def note(event: Event) -> None:
        if isinstance(event, StepFinished):
            raise JournalError("the disk is full")

    async def perform(step: Step, inputs: Inputs) -> StepResult:
        return StepResult(status="done")

    with pytest.raises(JournalError):
        asyncio.run(Dispatcher(graph(a=[], b=["a"]), perform, note).run())


def test_a_step_in_a_graph_is_given_what_it_needs_in_the_order_of_the_plan() -> None:
    told = Performance(graph(a=[], b=[], c=[], d=["c", "a"]), {"a": 9})
    told.run()
    assert list(told.given["d"].results) == ["a", "c"]
    assert told.given["d"].results["a"].text == "the text of a"
    assert told.given["a"].results == {}


def test_a_step_in_a_sequence_is_given_everything_earlier_and_only_that() -> None:
    told = Performance(sequence("a", "b", "c"))
    told.run()
    assert [list(told.given[name].results) for name in "abc"] == [[], ["a"], ["a", "b"]]


def test_every_step_is_given_the_parameters() -> None:
    plan = check({"plan": [{"id": "a", "agent": "code", "prompt": "x"}]}, ["code"], {}, params={"city": "Rome"})
    told = Performance(plan)
    told.run()
    assert told.given["a"].params == {"city": "Rome"}


def test_results_that_stand_already_are_built_on_and_not_made_again() -> None:
    reused = StepResult(status="reused", text="from before")
    told = Performance(sequence("a", "b", "c"), earlier={"a": reused})
    results = told.run()
    assert list(told.began) == ["b", "c"]
    assert results["a"] is reused
    assert told.given["b"].results["a"] is reused


def test_a_step_is_written_down_as_started_before_it_runs_and_as_ended_with_its_seconds() -> None:
    told = Performance(graph(a=[], b=["a"]), {"a": 2.5, "b": 4})
    told.run()
    assert [(event.type, event.step, event.attempt) for event in told.events] == [
        ("step_started", "a", 1),
        ("step_finished", "a", 1),
        ("step_started", "b", 1),
        ("step_finished", "b", 1),
    ]
    assert (told.written["a"].seconds, told.written["b"].seconds) == (2.5, 4)


LARGE: dict[str, Sequence[Sequence[int]]] = {
    "chain": [[i - 1] if i else [] for i in range(10_000)],
    "wide": [[] for _ in range(10_000)],
    "one before all": [[0] if i else [] for i in range(10_000)],
    "all before one": [*[[] for _ in range(9_999)], list(range(9_999))],
    "graph": [sorted({i // 2, i // 3, i - 1 - i % 7} & set(range(i))) for i in range(10_000)],
}


@pytest.mark.parametrize("shape", LARGE)
def test_ten_thousand_steps_are_no_problem(shape: str) -> None:
    plan = graph(**{f"s{i}": [f"s{need}" for need in needs] for i, needs in enumerate(LARGE[shape])})
    order: list[str] = []

    async def perform(step: Step, inputs: Inputs) -> StepResult:
        assert list(inputs.results) == sorted(step.needs, key=lambda name: int(name[1:]))
        order.append(step.id)
        return StepResult(status="done")

    results = asyncio.run(Dispatcher(plan, perform, lambda _: None, 8).run())
    assert len(order) == len(results) == 10_000


def test_ten_thousand_steps_in_a_sequence_are_no_problem_though_each_may_look_at_all_before() -> None:
    async def perform(step: Step, inputs: Inputs) -> StepResult:
        assert len(inputs.results) == int(step.id[1:])
        return StepResult(status="done")

    results = asyncio.run(Dispatcher(sequence(*(f"s{i}" for i in range(10_000))), perform, lambda _: None).run())
    assert len(results) == 10_000


def test_ten_thousand_steps_after_a_failed_one_are_skipped() -> None:
    async def perform(step: Step, inputs: Inputs) -> StepResult:
        return failed()

    results = asyncio.run(Dispatcher(sequence(*(f"s{i}" for i in range(10_000))), perform, lambda _: None).run())
    assert [result.status for result in results.values()].count("skipped") == 9_999
