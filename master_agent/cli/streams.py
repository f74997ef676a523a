"""Standard input and output: read where they were named, written so that no character breaks them."""

import errno
import io
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from master_agent.cli.options import Options
from master_agent.errors import PlanError, UsageError
from master_agent.events import Event
from master_agent.plan import MAX_BYTES, Plan
from master_agent.reporters import Reporter, Silent
from master_agent.reporters.json import JsonReporter
from master_agent.reporters.json_lines import JsonLinesReporter, LogFile
from master_agent.reporters.plain import PlainReporter
from master_agent.reporters.text import columns, encoding_of, fitted, safe_json, visible

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 20  # columns; in fewer a terminal does better by itself


def prepare() -> None:
    """No stream is missing, and none breaks on a character that it cannot show. OSError when stdout is closed."""
    # What is opened takes the number of the stream that is closed, so that no file of ours gets it.
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY), closefd=False)
    closed = sys.stdout is None
    if closed:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if closed:
        raise OSError(errno.EBADF, "it is closed")


def flush() -> None:
    """All of stdout is written; OSError when it cannot be."""
    sys.stdout.flush()


def is_broken(error: OSError) -> bool:
    """Whether the error is that stdout cannot be written: then it still cannot."""
    if isinstance(error, BrokenPipeError):
        return True
    try:
        flush()
    except OSError:
        return True
    return False


def give_up(error: OSError) -> None:
    """Says that stdout cannot be written, and leaves it alone; whoever closed a pipe need not be told."""
    with suppress(OSError, ValueError):  # at its exit Python would try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        say(f"master-agent: standard output cannot be written: {error.strerror}")


def read_stdin() -> bytes:
    """All of standard input, which the command line named; at most a byte more than a plan may hold."""
    if sys.stdin is None:
        return b""
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def read_file(path: Path) -> bytes:
    """A plan or a result that the command line named; UsageError when it cannot be read, PlanError when too large."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise PlanError(f"{path} holds {size:,} bytes; a plan may hold {MAX_BYTES:,}")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def print_json(value: object) -> None:
    """A JSON value on stdout: in UTF-8 where the stream takes it, else escaped."""
    body = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(safe_json(body, encoding_of(sys.stdout)) + "\n")
    sys.stdout.flush()


def write(text: str, *, hang: int | None = None) -> None:
    """A line of data on stdout. With `hang`, one that a terminal shows whole, its further lines so far to the right."""
    shown = fitted(visible(text), encoding_of(sys.stdout))
    sys.stdout.write((shown if hang is None else wrapped(shown, sys.stdout, hang=hang)) + "\n")


def write_json_line(line: str) -> None:
    """A JSON value on one line of stdout."""
    sys.stdout.write(safe_json(line, encoding_of(sys.stdout)) + "\n")


def say(text: str) -> None:
    """A message for a person, on stderr; where that is gone, for nobody."""
    with suppress(OSError, ValueError):
        sys.stderr.write(wrapped(fitted(visible(text), encoding_of(sys.stderr)), sys.stderr) + "\n")
        sys.stderr.flush()


def wrapped(text: str, stream: IO[str], *, hang: int = 0) -> str:
    """The text with its lines broken between words, where the stream is a terminal that is narrower than they are."""
    if not stream.isatty():
        return text
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return text
    if width < NARROWEST:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" ")) + hang)
        fits = columns(line) <= width
        lines += [line] if fits else textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )  # fmt: skip
    return "\n".join(lines)


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
