"""The commands, put together; errors become messages and exit codes here."""

import sys
import traceback
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from master_agent.cli import arguments, demo, doctor, exit_codes, history, init, look, streams, work
from master_agent.cli.options import Options
from master_agent.errors import MasterAgentError, UsageError
from master_agent.results import ErrorInfo, RunResult, RunStatus

HELP = """A task in words becomes a plan you can read, and the plan becomes finished work you can check.

\b
Examples:
  master-agent "Make a landing page for a coffee roaster with a picture of the shop"
  master-agent 'Describe ${params.city} in city.md' --param city=Lisbon --yes
  master-agent plan "Make a landing page" -o plan.json     the plan only
  master-agent run plan.json                               run it, edited or not
  master-agent demo                                        no key, no network

The options of a task: master-agent "TASK" --help
"""
EPILOG = (
    "Exit codes: 0 done, 1 nothing done, 2 wrong usage, 3 partly done, 4 no model, 5 a limit, 75 waits for a person."
)

app = typer.Typer(
    name="master-agent",
    help=HELP,
    epilog=EPILOG,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
work.add_to(app)
history.add_to(app)
look.add_to(app)
doctor.add_to(app)
init.add_to(app)
demo.add_to(app)


def run(argv: Sequence[str]) -> int:
    """Runs the command that argv names; returns the exit code. Every error is told once, in the form asked for."""
    streams.prepare()
    if sys.platform == "win32":
        streams.say("master-agent runs on Linux and macOS. On Windows, install it in WSL: https://aka.ms/wsl")
        return exit_codes.USAGE
    try:
        return _run(argv)
    except MasterAgentError as error:
        if "--debug" in argv:
            traceback.print_exc()
        _tell(argv, ErrorInfo.of(error))
        return exit_codes.of_error(error)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say to them, at the interpreter's exit neither.
        sys.stdout = None
        return exit_codes.FAILED
    except KeyboardInterrupt:
        _tell(argv, ErrorInfo(type="interrupted", message="interrupted by Ctrl-C"))
        return exit_codes.INTERRUPTED
    except Exception as bug:  # the last net: a bug is shown with its traceback, and has its own exit code
        traceback.print_exc()
        message = f"{type(bug).__name__}: {bug}"
        _tell(argv, ErrorInfo(type="bug", message=message, hint="This is a bug of master-agent; please report it."))
        return exit_codes.BUG


def _run(argv: Sequence[str]) -> int:
    try:
        code = app(args=arguments.rewrite(argv), prog_name="master-agent", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "master-agent"
        raise UsageError(message.rstrip("."), hint=f"See: {command} --help") from None
    return code if isinstance(code, int) else exit_codes.DONE


def _tell(argv: Sequence[str], error: ErrorInfo) -> None:
    """The error on stderr; for programs its one terminal object or event on stdout too."""
    words = argv[: list(argv).index("--")] if "--" in argv else argv
    as_json, as_events = "--json" in words, "--events" in words
    try:
        if as_json or as_events:
            status: RunStatus = "cancelled" if error.type == "interrupted" else "failed"
            reporter = streams.make_reporter(Options({}, json=as_json, events=not as_json))
            reporter.finish(RunResult(status=status, error=error))
        streams.say(f"master-agent: {error.message}")
        if error.hint:
            streams.say(f"  {error.hint}")
    except BrokenPipeError:
        sys.stdout = None
