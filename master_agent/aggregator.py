"""From the state of a run to the result object: what every reader of a run is shown."""

from master_agent.results import Conflict, RunResult, RunStatus, StepResult
from master_agent.state import State


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
