"""What a step and a run leave behind: the result contract that `--json` prints and `schema result` describes."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from master_agent.errors import ErrorType, MasterAgentError

StepStatus = Literal["done", "failed", "skipped", "cancelled", "waiting", "not_started", "reused", "running", "died"]
RunStatus = Literal["done", "partial", "failed", "cancelled", "limited", "waiting"]
ShownStatus = RunStatus | Literal["running", "died"]
"""How a run ended, or that it has not: it is at work, or its process died. Of steps, `running` and `died` say the same.
"""


class Contract(BaseModel):
    """A frozen value that crosses a boundary as JSON; readers ignore fields they do not know."""

    # Each model is built when it is first used: a run that starts needs few of them. NaN is written as itself, and so
    # can be seen by those who may not write it.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        validate_by_name=True,
        serialize_by_alias=True,
        defer_build=True,
        ser_json_inf_nan="constants",
    )


_PAID_FOR = ("calls", "images", "input_tokens", "output_tokens")


class Usage(Contract):
    """What was consumed. A number that a server did not report is null, and `complete` is then false.

    `cost_usd` is null when no price is known. Where something was used whose cost is not known, or is known in part
    only, `cost_complete` is false.
    """

    calls: int = 0
    input_tokens: int | None = 0
    cached_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    output_tokens: int | None = 0
    reasoning_tokens: int | None = 0
    images: int = 0
    cost_usd: float | None = None
    complete: bool = True
    cost_complete: bool = Field(default=True, validate_default=True)

    @field_validator("cost_complete")
    @classmethod
    def _not_without_a_price(cls, complete: bool, used: ValidationInfo) -> bool:
        """What was used at a price that nobody knows makes no whole cost, whoever says so."""
        priced = used.data.get("cost_usd") is not None
        return complete and (priced or not any(used.data.get(name) for name in _PAID_FOR))

    @classmethod
    def unknown(cls) -> "Usage":
        """One call of which the server reported nothing."""
        return cls(
            calls=1,
            input_tokens=None,
            cached_tokens=None,
            cache_write_tokens=None,
            output_tokens=None,
            reasoning_tokens=None,
            complete=False,
        )

    def __add__(self, other: "Usage") -> "Usage":
        return Usage.total((self, other))

    @classmethod
    def total(cls, usages: Iterable["Usage"]) -> "Usage":
        """What was consumed all in all."""
        every = tuple(usages)
        costs = [usage.cost_usd for usage in every if usage.cost_usd is not None]
        return cls(
            calls=sum(usage.calls for usage in every),
            input_tokens=_sum([usage.input_tokens for usage in every]),
            cached_tokens=_sum([usage.cached_tokens for usage in every]),
            cache_write_tokens=_sum([usage.cache_write_tokens for usage in every]),
            output_tokens=_sum([usage.output_tokens for usage in every]),
            reasoning_tokens=_sum([usage.reasoning_tokens for usage in every]),
            images=sum(usage.images for usage in every),
            cost_usd=round(sum(costs), 9) if costs else None,
            complete=all(usage.complete for usage in every),
            cost_complete=all(usage.cost_complete for usage in every),
        )

    @property
    def tokens(self) -> int | None:
        """Tokens in and out together; null when neither was reported."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)


def _sum(numbers: list[int | None]) -> int | None:
    """Known and unknown make what is known, at least; nothing and unknown stay unknown."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else sum(known) or None


class Artifact(Contract):
    """A file in the workspace: its path beneath it, its type, its size in bytes and the hash of its bytes."""

    path: str
    media_type: str
    bytes: int
    sha256: str


class ErrorInfo(Contract):
    """An error as data; `type` is one of a closed list."""

    type: ErrorType
    message: str
    hint: str | None = None
    retryable: bool = False

    @classmethod
    def of(cls, error: MasterAgentError) -> "ErrorInfo":
        return cls(type=error.type, message=error.message, hint=error.hint, retryable=error.retryable)


class StepResult(Contract):
    """What one step left: its text, data and files, or its error."""

    status: StepStatus
    reason: str | None = None
    agent: str | None = None
    tool: str | None = None
    attempt: int = 1
    from_run: str | None = None
    text: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    seconds: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether later steps can build on it."""
        return self.status in ("done", "reused")


class Conflict(Contract):
    """A file that steps wanted to write which run at the same time: who wrote it, and who was refused and told so."""

    path: str
    written_by: tuple[str, ...]
    refused: tuple[str, ...]


class Execution(Contract):
    """How code was run, and in which steps: by which mechanism, and what that does not stop.

    `weaker`: it does not stop all that can be stopped. Where no code could be run, `mechanism` is null, and `error`
    says why and what to do.
    """

    mechanism: str | None
    weaker: bool = False
    gaps: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    error: ErrorInfo | None = None

    def after(self, earlier: "Execution | None") -> "Execution":
        """The same with the steps of an earlier one too."""
        steps = dict.fromkeys([*(earlier.steps if earlier else ()), *self.steps])
        return self.model_copy(update={"steps": tuple(steps)})


class RunResult(Contract):
    """What a run left: the object that `--json` prints, after failures too. `parent` is the run that it came from.

    `unsafe_exec`: code was allowed to run without a sandbox.
    """

    kind: Literal["result"] = "result"
    version: Literal[1] = 1
    run_id: str | None = None
    parent: str | None = None
    task: str | None = None
    params: dict[str, str] = Field(default_factory=dict)
    status: ShownStatus
    order: Literal["sequence", "graph"] | None = None
    plan: tuple[dict[str, JsonValue], ...] = ()
    results: dict[str, StepResult] = Field(default_factory=dict)
    final: str = ""
    conflicts: tuple[Conflict, ...] = ()
    executions: tuple[Execution, ...] = ()
    unsafe_exec: bool = False
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    seconds: float = 0.0

    def model_dump_public(self) -> dict[str, Any]:
        """The object as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)
