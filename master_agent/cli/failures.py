"""From an exception to what a person is told of it and to the exit code."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from master_agent.cli import exit_codes, streams
from master_agent.errors import MasterAgentError

if TYPE_CHECKING:
    from master_agent.results import ErrorInfo


class ToldError(Exception):
    """Everybody was told what went wrong; the exit code is all that is left."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def explain(error: BaseException) -> tuple["ErrorInfo", int]:
    """The error as data, and the exit code; what is neither ours nor Ctrl-C is a bug."""
    from master_agent.results import ErrorInfo

    match error:
        case MasterAgentError():
            return ErrorInfo.of(error), exit_codes.of_error(error)
        case KeyboardInterrupt():
            return ErrorInfo(type="interrupted", message="interrupted by Ctrl-C"), exit_codes.INTERRUPTED
    message, hint = f"{type(error).__name__}: {error}", "This is a bug of master-agent; please report it."
    return ErrorInfo(type="bug", message=message, hint=hint), exit_codes.BUG


def trace(error: BaseException, *, debug: bool) -> None:
    """The traceback on stderr: of a bug always, of other errors when it was asked for."""
    if debug or not isinstance(error, MasterAgentError | KeyboardInterrupt):
        import traceback

        with suppress(OSError, ValueError):
            traceback.print_exception(error, file=sys.stderr)


def say(error: "ErrorInfo") -> None:
    """The message on stderr, and below it what to do next."""
    streams.say(f"master-agent: {error.message}")
    if error.hint:
        streams.say(f"  {error.hint}")
