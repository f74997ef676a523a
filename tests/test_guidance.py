"""What is said to a person: at the question, of wrong words and settings, in help and completion."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from master_agent.cli.commands import COMMANDS
from tests.conftest import Cli, plans, says
from tests.terminal import AtTerminal

HELLO = [plans({"agent": "code", "prompt": "Hi"}), says("Hello.", step="code_1")]
HELPS = [*([command] for command in COMMANDS), ["agents", "show"], ["agents", "run"], ["a task"]]


@pytest.mark.parametrize("command", HELPS)
def test_each_command_shows_examples_and_a_clean_usage_line(cli: Cli, command: list[str]) -> None:
    text = cli(*command, "--help").out

    usage = text.splitlines()[0]
    assert usage.startswith("Usage: master-agent ")
    assert "Examples:\n" in text
    assert not any(sign in usage for sign in ("{", "[]", "[[", "...")), usage
    assert "<str>" not in text and "list[" not in text


def test_the_programs_help_names_the_version(cli: Cli) -> None:
    assert "--version" in cli("--help").out
    assert cli("--version").out == cli("-V").out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("", COMMANDS),
        ("cl", ["clean"]),
        ("run plan.json --wire ", ["responses", "chat", "assistants", "scripted"]),
        ("run plan.json --wire c", ["chat"]),
        ("plan --image-provider ", ["replicate", "openai", "placeholder"]),
        ("plan --thread-store n", ["none"]),
        ("agents show ", ["code", "file", "image"]),
        ("agents run im", ["image"]),
        ("demo l", ["landing"]),
        ("schema ", ["plan", "result", "event"]),
    ],
)
def test_commands_and_values_are_completed(cli: Cli, words: str, completed: list[str]) -> None:
    line = f"master-agent {words}"
    environ = {
        "_MASTER_AGENT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }

    assert sorted(cli(env=environ).out.split()) == sorted(completed)


@pytest.mark.parametrize(
    ("command", "form"),
    [
        (["plan"], 'master-agent plan "make a page"'),
        (["agents", "run", "code"], 'master-agent agents run code "make a page"'),
        ([], 'master-agent "make a page"'),
    ],
)
def test_loose_words_are_shown_as_their_command_takes_them(cli: Cli, command: list[str], form: str) -> None:
    ran = cli(*command, "make", "a", "page")

    assert (ran.code, form in ran.err) == (2, True), ran.err


def test_an_agents_prompt_is_read_from_standard_input_for_a_dash(cli: Cli) -> None:
    script = cli.script(says("Drip.", agent="code", when="about rain"))

    ran = cli("agents", "run", "code", "-", script, "--quiet", stdin="Write\nabout rain\n")

    assert (ran.code, ran.out.strip()) == (0, "Drip."), ran.err


def test_check_takes_parameters_and_names_standard_input(cli: Cli) -> None:
    plan = json.dumps({"plan": [{"agent": "code", "prompt": "About ${params.city}"}]})

    missing = cli("check", "-", stdin=plan)
    good = cli("check", "-", "--param", "city=Lisbon", "--param", "unused=1", stdin=plan)

    assert missing.code == 2 and "--param city=VALUE" in missing.err and "standard input" in missing.err
    first, *may = good.out.splitlines()
    assert (good.code, first) == (0, "standard input: a good plan of 1 step (sequence)")
    assert may[0] == f"  * 1 step may write files beneath {cli.folder}: code_1" and "1 step may run code" in may[1]
    assert "the parameter unused is used nowhere" in good.err and "city" not in good.err


@pytest.mark.parametrize("arguments", [["plan", "Greet"], ["Greet", "--yes"], ["run", "PLAN"]])
def test_a_parameter_that_is_used_nowhere_is_told(cli: Cli, arguments: list[str]) -> None:
    plan = cli.plan({"agent": "code", "prompt": "Hi"})
    words = [plan if word == "PLAN" else word for word in arguments]

    ran = cli(*words, cli.script(*HELLO), "--param", "city=Lisbon")

    assert ran.code == 0
    assert ran.err.count("the parameter city is used nowhere") == 1


def test_a_parameter_is_refused_only_when_no_reference_can_name_it(cli: Cli) -> None:
    plan = cli.plan({"agent": "code", "prompt": "About ${params.the-city}"})

    assert cli("check", plan, "--param", "the-city=Lisbon").code == 0
    for name in ("größe", "a.b", "a b", ""):
        ran = cli("check", plan, "--param", f"{name}=1")
        assert (ran.code, "--param takes NAME=VALUE" in ran.err) == (2, True)


def test_the_result_of_a_run_without_a_plan_says_why_there_is_none(cli: Cli) -> None:
    failed = cli("Greet", cli.script(says("No.", repeat=True)), "--yes", "--json")

    ran = cli("run", "-", stdin=failed.out)

    assert failed.json["plan"] == [] and failed.json["error"]["message"]
    assert ran.code == 2
    assert f"the command before it made no plan: {failed.json['error']['message']}" in ran.err


def test_a_large_plan_file_is_told_with_its_size(cli: Cli) -> None:
    path = cli.file("plan.json", b" " * 11_534_336)

    assert "holds 11,534,336 bytes" in cli("check", str(path)).err
    assert "holds more than the 10,485,760 bytes" in cli("check", "-", stdin=b" " * 11_534_336).err


@pytest.mark.parametrize("content", ["# mine\n\nFINE=1\nOPENAI_API_KEY 'sk-secret\n", "A=1\nB=2\n\nC='sk-secret\n"])
def test_a_line_of_env_that_cannot_be_read_is_named_and_not_shown(cli: Cli, content: str) -> None:
    cli.file(".env", content)

    ran = cli("Greet", cli.script(*HELLO), "--yes")

    assert (ran.code, f"line 4 of {cli.folder / '.env'} cannot be read" in ran.err) == (2, True), ran.err
    assert "sk-secret" not in ran.err and "python-dotenv" not in ran.err
    assert cli("demo", "--quiet").code == 0


def test_a_misspelt_variable_is_told_wherever_it_stands(cli: Cli) -> None:
    cli.file(".env", "MASTER_AGENT_MODLE=x\n")

    ran = cli("doctor", cli.script(*HELLO), env={"MASTER_AGENT_WORKSPCE": "."})

    assert "environment: MASTER_AGENT_WORKSPCE is no setting" in ran.out
    assert ".env: MASTER_AGENT_MODLE is no setting" in ran.out
    assert "Did you mean MASTER_AGENT_MODEL?" in ran.out


@pytest.mark.parametrize("address", ["localhost:11434", "ftp://host/v1", "http://", "http://h:99999/v1", "nonsense"])
def test_an_address_that_is_none_is_named_with_its_source(cli: Cli, address: str) -> None:
    flag = cli("Greet", "--openai-base-url", address, "--json")
    environment = cli("Greet", env={"OPENAI_BASE_URL": address})
    cli.file(".env", f"OPENAI_BASE_URL={address}\n")
    folder = cli("doctor")

    assert (flag.code, flag.json["error"]["type"]) == (2, "settings")
    assert flag.json["error"]["message"].startswith("--openai-base-url: ")
    assert environment.code == 2 and "master-agent: OPENAI_BASE_URL: " in environment.err
    assert folder.code == 2 and "OPENAI_BASE_URL in .env: " in folder.err
    assert "http://localhost:11434/v1" in folder.err


def test_no_password_and_no_query_of_an_address_is_shown(cli: Cli) -> None:
    address = "http://user:p%40ss@127.0.0.1:9/v1?key=hidden"
    environ = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "sk-1234567890"}

    said = ""
    for command in (["doctor"], ["doctor", "--json"], ["Greet", "--yes", "--verbose", "--attempts", "1"]):
        ran = cli(*command, env=environ)
        said += ran.out + ran.err
    said += cli("doctor", "--model", "x", env={**environ, "OPENAI_BASE_URL": f"x{address}"}).err

    assert "127.0.0.1:9/v1" in said
    for secret in ("p%40ss", "user", "hidden", "key=", "sk-1234567890"):
        assert secret not in said, said


def test_an_agent_of_the_folder_is_announced(cli: Cli) -> None:
    cli.file(".master-agent/agents/code.md", "---\nname: code\ndescription: Mine.\n---\nYou are mine.\n")

    ran = cli("Greet", cli.script(*HELLO), "--yes")

    assert "agent code comes from this folder in place of the built-in one: .master-agent/agents/code.md" in ran.err


def at_question(cli: Cli, *arguments: str, **variables: Any) -> AtTerminal:
    return AtTerminal(cli, "Greet", cli.script(*HELLO), *arguments, **variables)


def test_what_was_typed_before_the_question_is_no_answer_to_it(cli: Cli) -> None:
    terminal = at_question(cli)
    terminal.child.send("y\n")
    terminal.answer("Run it.*: ", "n\n")
    code, shown = terminal.end()

    assert (code, "Nothing was run." in shown) == (0, True)


def test_a_wrong_answer_says_what_the_answers_are(cli: Cli) -> None:
    terminal = at_question(cli)

    terminal.answer("Run it.*: ", "maybe\n")
    terminal.child.expect('"maybe" is no answer: y runs the plan')
    terminal.child.expect("Run it.*: ")
    assert "Plan: 1 step" not in terminal.child.before
    terminal.child.send("y\n")
    code, shown = terminal.end()

    assert (code, "Hello." in shown) == (0, True)


@pytest.mark.parametrize(("said", "code"), [("n\n", 0), ("\x03", 130)])
def test_a_plan_that_was_not_run_can_be_had_again(cli: Cli, said: str, code: int) -> None:
    terminal = at_question(cli)

    terminal.answer("Run it.*: ", said)
    ended, shown = terminal.end()

    assert ended == code
    assert "Nothing was run." in shown
    assert not any(word in shown for word in ("kept their results", "not started", "stopping", "╭"))
    run_id = shown.split("master-agent show ")[1].split(" ")[0]
    again = cli(
        "run", "-", cli.script(*HELLO[1:], name="rest.jsonl"), "--quiet", stdin=cli("show", run_id, "--json").out
    )
    assert again.out.strip() == "Hello."


def test_ctrl_c_in_the_editor_is_the_editors(cli: Cli) -> None:
    editor = cli.home / "editor.py"
    editor.write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(0))\n"
        "print('editing', flush=True)\ntime.sleep(30)\n"
    )
    terminal = at_question(cli, EDITOR=f"{sys.executable} {editor}", VISUAL="")

    terminal.answer("Run it.*: ", "e\n")
    terminal.child.expect("editing")
    terminal.child.sendintr()
    terminal.answer("Run it.*: ", "y\n")
    code, shown = terminal.end()

    assert (code, "Hello." in shown) == (0, True)


def test_at_a_terminal_words_are_not_broken(cli: Cli) -> None:
    terminal = AtTerminal(cli, "Greet", "--yes", columns=40)
    terminal.answer("Download it", "n\n")  # offered where nobody else answers
    code, shown = terminal.end()

    assert code == 4
    lines = [line.rstrip() for line in shown.replace("\r", "").splitlines()]
    assert all(len(line) <= 40 for line in lines if " " in line.strip())
    assert " ".join(" ".join(lines).split()).count("no OPENAI_BASE_URL, and no server") == 1

    doctor, shown = AtTerminal(cli, "doctor", cli.script(*HELLO), columns=60).end()
    assert doctor == 0
    assert all(len(line.rstrip()) <= 60 for line in shown.splitlines() if "/" not in line)


def test_init_asks_again_for_an_address_and_says_what_is_set(cli: Cli) -> None:
    cli.file(".env", "OPENAI_API_KEY=sk-old-secret\nOPENAI_BASE_URL=http://me:secret@localhost:1/v1\n")
    terminal = AtTerminal(cli, "init", columns=200)
    terminal.answer(r"OPENAI_API_KEY \[set, in .env\]", "\n")
    terminal.answer(r"OPENAI_BASE_URL .*now http://localhost:1/v1, in .env\]", "localhost:2\n")
    terminal.child.expect("is no address of a server")
    terminal.answer("OPENAI_BASE_URL", "http://localhost:2/v1\n")
    terminal.answer("REPLICATE_API_TOKEN", "\n")
    for name in ("model", "planner_model", "image_provider"):
        terminal.answer(f"{name}:", "\n")
    code, shown = terminal.end()

    assert code == 0, shown
    assert "secret" not in shown
    assert "http://localhost:2/v1" in (cli.folder / ".env").read_text()


def test_the_config_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from master_agent.cli.init import write_config

    path = tmp_path / "config" / "config.toml"
    write_config(path, {"model": "a"})
    path.write_text("# mine\n" + path.read_text())
    before = path.stat().st_ino
    write_config(path, {"planner_model": "b"})

    assert path.read_text() == '# mine\nmodel = "a"\nplanner_model = "b"\n'
    assert path.stat().st_ino != before  # another file in its place, never one half written
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]
