"""What happened, as data: the event contract that the journal keeps and `--events` prints."""

import json
from typing import Annotated, Any, Literal, TypedDict

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter

from master_agent.plan import Plan
from master_agent.results import Artifact, Contract, ErrorInfo, Execution, RunStatus, StepResult, Usage
from master_agent.values import clean

Origin = Literal["undo", "fork", "continue"]
"""How a run came from another one."""


class Where(TypedDict):
    """What an event belongs to: a step, an attempt (from 1), a call of a model or tool."""

    step: str | None
    attempt: int
    call: str


class _Event(Contract):
    """What every event has. `seq`, `at` and `run_id` are written by the journal when it takes the event."""

    kind: Literal["event"] = "event"
    version: Literal[1] = 1
    seq: int | None = None
    at: str | None = None
    run_id: str | None = None
    step: str | None = None
    attempt: int | None = None
    call: str | None = None


class RunStarted(_Event):
    """A run began. `mark` is what its data boundaries are drawn with.

    `folder` is where it was started, `flags` the settings said on its command line, `given` the files given with it.
    `planned`: a person gave the plan, which is the next event. `parent` is the run that this one came from, and
    `origin` how. `unsafe_exec`: this process may run code without a sandbox.
    """

    type: Literal["run_started"] = "run_started"
    task: str | None = None
    params: dict[str, str] = Field(default_factory=dict)
    workspace: str | None = None
    folder: str | None = None
    flags: dict[str, JsonValue] = Field(default_factory=dict)
    given: list[dict[str, JsonValue]] = Field(default_factory=list)
    planned: bool = False
    mark: str = ""
    program: str = ""
    parent: str | None = None
    origin: Origin | None = None
    unsafe_exec: bool = False


class RunResumed(_Event):
    """A run that had ended or died goes on. `unsafe_exec` is as in `run_started`, and said anew."""

    type: Literal["run_resumed"] = "run_resumed"
    program: str = ""
    unsafe_exec: bool = False


class PlanMade(_Event):
    """There is a plan; `earlier` are results taken over from an earlier run."""

    type: Literal["plan_made"] = "plan_made"
    plan: Plan
    by: Literal["model", "user"]
    earlier: dict[str, StepResult] = Field(default_factory=dict)


class PlanRevised(_Event):
    """A new plan takes the place of the unfinished part of the old one."""

    type: Literal["plan_revised"] = "plan_revised"
    plan: Plan


class StepStarted(_Event):
    """A step has all it needs and begins. `parts` are what it is made of, each with the SHA-256 of its content.

    A step whose parts equal those of one that is done may be taken over from there instead of being performed.
    """

    type: Literal["step_started"] = "step_started"
    agent: str | None = None
    tool: str | None = None
    parts: dict[str, str] = Field(default_factory=dict)


class ReuseRefused(_Event):
    """A run did a step of the very same parts before, and it was not taken over; `reason` says why."""

    type: Literal["reuse_refused"] = "reuse_refused"
    from_run: str
    reason: str


class TextDelta(_Event):
    """A piece of text that a model just wrote. It has no `seq` and is not kept."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class ModelCalled(_Event):
    """A request to a model is about to go out."""

    type: Literal["model_called"] = "model_called"
    agent: str
    wire: str
    model: str | None = None
    turn: int
    input: dict[str, JsonValue]


class ModelReplied(_Event):
    """A model's answer came, or the call failed with `error`. `items` are what the thread's state gained.

    `files`, `lost` and `sources` are what tools that the server ran have left; the journal keeps the files' contents.
    """

    type: Literal["model_replied"] = "model_replied"
    status: str
    text: str = ""
    calls: list[dict[str, JsonValue]] = Field(default_factory=list)
    usage: Usage = Usage()
    remote_id: str | None = None
    reason: str | None = None
    ids: dict[str, str] = Field(default_factory=dict)
    items: list[dict[str, JsonValue]] = Field(default_factory=list)
    files: list[dict[str, JsonValue]] = Field(default_factory=list)
    lost: list[str] = Field(default_factory=list)
    sources: list[dict[str, JsonValue]] = Field(default_factory=list)
    error: ErrorInfo | None = None
    retry_after: float | None = None
    seconds: float = 0.0


class ToolCalled(_Event):
    """A tool is about to be used: the intent, safe before the effect. `asked` is the id by which a model asked."""

    type: Literal["tool_called"] = "tool_called"
    tool: str
    asked: str | None = None
    arguments: dict[str, JsonValue]
    effects: list[str]


class ToolProgressed(_Event):
    """What a tool asked for has begun elsewhere, under a name by which it can be looked up."""

    type: Literal["tool_progressed"] = "tool_progressed"
    tool: str
    asked: str | None = None
    remote_id: str


class ToolReturned(_Event):
    """A tool came back, with its output or with `error`."""

    type: Literal["tool_returned"] = "tool_returned"
    tool: str
    asked: str | None = None
    text: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    pictures: list[dict[str, JsonValue]] = Field(default_factory=list)
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    seconds: float = 0.0

    @property
    def execution(self) -> Execution | None:
        """How code was run, or that none could be, where it says so."""
        refused = self.error is not None and self.error.type == "no_sandbox"
        name, gaps = self.data.get("mechanism"), self.data.get("gaps")
        if not (refused or name):
            return None
        return Execution(
            mechanism=str(name) if name else None,
            weaker=self.data.get("weaker") is True,
            gaps=tuple(str(gap) for gap in gaps) if isinstance(gaps, list) else (),
            steps=(self.step,) if self.step else (),
            error=self.error if refused else None,
        )


class FileChanged(_Event):
    """A file in the workspace is being written; `before` and `mode` are of what was there, if anything was.

    It is safe before the file changes, and the journal keeps what was there. `folders` are made for the file. With
    `removed` the file is being removed, and `file` is what it was.
    """

    type: Literal["file_changed"] = "file_changed"
    file: Artifact
    before: str | None = None
    mode: int | None = None
    folders: tuple[str, ...] = ()
    removed: bool = False

    @property
    def after(self) -> str | None:
        """The hash of what is there after it; None when nothing is."""
        return None if self.removed else self.file.sha256


class FileChangeFailed(_Event):
    """A change of `file` that was written down before did not come to be: what was there is still there."""

    type: Literal["file_change_failed"] = "file_change_failed"
    file: Artifact
    error: ErrorInfo


class FileContested(_Event):
    """A step was kept from writing a file that another step, which runs at the same time, has written: `by`."""

    type: Literal["file_contested"] = "file_contested"
    path: str
    by: str


class StepFinished(_Event):
    """A step has its result."""

    type: Literal["step_finished"] = "step_finished"
    result: StepResult


class RunFinished(_Event):
    """A run ended; always the last event of a process."""

    type: Literal["run_finished"] = "run_finished"
    status: RunStatus
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    seconds: float = 0.0


Event = (
    RunStarted
    | RunResumed
    | PlanMade
    | PlanRevised
    | StepStarted
    | ReuseRefused
    | TextDelta
    | ModelCalled
    | ModelReplied
    | ToolCalled
    | ToolProgressed
    | ToolReturned
    | FileChanged
    | FileChangeFailed
    | FileContested
    | StepFinished
    | RunFinished
)

EVENT: TypeAdapter[Event] = TypeAdapter(
    Annotated[Event, Field(discriminator="type")], config=ConfigDict(defer_build=True)
)
"""Reads an event from JSON, and gives the schema of all of them."""


def to_json(event: Event) -> str:
    """The event on one line, without the fields that are null."""
    return written(event)[1]


def written(event: Event) -> tuple[Event, str]:
    """The event as it will be read back, and its line: what JSON cannot hold is `clean`ed out of both."""
    absent = {name for name, value in vars(event).items() if value is None and name not in ("seq", "step")}
    try:
        line = event.model_dump_json(by_alias=True, exclude=absent)
    except ValueError:  # half a character
        return _cleaned(event, absent)
    no_number = "NaN" in line or "Infinity" in line  # as a value, or in a text, which costs a second look and no more
    return _cleaned(event, absent) if no_number else (event, line)


def _cleaned(event: Event, absent: set[str]) -> tuple[Event, str]:
    whole: dict[str, Any] = event.model_dump(mode="json", by_alias=True, exclude=absent)
    line = json.dumps(clean(whole), ensure_ascii=False, separators=(",", ":"))
    return EVENT.validate_json(line), line
