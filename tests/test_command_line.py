"""The command line itself: what is a command, what is a task, what is said to whom, and with which exit code."""

import json
import os
from pathlib import Path

import pytest

from master_agent import __version__
from tests.conftest import Cli, plans, says
from tests.terminal import AtTerminal

COMMANDS = [
    *("plan", "run", "resume", "runs", "show", "why", "cost", "undo", "fork", "continue", "purge", "clean"),
    *("check", "schema", "agents", "tools", "doctor", "init", "demo"),
]
HELLO = [plans({"agent": "code", "prompt": "Hi"}), says("Hello.", step="code_1")]


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("--version").out == f"master-agent {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command_and_shows_examples(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments)

    assert ran.code == 0
    for command in COMMANDS:
        assert f"\n  {command}" in ran.out
    assert 'master-agent "Make a landing page' in ran.out


@pytest.mark.parametrize("slip", ["doctr", "Doctor", "demoo", "agent", "chek"])
def test_a_word_near_a_command_is_never_a_paid_run(cli: Cli, slip: str) -> None:
    ran = cli(slip, cli.script(*HELLO), "--yes")

    assert ran.code == 2
    assert "did you mean: master-agent " in ran.err
    assert f"master-agent -- {slip}" in ran.err


def test_after_two_dashes_anything_is_a_task(cli: Cli) -> None:
    ran = cli(cli.script(*HELLO), "--yes", "--json", "--", "doctor")

    assert (ran.code, ran.json["task"]) == (0, "doctor")


def test_one_word_that_is_near_no_command_is_a_task(cli: Cli) -> None:
    ran = cli("refactor", cli.script(*HELLO), "--yes", "--json")

    assert (ran.code, ran.json["task"]) == (0, "refactor")


def test_loose_words_are_refused_with_the_quoted_form(cli: Cli) -> None:
    ran = cli("make", "me", "a", "page", "--yes")

    assert ran.code == 2
    assert 'master-agent "make me a page"' in ran.err


def test_options_before_a_command_are_explained(cli: Cli) -> None:
    ran = cli("--quiet", "run", "plan.json")

    assert ran.code == 2
    assert "options come after the command" in ran.err


def test_options_may_stand_before_the_task(cli: Cli) -> None:
    assert cli("--yes", "--quiet", cli.script(*HELLO), "Greet").out.strip() == "Hello."


@pytest.mark.parametrize("task", ["", "   ", "\n\t"])
def test_a_task_of_nothing_is_refused(cli: Cli, task: str) -> None:
    assert cli(task, "--yes").code == 2
    assert cli("plan", task).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Greet", "--no-such-flag"], "no-such-flag"),
        (["plan"], "there is no task"),
        (["run"], "PLAN"),
        (["run", "nowhere.json"], "nowhere.json"),
        (["schema", "plans"], "plans"),
        (["Greet", "--concurrency", "many"], "--concurrency"),
        (["Greet", "--concurrency", "0"], "--concurrency"),
        (["Greet", "--timeout", "-1"], "--timeout"),
        (["Greet", "--wire", "telepathy"], "--wire"),
        (["Greet", "--param", "novalue"], "NAME=VALUE"),
        (["Greet", "--workspace", "nowhere"], "nowhere"),
        (["Greet", "-o", "plan.json"], "--dry-run"),
        (["agents", "show", "imgae"], 'did you mean "image"'),
        (["demo", "landig"], 'did you mean "landing"'),
        (["run", "-", "--context", "x"], "standard input is empty"),
    ],
)
def test_wrong_usage_is_exit_2_with_the_reason(cli: Cli, arguments: list[str], said: str) -> None:
    ran = cli(*arguments, *([cli.script(*HELLO)] if arguments[0] == "Greet" else []))

    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "arguments", [["Greet", "--no-such-flag"], ["run", "nowhere.json"], ["doctr"], ["x", "--events"]]
)
def test_programs_get_one_json_object_after_usage_errors_too(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments, "--json")

    assert ran.code == 2
    assert (ran.json["kind"], ran.json["status"]) == ("result", "failed")
    assert ran.json["error"]["message"]


def test_programs_get_one_terminal_event_after_usage_errors_too(cli: Cli) -> None:
    ran = cli("run", "nowhere.json", "--events")

    assert [event["type"] for event in ran.events] == ["run_started", "run_finished"]
    assert ran.events[-1]["error"]["type"] == "usage"


def test_without_a_key_there_is_no_model_and_three_ways_out(cli: Cli) -> None:
    ran = cli("Greet", "--yes", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (4, "no_model")
    for way in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "master-agent demo"):
        assert way in ran.err


def test_a_bug_has_its_traceback_and_its_own_exit_code(cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "platformdirs.py").write_text("raise RuntimeError('broken on purpose')")
    environ = {"PYTHONPATH": f"{broken}{os.pathsep}{cli.environ['PYTHONPATH']}", "MASTER_AGENT_STATE_DIR": ""}

    ran = cli("Greet", cli.script(*HELLO), "--json", env=environ)

    assert (ran.code, ran.json["error"]["type"]) == (70, "bug")
    assert "Traceback" in ran.err and "broken on purpose" in ran.err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("output", [[], ["--json"], ["--events"], ["--verbose"]])
def test_no_stream_breaks_on_a_character_it_cannot_show(cli: Cli, encoding: str, output: list[str]) -> None:
    text = "→ ✓ 日本 🎨 “quoted” \x1b[31mred"
    script = cli.script(plans({"agent": "code", "prompt": text}), says(text, step="code_1"))

    ran = cli("Say → ✓", script, "--yes", *output, env={"PYTHONIOENCODING": encoding}, encoding=encoding)

    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out
    if output == ["--json"]:
        assert ran.json["final"] == text
    if output == ["--events"]:
        assert ran.events[-1]["type"] == "run_finished"


def test_a_closed_pipe_is_no_traceback(cli: Cli) -> None:
    process = cli.start("schema", "event")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()

    assert "Traceback" not in process.stderr.read().decode()
    process.wait(timeout=30)
    process.stderr.close()


def test_check_names_every_fault_at_once(cli: Cli) -> None:
    plan = cli.plan(
        {"agent": "imge", "prompt": "x"}, {"id": "B", "agent": "code"}, {"tool": "save_result", "with": {"pth": 1}}
    )

    ran = cli("check", plan)

    assert (ran.code, ran.out) == (2, "")
    for fault in ("plan[0].agent", 'did you mean "image"', "plan[1].id", "plan[1].prompt", "plan[2].with", "pth"):
        assert fault in ran.err


def test_check_prints_the_plan_with_everything_written_out(cli: Cli) -> None:
    ran = cli("check", cli.plan({"agent": "Image", "prompt": "x"}, {"agent": "code", "prompt": "y"}), "--json")

    assert ran.code == 0
    assert ran.json["order"] == "sequence"
    assert [(s["id"], s["needs"]) for s in ran.json["plan"]] == [("image_1", []), ("code_1", ["image_1"])]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{", "is not JSON"),
        (b"[]", "no plan"),
        (b'{"plan": []}', "no steps"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b'{"plan": [' + b" " * (11 * 1024 * 1024) + b"]}", "a plan may hold"),
        (b"[" * 100_000, "nested too deeply"),
        (
            b'{"plan": [{"agent": "code", "prompt": "x"}' + b', {"agent": "code", "prompt": "x"}' * 10_000 + b"]}",
            "is the most",
        ),
    ],
)
def test_a_plan_file_that_is_none_is_exit_2(cli: Cli, content: bytes, said: str) -> None:
    path = cli.file("plan.json", content)

    for command in ("check", "run"):
        ran = cli(command, str(path))
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert "Traceback" not in ran.err


@pytest.mark.slow
def test_ten_thousand_steps_run(cli: Cli) -> None:
    steps = [
        {"id": f"s{i}", "agent": "code", "prompt": "x", "needs": [f"s{i - 1}"] if i % 7 else []} for i in range(10_000)
    ]

    ran = cli("run", cli.plan(*steps), cli.script({"repeat": True, "reply": {"text": "ok"}}), "--json", timeout=120)

    assert ran.code == 0
    assert len(ran.json["results"]) == 10_000


@pytest.mark.parametrize("kind", ["plan", "result", "event"])
def test_the_schema_describes_what_is_printed(cli: Cli, kind: str) -> None:
    import jsonschema

    schema = cli("schema", kind).json
    flag = {"plan": "--dry-run", "result": "--json", "event": "--events"}[kind]
    ran = cli("Greet", cli.script(*HELLO), "--yes", flag)
    printed = ran.events if kind == "event" else [ran.json]
    assert {value["kind"] for value in printed} == {kind}
    for value in printed:
        jsonschema.validate(value, schema)


def test_the_schema_of_a_plan_takes_the_smallest_form(cli: Cli) -> None:
    import jsonschema

    schema = cli("schema", "plan").json
    jsonschema.validate({"plan": [{"agent": "code", "prompt": "x"}, {"tool": "list_files", "needs": None}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"plan": [{"agent": "code"}]}, schema)


def test_agents_are_listed_shown_and_replaced_by_files(cli: Cli) -> None:
    assert [line.split("\t")[0] for line in cli("agents").out.splitlines()] == ["code", "file", "image"]
    cli.file(".master-agent/agents/poet.md", "---\nname: poet\ndescription: Writes poems.\n---\nYou write poems.\n")
    cli.file(".master-agent/agents/code.md", "---\nname: code\ndescription: Mine.\n---\nYou are mine.\n")

    listed = {agent["name"]: agent for agent in cli("agents", "--json").json["agents"]}

    assert sorted(listed) == ["code", "file", "image", "poet"]
    assert listed["code"]["description"] == "Mine."
    assert cli("agents", "show", "poet").out.endswith("You write poems.\n")
    ran = cli("agents", "run", "poet", "Rain", cli.script(says("Drip.", agent="poet")), "--quiet")
    assert (ran.code, ran.out.strip()) == (0, "Drip.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no front matter", "does not begin with"),
        ("---\nname: [\n---\nx", "broken YAML"),
        ("---\nname: poet\ndescription: x\ntools: [write_fil]\n---\nx", 'did you mean "write_file"'),
        ("---\nname: poet\ndescription: x\ncolour: red\n---\nx", 'unknown setting "colour"'),
        ("---\nname: poet\n---\n", "description is missing"),
        ("---\nname: poet\ndescription: x\ntemperature: hot\n---\nx", "temperature"),
        ("---\nname: poet\ndescription: x\noutput: {type: strange}\n---\nx", "output"),
        (
            "---\nname: poet\ndescription: x\noutput: {type: object, properties: {a: {pattern: '('}}}\n---\nx",
            "output: no JSON Schema",
        ),
    ],
)
def test_a_wrong_agent_file_is_exit_2_and_named(cli: Cli, content: str, said: str) -> None:
    cli.file(".master-agent/agents/poet.md", content)

    ran = cli("Greet", cli.script(*HELLO), "--yes")

    assert (ran.code, ran.out) == (2, "")
    assert "poet.md" in ran.err and said in ran.err


def test_two_files_of_one_folder_with_one_name_are_refused(cli: Cli) -> None:
    for name in ("a", "b"):
        cli.file(f".master-agent/agents/{name}.md", "---\nname: poet\ndescription: x\n---\nx")

    ran = cli("agents")

    assert ran.code == 2
    assert "a.md" in ran.err and "b.md" in ran.err


def test_an_agent_with_an_output_schema_is_held_to_it(cli: Cli) -> None:
    cli.file(
        ".master-agent/agents/judge.md",
        "---\nname: judge\ndescription: Judges.\noutput:\n  type: object\n  required: [good]\n"
        "  properties: {good: {type: boolean}}\n---\nYou judge.\n",
    )
    wrong, right = (
        says('{"good": "maybe"}', turn=1),
        says('```json\n{"good": true}\n```', turn=2, when="is not of type"),
    )

    good = cli("agents", "run", "judge", "This", cli.script(wrong, right), "--json")
    bad = cli("agents", "run", "judge", "This", cli.script(says('{"good": 1}', repeat=True)), "--json")

    assert (good.code, good.json["results"]["judge"]["data"]) == (0, {"good": True})
    assert (bad.code, bad.json["results"]["judge"]["error"]["type"]) == (1, "wrong_output")


def test_tools_are_listed_with_their_effects(cli: Cli) -> None:
    tools = {tool["name"]: tool for tool in cli("tools", "--json").json["tools"]}

    assert sorted(tools) == [
        "download_image", "generate_image", "list_files", "read_file", "run_code", "save_result", "write_file",
    ]  # fmt: skip
    assert tools["generate_image"]["effects"] == ["network", "pay", "write"]
    assert tools["read_file"]["effects"] == ["read"]
    assert "save_result\t" in cli("tools").out


def test_the_log_file_has_every_event_and_is_private(cli: Cli) -> None:
    log = cli.folder / "log.jsonl"

    assert cli("Greet", cli.script(*HELLO), "--yes", "--quiet", "--log-file", "log.jsonl").code == 0

    types = [json.loads(line)["type"] for line in log.read_text().splitlines()]
    assert types[0] == "run_started" and types[-1] == "run_finished"
    assert {"plan_made", "model_called", "model_replied", "step_started", "step_finished"} <= set(types)
    assert log.stat().st_mode & 0o777 == 0o600
    assert cli("Greet", cli.script(*HELLO), "--log-file", "no/such/folder.jsonl").code == 2


def test_events_are_numbered_and_end_once(cli: Cli) -> None:
    events = cli("Greet", cli.script(*HELLO), "--yes", "--events").events

    numbered = [event["seq"] for event in events if event["seq"] is not None]
    assert numbered == list(range(1, len(numbered) + 1))
    assert [e["type"] for e in events].count("run_finished") == 1
    assert {event["run_id"] for event in events} == {events[0]["run_id"]}
    assert "text_delta" in {event["type"] for event in events}


def test_the_journal_has_the_run_and_the_result_is_its_projection(cli: Cli) -> None:
    from master_agent.aggregator import project
    from master_agent.journal import read
    from master_agent.state import fold

    ran = cli("Greet", cli.script(*HELLO), "--yes", "--json")

    history = read(cli.home / "state" / "journal.db", ran.json["run_id"])
    assert project(fold(history)).model_dump_public() == ran.json


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_folder_that_cannot_be_written_is_exit_2(cli: Cli) -> None:
    (cli.home / "state").mkdir(mode=0o500)

    ran = cli("Greet", cli.script(*HELLO), "--yes")

    assert ran.code == 2 and "--state-dir" in ran.err


def test_a_state_folder_that_is_a_file_is_exit_2(cli: Cli) -> None:
    (cli.home / "state").write_text("")

    ran = cli("Greet", cli.script(*HELLO), "--yes", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "journal")
    assert "--state-dir" in ran.err


def test_a_broken_script_names_its_line(cli: Cli) -> None:
    path = cli.home / "broken.jsonl"
    path.write_text('{"reply": {"text": "x"}}\n{"reply": {"txt": "x"}}\n')

    ran = cli("Greet", "--script", str(path), "--yes")

    assert ran.code == 2 and "line 2" in ran.err and "txt" in ran.err


def test_a_folders_env_file_cannot_widen_a_run(cli: Cli) -> None:
    cli.file(".env", "MASTER_AGENT_ALLOW_HOST=169.254.169.254\nMASTER_AGENT_LOG_FILE=stolen.jsonl\n")

    ran = cli("Greet", cli.script(*HELLO), "--yes")

    assert ran.code == 0
    assert "MASTER_AGENT_ALLOW_HOST in .env is not used" in ran.err
    assert not (cli.folder / "stolen.jsonl").exists()


def test_init_asks_and_writes_env_and_config(cli: Cli) -> None:
    cli.file(".env", "# mine\nOTHER=1\n")
    terminal = AtTerminal(cli, "init")
    terminal.answer("OPENAI_API_KEY", "sk-typed\n")
    terminal.answer("OPENAI_BASE_URL", "\n")
    terminal.answer("REPLICATE_API_TOKEN", "\n")
    terminal.answer("model", "gpt-6-luna\n")
    terminal.answer("planner_model", "\n")
    terminal.answer("image_provider", "crayon\n")
    terminal.answer("image_provider", "placeholder\n")
    code, shown = terminal.end()

    assert code == 0
    assert "sk-typed" not in shown
    env = cli.folder / ".env"
    assert env.read_text().startswith("# mine\nOTHER=1\n") and "sk-typed" in env.read_text()
    assert env.stat().st_mode & 0o777 == 0o600
    config = (cli.home / "config" / "config.toml").read_text()
    assert config == 'model = "gpt-6-luna"\nimage_provider = "placeholder"\n'


def test_init_without_a_terminal_says_what_to_do_instead(cli: Cli) -> None:
    ran = cli("init")

    assert ran.code == 2 and ".env.example" in ran.err


@pytest.mark.parametrize("name", ["landing", "trip"])
def test_the_demo_says_that_its_replies_are_scripted_and_names_its_folder(cli: Cli, name: str) -> None:
    ran = cli("demo", name)

    assert ran.code == {"landing": 0, "trip": 3}[name]
    assert "scripted" in ran.err and "master-agent-demo" in ran.err
    assert (cli.folder / "master-agent-demo").is_dir()


def test_the_demo_makes_real_files_and_a_second_one_leaves_them_alone(cli: Cli) -> None:
    assert cli("demo").code == 0
    page = cli.folder / "master-agent-demo" / "index.html"
    assert 'src="images/hero.png"' in page.read_text()
    assert (cli.folder / "master-agent-demo" / "images" / "hero.png").read_bytes().startswith(b"\x89PNG")
    page.write_text("mine now")

    assert cli("demo").code == 0

    assert page.read_text() == "mine now"
    assert (cli.folder / "master-agent-demo-2" / "index.html").exists()


def test_the_demos_are_listed(cli: Cli) -> None:
    lines = cli("demo", "--list").out.splitlines()

    assert [line.split()[0] for line in lines] == ["landing", "trip"]
    assert "fail" in lines[1]


def test_no_color_is_honoured_at_a_terminal(cli: Cli) -> None:
    terminal = AtTerminal(cli, "demo", NO_COLOR="1")
    terminal.child.expect("scripted")
    code, shown = terminal.end()

    assert code == 0
    assert "\x1b[3" not in shown.replace("\x1b[39m", "")
