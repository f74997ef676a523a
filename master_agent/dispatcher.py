"""From a plan to the results of its steps: each starts the moment its last need is done, so many at once."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Literal

from master_agent.context import Inputs, Perform
from master_agent.errors import LimitError
from master_agent.events import Event, StepFinished, StepStarted
from master_agent.plan import AgentStep, Plan, Step
from master_agent.results import ErrorInfo, StepResult

Decision = Literal["go_on", "stop"]
Decide = Callable[[Step, StepResult], Decision]


def go_on(_step: Step, result: StepResult) -> Decision:
    """After every step the run goes on, unless a key is missing for all, a limit is reached or a replay differs."""
    final = ("authentication", "limit", "replay_differs")
    return "stop" if result.error is not None and result.error.type in final else "go_on"


@dataclass
class Dispatcher:
    """Performs a plan once. `note` takes the events; `earlier` are results that stand already.

    `attempts` says how often a step was started before. `most`: so many different steps may be started, those of
    before included; one that turns out to be reused is not counted. `parts` tells what a step is made of.
    """

    plan: Plan
    perform: Perform
    note: Callable[[Event], object]
    concurrency: int = 4
    earlier: Mapping[str, StepResult] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    decide: Decide = go_on
    clock: Callable[[], float] = time.monotonic
    most: int | None = None
    parts: Callable[[Step, Inputs], Mapping[str, str]] = lambda _step, _inputs: {}

    def __post_init__(self) -> None:
        self._steps: dict[str, Step] = {step.id: step for step in self.plan.plan}
        self._place = {step_id: place for place, step_id in enumerate(self._steps)}
        self._results: dict[str, StepResult] = {}
        self._ready: deque[str] = deque()
        self._running: set[str] = set()
        self._begun = set(self.attempts)
        self._stopped = False
        self._limit: LimitError | None = None
        self._graph = TopologicalSorter({step.id: step.needs for step in self.plan.plan})
        self._graph.prepare()

    async def run(self) -> Mapping[str, StepResult]:
        """The results by step id, one for every step of the plan, when nothing can be started any more.

        LimitError when a limit of the run is why; the results are written down then too.
        When it is cancelled, what runs is cancelled, what has not started is `not_started`, and both are written down.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._gather_ready()
                self._start(group)
        except* Exception as broken:  # what a step may raise is a result already: this is a bug, and goes on as itself
            raise broken.exceptions[0] from None
        finally:
            for step in self.plan.plan:
                if step.id not in self._results:
                    self._finish(step, _result(step, "not_started", "the run ended before it could start"))
        if self._limit is not None:
            raise self._limit
        return self._results

    def _gather_ready(self) -> None:
        """Moves what has all its needs to the queue; what needs something that failed is skipped at once."""
        while new := sorted(self._graph.get_ready(), key=self._place.__getitem__):
            for step_id in new:
                step = self._steps[step_id]
                missing = next((need for need in step.needs if not self._results[need].usable), None)
                if step_id in self.earlier:
                    self._results[step_id] = self.earlier[step_id]
                    self._graph.done(step_id)
                elif missing is not None:
                    why = f'it needs "{missing}", which {_ended(self._results[missing])}'
                    self._finish(step, _result(step, "skipped", why))
                    self._graph.done(step_id)
                else:
                    self._ready.append(step_id)

    def _start(self, group: asyncio.TaskGroup) -> None:
        while self._ready and len(self._running) < self.concurrency and not self._stopped:
            step_id = self._ready[0]
            if self.most is not None and step_id not in self._begun and len(self._begun) >= self.most:
                if not self._running:  # else one of them may turn out to be reused, and leave room
                    self._stopped, self._limit = True, _too_many(self.most)
                return
            self._ready.popleft()
            self._begun.add(step_id)
            self._running.add(step_id)
            group.create_task(self._work(self._steps[step_id], group), name=step_id)

    async def _work(self, step: Step, group: asyncio.TaskGroup) -> None:
        began = self.clock()
        agent, tool = _who(step)
        attempt, inputs = self._attempt(step), self._inputs(step)
        parts = dict(self.parts(step, inputs))
        self.note(StepStarted(step=step.id, attempt=attempt, agent=agent, tool=tool, parts=parts))
        try:
            result = await self.perform(step, inputs)
        except asyncio.CancelledError:
            cancelled = _result(step, "cancelled", "cancelled while it ran")
            self._finish(step, cancelled.model_copy(update={"seconds": self.clock() - began, "attempt": attempt}))
            raise
        except Exception as bug:  # written down like any other end, then raised as itself
            error = ErrorInfo(type="bug", message=f"{type(bug).__name__}: {bug}")
            failed = StepResult(status="failed", reason=error.message, agent=agent, tool=tool, error=error)
            self._finish(step, failed.model_copy(update={"seconds": self.clock() - began, "attempt": attempt}))
            raise
        self._finish(step, result.model_copy(update={"seconds": self.clock() - began, "attempt": attempt}))
        if result.error is not None and result.error.type == "limit":
            self._limit = self._limit or LimitError(result.error.message, hint=result.error.hint)
        self._running.discard(step.id)
        if result.status == "reused":
            self._begun.discard(step.id)
        self._graph.done(step.id)
        task = asyncio.current_task()
        was_cancelled = task is not None and task.cancelling() > 0  # and came to its end all the same
        self._stopped = self._stopped or was_cancelled or self.decide(step, result) == "stop"
        self._gather_ready()
        self._start(group)

    def _inputs(self, step: Step) -> Inputs:
        if self.plan.order == "sequence":  # everything earlier, in order already; nothing joins it while the step runs
            return Inputs(MappingProxyType(self._results), self.plan.params, self._attempt(step))
        given = {need: self._results[need] for need in sorted(step.needs, key=self._place.__getitem__)}
        return Inputs(given, self.plan.params, self._attempt(step))

    def _attempt(self, step: Step) -> int:
        return self.attempts.get(step.id, 0) + 1

    def _finish(self, step: Step, result: StepResult) -> None:
        self._results[step.id] = result
        self.note(StepFinished(step=step.id, attempt=result.attempt, result=result))


def _too_many(most: int) -> LimitError:
    return LimitError(
        f"the run has started all the steps that it may: {most:,}",
        hint="What is done is kept. Go on with more: master-agent resume --max-steps NUMBER",
    )


def _who(step: Step) -> tuple[str | None, str | None]:
    return (step.agent, None) if isinstance(step, AgentStep) else (None, step.tool)


def _result(step: Step, status: Literal["skipped", "cancelled", "not_started"], reason: str) -> StepResult:
    agent, tool = _who(step)
    return StepResult(status=status, reason=reason, agent=agent, tool=tool)


def _ended(result: StepResult) -> str:
    return {"failed": "failed", "skipped": "was skipped", "cancelled": "was cancelled"}.get(
        result.status, "did not run"
    )
