"""The story: make a plan, have it approved, dispatch it, gather the results."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from master_agent.aggregator import conclude, project
from master_agent.approval import Approve, Approved, Declined, Later
from master_agent.events import PlanMade
from master_agent.journal import Journal
from master_agent.lifetime import Lifetime
from master_agent.limits import TimeBudget
from master_agent.plan import Plan
from master_agent.planner import Planner
from master_agent.results import RunResult, RunStatus, StepResult


@dataclass(frozen=True)
class Master:
    """What a run needs; `cli/workshop.py` puts it together. `earlier` are results that stand already."""

    planner: Planner | None
    approve: Approve
    dispatch: Callable[[Plan], Awaitable[object]]
    journal: Journal
    lifetime: Lifetime
    budget: TimeBudget
    files: Callable[[], list[tuple[str, int]]] = list
    earlier: Mapping[str, StepResult] = field(default_factory=dict)

    async def run_task(self, task: str, params: Mapping[str, str]) -> RunResult:
        """A task in words: plan, approve, dispatch, gather."""
        async with self.lifetime.run() as end:
            plan = await self._make_plan(task, params)
            end(await self._run_approved(plan))
        return project(self.journal.state)

    async def run_plan(self, plan: Plan) -> RunResult:
        """A plan that a person wrote: approve, dispatch, gather."""
        async with self.lifetime.run() as end:
            self.journal.note(PlanMade(plan=plan, by="user", earlier=dict(self.earlier)))
            end(await self._run_approved(plan))
        return project(self.journal.state)

    async def resume(self) -> RunResult:
        """A run that ended early: on from where its journal ends."""
        state = self.journal.state
        async with self.lifetime.run() as end:
            plan = state.plan or await self._make_plan(state.task or "", state.params)
            end(await self._run_approved(plan))
        return project(self.journal.state)

    async def plan_only(self, task: str, params: Mapping[str, str]) -> RunResult:
        """A task in words: the planning call and nothing else."""
        async with self.lifetime.run() as end:
            await self._make_plan(task, params)
            end("done")
        return project(self.journal.state)

    async def _make_plan(self, task: str, params: Mapping[str, str]) -> Plan:
        assert self.planner is not None, "a run without a planner was given a task"
        async with self.budget.spend():
            plan = await self.planner.make(task, params, self.files())
        self.journal.note(PlanMade(plan=plan, by="model"))
        return plan

    async def _run_approved(self, plan: Plan) -> RunStatus:
        match await self.approve(plan):
            case Declined():
                return "cancelled"
            case Later():
                return "waiting"
            case Approved(approved):
                if approved != plan:
                    self.journal.note(PlanMade(plan=approved, by="user"))
                async with self.budget.spend():
                    await self.dispatch(approved)
        return conclude(self.journal.state)
