"""The live lines at the foot of a terminal, drawn at chosen moments of a chosen clock."""

import re
import threading
import time
from collections.abc import Iterable
from io import StringIO
from itertools import pairwise

from rich.console import Console

from master_agent.events import Event, ModelReplied, StepFinished, StepStarted, ToolCalled, ToolReturned
from master_agent.plan import AgentStep, Plan
from master_agent.reporters.live import picture
from master_agent.reporters.panels import Canvas, show
from master_agent.reporters.progress import TAIL, Progress
from master_agent.reporters.terminal import TerminalReporter
from master_agent.results import ErrorInfo, StepResult
from tests.reporters.samples import (
    RESULT,
    USED,
    Clock,
    Stream,
    called,
    ended,
    many,
    planned,
    started,
    terminal,
    written,
    wrote,
)

LIMITED = ErrorInfo(type="rate_limited", message="429", retryable=True)


def shown(events: Iterable[Event], *, now: float = 2.0, width: int = 80, height: int = 40, encoding: str = "") -> str:
    """The picture after events that all came at second 0."""
    progress = Progress()
    for event in events:
        progress.take(event, 0.0)
    console = terminal(width, height=height, stream=Stream(encoding) if encoding else None)
    show(console, *picture(Canvas.of(console), progress, now, height))
    return written(console)


def test_every_step_of_a_small_plan_has_its_row_with_seconds_and_tokens() -> None:
    events = [
        *planned(),
        *started("hero", "image"),
        ModelReplied(step="hero", call="call-1", status="requires_action", usage=USED),
        ToolCalled(step="hero", tool="generate_image", arguments={}, effects=["pay"]),
    ]
    assert (
        shown(events)
        == """\
⠋ hero  image       2.0 s 352 tokens · using generate_image
· page  code              waits for hero
· save  save_result       waits for page
· check file              waits for save
  3 waiting · 2.0 s · 352 tokens"""
    )


def test_ended_steps_say_how_they_ended_in_words() -> None:
    events: list[Event] = [*planned(), ended("hero"), ended("page"), ended("save"), ended("check")]
    assert (
        shown(events)
        == """\
✓ hero  image       3.1 s done · 352 tokens · images/hero.webp
✓ page  code        4.0 s done · 352 tokens
✗ save  save_result 0.2 s failed · index.html is there already
- check file              skipped · it needs "save", which failed
  2 done, 1 failed, 1 skipped · 2.0 s"""
    )


def test_the_text_of_the_only_running_step_is_shown_as_it_is_written_in_a_bounded_height() -> None:
    events = [*planned(), ended("hero"), *started("page")]
    events += [wrote("page", "# Title\n"), wrote("page", "one "), wrote("page", "two")]
    assert "⠋ page  code        2.0 s\n" in shown(events)
    assert "  │ # Title\n  │ one two\n  1 done, 2 waiting" in shown(events)
    more = [*events, *(wrote("page", f"\nline {i}") for i in range(1000))]
    assert shown(more).count("│") == 8
    assert "  │ line 999\n" in shown(more)


def test_with_several_running_each_row_shows_its_last_line() -> None:
    plan = many(2)
    events = [*planned(plan), *started("s0"), *started("s1"), wrote("s0", "first\nsecond"), wrote("s1", "# other\n\n")]
    assert (
        shown(events)
        == """\
⠋ s0 code 2.0 s second
⠋ s1 code 2.0 s # other
  2.0 s"""
    )


def test_the_text_of_a_new_call_takes_the_place_of_the_one_before() -> None:
    events = [*planned(), *started("hero"), wrote("hero", "a first go", "call-1")]
    assert "a first go" in shown(events)
    events.append(wrote("hero", "a second", "call-2"))
    assert "a first go" not in shown(events)
    assert "  │ a second" in shown(events)
    events.append(called("hero", "call-3"))
    assert "a second" not in shown(events)
    assert "asking gpt-5.1" in shown(events)


def test_a_failed_attempt_says_what_happened_and_that_it_is_tried_again() -> None:
    events = [*planned(), *started("hero"), wrote("hero", "half a sen")]
    events.append(ModelReplied(step="hero", call="call-1", status="failed", error=LIMITED, retry_after=20.0))
    assert "rate limited, told to wait 20.0 s" in shown(events)
    assert "half a sen" not in shown(events)
    wrong = ErrorInfo(type="wrong_arguments", message='no argument "prompt"')
    events.append(ToolReturned(step="hero", tool="generate_image", error=wrong))
    assert 'generate_image: no argument "prompt"' in shown(events)


def test_the_planner_has_a_row_that_tells_how_much_it_wrote_and_no_raw_json() -> None:
    events: list[Event] = [called(None), wrote("", '{"plan": [').model_copy(update={"step": None})]
    assert shown(events) == "⠋ planning  2.0 s 10 characters of a plan"
    assert "planning" not in shown([*events, *planned()])


def test_a_step_that_is_named_plan_is_not_taken_for_the_planner() -> None:
    plan = Plan(plan=(AgentStep(id="plan", agent="code", prompt="p"), AgentStep(id="b", agent="code", prompt="p")))
    assert "⠋ plan code 2.0 s asking gpt-5.1\n" in shown([*planned(plan), *started("plan")])


def test_ten_thousand_steps_are_the_running_ones_and_counts() -> None:
    plan = many(10_000)
    events: list[Event] = [*planned(plan)]
    for i in range(9_000):
        events.append(StepStarted(step=f"s{i}", agent="code"))
        if i < 8_950:
            status = "failed" if i % 100 == 0 else "done"
            events.append(StepFinished(step=f"s{i}", result=StepResult.model_validate({"status": status})))
    rows = shown(events).splitlines()
    assert len(rows) == 14
    assert rows[0].startswith("⠋ s8950 code 2.0 s")
    assert rows[12].strip() == "and 38 more"
    assert rows[13] == "  8,860 done, 90 failed, 1,000 waiting · 2.0 s"


def test_the_picture_fits_a_terminal_of_few_lines() -> None:
    events = [*planned(many(30)), *(event for i in range(20) for event in started(f"s{i}"))]
    assert len(shown(events, height=8).splitlines()) < 8
    alone = [*planned(many(12)), *started("s0"), *(wrote("s0", f"line {i}\n") for i in range(50))]
    assert len(shown(alone, height=10).splitlines()) < 10


def test_forty_columns_and_ascii_are_enough() -> None:
    events = [*planned(), ended("hero"), *started("page"), wrote("page", "Zoë → “you”")]
    text = shown(events, width=40, encoding="ascii", now=1.1)
    assert text.splitlines()[:2] == ["+ hero  3.1 s done - 352 tokens - image.", "/ page  1.1 s"]
    assert '  | Zoe -> "you"' in text
    assert max(len(line) for line in text.splitlines()) <= 40


def test_streamed_text_steers_no_terminal() -> None:
    events = [*planned(), *started("hero"), wrote("hero", "\x1b[2J\u202eback\rover")]
    assert "  │ \\x1b[2J\\u202eback\\x0dover" in shown(events)
    assert "\x1b" not in shown([*events, *started("page"), wrote("page", "\x1b]0;t\x07")])


def test_only_the_end_of_a_long_text_is_kept() -> None:
    progress = Progress()
    for event in [*started("hero"), *(wrote("hero", "x" * 1000) for _ in range(100))]:
        progress.take(event, 0.0)
    assert len(progress.running["hero"].text) == TAIL
    assert progress.running["hero"].written == 100_000


def screen(console: Console) -> str:
    """What the last drawing left to see, without control sequences."""
    text = written(console)
    drawn = re.split(r"\x1b\[1A\x1b\[2K|\r\x1b\[2K", text)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).strip()


def test_a_whole_run_is_drawn_with_the_seconds_of_the_clock_and_cleared_at_the_end() -> None:
    out, err, clock = terminal(), terminal(), Clock()
    reporter = TerminalReporter(out, err, clock=clock, every=None)
    assert reporter._live is not None
    for event in planned():
        reporter.tell(event)
    reporter._live.draw()
    assert written(err) == ""
    for event in started("hero", "image"):
        reporter.tell(event)
    clock.now = 3.5
    threads = threading.active_count()
    reporter._live.draw()
    assert threading.active_count() == threads
    assert "hero  image       3.5 s asking gpt-5.1" in screen(err)
    assert "\x1b[?25l" in written(err)
    reporter.finish(RESULT)
    assert written(err).rstrip().endswith("\x1b[1A\x1b[2K" * 5)
    assert written(err).count("\x1b[?25h") == written(err).count("\x1b[?25l") == 1
    reporter._live.draw()
    assert "\x1b" not in written(out)


def test_a_pause_gives_the_terminal_back_until_it_is_over() -> None:
    err = terminal()
    reporter = TerminalReporter(terminal(), err, every=None)
    assert reporter._live is not None
    for event in [*planned(), *started("hero")]:
        reporter.tell(event)
    reporter._live.draw()
    reporter.pause()
    before = written(err)
    assert before.count("\x1b[?25h") == 1
    for event in started("page"):
        reporter.tell(event)
    reporter._live.draw()
    assert written(err) == before
    reporter.resume()
    reporter._live.draw()
    assert "page  code" in screen(err)
    reporter.close()
    reporter.close()
    assert written(err).count("\x1b[?25h") == 2


def test_a_notice_stands_above_the_live_lines() -> None:
    err = terminal()
    reporter = TerminalReporter(terminal(), err, every=None)
    assert reporter._live is not None
    for event in [*planned(), *started("hero")]:
        reporter.tell(event)
    reporter._live.draw()
    reporter.notice("the replies are scripted")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written(err))
    assert plain.rindex("the replies are scripted") < plain.rindex("3 waiting")
    reporter.close()


def test_the_display_draws_by_itself_at_most_ten_times_a_second_and_its_thread_ends() -> None:
    drawn: list[float] = []

    class Watched(StringIO):
        def write(self, text: str) -> int:
            if "hero" in text:
                drawn.append(time.monotonic())
            return super().write(text)

    err = terminal(stream=Watched())
    reporter = TerminalReporter(terminal(), err)
    for event in [*planned(), *started("hero")]:
        reporter.tell(event)
    deadline = time.monotonic() + 10
    while len(drawn) < 3 and time.monotonic() < deadline:
        reporter.tell(wrote("hero", "word "))
        time.sleep(0.001)
    assert len(drawn) >= 3
    gaps = [later - earlier for earlier, later in pairwise(drawn)]
    assert min(gaps) >= 0.09
    reporter.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "display"]
    assert written(err).count("\x1b[?25h") == 1


def test_a_terminal_that_goes_away_does_not_stop_the_run() -> None:
    class Gone(StringIO):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    reporter = TerminalReporter(terminal(), terminal(stream=Gone()), every=0.001)
    for event in [*planned(), *started("hero")]:
        reporter.tell(event)
    deadline = time.monotonic() + 10
    while [thread for thread in threading.enumerate() if thread.name == "display"] and time.monotonic() < deadline:
        time.sleep(0.001)
    reporter.tell(ended("hero"))
    reporter.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "display"]


def test_a_terminal_that_stands_still_does_not_hold_up_the_run() -> None:
    standing, goes_on = threading.Event(), threading.Event()

    class Stopped(StringIO):
        def write(self, text: str) -> int:
            standing.set()
            assert goes_on.wait(10)
            return super().write(text)

    reporter = TerminalReporter(terminal(), terminal(stream=Stopped()), every=0.001)
    for event in [*planned(), *started("hero")]:
        reporter.tell(event)
    assert standing.wait(10)
    for event in [wrote("hero", "word "), ended("hero"), *started("page")]:
        reporter.tell(event)
    assert not goes_on.is_set()
    goes_on.set()
    reporter.close()
