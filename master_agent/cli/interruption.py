"""Ctrl-C, SIGTERM and a terminal that goes away: the first ends a run well, the second ends the program at once."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from master_agent.cli import exit_codes
from master_agent.errors import ErrorType
from master_agent.journal import Journal
from master_agent.reporters import Reporter
from master_agent.results import ErrorInfo, RunResult

_SIGNALS: dict[int, tuple[ErrorType, str, int]] = {
    signal.SIGINT: ("interrupted", "interrupted by Ctrl-C", exit_codes.INTERRUPTED),
    signal.SIGTERM: ("terminated", "terminated from outside", exit_codes.TERMINATED),
    signal.SIGHUP: ("terminated", "the terminal has gone", exit_codes.TERMINATED),
}


@dataclass
class Interruption:
    """What was received, and whether a person is at a question or in their editor meanwhile.

    `journal` is that of the run, once there is one.
    """

    reporter: Reporter
    journal: Journal | None = field(default=None, init=False)
    received: int | None = field(default=None, init=False)
    _asking: bool = field(default=False, init=False)
    _editing: bool = field(default=False, init=False)

    def watch(self, work: asyncio.Task[RunResult]) -> None:
        """From now on signals cancel the work. SIGHUP is left alone where it is ignored: under nohup."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._receive, number, work)

    def why(self) -> ErrorInfo:
        """Why the run was cancelled, and what is left of it."""
        type_, message, _ = _SIGNALS[self.received or signal.SIGINT]
        hint = None
        if self.journal is not None and self.journal.state.started:
            done = any(made.status == "done" for made in self.journal.state.results.values())
            kept = "Finished steps have kept their results; go on" if done else "Go on"
            hint = f"{kept} with: master-agent resume {self.journal.run_id}"
        return ErrorInfo(type=type_, message=message, hint=hint)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While a question stands nothing runs that would have to be stopped."""
        self._asking = True
        try:
            yield
        finally:
            self._asking = False

    @contextmanager
    def editing(self) -> Iterator[None]:
        """While the editor runs, Ctrl-C is the editor's."""
        self._editing = True
        try:
            yield
        finally:
            self._editing = False

    def _receive(self, number: int, work: asyncio.Task[RunResult]) -> None:
        if number == signal.SIGINT and self._editing:
            return
        if self.received is not None:
            with suppress(OSError, ValueError):
                self.reporter.close()
            os._exit(_SIGNALS[number][2])
        self.received = number
        work.cancel()
        if not self._asking:
            with suppress(OSError, ValueError):  # a terminal that has gone takes no words
                self.reporter.notice("stopping; once more to stop at once")
