"""From a result or an error to the exit code."""

from typing import TYPE_CHECKING

from master_agent.errors import ErrorType, JournalError, MasterAgentError, ModelError, PlanningError

if TYPE_CHECKING:
    from master_agent.results import RunResult

DONE, FAILED, USAGE, PARTIAL, NO_MODEL, LIMITED = 0, 1, 2, 3, 4, 5
BUG, WAITING, INTERRUPTED, TERMINATED = 70, 75, 130, 143

# With these the model's server gave no answer that another step could do without.
_NO_MODEL: tuple[ErrorType, ...] = (
    "no_model",
    "authentication",
    "permission",
    "model_not_found",
    "connection",
    "bad_request",
    "rate_limited",
    "server_error",
    "malformed_reply",
    "model_timeout",
)
_OF_THE_USER: tuple[ErrorType, ...] = ("usage", "settings", "agent_invalid", "journal")


def of_result(result: "RunResult") -> int:
    """Interrupted goes before limited before waiting before partial."""
    error = result.error.type if result.error else None
    match result.status:
        case "cancelled":
            return {"interrupted": INTERRUPTED, "terminated": TERMINATED}.get(error or "", DONE)
        case "limited":
            return LIMITED
        case "waiting":
            return WAITING
        case "done":
            return DONE
        case "partial":
            return PARTIAL
    return _of_failure(result, error)


def of_error(error: MasterAgentError) -> int:
    """The code for an error that ended the program before there was a result."""
    if isinstance(error, PlanningError):
        return FAILED
    if isinstance(error, ModelError):
        return NO_MODEL
    if isinstance(error, JournalError):
        return USAGE
    return {"limit": LIMITED, "run_timeout": LIMITED, "bug": BUG}.get(error.type, USAGE)


def _of_failure(result: "RunResult", error: ErrorType | None) -> int:
    if error == "bug":
        return BUG
    if error == "replay_differs":
        return FAILED
    if error in _OF_THE_USER:
        return USAGE
    if error in _NO_MODEL:
        return NO_MODEL
    failed = [r for r in result.results.values() if r.status == "failed" and r.error]
    failures = {r.error.type for r in failed if r.error and r.tool is None}
    return NO_MODEL if failures and failures.issubset(_NO_MODEL) else FAILED
