"""From the state of a run to the result object: what every reader of a run is shown."""

from collections.abc import Iterable, Sequence
from typing import Literal

from master_agent.events import Event, RunFinished, RunResumed, RunStarted, StepFinished, StepStarted
from master_agent.plan import AgentStep, Step
from master_agent.results import Conflict, RunResult, RunStatus, StepResult
from master_agent.state import State, apply


def conclude(state: State) -> RunStatus:
    """How a run ended, from its steps; one without a result is not done, one that a person must decide about waits."""
    errors = [result.error for result in state.results.values() if result.status == "failed" and result.error]
    if any(error.type == "effect_unverified" for error in errors):
        return "waiting"
    steps = [step.id for step in state.plan.plan] if state.plan else list(state.results)
    usable = [step in state.results and state.results[step].usable for step in steps]
    if all(usable):
        return "done"
    return "partial" if any(usable) else "failed"


def final_text(state: State) -> str:
    """The texts of the steps that nothing needs, in plan order."""
    if state.plan is None:
        return ""
    needed = {need for step in state.plan.plan for need in step.needs}
    last = [state.results.get(step.id) for step in state.plan.plan if step.id not in needed]
    return "\n\n".join(result.text for result in last if isinstance(result, StepResult) and result.text)


def conflicts(state: State) -> tuple[Conflict, ...]:
    """Every file that was contested, once, in the order in which it came to that."""
    return tuple(
        Conflict(
            path=path,
            written_by=tuple(dict.fromkeys(event.by for event in events)),
            refused=tuple(dict.fromkeys(event.step for event in events if event.step)),
        )
        for path, events in state.contested.items()
    )


def has_ended(history: Sequence[Event]) -> bool:
    """Whether the events are those of a run that came to its end, and was not gone on with since."""
    turns = (event for event in reversed(history) if isinstance(event, RunStarted | RunResumed | RunFinished))
    return isinstance(next(turns, None), RunFinished)


def so_far(history: Iterable[Event], *, alive: bool) -> RunResult:
    """The result object of a run that has not ended: its process is at work (`alive`), or it died."""
    state = State()
    begun: dict[str, StepStarted] = {}
    for event in history:
        apply(state, event)
        match event:
            case RunResumed():
                begun.clear()
            case StepStarted() if event.step:
                begun[event.step] = event
            case StepFinished() if event.step:
                begun.pop(event.step, None)
    status: Literal["running", "died"] = "running" if alive else "died"
    later = {step.id: _later(step) for step in state.plan.plan} if alive and state.plan else {}
    reason = None if alive else "the process of the run died while it was at work"
    open_ = {
        step: StepResult(
            status=status, reason=reason, agent=started.agent, tool=started.tool, attempt=started.attempt or 1
        )
        for step, started in begun.items()
    }
    state.results = {**later, **state.results, **open_}
    state.error = None
    return project(state).model_copy(update={"status": status})


def _later(step: Step) -> StepResult:
    agent, tool = (step.agent, None) if isinstance(step, AgentStep) else (None, step.tool)
    return StepResult(status="not_started", reason="its turn has not come yet", agent=agent, tool=tool)


def project(state: State) -> RunResult:
    """The result object of a run, live or read back."""
    plan = state.plan.model_dump(mode="json", by_alias=True)["plan"] if state.plan else ()
    order = {step.id: place for place, step in enumerate(state.plan.plan)} if state.plan else {}
    return RunResult(
        run_id=state.run_id,
        parent=state.parent,
        task=state.task,
        params=state.params,
        status=state.status or conclude(state),
        order=state.plan.order if state.plan else None,
        plan=plan,
        results=dict(sorted(state.results.items(), key=lambda item: order.get(item[0], len(order)))),
        final=final_text(state),
        conflicts=conflicts(state),
        executions=tuple(state.executions.values()),
        unsafe_exec=state.unsafe_exec,
        error=state.error,
        usage=state.usage,
        seconds=state.seconds,
    )
