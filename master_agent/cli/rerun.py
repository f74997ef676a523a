"""From a plan and an earlier result to what is run again: `run PLAN --from STEP --context RESULT`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from master_agent import checker
from master_agent.cli import streams
from master_agent.errors import UsageError
from master_agent.plan import Plan
from master_agent.results import RunResult, StepResult
from master_agent.values import suggestion


@dataclass(frozen=True)
class Rerun:
    """The part of a plan that is run, what stands already, and the files (path: SHA-256) that the result tells of."""

    plan: Plan
    earlier: Mapping[str, StepResult] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)


def rerun(whole: Plan, from_step: str | None, context: Path | None, workspace: Path) -> Rerun:
    """What is to be run; UsageError when a step that is needed has no finished result, or not this plan's."""
    if from_step is None:
        if context is not None:
            raise UsageError("--context goes with --from STEP")
        return Rerun(whole)
    before = _result(context) if context is not None else RunResult(status="failed")
    source = str(context) if context else "no --context was given"
    return onto(whole, from_step, before, workspace, source=source)


def onto(whole: Plan, from_step: str, before: RunResult, workspace: Path, *, source: str) -> Rerun:
    """The step and what follows from it, on an earlier result, which `source` names; UsageError as of `rerun`."""
    known = [step.id for step in whole.plan]
    if from_step not in known:
        raise UsageError(f'--from: no step "{from_step}"{suggestion(from_step, known)}')
    anew = whole.after(from_step)
    earlier = {
        step_id: result.model_copy(update={"status": "reused", "from_run": result.from_run or before.run_id})
        for step_id, result in before.results.items()
        if step_id in known and step_id not in anew and result.usable
    }
    needed = sorted({need for step in whole.plan if step.id in anew for need in step.needs} - anew)
    _check_there(from_step, needed, earlier, source)
    _check_same(whole, before, needed, workspace)
    made = {file.path: file.sha256 for result in before.results.values() for file in result.artifacts}
    return Rerun(_part(whole, anew | earlier.keys()), earlier, made)


def _check_there(from_step: str, needed: list[str], earlier: Mapping[str, StepResult], source: str) -> None:
    missing = [need for need in needed if need not in earlier]
    if missing:
        raise UsageError(
            f"step {from_step} cannot start: no finished result of {', '.join(missing)} ({source})",
            hint="Give the result of the run before with --context RESULT.json, or start from an earlier step.",
        )


def _check_same(whole: Plan, before: RunResult, needed: list[str], workspace: Path) -> None:
    """The results that are built on are of the steps as they are now, and their files are still there."""
    then = {str(step["id"]): step for step in before.plan if "id" in step}
    for step_id in needed:
        now = whole.step(step_id).model_dump(mode="json", by_alias=True)
        was = then.get(step_id)
        if was is not None and any(was.get(name) != now.get(name) for name in ("agent", "prompt", "tool", "with")):
            raise UsageError(
                f"the step {step_id} is another now than when its result was made",
                hint=f"Run it again too: --from {step_id}",
            )
        for file in before.results[step_id].artifacts:
            if not (workspace / file.path).is_file():
                raise UsageError(
                    f"the file {file.path}, which {step_id} made, is no longer in {workspace.resolve()}",
                    hint=f"Make it again: --from {step_id}",
                )


def _part(whole: Plan, kept: frozenset[str]) -> Plan:
    """The plan without the steps that neither follow from the first one nor have a result: they are not run."""
    steps = [step for step in whole.plan if step.id in kept]
    parts = [step.model_copy(update={"needs": tuple(need for need in step.needs if need in kept)}) for step in steps]
    return whole.model_copy(update={"plan": tuple(parts)})


def _result(path: Path) -> RunResult:
    raw = checker.load(streams.read_file(path), source=str(path))
    try:
        return RunResult.model_validate(raw)
    except ValidationError:
        raise UsageError(f"{path} is not the result of a run", hint="Make one with --json > result.json") from None
