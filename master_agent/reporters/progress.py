"""From events to what is going on right now: which steps run, what they write, and how many are done."""

from collections import Counter
from dataclasses import dataclass, field

from master_agent.events import (
    Event,
    ModelCalled,
    ModelReplied,
    PlanMade,
    PlanRevised,
    RunFinished,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCalled,
    ToolReturned,
)
from master_agent.plan import Plan
from master_agent.reporters.words import doer, trouble
from master_agent.results import StepResult, StepStatus, Usage

TAIL = 4000  # characters of a step's text that are kept: more than a terminal shows of it


@dataclass
class Running:
    """A step at work, or the planner. `doing` says what it does while it writes nothing."""

    id: str
    doer: str
    began: float
    doing: str = ""
    call: str | None = None
    text: str = ""
    written: int = 0
    usage: Usage | None = None

    @property
    def tokens(self) -> int | None:
        """The tokens so far; none where no server reported any."""
        return None if self.usage is None else self.usage.tokens


PLANNER = ""  # no step has this id


@dataclass
class Progress:
    """The moment in a run that its events have led to. Taking one costs the same in a run of any length."""

    running: dict[str, Running] = field(default_factory=dict)
    plan: Plan | None = None
    results: dict[str, StepResult] = field(default_factory=dict)
    counts: Counter[StepStatus] = field(default_factory=Counter)
    began: float | None = None
    tokens: int | None = None
    over: bool = False

    @property
    def waiting(self) -> int:
        """How many steps of the plan have neither ended nor begun."""
        steps = len(self.plan.plan) if self.plan else 0
        return max(steps - self.counts.total() - sum(1 for step_id in self.running if step_id != PLANNER), 0)

    def take(self, event: Event, now: float) -> None:
        """One event, that came at `now` seconds of the reporter's clock."""
        if self.began is None:
            self.began = now
        match event:
            case PlanMade():
                self.running.pop(PLANNER, None)
                self._planned(event.plan, event.earlier)
            case PlanRevised():
                self._planned(event.plan, {})
            case StepStarted() if event.step:
                self.running[event.step] = Running(event.step, event.agent or event.tool or "", now)
            case StepFinished() if event.step:
                self.running.pop(event.step, None)
                self._ended(event.step, event.result)
            case ModelCalled():
                self._called(event, now)
            case TextDelta():
                self._wrote(event)
            case ModelReplied() | ToolReturned():
                self._answered(event)
            case ToolCalled():
                if running := self._of(event):
                    running.doing, running.text = f"using {event.tool}", ""
            case RunFinished():
                self.running.clear()
                self.over = True

    def _planned(self, plan: Plan, earlier: dict[str, StepResult]) -> None:
        self.plan = plan
        for step_id, result in earlier.items():
            self._ended(step_id, result)

    def _ended(self, step_id: str, result: StepResult) -> None:
        if before := self.results.get(step_id):
            self.counts[before.status] -= 1
        self.results[step_id] = result
        self.counts[result.status] += 1

    def _called(self, event: ModelCalled, now: float) -> None:
        running = self._of(event)
        if running is None:
            if event.step is not None:
                return
            running = self.running[PLANNER] = Running(PLANNER, event.agent, now)
        running.doing = f"asking {event.model}" if event.model else "asking the model"
        running.call, running.text, running.written = event.call, "", 0

    def _wrote(self, event: TextDelta) -> None:
        running = self._of(event)
        if running is None:
            return
        if event.call != running.call:
            running.call, running.text, running.written = event.call, "", 0
        running.written += len(event.text)
        running.text = (running.text + event.text)[-TAIL:]

    def _answered(self, event: ModelReplied | ToolReturned) -> None:
        used = event.usage.tokens
        if used is not None and event.usage.calls:
            self.tokens = (self.tokens or 0) + used
        running = self._of(event)
        if running is None:
            return
        if event.usage.calls:
            running.usage = event.usage if running.usage is None else running.usage + event.usage
        if event.error:
            retry_after = event.retry_after if isinstance(event, ModelReplied) else None
            what = trouble(event.error, retry_after)
            running.doing = f"{event.tool}: {event.error.message}" if isinstance(event, ToolReturned) else what
            running.text = ""

    def _of(self, event: Event) -> Running | None:
        return self.running.get(event.step or PLANNER)


def doers(plan: Plan) -> dict[str, str]:
    """The agent or tool of every step, by the step's id."""
    return {step.id: doer(step) for step in plan.plan}
