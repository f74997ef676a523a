"""argv to a command and its exit code; errors become messages here. The commands are listed in `commands.py`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from master_agent import __version__
from master_agent.cli import arguments, exit_codes, streams
from master_agent.cli.failures import ToldError, explain, say, trace
from master_agent.cli.help_texts import Commands
from master_agent.errors import UsageError

if TYPE_CHECKING:
    from master_agent.results import ErrorInfo

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
    cls=Commands,
    help=HELP,
    epilog=EPILOG,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    options_metavar="",
    subcommand_metavar='"TASK"|COMMAND [OPTIONS]',
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        streams.write(f"master-agent {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", "-V", help="Show the version and exit.", callback=_version, is_eager=True),
]


@app.callback()
def _program(*, version: Version = False) -> None: ...


def run(argv: Sequence[str]) -> int:
    """Runs the command that argv names; returns the exit code. Every error is told once, in the form asked for."""
    try:
        streams.prepare()
        code = _run(argv)
        streams.flush()
    except OSError as error:  # of standard output: every other one is a bug, and was told of as one
        streams.give_up(error)
        return exit_codes.FAILED
    return code


def tell_interrupted(argv: Sequence[str]) -> None:
    """For a program: its one object or event, when Ctrl-C came before anything else could."""
    _tell(argv, explain(KeyboardInterrupt())[0])


def _run(argv: Sequence[str]) -> int:
    if sys.platform == "win32":
        streams.say("master-agent runs on Linux and macOS. On Windows, install it in WSL: https://aka.ms/wsl")
        return exit_codes.USAGE
    try:
        return _command(argv)
    except ToldError as told:
        return told.code
    except (Exception, KeyboardInterrupt) as error:  # the last net: a bug has its traceback and its own exit code
        if isinstance(error, OSError) and streams.is_broken(error):
            raise
        info, code = explain(error)
        trace(error, debug="--debug" in _words(argv))
        _tell(argv, info)
        say(info)
        return code


def _command(argv: Sequence[str]) -> int:
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


def _words(argv: Sequence[str]) -> Sequence[str]:
    return argv[: list(argv).index("--")] if "--" in argv else argv


def _tell(argv: Sequence[str], error: "ErrorInfo") -> None:
    """For programs their one terminal object or event on stdout, when no run has begun to tell them anything."""
    as_json, as_events = "--json" in _words(argv), "--events" in _words(argv)
    if as_json or as_events:
        from master_agent.cli.options import Options
        from master_agent.cli.reporting import make_reporter
        from master_agent.results import RunResult

        reporter = make_reporter(Options({}, json=as_json, events=not as_json))
        reporter.finish(RunResult(status="cancelled" if error.type == "interrupted" else "failed", error=error))
