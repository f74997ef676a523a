"""From the options and the streams to who tells of a run: the reporter, the log file, a console for tables."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from master_agent.cli import streams
from master_agent.cli.options import Options
from master_agent.events import Event
from master_agent.plan import Plan
from master_agent.reporters import Reporter, Silent
from master_agent.reporters.json import JsonReporter
from master_agent.reporters.json_lines import JsonLinesReporter, LogFile
from master_agent.reporters.plain import PlainReporter
from master_agent.results import RunResult

if TYPE_CHECKING:
    from rich.console import Console

    from master_agent.reporters.terminal import TerminalReporter


def console(stream: IO[str]) -> "Console":
    """A Rich console on a stream."""
    from rich.console import Console

    return Console(file=stream, highlight=False, emoji=False)


def show_plan(plan: Plan, effects: Sequence[str], stream: IO[str]) -> None:
    """The plan as a table on a terminal's stream."""
    from master_agent.reporters import terminal

    terminal.show_plan(console(stream), plan, effects)


class ForPrograms(Silent):
    """Stdout is for a program; a person who is there all the same is told and asked on stderr."""

    def __init__(self, inner: Reporter) -> None:
        self.tell = inner.tell  # type: ignore[method-assign]
        self.finish = inner.finish  # type: ignore[method-assign]

    def notice(self, text: str) -> None:
        streams.say(text)


class Watched(Silent):
    """Stdout is for a program, and a person at the terminal sees on stderr how far it is, and how it ended."""

    def __init__(self, inner: JsonReporter, watching: "TerminalReporter") -> None:
        self._inner, self.watching = inner, watching
        self.tell = watching.tell  # type: ignore[method-assign]
        self.notice = watching.notice  # type: ignore[method-assign]
        self.pause = watching.pause  # type: ignore[method-assign]
        self.resume = watching.resume  # type: ignore[method-assign]
        self.close = watching.close  # type: ignore[method-assign]

    def finish(self, result: RunResult) -> None:
        self.watching.close()
        self._inner.finish(result)
        if result.run_id is not None:
            with suppress(OSError):  # a terminal that has gone takes no words
                self.watching.tell_end(result)


def _close_log(log: LogFile) -> None:
    log.close()
    if log.error is not None:
        streams.say(f"the log file {log.path} is not whole: {log.error.strerror}")


def make_reporter(options: Options) -> Reporter:
    """The reporter that the options and the streams ask for."""
    if options.json:
        inner = JsonReporter(sys.stdout)
        if options.quiet or sys.stdout.isatty() or not sys.stderr.isatty():
            return ForPrograms(inner)
        return Watched(inner, _at_terminal(options))
    if options.events:
        return ForPrograms(JsonLinesReporter(sys.stdout))
    if sys.stdout.isatty() or sys.stderr.isatty():
        return _at_terminal(options)
    return PlainReporter(sys.stdout, sys.stderr, verbose=options.verbose, quiet=options.quiet)


def _at_terminal(options: Options) -> "TerminalReporter":
    from master_agent.reporters.terminal import TerminalReporter

    out, err = console(sys.stdout), console(sys.stderr)
    return TerminalReporter(out, err, verbose=options.verbose, quiet=options.quiet)


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
