"""From a plan and a result to what Rich draws: the plan's table, a panel for each result, the files, the totals."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import indent

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from master_agent.plan import Plan, Step
from master_agent.reporters.text import Signs, columns, fitted, one_line, seconds, signs, size, tokens, visible
from master_agent.reporters.words import (
    REPAIRED,
    RUN_WORDS,
    CodeFile,
    code,
    conflicts,
    doer,
    executions,
    few,
    files_made,
    most_telling,
    ordered,
    overwrites,
    plan_title,
    prose,
    status_of,
    totals,
    why,
)
from master_agent.results import Artifact, ErrorInfo, RunResult, ShownStatus, StepResult, StepStatus

NARROW = 60  # columns below which a row has no room for its lesser cells
NARROW_PLAN = 72  # columns below which a table would leave a prompt a word or two a line
MOST_PANELS = 30
MOST_ROWS = 40
MOST_LINES = 40
MOST_CHARACTERS = 6000
HIGHLIGHTED = 200_000  # characters; to colour and lay out more would take seconds

STEP_STYLES: dict[StepStatus, str] = {
    "done": "green", "reused": "green", "failed": "red", "skipped": "yellow", "cancelled": "yellow",
    "waiting": "cyan", "not_started": "default", "running": "cyan", "died": "red",
}  # fmt: skip
RUN_STYLES: dict[ShownStatus, str] = {
    "done": "bold green", "partial": "bold yellow", "failed": "bold red", "cancelled": "bold yellow",
    "limited": "bold yellow", "waiting": "bold cyan", "running": "bold cyan", "died": "bold red",
}  # fmt: skip
_MARKDOWN = re.compile(
    r"^ {0,3}(#{1,6} \S|```|~~~|[-*+] \S|\d{1,3}[.)] \S|> |\|.*\|)|\*\*\S|`[^`\n]+`|\[[^\]\n]+\]\([^)\s]+\)",
    re.MULTILINE,
)
_PICTURE = re.compile(r"!\[([^\]\n]*)\]\(([^)\s]+)[^)\n]*\)")


@dataclass(frozen=True)
class Canvas:
    """Where and how it is drawn: the encoding, its signs, the width, and whether all of it is shown."""

    encoding: str
    width: int
    verbose: bool = False

    @classmethod
    def of(cls, console: Console, *, verbose: bool = False) -> "Canvas":
        return cls(console.encoding, console.width, verbose)

    @property
    def signs(self) -> Signs:
        return signs(self.encoding)

    def words(self, text: str, style: str = "") -> Text:
        """Prose of any origin."""
        return Text(fitted(visible(text), self.encoding), style)

    def exact(self, text: str, style: str = "") -> Text:
        """A path, or anything else of which every character counts."""
        return Text(fitted(visible(text), self.encoding, exact=True), style, overflow="fold")

    def line(self, text: str, width: int, style: str = "") -> Text:
        """The text on one line of so many columns."""
        cut = one_line(fitted(text, self.encoding), width, more=self.signs.more)
        return Text(cut, style, no_wrap=True, overflow="crop")

    def joined(self, parts: Sequence[str]) -> str:
        return f" {self.signs.dot} ".join(parts)


class Shown:
    """Anything that Rich draws, with no character that steers a terminal and none that its encoding lacks.

    Text is made fit before it is laid out; this is for what comes after: Rich's own bullets, and a Markdown entity
    that turns into a control character.
    """

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):
            text = segment.text
            if segment.control or text.isascii() or fitted(visible(text), console.encoding) == text:
                yield segment
            else:
                yield Segment("".join(_shown(char, console.encoding) for char in text), segment.style)


def show(console: Console, *renderables: RenderableType) -> None:
    """Prints each on its own lines."""
    for renderable in renderables:
        console.print(Shown(renderable), highlight=False)


def plan_parts(canvas: Canvas, plan: Plan, effects: Sequence[str]) -> Iterator[RenderableType]:
    """The plan as a table, or as a list where a table has no room, and below it what it will do."""
    yield Text(plan_title(plan), "bold")
    if plan.repaired:
        yield canvas.words(REPAIRED, "yellow")
    most = len(plan.plan) if canvas.verbose else MOST_ROWS
    steps = plan.plan[:most]
    yield _plan_list(canvas, plan, steps) if canvas.width < NARROW_PLAN else _plan_table(canvas, plan, steps)
    if len(plan.plan) > most:
        yield Text(f"and {len(plan.plan) - most:,} more steps; --verbose shows them all", "dim")
    for effect in effects:
        yield _entry(Text(canvas.signs.arrow, "yellow"), canvas.words(effect))
    yield ""


def result_parts(canvas: Canvas, result: RunResult) -> Iterator[RenderableType]:
    """A panel for each result, the files, the totals."""
    every = ordered(result)
    shown = every if canvas.verbose else most_telling(result, MOST_PANELS)
    for step_id, made in shown:
        yield panel(canvas, step_id, made)
    if len(shown) < len(every):
        rest = len(every) - len(shown)
        yield Text(f"and {rest:,} more results; --verbose shows them all, --json has them", "dim")
    files = files_made(every)
    if files:
        yield ""
        most = len(files) if canvas.verbose else MOST_ROWS
        yield _files_table(canvas, files[:most])
        if len(files) > most:
            yield Text(f"and {len(files) - most:,} more files", "dim")
    for conflict in conflicts(result):
        yield _entry(Text("conflict", "yellow"), canvas.words(conflict))
    for line in executions(result):
        yield _entry(Text("note", "yellow"), canvas.words(line))
    yield ""
    yield totals_line(canvas, result)


def totals_line(canvas: Canvas, result: RunResult) -> Text:
    """The run in one line, or in several that break between its parts."""
    text = Text().append(RUN_WORDS[result.status], RUN_STYLES[result.status])
    used = len(text)
    for part in totals(result):
        breaks = used + len(part) + 3 > canvas.width
        text.append("\n" if breaks else f" {canvas.signs.dot} ", "dim").append(part)
        used = len(part) if breaks else used + len(part) + 3
    return text


def error_part(canvas: Canvas, error: ErrorInfo) -> RenderableType:
    """What went wrong, and what to do next."""
    message = Text.assemble(("error: ", "bold red"), canvas.words(error.message))
    return Group(message, canvas.words(indent(error.hint, "  "), "dim")) if error.hint else message


def panel(canvas: Canvas, step_id: str, made: StepResult) -> Panel:
    """What one step left, under its id, its agent or tool, and how it ended in words."""
    style = STEP_STYLES[made.status]
    title = Text().append(canvas.line(step_id, 40, "bold not dim"))
    if by := made.agent or made.tool:
        title.append(f" {canvas.signs.dot} ", "dim").append(canvas.line(by, 30, "not dim"))
    title.append(f" {canvas.signs.dot} ", "dim").append(status_of(made), f"not dim {style}")
    used = [seconds(made.seconds)] if made.seconds else []
    if made.usage.calls and made.agent:
        used.append(f"{tokens(made.usage.tokens)} tokens" if made.usage.tokens is not None else "tokens unknown")
    return Panel(
        Group(*_body(canvas, made)),
        title=title,
        title_align="left",
        subtitle=Text(canvas.joined(used), "dim") if used else None,
        subtitle_align="right",
        border_style=style if made.status == "failed" else "dim",
        box=box.ROUNDED,
        padding=(0, 1),
        width=min(canvas.width, 110),
    )


def _body(canvas: Canvas, made: StepResult) -> Iterator[RenderableType]:
    words, files = prose(made), code(made)
    if words:
        text, note = _cut(canvas, words)
        marked = made.agent and len(text) < HIGHLIGHTED and _MARKDOWN.search(text)
        yield _markdown(canvas, text) if marked else canvas.words(text)
        yield from note
    for i, file in enumerate(files):
        if i or words:
            yield ""
        yield from _code(canvas, file)
    if made.error:
        yield canvas.words(made.error.message, "red")
        if made.error.hint:
            yield _entry(Text(canvas.signs.arrow, "dim"), canvas.words(made.error.hint))
    elif why(made):
        yield canvas.words(why(made))
    for artifact in made.artifacts:
        if artifact.path not in words:
            yield canvas.exact(artifact.path)


def _code(canvas: Canvas, file: CodeFile) -> Iterator[RenderableType]:
    from rich.syntax import Syntax

    yield Text().append(canvas.exact(file.name, "bold")).append("  ").append(canvas.line(file.language, 20, "dim"))
    text, note = _cut(canvas, file.content.strip("\n"))
    shown = fitted(visible(text), canvas.encoding, exact=True)
    language = file.language if len(shown) < HIGHLIGHTED else "text"
    # The terminal's own colours on its own ground: readable on light and on dark ones.
    yield Syntax(shown, language, theme="ansi_dark", background_color="default", word_wrap=True)
    yield from note


def _markdown(canvas: Canvas, text: str) -> RenderableType:
    from rich.markdown import Markdown

    # A link's address is written out: behind a text of its own it could lead anywhere.
    return Markdown(_without_pictures(canvas.words(text).plain), code_theme="ansi_dark", hyperlinks=False)


def _without_pictures(text: str) -> str:
    """Markdown whose pictures are words: Rich would move them to the start of their paragraph."""
    fenced, lines = False, []
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        lines.append(line if fenced else _PICTURE.sub(r"\1 (\2)", line))
    return "\n".join(lines)


def _cut(canvas: Canvas, text: str) -> tuple[str, list[RenderableType]]:
    """The text as long as a panel should be, and a note of what is missing."""
    if canvas.verbose:
        return text, []
    lines = text.split("\n")
    kept = "\n".join(lines[:MOST_LINES])[:MOST_CHARACTERS]
    if len(kept) == len(text):
        return text, []
    left = len(lines) - kept.count("\n") - 1
    missing = f"{left:,} more lines" if left > 1 else f"{len(text) - len(kept):,} more characters"
    return kept, [Text(f"{canvas.signs.more} {missing}; --verbose shows them", "dim")]


def _plan_table(canvas: Canvas, plan: Plan, steps: Sequence[Step]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="dim", show_edge=False)
    graph = plan.order == "graph" and any(step.needs for step in plan.plan)
    table.add_column("step", style="bold", max_width=24, overflow="fold")
    table.add_column("agent or tool", max_width=18, overflow="fold")
    if graph:
        table.add_column("needs", max_width=20, overflow="fold")
    table.add_column("what it does", ratio=1, overflow="fold")
    for step in steps:
        cells = [canvas.exact(step.id), canvas.exact(doer(step))]
        if graph:
            cells.append(canvas.words(few(step.needs), "dim"))
        table.add_row(*cells, _what(canvas, step))
    return table


def _plan_list(canvas: Canvas, plan: Plan, steps: Sequence[Step]) -> Group:
    rows: list[RenderableType] = []
    for number, step in enumerate(steps, 1):
        head = Text.assemble((f"{number}. ", "dim"), (step.id, "bold"), (f" {canvas.signs.dot} {doer(step)}", ""))
        if step.needs and plan.order == "graph":
            head.append(f" (needs {few(step.needs)})", "dim")
        rows += [head, Padding(_what(canvas, step), (0, 0, 0, 3))]
    return Group(*rows)


def _what(canvas: Canvas, step: Step) -> Text:
    text = one_line(fitted(step.title, canvas.encoding), 2000 if canvas.verbose else 240, more=canvas.signs.more)
    return Text.assemble(("may overwrite ", "yellow"), text) if overwrites(step) else Text(text)


def _files_table(canvas: Canvas, files: Sequence[tuple[Artifact, str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("file", style="bold", overflow="fold")
    wide = canvas.width >= NARROW
    if wide:
        table.add_column("type", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("step", style="dim", overflow="fold")
    for artifact, step_id in files:
        kind = [canvas.exact(artifact.media_type)] if wide else []
        table.add_row(canvas.exact(artifact.path), *kind, size(artifact.bytes), canvas.exact(step_id))
    return table


def _entry(sign: Text, text: RenderableType) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=columns(sign.plain))
    grid.add_column(overflow="fold")
    grid.add_row(sign, text)
    return grid


_SAME_WIDTH = str.maketrans("•▌…─│┃━→", "*|.-||->")


def _shown(char: str, encoding: str) -> str:
    if visible(char) != char and char not in "\u200c\u200d":
        return "?" * cell_len(char)
    if char.isascii() or fitted(char, encoding) == char:
        return char
    plainer = char.translate(_SAME_WIDTH)
    return plainer if plainer.isascii() else "?" * cell_len(char)
