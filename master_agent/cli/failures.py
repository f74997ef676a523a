"""From an exception to what a person is told of it and to the exit code."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from master_agent.cli import exit_codes, streams
from master_agent.errors import MasterAgentError
from master_agent.reporters.text import encoding_of, fitted, visible

if TYPE_CHECKING:
    from master_agent.results import ErrorInfo
    from master_agent.secrets import Secrets
    from master_agent.settings import Settings


class ToldError(Exception):
    """Everybody was told what went wrong; the exit code is all that is left."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def explain(error: BaseException, settings: "Settings | None" = None) -> tuple["ErrorInfo", int]:
    """The error as data, and the exit code; what is neither ours nor Ctrl-C is a bug."""
    from master_agent.results import ErrorInfo

    match error:
        case MasterAgentError():
            return ErrorInfo.of(error), exit_codes.of_error(error)
        case KeyboardInterrupt():
            return ErrorInfo(type="interrupted", message="interrupted by Ctrl-C"), exit_codes.INTERRUPTED
    message, hint = (
        _secrets(settings).hide(f"{type(error).__name__}: {error}"),
        "This is a bug of master-agent; please report it.",
    )
    return ErrorInfo(type="bug", message=message, hint=hint), exit_codes.BUG


def trace(error: BaseException, *, debug: bool, settings: "Settings | None" = None) -> None:
    """The traceback on stderr, without keys: of a bug always, of other errors when it was asked for."""
    if debug or not isinstance(error, MasterAgentError | KeyboardInterrupt):
        import traceback

        told = _secrets(settings).hide("".join(traceback.format_exception(error)))
        with suppress(OSError, ValueError):
            sys.stderr.write(fitted(visible(told), encoding_of(sys.stderr)))


def _secrets(settings: "Settings | None") -> "Secrets":
    """The keys of this process; where its settings are not there yet, those that can be found."""
    from master_agent.cli.keys import secrets_of
    from master_agent.settings import load

    with suppress(MasterAgentError):
        settings = settings or load({}, os.environ, Path.cwd())
    return secrets_of(settings, os.environ)


def say(error: "ErrorInfo") -> None:
    """The message on stderr, and below it what to do next."""
    streams.say(f"master-agent: {error.message}")
    if error.hint:
        streams.say(indent(error.hint, "  "))
