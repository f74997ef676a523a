"""What a person at a terminal sees: the plan's table, the panels, the totals. Compared as text of fixed width."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from master_agent.events import StepFinished, StepStarted
from master_agent.plan import Plan
from master_agent.reporters.terminal import TerminalReporter, show_plan
from master_agent.results import Artifact, ErrorInfo, RunResult, StepResult
from tests.reporters.samples import (
    PLAN,
    RESULT,
    Stream,
    called,
    many,
    pipe,
    planned,
    result_of,
    terminal,
    whole_run,
    written,
)

EFFECTS = ["1 picture will be paid for (replicate)", "overwrites index.html"]

TABLE = """\
Plan: 4 steps
step    agent or tool   needs   what it does
────────────────────────────────────────────────────────────────────────────────
hero    image                   A sunset over mountains
page    code            hero    HTML that shows ${hero.path}
save    save_result     page    may overwrite step="page", path="index.html",
                                overwrite=true
check   file            save    Read the page
→ 1 picture will be paid for (replicate)
→ overwrites index.html"""

LIST = """\
Plan: 4 steps
1. hero · image
   A sunset over mountains
2. page · code (needs hero)
   HTML that shows ${hero.path}
3. save · save_result (needs page)
   may overwrite step="page",
   path="index.html", overwrite=true
4. check · file (needs save)
   Read the page
→ 1 picture will be paid for (replicate)
→ overwrites index.html"""

REPORT = """\
╭─ hero · image · done ────────────────────────────────────────────────────────╮
│ images/hero.webp                                                             │
╰───────────────────────────────────────────────────────── 3.1 s · 352 tokens ─╯
╭─ page · code · done ─────────────────────────────────────────────────────────╮
│ Here is the page:                                                            │
│                                                                              │
│ index.html  html                                                             │
│ <!doctype html>                                                              │
│ <h1>Ember & Oak</h1>                                                         │
╰───────────────────────────────────────────────────────── 4.0 s · 352 tokens ─╯
╭─ save · save_result · failed ────────────────────────────────────────────────╮
│ index.html is there already                                                  │
│ → Choose another path.                                                       │
╰────────────────────────────────────────────────────────────────────── 0.2 s ─╯
╭─ check · file · skipped ─────────────────────────────────────────────────────╮
│ it needs "save", which failed                                                │
╰──────────────────────────────────────────────────────────────────────────────╯

file               type            size   step
──────────────────────────────────────────────
images/hero.webp   image/webp   48.2 kB   hero

Partly done · 2 done, 1 failed, 1 skipped · 9.4 s
620 tokens in (200 cached), 84 out · 1 picture · 2 calls"""

NARROW_ASCII_REPORT = """\
+- hero - image - done ----------------+
| images/hero.webp                     |
+----------------- 3.1 s - 352 tokens -+
+- page - code - done -----------------+
| Here is the page:                    |
|                                      |
| index.html  html                     |
| <!doctype html>                      |
| <h1>Ember & Oak</h1>                 |
+----------------- 4.0 s - 352 tokens -+
+- save - save_result - failed --------+
| index.html is there already          |
| -> Choose another path.              |
+------------------------------ 0.2 s -+
+- check - file - skipped -------------+
| it needs "save", which failed        |
+--------------------------------------+

file             |    size | step
-----------------+---------+-----
images/hero.webp | 48.2 kB | hero

Partly done
2 done, 1 failed, 1 skipped - 9.4 s
620 tokens in (200 cached), 84 out
1 picture - 2 calls"""


def reported(
    result: RunResult,
    *,
    width: int = 80,
    stream: Stream | None = None,
    verbose: bool = False,
) -> str:
    out = terminal(width, stream=stream)
    TerminalReporter(out, terminal(width), verbose=verbose, every=None).finish(result)
    return written(out)


def one(made: StepResult) -> RunResult:
    return RunResult(status="done", results={"only": made})


def test_the_plan_is_a_table_with_what_it_will_do_below_and_stands_on_stderr() -> None:
    out, err = terminal(), terminal()
    TerminalReporter(out, err, every=None).plan(PLAN, EFFECTS)
    assert written(err) == TABLE
    assert written(out) == ""


def test_the_plan_is_a_list_where_a_table_has_no_room() -> None:
    console = terminal(40)
    show_plan(console, PLAN, EFFECTS)
    assert written(console) == LIST


def test_a_repaired_plan_says_so_and_a_sequence_names_its_order_once() -> None:
    console = terminal()
    show_plan(console, PLAN.model_copy(update={"repaired": True, "order": "sequence"}), [])
    assert "Plan: 4 steps, one after the other\nThe model's first answer was no good plan" in written(console)
    assert "needs" not in written(console)


def test_each_result_has_its_panel_in_the_plans_order_then_come_the_files_and_the_totals() -> None:
    assert reported(RESULT) == REPORT


def test_forty_columns_of_ascii_show_the_same_facts() -> None:
    assert reported(RESULT, width=40, stream=Stream("ascii")) == NARROW_ASCII_REPORT


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("width", [20, 40, 80])
def test_nothing_that_a_stream_lacks_is_sent_to_it(encoding: str, width: int) -> None:
    wild = "# Zoë → 🙂\n\n- 你好\n\n> said “so”\n\n---\n\n| a | b |\n|---|---|\n| … | ✓ |\n\n`x`"
    made = StepResult(
        status="done",
        agent="cödé→",
        text=wild,
        data={"files": [{"name": "é→.py", "language": "python", "content": "print('→ 🙂')"}]},
        artifacts=(Artifact(path="é→.png", media_type="image/png", bytes=1, sha256=""),),
    )
    out, err = Stream(encoding), Stream(encoding)
    reporter = TerminalReporter(terminal(width, stream=out), terminal(width, stream=err), every=None)
    reporter.plan(many(2), ["paid → “once”"])
    reporter.notice("replies are scripted…")
    reporter.finish(RunResult(status="failed", results={"only": made}, error=ErrorInfo(type="bug", message="→ 🙂")))
    assert "\\u" not in out.text.replace("\\u2192", "").replace("\\U0001f642", "")
    assert "error: -> ??" in err.text
    assert max(len(line) for line in out.text.splitlines()) <= width


def test_nothing_that_a_model_wrote_steers_the_terminal() -> None:
    evil = "\x1b[2J **bold** &#x202e; &#8203; \x9b31m \u202eback\x07"
    made = StepResult(
        status="failed",
        agent="\x1b[1m",
        text=evil,
        data={"files": [{"name": "\x1b]0;t\x07.py", "language": "\x1b[5m", "content": f"x = {evil}"}]},
        artifacts=(Artifact(path="\x1b[31m.png", media_type="\x1b[0m", bytes=1, sha256=""),),
        error=ErrorInfo(type="bug", message=evil, hint=evil),
    )
    text = reported(one(made)) + reported(one(made.model_copy(update={"error": None, "reason": evil})))
    for sign in "\x1b\x9b\x07\u202e\u200b":
        assert sign not in text
    assert "\\x1b[2J bold" in text


def test_a_link_shows_where_it_leads() -> None:
    made = StepResult(status="done", agent="file", text="- [your bank](https://evil.example/)")
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system="standard", _environ={})
    TerminalReporter(console, terminal(), every=None).finish(one(made))
    assert "https://evil.example/" in written(console)
    assert "\x1b]8" not in written(console)


def test_markdown_is_rendered_for_what_agents_say_and_lines_stay_lines_elsewhere() -> None:
    said = reported(
        one(StepResult(status="done", agent="file", text="## Title\n\n- **one**\n\n![Hero](hero.png) here"))
    )
    assert "## " not in said
    assert " • one" in said
    assert "│ Hero (hero.png) here" in said
    poem = reported(one(StepResult(status="done", agent="file", text="Roses are red\nviolets are blue")))
    assert "│ Roses are red  " in poem
    tool = reported(one(StepResult(status="done", tool="read_file", text="# a comment\n- an option")))
    assert "│ # a comment  " in tool


def test_code_is_coloured_by_its_language_and_words_never_depend_on_colours() -> None:
    plain, coloured = terminal(), Console(file=StringIO(), width=80, force_terminal=True, _environ={"TERM": "xterm"})
    for console in (plain, coloured):
        TerminalReporter(console, terminal(), every=None).finish(RESULT)
    assert "\x1b[94;49mh1\x1b[0m" in written(coloured)
    for word in ("done", "failed", "skipped"):
        assert word in written(plain)


def test_no_color_leaves_no_colours() -> None:
    environment = {"NO_COLOR": "1", "TERM": "xterm-256color"}
    console = Console(file=StringIO(), width=80, force_terminal=True, _environ=environment)
    TerminalReporter(console, terminal(), every=None).finish(RESULT)
    assert "\x1b[1m" in written(console)
    assert not re.search(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7])\b", written(console))


def test_long_results_are_cut_with_a_note_unless_verbose() -> None:
    text = "\n".join(f"line {i}" for i in range(100))
    made = StepResult(status="done", tool="read_file", text=text)
    assert "… 60 more lines; --verbose shows them" in reported(one(made))
    assert "line 99" not in reported(one(made))
    assert "line 99" in reported(one(made), verbose=True)
    broad = StepResult(status="done", agent="file", text="x" * 10_000)
    assert "… 4,000 more characters; --verbose shows them" in reported(one(broad))


def test_ten_thousand_results_are_a_screen_or_two_with_the_failed_ones_among_them() -> None:
    plan = many(10_000)
    results = {step.id: StepResult(status="done", agent="code", text="fine") for step in plan.plan}
    results["s5000"] = StepResult(status="failed", agent="code", error=ErrorInfo(type="bug", message="broken"))
    text = reported(result_of(plan, results))
    assert text.count("╭─") == 30
    assert "s5000 · code · failed" in text
    assert "s9999 · code · done" in text
    assert "and 9,970 more results; --verbose shows them all" in text
    assert "9,999 done, 1 failed" in text


def test_ten_thousand_steps_are_shown_as_forty_and_a_count() -> None:
    console = terminal()
    show_plan(console, many(10_000), [])
    text = written(console)
    assert "Plan: 10,000 steps" in text
    assert "s39 " in text
    assert "s40 " not in text
    assert "and 9,960 more steps; --verbose shows them all" in text


def test_a_run_without_results_shows_its_error_on_stderr_alone() -> None:
    out, err = terminal(), terminal()
    error = ErrorInfo(type="no_model", message="no OpenAI key", hint="Try: master-agent demo")
    TerminalReporter(out, err, every=None).finish(RunResult(status="failed", error=error))
    assert written(out) == ""
    assert written(err) == "error: no OpenAI key\n  Try: master-agent demo"


def test_a_piped_stdout_gets_the_plain_report_and_the_terminal_is_told_how_it_ended() -> None:
    out, err = pipe(), terminal()
    TerminalReporter(out, err, every=None).finish(RESULT)
    assert written(out).startswith("== hero (image): done, 3.1 s ==\nimages/hero.webp\n")
    assert "╭" not in written(out)
    assert written(err).startswith("save: failed in 0.2 s: index.html is there already\nPartly done · 2 done")


def test_a_piped_stderr_gets_plain_lines() -> None:
    out, err = terminal(), pipe()
    reporter = TerminalReporter(out, err)
    reporter.plan(PLAN, EFFECTS)
    for event in whole_run():
        reporter.tell(event)
    reporter.finish(RESULT)
    assert "  1. hero (image)\n     A sunset" in written(err)
    assert "hero: done in 3.1 s" in written(err)
    assert "─" not in written(err)
    assert written(out) == REPORT


def test_a_terminal_that_cannot_move_its_cursor_gets_lines_and_no_control_sequence() -> None:
    def dumb() -> Console:
        return Console(file=StringIO(), width=80, force_terminal=True, _environ={"TERM": "dumb"})

    out, err = dumb(), dumb()
    reporter = TerminalReporter(out, err, every=0.001)
    for event in whole_run():
        reporter.tell(event)
    reporter.finish(RESULT)
    assert "hero: rate limited, told to wait 2.0 s" in written(err)
    assert written(out) == REPORT
    assert "\x1b" not in written(out) + written(err)


def test_quiet_leaves_the_final_text_and_the_errors() -> None:
    out, err = terminal(), terminal()
    reporter = TerminalReporter(out, err, quiet=True, every=0.001)
    reporter.plan(PLAN, EFFECTS)
    reporter.notice("the replies are scripted")
    for event in whole_run():
        reporter.tell(event)
    reporter.finish(RESULT)
    assert written(out) == "The page is made."
    assert written(err) == "save: failed in 0.2 s: index.html is there already"


def test_a_plan_resumed_from_an_earlier_run_names_what_it_reuses() -> None:
    results = {**RESULT.results, "hero": RESULT.results["hero"].model_copy(update={"status": "reused"})}
    text = reported(RESULT.model_copy(update={"results": results}))
    assert "╭─ hero · image · reused ─" in text
    assert "1 done, 1 failed, 1 skipped, 1 reused" in text


LAZY = """
import sys
from io import StringIO
from pathlib import Path
from rich.console import Console
from tests.reporters.samples import PLAN, called, planned, terminal
from master_agent.reporters.terminal import TerminalReporter

def loaded():
    return [name for name in ("live", "markdown", "syntax") if f"rich.{name}" in sys.modules]

reporter = TerminalReporter(terminal(), terminal(), every=None)
reporter.plan(PLAN, [])
for event in [*planned(), called(None)]:
    reporter.tell(event)
assert not loaded(), loaded()
reporter._live.draw()
assert loaded() == ["live"], loaded()
"""


def test_richs_live_parts_are_loaded_only_when_the_first_request_is_out() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LAZY], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert run.returncode == 0, run.stderr


def test_events_of_a_finished_reporter_are_passed_over() -> None:
    err = terminal()
    reporter = TerminalReporter(terminal(), err, every=0.001)
    reporter.close()
    for event in [*planned(), called(None), StepStarted(step="hero", agent="image")]:
        reporter.tell(event)
    reporter.tell(StepFinished(step="unknown", result=StepResult(status="done")))
    reporter.close()
    assert written(err) == ""


def test_a_plan_of_one_step_needs_no_order_and_no_needs() -> None:
    console = terminal()
    show_plan(console, Plan(order="sequence", plan=many(1).plan), [])
    assert written(console).splitlines()[:2] == ["Plan: 1 step", "step   agent or tool   what it does"]
