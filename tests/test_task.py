"""A task in words, from the command line to the files: planned, approved, dispatched, gathered."""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, calls, plans, says
from tests.servers.replicate import TOKEN, Refusal, Script, stand_in
from tests.terminal import AtTerminal

PAGE = "<!doctype html>\n<title>Roast</title>\n"
HERO = {"id": "hero", "agent": "image", "prompt": "A roastery at dawn", "needs": []}
PAGE_STEP = {"id": "page", "agent": "code", "prompt": "A page that shows ${hero.path}", "needs": ["hero"]}
SAVE = {"id": "save", "tool": "save_result", "with": {"step": "page", "path": "index.html"}, "needs": ["page"]}
PICTURE = calls(("generate_image", {"prompt": "dawn", "aspect_ratio": "16:9", "seed": 3, "last": True}), step="hero")
CODE = says(f"Here it is.\n\n```html index.html\n{PAGE}```\n", step="page")
OFFLINE = "--image-provider=placeholder"


@pytest.fixture
def landing(cli: Cli) -> str:
    return cli.script(plans(HERO, PAGE_STEP, SAVE), PICTURE, CODE)


def test_a_task_becomes_a_picture_and_a_page_in_the_folder(cli: Cli, landing: str) -> None:
    ran = cli("Make a landing page", landing, OFFLINE, "--yes", "--json")

    assert ran.code == 0, ran.err
    result = ran.json
    assert result["status"] == "done"
    assert [result["results"][name]["status"] for name in ("hero", "page", "save")] == ["done"] * 3
    assert (cli.folder / "index.html").read_text() == PAGE
    (picture,) = result["results"]["hero"]["artifacts"]
    assert picture["path"] == "images/hero.png"
    assert (cli.folder / picture["path"]).read_bytes().startswith(b"\x89PNG")
    assert result["results"]["hero"]["data"]["seed"] == 3
    assert result["usage"]["calls"] == 3  # plan, picture, page: saving asks no model


def test_the_agents_are_told_of_what_they_need_as_data_between_marks(cli: Cli, landing: str) -> None:
    ran = cli("Make a landing page", landing, OFFLINE, "--yes", "--events")

    asked = {e["step"]: e["input"]["text"] for e in ran.events if e["type"] == "model_called" and e["turn"] == 1}
    mark = next(e for e in ran.events if e["type"] == "run_started")["mark"]
    assert f"shows <{mark}>images/hero.png</{mark}>" in asked["page"]
    assert f'<{mark} step="hero" agent="image">' in asked["page"]
    assert mark not in asked["hero"]


def test_a_plain_run_shows_results_and_totals_without_ansi(cli: Cli, landing: str) -> None:
    ran = cli("Make a landing page", landing, OFFLINE, "--yes")

    assert ran.code == 0
    assert "\x1b" not in ran.out + ran.err
    assert "index.html" in ran.out and "images/hero.png" in ran.out
    assert "hero" in ran.err  # progress


def test_verbose_tells_which_model_was_chosen_and_why(cli: Cli, landing: str) -> None:
    said = cli("Make a landing page", landing, OFFLINE, "--yes", "--verbose").err

    assert "models: replies come from the script" in said


def test_quiet_prints_the_final_text_alone(cli: Cli) -> None:
    script = cli.script(plans({"agent": "code", "prompt": "Say hello"}), says("Hello.", step="code_1"))

    ran = cli("Greet", script, "--yes", "--quiet")

    assert (ran.code, ran.out.strip(), ran.err) == (0, "Hello.", "")


def test_without_a_terminal_a_task_waits_and_its_plan_can_be_run(cli: Cli, landing: str) -> None:
    waits = cli("Make a landing page", landing, OFFLINE)

    assert waits.code == 75
    assert not (cli.folder / "index.html").exists()
    assert "--yes" in waits.err
    answers = cli.script(PICTURE, CODE, name="rest.jsonl")
    ran = cli("run", "-", answers, OFFLINE, stdin=waits.out)
    assert ran.code == 0, ran.err
    assert (cli.folder / "index.html").read_text() == PAGE


def test_without_a_terminal_json_holds_the_waiting_plan(cli: Cli, landing: str) -> None:
    waits = cli("Make a landing page", landing, OFFLINE, "--json")

    assert (waits.code, waits.json["status"]) == (75, "waiting")
    assert [step["id"] for step in waits.json["plan"]] == ["hero", "page", "save"]


def test_parameters_reach_planner_and_steps(cli: Cli) -> None:
    script = cli.script(
        plans({"id": "note", "agent": "code", "prompt": "Describe ${params.city}", "needs": []}),
        says("Seven hills.", step="note", when=">Lisbon<"),
    )

    ran = cli("Describe a city", script, "--param", "city=Lisbon", "--yes", "--json")

    assert (ran.code, ran.json["final"]) == (0, "Seven hills.")
    assert ran.json["params"] == {"city": "Lisbon"}


def test_the_planner_is_told_agents_tools_rules_and_files(cli: Cli) -> None:
    cli.file("notes/old.txt", "x" * 77)
    cli.file(".env", "SECRET=1")
    script = cli.script(plans({"agent": "code", "prompt": "Hi"}), says("Hi", step="code_1"))

    ran = cli("Tidy up", script, "--events", "--yes")

    planner = next(e for e in ran.events if e["type"] == "model_called" and e["agent"] == "planner")
    assert "Tidy up" in planner["input"]["text"]
    assert "notes/old.txt (77 bytes)" in planner["input"]["text"]
    assert ".env" not in planner["input"]["text"]


def test_a_failed_step_skips_only_what_needs_it(cli: Cli) -> None:
    script = cli.script(
        plans(HERO, PAGE_STEP, SAVE, {"id": "other", "agent": "code", "prompt": "A note", "needs": []}),
        calls(("generate_image", {"prompt": "dawn"}), step="hero", turn=1),
        says("It cannot be drawn.", step="hero", turn=2),
        says("A note.", step="other"),
        {"port": "thread", "step": "page", "error": {"type": "bad_request", "message": "no"}},
    )

    ran = cli("Make a landing page", script, "--yes", "--json")  # no token, no placeholder

    results = ran.json["results"]
    assert (ran.code, ran.json["status"]) == (3, "partial")
    assert results["other"]["status"] == "done"
    assert results["save"]["status"] == "skipped"
    assert 'it needs "hero", which failed' in results["page"]["reason"]
    assert 'it needs "page", which was skipped' in results["save"]["reason"]


def test_a_picture_without_a_token_fails_its_step_with_the_variables_name(cli: Cli) -> None:
    plan = cli.plan(
        {"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn"}, "needs": []},
        {"id": "other", "agent": "code", "prompt": "A note", "needs": []},
    )

    ran = cli("run", plan, cli.script(says("A note.")), "--json")

    hero = ran.json["results"]["hero"]
    assert (ran.code, hero["status"], hero["error"]["type"]) == (3, "failed", "missing_token")
    assert "REPLICATE_API_TOKEN" in hero["error"]["message"]
    assert ran.json["results"]["other"]["status"] == "done"


def test_an_empty_answer_is_no_result(cli: Cli) -> None:
    ran = cli("agents", "run", "code", "Hi", cli.script(says("  \n")), "--json")

    assert (ran.code, ran.json["results"]["code"]["error"]["type"]) == (1, "wrong_output")
    assert "empty" in ran.json["results"]["code"]["reason"]


def test_a_plan_of_tools_alone_needs_no_key(cli: Cli) -> None:
    cli.file("a.txt", "x")

    ran = cli("run", cli.plan({"tool": "list_files"}), "--json")

    assert (ran.code, "a.txt" in ran.json["final"]) == (0, True)


def test_an_image_agent_without_a_token_has_failed_and_not_lied(cli: Cli) -> None:
    script = cli.script(
        calls(("generate_image", {"prompt": "dawn", "last": True}), step="image", turn=1),
        says("Here is your picture!", step="image", turn=2),
    )

    ran = cli("agents", "run", "image", "A sunset", script, "--json")

    image = ran.json["results"]["image"]
    assert (ran.code, image["status"]) == (1, "failed")
    assert "REPLICATE_API_TOKEN" in image["error"]["message"]


def test_the_task_is_read_from_standard_input_for_a_dash(cli: Cli) -> None:
    script = cli.script(plans({"agent": "code", "prompt": "Hi"}), says("Hi", step="code_1"))

    ran = cli("-", script, "--yes", "--json", stdin="Write\na haiku\n")

    assert (ran.code, ran.json["task"]) == (0, "Write\na haiku")


def test_a_standard_input_that_nobody_named_is_never_read(cli: Cli) -> None:
    script = cli.script(plans({"agent": "code", "prompt": "Hi"}), says("Hi", step="code_1"))
    process = cli.start("Greet", script, "--yes", "--quiet", stdin=-1)  # an open pipe that never ends

    assert process.wait(timeout=30) == 0
    process.communicate()


@pytest.mark.parametrize("flag", ["--dry-run", "--plan-only"])
def test_a_dry_run_makes_the_plan_and_nothing_else(cli: Cli, flag: str, landing: str) -> None:
    ran = cli("Make a landing page", flag, landing)

    assert ran.code == 0
    assert [step["id"] for step in ran.json["plan"]] == ["hero", "page", "save"]
    assert ran.json["kind"] == "plan"
    assert list(cli.folder.iterdir()) == []


def test_a_plan_goes_through_a_pipe_into_run(cli: Cli, landing: str) -> None:
    plan = cli("plan", "Make a landing page", landing)
    ran = cli("run", "-", cli.script(PICTURE, CODE, name="rest.jsonl"), OFFLINE, "--json", stdin=plan.out)

    assert (plan.code, ran.code) == (0, 0)
    assert ran.json["task"] == "Make a landing page"


def test_a_failed_plan_leaves_stdout_empty_and_run_says_why(cli: Cli) -> None:
    failed = cli("plan", "Make a page", cli.script(says("I would rather not.", repeat=True)))
    assert (failed.code, failed.out) == (1, "")
    assert "no JSON object" in failed.err

    ran = cli("run", "-", stdin="")
    assert ran.code == 2
    assert "the command before it made no plan" in ran.err


def test_a_plan_is_saved_with_o_and_stdout_stays_empty(cli: Cli, landing: str) -> None:
    ran = cli("plan", "Make a landing page", "-o", "plan.json", landing)

    assert (ran.code, ran.out) == (0, "")
    assert json.loads((cli.folder / "plan.json").read_text())["task"] == "Make a landing page"
    assert cli("check", "plan.json").code == 0


def test_faults_are_shown_to_the_model_once_and_all_together(cli: Cli) -> None:
    script = cli.script(
        plans({"agent": "imge", "prompt": "x"}, {"agent": "code", "prompt": ""}),
        says({"plan": [{"agent": "code", "prompt": "Hi"}]}, agent="planner", when='"imge"'),
        says("Hi", step="code_1"),
    )

    ran = cli("Greet", script, "--yes", "--events")

    repair = [e for e in ran.events if e["type"] == "model_called" and e["agent"] == "planner"][1]["input"]["text"]
    assert "plan[0].agent" in repair and "plan[1].prompt" in repair
    assert next(e for e in ran.events if e["type"] == "plan_made")["plan"]["repaired"] is True
    assert ran.code == 0


def test_when_no_plan_can_be_had_the_run_halts_and_the_log_has_the_raw_answer(cli: Cli) -> None:
    log = cli.home / "log.jsonl"
    script = cli.script(says("Surely! Step one: relax.", repeat=True))

    ran = cli("Greet", script, "--yes", "--plan-repairs", "2", "--log-file", str(log))

    assert ran.code == 1
    assert "asked 3 times" in ran.err
    assert log.read_text().count("Surely! Step one: relax.") >= 3
    assert ran.out == ""


def test_the_second_go_at_a_file_that_is_there_needs_overwrite(cli: Cli) -> None:
    cli.file("index.html", "mine")
    answer = says("```html index.html\n<p>new</p>\n```", step="page")
    page = {"id": "page", "agent": "code", "prompt": "A page", "needs": []}
    save = {"id": "save", "tool": "save_result", "with": {"step": "page", "path": "index.html"}}

    refused = cli("run", cli.plan(page, save), cli.script(answer), "--json")
    assert refused.json["results"]["save"]["error"]["type"] == "file_refused"
    assert (cli.folder / "index.html").read_text() == "mine"

    save["with"]["overwrite"] = True  # type: ignore[index]
    ran = cli("run", cli.plan(page, save), cli.script(answer))
    assert ran.code == 0
    assert (cli.folder / "index.html").read_text() == "<p>new</p>\n"
    assert "index.html" in ran.err  # the plan says what it replaces


def test_a_run_goes_on_from_a_step_with_an_earlier_result(cli: Cli, landing: str) -> None:
    cli("plan", "Make a landing page", "-o", "plan.json", landing)
    first = cli("run", "plan.json", cli.script(PICTURE, CODE, name="a.jsonl"), OFFLINE, "--json")
    (cli.home / "result.json").write_text(first.out)
    again = says("```html\n<p>darker</p>\n```", step="page", when="images/hero.png")

    refused = cli("run", "plan.json", "--from", "page")
    assert refused.code == 2 and "hero" in refused.err and "--context" in refused.err
    context = ("--context", str(cli.home / "result.json"), "--json")
    ran = cli("run", "plan.json", "--from", "page", *context, cli.script(again, name="b.jsonl"))

    assert ran.code == 0, ran.out
    results = ran.json["results"]
    assert {name: result["status"] for name, result in results.items()} == {
        "hero": "reused",
        "page": "done",
        "save": "done",
    }
    assert results["hero"]["from_run"] == first.json["run_id"]
    assert (cli.folder / "index.html").read_text() == "<p>darker</p>\n"  # the earlier run's own file may be replaced


def test_a_file_that_was_touched_since_the_earlier_run_is_not_replaced(cli: Cli, landing: str) -> None:
    cli("plan", "Make a landing page", "-o", "plan.json", landing)
    first = cli("run", "plan.json", cli.script(PICTURE, CODE, name="a.jsonl"), OFFLINE, "--json")
    (cli.home / "result.json").write_text(first.out)
    cli.file("index.html", "mine now")

    ran = cli("run", "plan.json", "--from", "save", "--context", str(cli.home / "result.json"), "--json")

    assert ran.json["results"]["save"]["error"]["type"] == "file_refused"
    assert (cli.folder / "index.html").read_text() == "mine now"


def test_a_result_of_another_step_or_without_its_file_is_not_built_on(cli: Cli, landing: str) -> None:
    cli("plan", "Make a landing page", "-o", "plan.json", landing)
    first = cli("run", "plan.json", cli.script(PICTURE, CODE, name="a.jsonl"), OFFLINE, "--json")
    (cli.home / "result.json").write_text(first.out)
    context = ("--context", str(cli.home / "result.json"))
    plan = cli.folder / "plan.json"
    changed = plan.read_text().replace("A roastery at dawn", "A roastery at night")
    (cli.home / "changed.json").write_text(changed)

    another = cli("run", str(cli.home / "changed.json"), "--from", "page", *context)
    (cli.folder / "images" / "hero.png").unlink()
    gone = cli("run", str(plan), "--from", "page", *context)

    assert (another.code, "the step hero is another now" in another.err) == (2, True)
    assert (gone.code, "images/hero.png" in gone.err and "--from hero" in gone.err) == (2, True)


def test_from_a_step_on_nothing_else_is_run(cli: Cli) -> None:
    needs = {"a": [], "b": [], "c": ["b"]}
    steps = [{"id": name, "agent": "code", "prompt": "Hi", "needs": need} for name, need in needs.items()]
    (cli.home / "result.json").write_text(
        json.dumps({"kind": "result", "status": "partial", "results": {"b": {"status": "done", "text": "B"}}})
    )

    ran = cli(
        *("run", cli.plan(*steps), "--from", "c", "--context", str(cli.home / "result.json"), "--json"),
        cli.script(says("C.", step="c")),
    )

    assert ran.code == 0, ran.out
    assert {name: result["status"] for name, result in ran.json["results"].items()} == {"b": "reused", "c": "done"}


def test_a_result_object_is_taken_as_a_plan(cli: Cli, landing: str) -> None:
    first = cli("Make a landing page", landing, OFFLINE, "--yes", "--json")
    (cli.folder / "index.html").unlink()

    ran = cli("run", "-", cli.script(PICTURE, CODE, name="r.jsonl"), OFFLINE, "--json", stdin=first.out)

    assert ran.code == 0, ran.out
    assert ran.json["task"] == "Make a landing page"
    assert ran.json["results"]["hero"]["artifacts"][0]["path"] == "images/hero-2.png"


def test_a_limit_on_seconds_ends_the_run_and_keeps_what_is_done(cli: Cli) -> None:
    plan = cli.plan(
        {"id": "quick", "agent": "code", "prompt": "Hi", "needs": []},
        {"id": "slow", "agent": "code", "prompt": "Hi", "needs": []},
        {"id": "later", "agent": "code", "prompt": "Hi", "needs": ["slow"]},
    )
    script = cli.script(says("Hi", step="quick"), {"step": "slow", "reply": {"hang": True}})

    ran = cli("run", plan, script, "--timeout", "1", "--json")

    assert (ran.code, ran.json["status"], ran.json["error"]["type"]) == (5, "limited", "run_timeout")
    statuses = {name: result["status"] for name, result in ran.json["results"].items()}
    assert statuses == {"quick": "done", "slow": "cancelled", "later": "not_started"}


def test_a_step_that_takes_too_long_fails_alone(cli: Cli) -> None:
    plan = cli.plan(
        {"id": "slow", "agent": "code", "prompt": "Hi", "needs": []},
        {"id": "other", "agent": "code", "prompt": "Hi", "needs": []},
    )
    script = cli.script({"step": "slow", "reply": {"hang": True}}, says("Hi", step="other"))

    ran = cli("run", plan, script, "--step-timeout", "0.5", "--json")

    assert ran.code == 3
    assert ran.json["results"]["slow"]["error"]["type"] == "step_timeout"


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_run_keeps_what_is_done(cli: Cli, number: int, code: int, kind: str) -> None:
    plan = cli.plan(
        {"id": "quick", "agent": "code", "prompt": "Hi", "needs": []},
        {"id": "slow", "agent": "code", "prompt": "Hi", "needs": ["quick"]},
    )
    script = cli.script(says("Hi", step="quick"), {"step": "slow", "reply": {"hang": True}})
    process = cli.start("run", plan, script, "--events")
    events = _until(process, "slow")
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    events += [json.loads(line) for line in out.splitlines()]

    assert process.returncode == code
    assert (events[-1]["type"], events[-1]["status"], events[-1]["error"]["type"]) == (
        "run_finished",
        "cancelled",
        kind,
    )
    finished = {e["step"]: e["result"]["status"] for e in events if e["type"] == "step_finished"}
    assert finished == {"quick": "done", "slow": "cancelled"}


def _until(process: Any, step: str) -> list[dict[str, Any]]:
    """The events up to the request of a step."""
    events: list[dict[str, Any]] = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["type"] == "model_called" and events[-1]["step"] == step:
            return events
    raise AssertionError(f"{step} was never started: {events}")


def test_at_a_terminal_the_plan_is_shown_and_a_yes_runs_it(cli: Cli, landing: str) -> None:
    terminal = AtTerminal(cli, "Make a landing page", landing, OFFLINE)

    terminal.answer("Run it.*: ", "y\n")
    code, shown = terminal.end()

    assert code == 0, shown
    assert (cli.folder / "index.html").read_text() == PAGE


@pytest.mark.parametrize("said", ["n\n", "\n", "\x04"])
def test_at_a_terminal_anything_like_no_runs_nothing_and_is_no_failure(cli: Cli, landing: str, said: str) -> None:
    terminal = AtTerminal(cli, "Make a landing page", landing, OFFLINE)

    terminal.answer("Run it.*: ", said)
    code, shown = terminal.end()

    assert (code, "Nothing was run" in shown) == (0, True)
    assert list(cli.folder.iterdir()) == []


def test_at_a_terminal_the_plan_can_be_edited_and_faults_are_shown(cli: Cli, landing: str) -> None:
    editor = cli.home / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "path, count = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).with_suffix('.count')\n"
        "first = not count.exists(); count.touch()\n"
        "text = path.read_text()\n"
        "path.write_text(text.replace('\"code\"', '\"cod\"').replace('index.html', 'start.html') if first\n"
        "    else text.replace('\"cod\"', '\"code\"'))\n"
    )
    terminal = AtTerminal(cli, "Make a landing page", landing, OFFLINE, EDITOR=f"{sys.executable} {editor}")

    terminal.answer("Run it.*: ", "e\n")
    terminal.child.expect('did you mean "code"')
    terminal.child.expect("opens what you wrote")
    terminal.answer("Run it.*: ", "e\n")
    terminal.answer("Run it.*: ", "y\n")
    code, shown = terminal.end()

    assert code == 0, shown
    assert (cli.folder / "start.html").read_text() == PAGE


def test_at_a_terminal_ctrl_c_at_the_question_ends_with_130(cli: Cli, landing: str) -> None:
    terminal = AtTerminal(cli, "Make a landing page", landing, OFFLINE)

    terminal.answer("Run it.*: ", "\x03")
    code, _ = terminal.end()

    assert code == 130


def test_a_second_ctrl_c_ends_at_once(cli: Cli) -> None:
    plan = cli.plan({"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn"}})
    with stand_in(Script(end="never", cancel=(Refusal(200, delay=6.0),))) as replicate:
        environ = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url}
        process = cli.start("run", plan, "--quiet", env=environ)
        _wait_for(lambda: bool(replicate.seen("poll")))
        process.send_signal(signal.SIGINT)
        _wait_for(lambda: bool(replicate.seen("cancel")))  # it waits for the answer now
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert process.returncode == 130
    assert time.monotonic() - began < 4  # not the six seconds of the answer


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def test_the_folder_of_a_task_is_the_one_that_was_named(cli: Cli, landing: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()

    ran = cli("Make a landing page", landing, OFFLINE, "--yes", "--workspace", str(other))

    assert ran.code == 0
    assert (other / "index.html").exists() and not (cli.folder / "index.html").exists()
