"""For pipes, logs and terminals that can only print: events become lines on stderr, the result a report on stdout."""

import time
from collections.abc import Callable, Iterator, Sequence
from textwrap import indent
from typing import IO

from master_agent.events import (
    Event,
    FileChanged,
    FileChangeFailed,
    ModelCalled,
    ModelReplied,
    ReuseRefused,
    StepFinished,
    StepStarted,
    ToolCalled,
)
from master_agent.plan import Plan
from master_agent.reporters import Silent
from master_agent.reporters.text import encoding_of, fitted, one_line, seconds, size, visible
from master_agent.reporters.words import (
    REPAIRED,
    RUN_WORDS,
    code,
    conflicts,
    doer,
    executions,
    few,
    files_made,
    ordered,
    overwrites,
    plan_title,
    prose,
    status_of,
    totals,
    trouble,
    why,
)
from master_agent.results import ErrorInfo, RunResult, StepResult

LINE = 300  # columns of a progress line: a message has room, a whole answer has not


class PlainReporter(Silent):
    """Plain text without colours, spinners or boxes.

    `verbose` adds the tools that are used; `quiet` leaves nothing but the final text on stdout and errors on stderr.
    """

    def __init__(
        self,
        out: IO[str],
        err: IO[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        verbose: bool = False,
        quiet: bool = False,
    ) -> None:
        self._out = out
        self._err = err
        self._clock = clock
        self._verbose = verbose
        self._quiet = quiet
        self._began: dict[str, float] = {}
        self._unheard = quiet

    def tell(self, event: Event) -> None:
        if not self._unheard and (line := self._line(event)):
            self._tell(one_line(line, LINE))

    def plan(self, plan: Plan, effects: Sequence[str]) -> None:
        self._tell(*plan_lines(plan, effects), "")

    def notice(self, text: str) -> None:
        self._tell(text)

    def finish(self, result: RunResult) -> None:
        if self._quiet:
            say_final(self._out, self._err, result)
            return
        if result.plan or result.results:
            say(self._out, *report_lines(result))
        if result.error:
            self._tell(*error_lines(result.error))

    def _tell(self, *lines: str) -> None:
        if self._unheard:
            return
        try:
            say(self._err, *lines)
        except (OSError, ValueError):
            # Nobody reads stderr any more; that must not end the run.
            self._unheard = True

    def _line(self, event: Event) -> str | None:
        match event:
            case ModelCalled(attempt=int(attempt)) if attempt > 1:
                return f"{event.step or 'plan'}: asking again"
            case ModelCalled(step=None):
                return f"plan: asking {event.model or 'the model'}"
            case StepStarted(step=str(step)):
                self._began[step] = self._clock()
                return f"{step}: started ({event.agent or event.tool})"
            case ModelReplied() if event.error and event.error.retryable:
                return f"{event.step or 'plan'}: {trouble(event.error, event.retry_after)}"
            case ToolCalled() if self._verbose and event.step:
                return f"{event.step}: using {event.tool}"
            case ReuseRefused():
                return f"{event.step}: not reused from {event.from_run}: {event.reason}"
            case FileChanged():
                return f"{event.step or 'run'}: writes {event.file.path} ({size(event.file.bytes)})"
            case FileChangeFailed():
                return f"{event.step or 'run'}: {event.file.path} was not written"
            case StepFinished(step=str(step)):
                began = self._began.pop(step, None)
                return ended(step, event.result, None if began is None else self._clock() - began)
        return None


def ended(step: str, result: StepResult, elapsed: float | None = None) -> str:
    """A finished step in a line: "hero: done in 3.1 s", "page: skipped: hero failed"."""
    word = status_of(result)
    reason = f": {why(result)}" if why(result) else ""
    took = result.seconds or elapsed or 0.0
    return f"{step}: {word} in {seconds(took)}{reason}" if took else f"{step}: {word}{reason}"


def say(stream: IO[str], *lines: str) -> None:
    """Writes lines that steer no terminal, in characters that the stream has."""
    text = "".join(f"{line}\n" for line in lines)
    stream.write(fitted(visible(text), encoding_of(stream)))
    stream.flush()


def say_final(out: IO[str], err: IO[str], result: RunResult) -> None:
    """The final text alone on stdout; what went wrong on stderr. A file or a pipe gets the text as it is."""
    if result.final:
        text = result.final if result.final.endswith("\n") else f"{result.final}\n"
        out.write(fitted(visible(text), encoding_of(out)) if out.isatty() else text)
        out.flush()
    for step_id, made in ordered(result):
        if made.status == "failed":
            say(err, one_line(ended(step_id, made), LINE))
    if result.error:
        say(err, *error_lines(result.error))


def error_lines(error: ErrorInfo) -> list[str]:
    """The message, and below it what to do next."""
    return [f"error: {error.message}", *([indent(error.hint, "  ")] if error.hint else [])]


def plan_lines(plan: Plan, effects: Sequence[str]) -> Iterator[str]:
    """The plan as numbered lines, and what it will do."""
    yield plan_title(plan)
    if plan.repaired:
        yield REPAIRED
    for number, step in enumerate(plan.plan, 1):
        needs = f", needs {few(step.needs)}" if step.needs and plan.order == "graph" else ""
        mark = ", may overwrite" if overwrites(step) else ""
        yield f"{number:>3}. {step.id} ({doer(step)}{needs}{mark})"
        yield f"     {one_line(step.title, 2000)}"
    yield from (f"  * {effect}" for effect in effects)


def report_lines(result: RunResult) -> Iterator[str]:
    """The whole result: each step with what it left, the files, the totals. Nothing is cut: it may be all one keeps."""
    results = ordered(result)
    for step_id, made in results:
        yield from _step_lines(step_id, made)
    files = files_made(results)
    if files:
        yield "== Files made =="
        widest = max(len(artifact.path) for artifact, _ in files)
        for artifact, step_id in files:
            yield f"{artifact.path:<{widest}}  {artifact.media_type}, {size(artifact.bytes)}, from {step_id}"
        yield ""
    yield from (f"conflict: {line}" for line in conflicts(result))
    yield from (f"note: {line}" for line in executions(result))
    yield f"{RUN_WORDS[result.status]}: {'; '.join(totals(result))}"


def _step_lines(step_id: str, made: StepResult) -> Iterator[str]:
    by = made.agent or made.tool
    took = f", {seconds(made.seconds)}" if made.seconds else ""
    yield f"== {step_id}{f' ({by})' if by else ''}: {status_of(made)}{took} =="
    words = prose(made)
    if words:
        yield words
    for file in code(made):
        yield f"-- {file.name} ({file.language}) --"
        yield file.content.rstrip("\n")
    if made.error:
        yield from error_lines(made.error)
    elif why(made):
        yield why(made)
    for artifact in made.artifacts:
        if artifact.path not in words:
            yield artifact.path
    yield ""
