"""The story: make a plan, have it approved, dispatch it, gather the results."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from master_agent.aggregator import conclude, project
from master_agent.context import Perform
from master_agent.dispatcher import Dispatcher
from master_agent.errors import MasterAgentError
from master_agent.events import PlanMade, RunFinished, RunResumed, RunStarted
from master_agent.journal import Journal
from master_agent.limits import Limits, TimeBudget
from master_agent.plan import Plan
from master_agent.planner import Planner
from master_agent.results import ErrorInfo, RunResult, RunStatus, StepResult


@dataclass(frozen=True)
class Approved:
    """Yes; the plan may have been edited."""

    plan: Plan


@dataclass(frozen=True)
class Declined:
    """No: nothing is run."""


@dataclass(frozen=True)
class Later:
    """Nobody is there to ask: the plan waits."""


Approve = Callable[[Plan], Awaitable[Approved | Declined | Later]]


@dataclass(frozen=True)
class Master:
    """What a run needs; `cli/build.py` puts it together."""

    planner: Planner | None
    perform: Perform
    approve: Approve
    journal: Journal
    limits: Limits
    started: RunStarted | RunResumed
    why_cancelled: Callable[[], ErrorInfo]
    files: Callable[[], list[tuple[str, int]]] = list
    earlier: Mapping[str, StepResult] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)

    async def run_task(self, task: str, params: Mapping[str, str]) -> RunResult:
        """A task in words: plan, approve, dispatch, gather."""
        async with self._run() as (ended, budget):
            async with budget.spend():
                plan = await self._make_plan(task, params)
            ended.append(await self._run_approved(plan, budget))
        return project(self.journal.state)

    async def run_plan(self, plan: Plan) -> RunResult:
        """A plan that a person wrote: approve, dispatch, gather."""
        async with self._run() as (ended, budget):
            self.journal.note(PlanMade(plan=plan, by="user", earlier=dict(self.earlier)))
            ended.append(await self._run_approved(plan, budget))
        return project(self.journal.state)

    async def resume(self) -> RunResult:
        """A run that ended early: on from where its journal ends."""
        state = self.journal.state
        async with self._run() as (ended, budget):
            plan = state.plan
            if plan is None:
                async with budget.spend():
                    plan = await self._make_plan(state.task or "", state.params)
            ended.append(await self._run_approved(plan, budget))
        return project(self.journal.state)

    async def plan_only(self, task: str, params: Mapping[str, str]) -> RunResult:
        """A task in words: the planning call and nothing else."""
        async with self._run() as (ended, budget), budget.spend():
            await self._make_plan(task, params)
            ended.append("done")
        return project(self.journal.state)

    async def _make_plan(self, task: str, params: Mapping[str, str]) -> Plan:
        assert self.planner is not None, "a run without a planner was given a task"
        plan = await self.planner.make(task, params, self.files())
        self.journal.note(PlanMade(plan=plan, by="model"))
        return plan

    async def _run_approved(self, plan: Plan, budget: TimeBudget) -> RunStatus:
        match await self.approve(plan):
            case Declined():
                return "cancelled"
            case Later():
                return "waiting"
            case Approved(approved):
                if approved != plan:
                    self.journal.note(PlanMade(plan=approved, by="user"))
                dispatcher = Dispatcher(
                    approved,
                    self.perform,
                    self.journal.note,
                    self.limits.concurrency,
                    self.earlier,
                    self.attempts,
                )
                async with budget.spend():
                    await dispatcher.run()
        return conclude(self.journal.state)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[tuple[list[RunStatus], TimeBudget]]:
        """From run_started or run_resumed to exactly one run_finished, whatever happens in between."""
        await self.journal.append(self.started, self.contents)
        ended: list[RunStatus] = []
        error: ErrorInfo | None = None
        try:
            yield ended, TimeBudget(self.limits.seconds)
        except MasterAgentError as failure:
            error = ErrorInfo.of(failure)
            ended.append("limited" if error.type in ("limit", "run_timeout") else "failed")
        except asyncio.CancelledError:
            error = self.why_cancelled()
            ended.append("cancelled")
        except Exception as bug:  # the run must end in the journal before the bug is shown
            error = ErrorInfo(type="bug", message=f"{type(bug).__name__}: {bug}")
            ended.append("failed")
            raise
        finally:
            seconds = self.journal.state.seconds
            await self.journal.append(
                RunFinished(status=ended[-1] if ended else "failed", error=error, seconds=seconds)
            )
