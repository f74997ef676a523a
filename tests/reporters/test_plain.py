"""What pipes and logs get: lines of plain text."""

from io import StringIO

from master_agent.events import StepFinished, ToolCalled
from master_agent.reporters.plain import PlainReporter
from master_agent.results import ErrorInfo, RunResult, StepResult, Usage
from tests.reporters.samples import PLAN, RESULT, RESULTS, Clock, Stream, called, result_of, whole_run

REPORT = """\
== hero (image): done, 3.1 s ==
images/hero.webp

== page (code): done, 4.0 s ==
Here is the **page**:
-- index.html (html) --
<!doctype html>
<h1>Ember & Oak</h1>

== save (save_result): failed, 0.2 s ==
error: index.html is there already
  Choose another path.

== check (file): skipped ==
it needs "save", which failed

== Files made ==
images/hero.webp  image/webp, 48.2 kB, from hero

Partly done: 2 done, 1 failed, 1 skipped; 9.4 s; 620 tokens in (200 cached), 84 out; 1 picture; 2 calls
"""

PROGRESS = """\
hero: started (image)
hero: rate limited, told to wait 2.0 s
hero: writes images/hero.webp (48.2 kB)
hero: done in 3.1 s
page: started (code)
page: done in 4.0 s
save: started (save_result)
save: failed in 0.2 s: index.html is there already
check: skipped: it needs "save", which failed
"""


def test_progress_is_a_line_for_each_thing_that_happened_on_stderr_and_the_report_stands_on_stdout() -> None:
    out, err = StringIO(), StringIO()
    reporter = PlainReporter(out, err)
    for event in whole_run():
        reporter.tell(event)
    reporter.finish(RESULT)
    reporter.close()
    assert err.getvalue() == PROGRESS
    assert out.getvalue() == REPORT


def test_the_plan_is_numbered_lines_with_what_it_will_do() -> None:
    out, err = StringIO(), StringIO()
    repaired = PLAN.model_copy(update={"repaired": True})
    PlainReporter(out, err).plan(repaired, ["1 picture will be paid for (replicate)", "overwrites index.html"])
    assert out.getvalue() == ""
    assert (
        err.getvalue()
        == """\
Plan: 4 steps
The model's first answer was no good plan; it was mended or asked for again: look twice.
  1. hero (image)
     A sunset over mountains
  2. page (code, needs hero)
     HTML that shows ${hero.path}
  3. save (save_result, needs page, may overwrite)
     step="page", path="index.html", overwrite=true
  4. check (file, needs save)
     Read the page
  * 1 picture will be paid for (replicate)
  * overwrites index.html

"""
    )


def test_the_planners_call_and_its_troubles_are_told() -> None:
    err = StringIO()
    PlainReporter(StringIO(), err).tell(called(None))
    assert err.getvalue() == "plan: asking gpt-5.1\n"


def test_verbose_tells_of_the_tools_that_are_used() -> None:
    used = ToolCalled(step="hero", tool="generate_image", arguments={}, effects=["pay"])
    err, wordy = StringIO(), StringIO()
    PlainReporter(StringIO(), err).tell(used)
    PlainReporter(StringIO(), wordy, verbose=True).tell(used)
    assert (err.getvalue(), wordy.getvalue()) == ("", "hero: using generate_image\n")


def test_a_step_that_reports_no_seconds_is_timed_by_the_clock() -> None:
    err, clock = StringIO(), Clock()
    reporter = PlainReporter(StringIO(), err, clock=clock)
    for event in whole_run()[2:4]:
        reporter.tell(event)
    clock.now = 2.5
    reporter.tell(StepFinished(step="hero", result=StepResult(status="done", agent="image")))
    assert err.getvalue().splitlines()[-1] == "hero: done in 2.5 s"


def test_quiet_leaves_the_final_text_on_stdout_and_errors_on_stderr() -> None:
    out, err = StringIO(), StringIO()
    reporter = PlainReporter(out, err, quiet=True)
    for event in whole_run():
        reporter.tell(event)
    reporter.plan(PLAN, ["overwrites index.html"])
    reporter.notice("the replies are scripted")
    stopped = ErrorInfo(type="limit", message="10 steps were allowed", hint="Raise --max-steps.")
    reporter.finish(RESULT.model_copy(update={"error": stopped}))
    assert out.getvalue() == "The page is made.\n"
    assert err.getvalue() == (
        "save: failed in 0.2 s: index.html is there already\nerror: 10 steps were allowed\n  Raise --max-steps.\n"
    )


def test_the_error_of_a_run_without_a_plan_stands_on_stderr_alone() -> None:
    out, err = StringIO(), StringIO()
    error = ErrorInfo(type="no_model", message="no OpenAI key", hint="Put OPENAI_API_KEY=… in .env.")
    PlainReporter(out, err).finish(RunResult(status="failed", error=error))
    assert (out.getvalue(), err.getvalue()) == ("", "error: no OpenAI key\n  Put OPENAI_API_KEY=… in .env.\n")


def test_what_a_model_wrote_steers_no_terminal() -> None:
    out, err = StringIO(), StringIO()
    evil = StepResult(status="failed", agent="code", text="\x1b[2Jgone\u202e", reason="\x1b]0;title\x07\nfake: done")
    reporter = PlainReporter(out, err)
    reporter.tell(StepFinished(step="hero", result=evil))
    reporter.finish(result_of(PLAN, {**RESULTS, "hero": evil}))
    assert "\\x1b[2Jgone\\u202e" in out.getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert err.getvalue() == "hero: failed: \\x1b]0;title\\x07 fake: done\n"


def test_streams_that_lack_characters_get_a_chosen_likeness() -> None:
    for encoding, expected in (("cp1252", "Zoë “says” -> ??"), ("ascii", 'Zoe "says" -> ??')):
        out, err = Stream(encoding), Stream(encoding)
        made = StepResult(status="done", agent="code", text="Zoë “says” → 🙂")
        reporter = PlainReporter(out, err)
        reporter.tell(StepFinished(step="hero", result=made))
        reporter.finish(result_of(PLAN, {"hero": made}))
        assert expected in out.text
        assert "page (code): not started ==\nthe run ended before it began" in out.text


def test_numbers_that_no_server_reported_are_unknown_and_the_cost_is_told_only_where_it_is_known() -> None:
    def last_line(usage: Usage) -> str:
        out = StringIO()
        PlainReporter(out, StringIO()).finish(RESULT.model_copy(update={"usage": usage}))
        return out.getvalue().splitlines()[-1]

    assert "tokens unknown; 1 call" in last_line(Usage.unknown())
    assert "at least 310 tokens in (100 cached), 42 out; 2 calls" in last_line(USED_AND_UNKNOWN)
    assert "2 calls; $0.0123" in last_line(Usage(calls=2, cost_usd=0.0123))
    assert "$" not in last_line(Usage(calls=2))


USED_AND_UNKNOWN = Usage(calls=1, input_tokens=310, cached_tokens=100, output_tokens=42) + Usage.unknown()


def test_a_closed_stderr_does_not_stop_the_run_or_its_report() -> None:
    out, err = StringIO(), StringIO()
    err.close()
    reporter = PlainReporter(out, err)
    for event in whole_run():
        reporter.tell(event)
    reporter.finish(RESULT)
    assert out.getvalue() == REPORT


def test_quiet_keeps_a_piped_text_as_it_is_and_makes_it_visible_on_a_terminal() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    result = RunResult(status="done", final="col\x1b[1mour\n")
    for out, expected in ((StringIO(), "col\x1b[1mour\n"), (Terminal(), "col\\x1b[1mour\n")):
        PlainReporter(out, StringIO(), quiet=True).finish(result)
        assert out.getvalue() == expected
