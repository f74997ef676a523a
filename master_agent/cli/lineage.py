"""From a run to what the runs that come from it build on: its files, and what a planner is told of it."""

from pathlib import Path

from master_agent.events import RunStarted
from master_agent.journal import read
from master_agent.plan import AgentStep
from master_agent.results import StepResult
from master_agent.state import fold

MOST_TEXT = 20_000  # characters of all that a planner is told of an earlier run
MOST_OF_A_STEP = 1_500


def files_of(database: Path, run_id: str | None) -> dict[str, str]:
    """The files that a run and those it came from made or wrote, each path with the SHA-256 that it was left with."""
    files: dict[str, str] = {}
    seen: set[str] = set()
    while run_id is not None and run_id not in seen:
        seen.add(run_id)
        history = read(database, run_id)
        state = fold(history)
        files = {**{path: file.sha256 for path, file in state.files.items()}, **files}
        run_id = next((event.parent for event in history if isinstance(event, RunStarted)), None)
    return files


def story_of(database: Path, run_id: str) -> str:
    """The task, the plan and the results of a run, for a planner that goes on from it; of bounded length."""
    state = fold(read(database, run_id))
    lines = [f"task: {state.task or '(none)'}"]
    for step in state.plan.plan if state.plan else ():
        what = f"agent {step.agent}: {step.prompt}" if isinstance(step, AgentStep) else f"tool {step.tool}"
        lines.append(f"\nstep {step.id}, {_cut(what)}")
        lines += _left(state.results.get(step.id))
    return _cut("\n".join(lines), MOST_TEXT)


def _left(result: StepResult | None) -> list[str]:
    if result is None:
        return ["not started"]
    files = [f"file: {file.path} ({file.bytes} bytes)" for file in result.artifacts]
    return [result.status, *files, *([_cut(result.text)] if result.text else [])]


def _cut(text: str, most: int = MOST_OF_A_STEP) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[cut: {most} of {len(text)} characters]"
