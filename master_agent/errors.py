"""What can go wrong, as one tree; every message names the thing and every hint is a next step.

MasterAgentError
├── UsageError           the command line asks for what cannot be (exit 2)
├── SettingsError        a setting, its file or its folder is wrong (exit 2)
├── AgentFileError       an agent's Markdown file is wrong (exit 2)
├── PlanError            a plan has faults, all of them listed (exit 2)
├── PlanningError        the model gave no usable plan (exit 1)
├── JournalError         the journal cannot be opened or written (exit 2)
├── LimitError           a limit of the run was reached (exit 5)
├── ModelError           a model's server refused, failed or could not be reached (exit 4 where no model can answer)
├── ToolError            a tool could not do its work; told to the model, or fails the tool's step
│   ├── FileRefusedError     a path that may not be touched
│   │   └── FileTakenError       a file that is there already, and not to be replaced
│   ├── FetchRefusedError    an address that may not be fetched
│   ├── UnreachableError     an address where nobody answers (in fetch.py)
│   ├── SandboxError         a program that could not be started safely
│   └── ImageError           a picture that could not be made
├── ReplayError          a run differs from the recorded one (exit 1)
└── StepError            a step failed for a reason of its own: an empty reference, a turn limit

Three places handle them: a tool's is told to the model, a step's becomes a result, the run's becomes a message and an
exit code.
"""

from typing import Literal, get_args

ErrorType = Literal[
    "usage",
    "settings",
    "agent_invalid",
    "plan_invalid",
    "journal",
    "limit",
    "run_timeout",
    "no_model",
    "authentication",
    "permission",
    "model_not_found",
    "bad_request",
    "context_exceeded",
    "rate_limited",
    "server_error",
    "connection",
    "model_timeout",
    "malformed_reply",
    "incomplete",
    "refused",
    "wrong_output",
    "turn_limit",
    "step_timeout",
    "reference",
    "tool_failed",
    "wrong_arguments",
    "file_refused",
    "fetch_refused",
    "no_sandbox",
    "program_failed",
    "effect_unverified",
    "replay_differs",
    "missing_token",
    "image_failed",
    "cancelled",
    "interrupted",
    "terminated",
    "bug",
]
"""The closed list of `error.type` in results and events."""

ERROR_TYPES: tuple[str, ...] = get_args(ErrorType)


class MasterAgentError(Exception):
    """An error for the user: what happened, what to do next, and whether trying again can help."""

    type: ErrorType = "bug"

    def __init__(self, message: str, *, hint: str | None = None, type: ErrorType | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.type = type or self.type
        self.retryable = False


class UsageError(MasterAgentError):
    """The command line asks for what cannot be."""

    type: ErrorType = "usage"


class SettingsError(MasterAgentError):
    """A setting, its file or its folder is wrong."""

    type: ErrorType = "settings"


class AgentFileError(MasterAgentError):
    """An agent's Markdown file is wrong."""

    type: ErrorType = "agent_invalid"


class PlanError(MasterAgentError):
    """A plan has faults; `faults` holds a line for each."""

    type: ErrorType = "plan_invalid"

    def __init__(self, message: str, faults: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__("\n".join([message, *(f"  {fault}" for fault in faults)]), hint=hint)
        self.faults = faults


class PlanningError(MasterAgentError):
    """The model gave no usable plan, however often it was asked."""

    type: ErrorType = "plan_invalid"


class JournalError(MasterAgentError):
    """The journal cannot be opened or written."""

    type: ErrorType = "journal"


class LimitError(MasterAgentError):
    """A limit of the run was reached."""

    type: ErrorType = "limit"


class ModelError(MasterAgentError):
    """A model's server refused, failed or could not be reached.

    `retry_after` is in seconds, where the server named it.
    """

    type: ErrorType = "server_error"

    def __init__(
        self,
        message: str,
        *,
        type: ErrorType,
        retryable: bool = False,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, type=type)
        self.retryable = retryable
        self.retry_after = retry_after


class ToolError(MasterAgentError):
    """A tool could not do its work."""

    type: ErrorType = "tool_failed"


class FileRefusedError(ToolError):
    """A path that may not be touched."""

    type: ErrorType = "file_refused"


class FileTakenError(FileRefusedError):
    """A file that is there already, was not made by the run, and is not to be replaced."""


class FetchRefusedError(ToolError):
    """An address that may not be fetched."""

    type: ErrorType = "fetch_refused"


class SandboxError(ToolError):
    """A program that could not be started safely: there is no sandbox here, or it did not start."""

    type: ErrorType = "no_sandbox"


class ImageError(ToolError):
    """A picture that could not be made; `retryable` when asking again may help."""

    type: ErrorType = "image_failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        type: ErrorType | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, type=type)
        self.retryable = retryable
        self.retry_after = retry_after


class ReplayError(MasterAgentError):
    """A run asks for something else than the recorded one did, or not for all of it."""

    type: ErrorType = "replay_differs"


class StepError(MasterAgentError):
    """A step failed for a reason of its own."""

    type: ErrorType = "tool_failed"
