"""For a person at a terminal: the plan as a table, the run as it goes on, and a panel for each result."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from master_agent.events import Event, ModelCalled, StepStarted
from master_agent.plan import Plan
from master_agent.reporters import Silent
from master_agent.reporters.live import EVERY, LiveDisplay
from master_agent.reporters.plain import PlainReporter, ended, report_lines, say, say_final
from master_agent.reporters.progress import Progress
from master_agent.reporters.words import ordered
from master_agent.results import RunResult

if TYPE_CHECKING:
    from rich.console import Console


class TerminalReporter(Silent):
    """Shows the result on `out` and everything else on `err`.

    Each console is judged by itself: what is no terminal gets plain text, and one that cannot move its cursor
    (TERM=dumb) gets progress as lines. `verbose` cuts nothing short; `quiet` leaves nothing but the final text on
    `out` and errors on `err`.
    """

    def __init__(
        self,
        out: "Console",
        err: "Console",
        *,
        clock: Callable[[], float] = time.monotonic,
        verbose: bool = False,
        quiet: bool = False,
        every: float | None = EVERY,
    ) -> None:
        self._out = out
        self._err = err
        self._clock = clock
        self._verbose = verbose
        self._quiet = quiet
        self._lock = threading.Lock()
        self._progress = Progress()
        self._paused = False
        self._lines: PlainReporter | None = None
        self._live: LiveDisplay | None = None
        if quiet:
            return
        if err.is_terminal and not err.is_dumb_terminal:
            self._live = LiveDisplay(err, self._progress, lock=self._lock, clock=clock, verbose=verbose, every=every)
        else:
            self._lines = PlainReporter(out.file, err.file, clock=clock, verbose=verbose)

    def tell(self, event: Event) -> None:
        if self._lines:
            self._lines.tell(event)
        if self._live is None:
            return
        with self._lock:
            self._progress.take(event, self._clock())
        if isinstance(event, ModelCalled | StepStarted) and not self._paused:
            self._live.on()

    def plan(self, plan: Plan, effects: Sequence[str]) -> None:
        if self._quiet:
            return
        if self._live:
            self._live.off()
        if self._lines and not self._err.is_terminal:
            self._lines.plan(plan, effects)
        else:
            show_plan(self._err, plan, effects, verbose=self._verbose)

    def notice(self, text: str) -> None:
        if self._quiet:
            return
        from master_agent.reporters.panels import Canvas, show

        show(self._err, Canvas.of(self._err).words(text))

    def pause(self) -> None:
        self._paused = True
        if self._live:
            self._live.off()

    def resume(self) -> None:
        self._paused = False
        if self._live and self._progress.running:
            self._live.on()

    def finish(self, result: RunResult) -> None:
        self.close()
        if self._quiet:
            say_final(self._out.file, self._err.file, result)
            return
        from master_agent.reporters.panels import Canvas, result_parts, show

        if result.plan or result.results:
            if self._out.is_terminal:
                show(self._out, *result_parts(Canvas.of(self._out, verbose=self._verbose), result))
            else:
                say(self._out.file, *report_lines(result))
        self.tell_end(result, reported=self._out.is_terminal)

    def tell_end(self, result: RunResult, *, reported: bool = False) -> None:
        """Tells the person at the terminal how it ended: what went wrong, and where nothing is `reported` there more.

        The live lines are gone then, so it is what failed, and the totals.
        """
        from master_agent.reporters.panels import Canvas, error_part, show, totals_line

        canvas = Canvas.of(self._err, verbose=self._verbose)
        if self._live and not reported:
            for step_id, made in ordered(result):
                if made.status == "failed":
                    show(self._err, canvas.words(ended(step_id, made)))
            show(self._err, totals_line(canvas, result))
        if result.error:
            show(self._err, error_part(canvas, result.error))

    def close(self) -> None:
        if self._live:
            self._live.close()


def show_plan(console: "Console", plan: Plan, effects: Sequence[str], *, verbose: bool = False) -> None:
    """The plan on a console: as `master-agent plan` shows it, and before the question whether to run it."""
    from master_agent.reporters.panels import Canvas, plan_parts, show

    show(console, *plan_parts(Canvas.of(console, verbose=verbose), plan, effects))
