"""From the events of a run to what it has come to: plan, results, files, use, and how it ended."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from master_agent.events import (
    Event,
    FileChanged,
    FileChangeFailed,
    FileContested,
    ModelReplied,
    PlanMade,
    PlanRevised,
    RunFinished,
    RunResumed,
    RunStarted,
    StepFinished,
    StepStarted,
    ToolReturned,
)
from master_agent.plan import Plan
from master_agent.results import Artifact, ErrorInfo, Execution, RunStatus, StepResult, Usage


@dataclass
class State:
    """What a run has come to: the fold of its events."""

    run_id: str | None = None
    parent: str | None = None
    task: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    results: dict[str, StepResult] = field(default_factory=dict)
    started: dict[str, StepStarted] = field(default_factory=dict)
    files: dict[str, Artifact] = field(default_factory=dict)
    replaced: dict[str, Artifact | None] = field(default_factory=dict)
    executions: dict[str | None, Execution] = field(default_factory=dict)
    unsafe_exec: bool = False
    contested: dict[str, list[FileContested]] = field(default_factory=dict)
    used: dict[str | None, Usage] = field(default_factory=dict)
    status: RunStatus | None = None
    error: ErrorInfo | None = None
    worked: float | None = None
    began: str | None = None
    ended: str | None = None

    @property
    def usage(self) -> Usage:
        """What the whole run has used so far, the planner's calls included."""
        return Usage.total(self.used.values())

    @property
    def seconds(self) -> float:
        """The seconds of work of its processes, as each said at its end; else from the first event to the last one."""
        if self.worked is not None:
            return self.worked
        if self.began is None or self.ended is None:
            return 0.0
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)).total_seconds()


def apply(state: State, event: Event) -> None:
    """One event folded into the state."""
    state.ended = event.at
    match event:
        case RunStarted():
            state.run_id, state.task, state.params, state.began = event.run_id, event.task, event.params, event.at
            state.parent, state.unsafe_exec = event.parent, event.unsafe_exec
        case RunResumed():
            state.unsafe_exec = state.unsafe_exec or event.unsafe_exec
        case PlanMade() | PlanRevised():
            state.plan = event.plan
            state.task = event.plan.task if event.plan.task is not None else state.task
            state.params = event.plan.params or state.params
            if isinstance(event, PlanMade):
                state.results.update(event.earlier)
        case StepStarted() if event.step:
            state.started[event.step] = event
        case ModelReplied() | ToolReturned():
            before = state.used.get(event.step)
            state.used[event.step] = event.usage if before is None else before + event.usage
            _ran(state, event)
        case FileChanged():
            state.replaced[event.file.path] = state.files.get(event.file.path)
            _left(state, event.file.path, None if event.removed else event.file)
        case FileChangeFailed():
            _left(state, event.file.path, state.replaced.get(event.file.path))
        case FileContested():
            state.contested.setdefault(event.path, []).append(event)
        case StepFinished() if event.step:
            state.results[event.step] = event.result
        case RunFinished():
            state.status, state.error = event.status, event.error
            state.worked = round((state.worked or 0.0) + event.seconds, 3)


def _left(state: State, path: str, file: Artifact | None) -> None:
    if file is None:
        state.files.pop(path, None)
    else:
        state.files[path] = file


def _ran(state: State, event: ModelReplied | ToolReturned) -> None:
    way = event.execution if isinstance(event, ToolReturned) else None
    if way is not None:
        state.executions[way.mechanism] = way.after(state.executions.get(way.mechanism))


def fold(history: Iterable[Event]) -> State:
    """The state that a list of events leads to."""
    state = State()
    for event in history:
        apply(state, event)
    return state
