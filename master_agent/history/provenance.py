"""From a file's path and bytes to the changes of runs that made it so, out of the whole journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from master_agent.database import reading
from master_agent.events import (
    Event,
    FileChanged,
    FileChangeFailed,
    ModelCalled,
    RunFinished,
    RunResumed,
    RunStarted,
    StepFinished,
    StepStarted,
    ToolCalled,
    ToolReturned,
)
from master_agent.plan import AgentStep, ToolStep
from master_agent.results import StepResult
from master_agent.state import fold


@dataclass(frozen=True)
class Made:
    """One change of a file by a run: the place of its event in the journal, and what the file became."""

    run_id: str
    seq: int
    at: str
    workspace: str
    path: str
    sha256: str | None

    @property
    def place(self) -> Path:
        """Where the file is, or was."""
        return Path(self.workspace) / self.path


@dataclass(frozen=True)
class Outcome:
    """What came of a change that was written down before it was made: done, failed with the reason, or not known."""

    how: Literal["done", "failed", "not_known"]
    why: str | None = None


_CHANGES = """
SELECT events.run_id, seq, at, runs.workspace, json_extract(body, '$.file.path'),
  CASE WHEN json_extract(body, '$.removed') THEN NULL ELSE json_extract(body, '$.file.sha256') END
FROM events JOIN runs ON runs.run_id = events.run_id
WHERE type = 'file_changed' AND runs.workspace IS NOT NULL
ORDER BY at DESC, events.run_id DESC, seq DESC
"""


def changes(database: Path) -> list[Made]:
    """Every change of a file by any run, the newest first."""
    with reading(database) as connection:
        return [Made(*row) for row in connection.execute(_CHANGES)]


def of_file(made: Sequence[Made], place: Path, sha256: str | None) -> list[Made]:
    """The changes that have to do with a file, by where it is or by its bytes, wherever they were made."""
    return [one for one in made if one.place == place or (sha256 is not None and one.sha256 == sha256)]


def outcome(made: Made, history: Sequence[Event]) -> Outcome:
    """What came of a change, told by the events of its run after it; not known where its process died before any."""
    step = next((event.step for event in history if event.seq == made.seq), None)
    for event in history:
        if (event.seq or 0) <= made.seq:
            continue
        match event:
            case FileChangeFailed() if event.file.path == made.path:
                return Outcome("failed", event.error.message)
            case RunResumed():
                break  # by a process that came after the one which meant to change the file
            case RunFinished():
                return Outcome("done")
            case FileChanged() if event.file.path == made.path:
                return Outcome("done")
            case ModelCalled() | StepFinished() if event.step == step:
                return Outcome("done")
            case ToolReturned() if any(
                (file.path, file.sha256) == (made.path, made.sha256) for file in event.artifacts
            ):
                return Outcome("done")
    return Outcome("not_known", "the process of the run came to its end at that very moment")


def explained(made: Made, history: Sequence[Event]) -> dict[str, Any]:
    """A change as data: the task, the step with its prompt, who did it with which model, and what it was made from."""
    began = next((event for event in history if isinstance(event, RunStarted)), None)
    until = [event for event in history if (event.seq or 0) <= made.seq]
    step = until[-1].step if until else None
    before = [event for event in until if event.step == step]
    started = next((event for event in reversed(before) if isinstance(event, StepStarted)), None)
    asked = next((event for event in reversed(before) if isinstance(event, ModelCalled)), None) if step else None
    used = next((event for event in reversed(before) if isinstance(event, ToolCalled)), None)
    state = fold(until)
    planned = next((one for one in state.plan.plan if one.id == step), None) if state.plan else None
    return {
        "run_id": made.run_id,
        "at": made.at,
        "origin": began.origin if began else None,
        "parent": began.parent if began else None,
        "task": state.task,
        "file": str(made.place),
        "sha256": made.sha256,
        "step": step,
        "agent": started.agent if started else None,
        "model": asked.model if asked else None,
        "tool": used.tool if used else None,
        "prompt": planned.prompt if isinstance(planned, AgentStep) else None,
        "arguments": dict(planned.arguments) if isinstance(planned, ToolStep) else None,
        "from": [_result(need, state.results[need]) for need in planned.needs if need in state.results]
        if planned
        else [],
        "given": [str(file["name"]) for file in began.given] if began else [],
    }


def _result(step: str, result: StepResult) -> dict[str, Any]:
    doer = {"agent": result.agent, "tool": result.tool}
    return {"step": step, **doer, "text": result.text, "files": [file.path for file in result.artifacts]}
