"""Standard input and output: read where they were named, written so that no character breaks them."""

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from master_agent.cli.options import Options
from master_agent.errors import UsageError
from master_agent.events import Event
from master_agent.plan import MAX_BYTES, Plan
from master_agent.reporters import Reporter, Silent
from master_agent.reporters.json import JsonReporter
from master_agent.reporters.json_lines import JsonLinesReporter, LogFile
from master_agent.reporters.plain import PlainReporter
from master_agent.reporters.text import encoding_of, fitted, safe_json, visible

if TYPE_CHECKING:
    from rich.console import Console


def prepare() -> None:
    """No stream breaks on a character that it cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def read_stdin() -> bytes:
    """All of standard input, which the command line named; at most a byte more than a plan may hold."""
    if sys.stdin is None:
        return b""
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def read_file(path: Path) -> bytes:
    """A file that the command line named; UsageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def print_json(value: object) -> None:
    """A JSON value on stdout: in UTF-8 where the stream takes it, else escaped."""
    body = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(safe_json(body, encoding_of(sys.stdout)) + "\n")
    sys.stdout.flush()


def write(text: str) -> None:
    """A line of data on stdout."""
    sys.stdout.write(fitted(visible(text), encoding_of(sys.stdout)) + "\n")


def write_json_line(line: str) -> None:
    """A JSON value on one line of stdout."""
    sys.stdout.write(safe_json(line, encoding_of(sys.stdout)) + "\n")


def say(text: str) -> None:
    """A message for a person, on stderr."""
    sys.stderr.write(fitted(visible(text), encoding_of(sys.stderr)) + "\n")
    sys.stderr.flush()


def console(stream: IO[str]) -> "Console":
    """A Rich console on a stream."""
    from rich.console import Console

    return Console(file=stream, highlight=False, emoji=False)


def show_plan(plan: Plan, effects: Sequence[str], stream: IO[str]) -> None:
    """The plan as a table on a terminal's stream."""
    from master_agent.reporters import terminal

    terminal.show_plan(console(stream), plan, effects)


def interactive() -> bool:
    """Whether a person can be asked: stdin and stderr are terminals, whatever stdout is."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


class ForPrograms(Silent):
    """Stdout is for a program; a person who is there all the same is told and asked on stderr."""

    def __init__(self, inner: Reporter) -> None:
        self.tell = inner.tell  # type: ignore[method-assign]
        self.finish = inner.finish  # type: ignore[method-assign]

    def notice(self, text: str) -> None:
        say(text)


def _close_log(log: LogFile) -> None:
    log.close()
    if log.error is not None:
        say(f"the log file {log.path} is not whole: {log.error.strerror}")


def make_reporter(options: Options) -> Reporter:
    """The reporter that the options and the streams ask for."""
    if options.json:
        return ForPrograms(JsonReporter(sys.stdout))
    if options.events:
        return ForPrograms(JsonLinesReporter(sys.stdout))
    if sys.stdout.isatty() or sys.stderr.isatty():
        from master_agent.reporters.terminal import TerminalReporter

        out, err = console(sys.stdout), console(sys.stderr)
        return TerminalReporter(out, err, verbose=options.verbose, quiet=options.quiet)
    return PlainReporter(sys.stdout, sys.stderr, verbose=options.verbose, quiet=options.quiet)


@contextmanager
def open_reporter(options: Options, log_file: Path | None) -> Iterator[tuple[Reporter, list[Callable[[Event], None]]]]:
    """The reporter, and all who listen to events; both closed at the end."""
    with ExitStack() as stack:
        reporter = make_reporter(options)
        stack.callback(reporter.close)
        listeners: list[Callable[[Event], None]] = [reporter.tell]
        if log_file is not None:
            log = LogFile(log_file)
            stack.callback(_close_log, log)
            listeners.append(log.tell)
        yield reporter, listeners
