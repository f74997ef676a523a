"""From the progress of a run to a few lines at the foot of a terminal, drawn anew ten times a second."""

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from master_agent.reporters.progress import PLANNER, Progress, Running, doers
from master_agent.reporters.text import columns, counted, last_line, seconds
from master_agent.reporters.words import STEP_WORDS, why

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

    from master_agent.reporters.panels import Canvas

EVERY = 0.1  # seconds from one picture to the next
MOST_ROWS = 12
STREAMED_LINES = 8
NARROW = 60  # columns below which a row does not say who does it


class LiveDisplay:
    """Shows the progress while it is on; `off` clears it away. A thread of its own draws.

    Rich's live parts are loaded by that thread, a tenth of a second after the first `on`: then the request whose event
    turned it on is out. A terminal that stands still (Ctrl-S) holds up the thread, not the run. `every=None` starts no
    thread: then it is drawn when `draw` is called.
    """

    def __init__(
        self,
        console: "Console",
        progress: Progress,
        *,
        lock: threading.Lock,
        clock: Callable[[], float],
        verbose: bool = False,
        every: float | None = EVERY,
    ) -> None:
        self._console = console
        self._progress = progress
        self._lock = lock
        self._clock = clock
        self._verbose = verbose
        self._every = every
        self._wanted = False
        self._closed = threading.Event()
        self._drawing = threading.RLock()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None

    def on(self) -> None:
        """Shows it from the next drawing on."""
        self._wanted = True
        if self._thread is None and self._every is not None and not self._closed.is_set():
            thread = threading.Thread(target=self._draw_on, args=(self._every,), name="display", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads may be started: the run does without the display
                thread.start()
                self._thread = thread

    def off(self) -> None:
        """Clears it away; the cursor is back when this returns."""
        self._wanted = False
        with self._drawing:
            self._clear()

    def close(self) -> None:
        """Clears it away for good."""
        self._closed.set()
        self.off()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=1)

    def draw(self) -> None:
        """Draws it once, where it is wanted."""
        with self._drawing:
            if not self._wanted:
                return
            if self._live is None:
                from rich.live import Live

                self._live = Live(
                    console=self._console,
                    get_renderable=self._picture,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            self._live.refresh()

    def _draw_on(self, every: float) -> None:
        while not self._closed.wait(every):
            try:
                self.draw()
            except Exception:
                # A display that breaks, on a terminal that went away, must not touch the run.
                self._wanted = False
                return

    def _clear(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            # Rich stops half-way on a terminal that went away, with whatever error; there is nothing left to restore.
            with contextlib.suppress(Exception):
                live.stop()

    def _picture(self) -> "RenderableType":
        from rich.console import Group

        from master_agent.reporters.panels import Canvas, Shown

        canvas = Canvas.of(self._console, verbose=self._verbose)
        with self._lock:
            return Shown(Group(*picture(canvas, self._progress, self._clock(), self._console.height)))


def picture(canvas: "Canvas", progress: Progress, now: float, height: int) -> "list[RenderableType]":
    """What is shown at one moment: rows of steps, the text that is being written, and the counts."""
    from rich.text import Text

    room = max(height - 4, 3)
    parts: list[RenderableType] = []
    running = list(progress.running.values())
    alone = running[0] if len(running) == 1 else None
    streamed = _streamed(canvas, alone, min(STREAMED_LINES, room - 2)) if alone else []
    steps = progress.plan.plan if progress.plan else ()
    grid = _grid(canvas)
    if steps and len(steps) <= min(MOST_ROWS, room - len(streamed)) and PLANNER not in progress.running:
        known = doers(progress.plan) if progress.plan else {}
        for step in steps:
            if step.id in progress.running:
                _running_row(canvas, grid, progress.running[step.id], now, streams=bool(streamed))
            else:
                _other_row(canvas, grid, progress, step.id, known[step.id], step.needs)
    else:
        most = max(min(MOST_ROWS, room - len(streamed)), 1)
        for one in running[:most]:
            _running_row(canvas, grid, one, now, streams=bool(streamed))
        if len(running) > most:
            streamed = [Text(f"  and {len(running) - most:,} more", "dim")]
    parts += [grid, *streamed]
    if len(steps) > 1:
        parts.append(_counts(canvas, progress, now))
    return parts


def _grid(canvas: "Canvas") -> "Table":
    from rich.table import Table

    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=1)
    grid.add_column(no_wrap=True)
    if canvas.width >= NARROW:
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, ratio=1)
    return grid


def _name_width(canvas: "Canvas") -> int:
    return min(24, canvas.width // 3)


def _running_row(canvas: "Canvas", grid: "Table", one: Running, now: float, *, streams: bool) -> None:
    from rich.text import Text

    frames = canvas.signs.spinner
    sign = Text(frames[int(now * 10) % len(frames)], "cyan")
    name = canvas.line(one.id or "planning", _name_width(canvas), "bold")
    said = [f"{one.tokens:,} tokens"] if one.tokens is not None else []
    if one.id == PLANNER and one.written and not canvas.verbose:
        said.append(f"{counted(one.written, 'character')} of a plan")
    elif one.text.strip() and not streams:
        said.append(last_line(one.text))
    elif not one.text.strip() and one.doing:
        said.append(one.doing)
    doing = canvas.line(canvas.joined(said), canvas.width, "dim")
    _row(canvas, grid, sign, name, one.doer if one.id else "", seconds(now - one.began), doing)


def _other_row(
    canvas: "Canvas", grid: "Table", progress: Progress, step_id: str, by: str, needs: tuple[str, ...]
) -> None:
    from rich.text import Text

    from master_agent.reporters.panels import STEP_STYLES

    result = progress.results.get(step_id)
    name = canvas.line(step_id, _name_width(canvas), "dim" if result is None else "")
    if result is None:
        missing = [need for need in needs if need not in progress.results]
        waits = f"waits for {missing[0]}" if missing else "waits"
        _row(canvas, grid, Text(canvas.signs.idle, "dim"), name, by, "", canvas.line(waits, canvas.width, "dim"))
        return
    style = STEP_STYLES[result.status]
    sign = canvas.signs.done if result.usable else canvas.signs.failed if result.status == "failed" else "-"
    said = [f"{result.usage.tokens:,} tokens"] if result.agent and result.usage.tokens else []
    said += [why(result)] if why(result) else [artifact.path for artifact in result.artifacts[:1]]
    doing = Text().append(canvas.line(STEP_WORDS[result.status], 20, style))
    for part in said:
        doing.append(f" {canvas.signs.dot} ", "dim").append(canvas.line(part, canvas.width, "dim"))
    _row(canvas, grid, Text(sign, style), name, by, seconds(result.seconds) if result.seconds else "", doing)


def _row(
    canvas: "Canvas",
    grid: "Table",
    sign: "RenderableType",
    name: "RenderableType",
    by: str,
    took: str,
    doing: "RenderableType",
) -> None:
    from rich.text import Text

    doers_cell = [canvas.line(by, 16, "dim")] if canvas.width >= NARROW else []
    grid.add_row(sign, name, *doers_cell, Text(took, "dim"), doing)


def _streamed(canvas: "Canvas", one: Running, most: int) -> "list[RenderableType]":
    """The last lines of the text that the only running step is writing."""
    from rich.console import Console
    from rich.text import Text

    if not one.text.strip() or (one.id == PLANNER and not canvas.verbose):
        return []
    width = max(canvas.width - 4, 20)
    # Of so many columns no more can be shown; a line that began before is shown from its middle on.
    text = canvas.words(one.text[-width * most :].rstrip())
    lines = text.wrap(Console(width=width), width)[-most:]
    return [
        Text(no_wrap=True, overflow="crop").append(f"  {canvas.signs.bar} ", "dim").append(line.plain.rstrip())
        for line in lines
    ]


def _counts(canvas: "Canvas", progress: Progress, now: float) -> "RenderableType":
    from rich.text import Text

    ended = [f"{progress.counts[status]:,} {word}" for status, word in STEP_WORDS.items() if progress.counts[status]]
    steps = ", ".join([*ended, *([f"{progress.waiting:,} waiting"] if progress.waiting else [])])
    parts = [*([steps] if steps else []), seconds(now - (progress.began if progress.began is not None else now))]
    if progress.tokens is not None:
        parts.append(f"{progress.tokens:,} tokens")
    line = canvas.joined(parts)
    return Text(f"  {line}" if columns(line) < canvas.width - 2 else line, "dim", no_wrap=True, overflow="crop")
