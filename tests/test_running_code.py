"""Code that models and plans want run, through the command line and in the sandbox: what goes in, what comes back."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from master_agent.errors import SandboxError
from master_agent.sandbox import mechanisms
from tests.conftest import ROOT, Cli, calls, plans, says
from tests.test_cassette import elsewhere, timeless, tree

NOWHERE = {"PATH": "/nowhere", "PYTHON_WITHOUT_LANDLOCK": "1"}
"""A machine on which no sandbox works."""


@pytest.fixture(scope="module")
def sandbox() -> str:
    try:
        return asyncio.run(mechanisms.find()).name
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error.message}")


def run_code(step: str, needs: list[str] | None = None, **arguments: Any) -> dict[str, Any]:
    return {"id": step, "tool": "run_code", "with": arguments, "needs": needs or []}


PYTHON = """
import pathlib, sys
print(sys.argv[1:], sys.stdin.read(), sorted(str(path) for path in pathlib.Path().rglob("*")))
pathlib.Path("out").mkdir()
pathlib.Path("out/made.txt").write_text("made")
pathlib.Path("there.txt").write_text("not asked for")
pathlib.Path("__pycache__").mkdir()
pathlib.Path("__pycache__/x.pyc").write_bytes(b"x")
pathlib.Path("link").symlink_to("/etc/passwd")
pathlib.Path(".env").write_text("KEY=stolen")
"""
DOUBLES = 'n=$(cat data/n.txt)\necho $((n * 2)) > data/n.txt\necho "was ${n}"\nrm data/sub/m.txt\n'


def test_a_program_gets_what_its_call_names_and_gives_back_what_it_made(cli: Cli, sandbox: str) -> None:
    cli.file("data/n.txt", "21\n").chmod(0o640)
    cli.file("data/sub/m.txt", "m")
    cli.file("data/.env", "KEY=secret")
    cli.file("there.txt", "the user's")
    cli.file("double.sh", DOUBLES)
    plan = cli.plan(
        run_code("python", language="Python", code=PYTHON, arguments=["a", "b c"], input="in", files=["data/**/*.txt"]),
        run_code("shell", language="sh", file="double.sh", files=["data/"]),
        run_code("fails", language="python", code="open('report', 'w').write('no'); raise SystemExit('it is wrong')"),
        run_code("ends", language="shell", code="echo half > half; while :; do :; done"),
        run_code("secret", language="shell", code="cat .env", files="data/.env"),
        run_code("nobody", language="cobol", code="x"),
        run_code("nul", language="shell", code="x", arguments=["a\0b"]),
    )
    ran = cli("run", plan, "--json", "--exec-cpu-seconds=1", "--exec-seconds=20")

    results = ran.json["results"]
    assert ran.code == 3, ran.out + ran.err
    assert results["python"]["text"].startswith(
        "['a', 'b c'] in ['data', 'data/n.txt', 'data/sub', 'data/sub/m.txt', 'main.py']"
    )
    data = results["python"]["data"]
    assert (data["exit_code"], data["ended_by"], data["saved"], data["mechanism"]) == (
        0,
        None,
        ["out/made.txt"],
        sandbox,
    )
    assert "the call did not name it" in data["not_saved"]["there.txt"]
    assert "may not be touched" in data["not_saved"][".env"]
    assert {"link", "__pycache__/x.pyc"} <= data["not_saved"].keys()
    assert results["python"]["artifacts"][0]["path"] == "out/made.txt"

    assert results["shell"]["text"].startswith("was 21\n[exit code 0, after ")
    assert (cli.folder / "data/n.txt").read_text() == "42\n"
    assert (cli.folder / "data/n.txt").stat().st_mode & 0o777 == 0o640
    assert (cli.folder / "data/sub/m.txt").read_text() == "m"
    assert "deleted there only" in results["shell"]["data"]["not_saved"]["data/sub/m.txt"]

    assert results["fails"]["error"]["type"] == "program_failed"
    assert results["fails"]["error"]["message"] == "the program ended with exit code 1: it is wrong"
    assert "[saved report (2 bytes)]" in results["fails"]["text"]  # a report counts, whatever it says
    assert (results["ends"]["data"]["ended_by"], results["ends"]["data"]["saved"]) == ("cpu_seconds", [])
    assert "--exec-cpu-seconds" in results["ends"]["error"]["hint"]
    assert results["secret"]["error"]["type"] == "file_refused"
    assert "an argument holds a NUL" in results["nul"]["error"]["message"]
    assert 'no language "cobol"' in results["nobody"]["error"]["message"]
    assert (cli.folder / "there.txt").read_text() == "the user's"
    assert not (cli.folder / "half").exists() and not (cli.folder / ".env").exists()
    (way,) = ran.json["executions"]
    assert (way["mechanism"], way["steps"]) == (sandbox, ["python", "shell", "fails", "ends"]) or way["steps"]

    assert cli("undo", ran.json["run_id"]).code == 0
    assert (cli.folder / "data/n.txt").read_text() == "21\n"
    assert not (cli.folder / "out").exists() and not (cli.folder / "report").exists()


def test_an_agent_runs_code_reads_what_went_wrong_and_ends_with_what_is_right(cli: Cli, sandbox: str) -> None:
    wrong = ("run_code", {"language": "python", "code": "print(1/0)", "last": True})
    right = ("run_code", {"language": "python", "code": "print(6 * 7)", "last": True})
    script = cli.script(
        plans({"id": "sum", "agent": "code", "prompt": "How much is it?", "tool": None, "with": [], "needs": []},
              {"id": "list", "agent": None, "prompt": None, "tool": "run_code", "needs": ["sum"],
               "with": [{"name": "language", "value": "python"},
                        {"name": "code", "value": "import sys; print(sys.argv)"},
                        {"name": "arguments", "value": ["${sum.data.exit_code}", "x"]}]}),
        calls(wrong, step="sum", turn=1),
        calls(right, step="sum", turn=2, when="ZeroDivisionError"),
    )  # fmt: skip
    ran = cli("Compute it", script, "--yes", "--json", "--exec-seconds=30")

    assert ran.code == 0, ran.out + ran.err
    result = ran.json["results"]["sum"]
    assert result["text"].startswith("42\n[exit code 0, after ")
    assert (result["data"]["stdout"], result["usage"]["calls"]) == ("42\n", 2)
    assert ran.json["results"]["list"]["data"]["stdout"] == "['main.py', '0', 'x']\n"
    assert ran.json["executions"][0]["steps"] == ["sum", "list"]


def test_words_count_where_a_program_has_failed(cli: Cli, sandbox: str) -> None:
    fails = ("run_code", {"language": "shell", "code": "exit 7", "last": True})
    script = cli.script(
        calls(fails, step="code", turn=1), says("The tests fail.", step="code", turn=2, when="exit code 7")
    )
    ran = cli("agents", "run", "code", "Test it", script, "--json")

    assert (ran.code, ran.json["final"]) == (0, "The tests fail.")


def test_the_question_says_how_code_is_run(cli: Cli, sandbox: str) -> None:
    plan = cli.plan(run_code("sum", language="python", code="print(42)"))

    assert f"1 step may run code in a sandbox ({sandbox}): sum" in cli("run", plan).err or sandbox != "bubblewrap"
    unsafe = cli("run", plan, "--unsafe-exec")
    assert "1 step may run code WITHOUT A SANDBOX (--unsafe-exec), with all that you may do: sum" in unsafe.err
    assert "note: code was run WITHOUT A SANDBOX (--unsafe-exec) in sum" in unsafe.out
    shown = cli("show", "--json").json
    assert (shown["unsafe_exec"], shown["executions"][0]["mechanism"]) == (True, "unsafe")


def test_no_sandbox_is_a_flag_of_one_run_and_comes_from_nowhere_else(cli: Cli, sandbox: str) -> None:
    missing = run_code("after", ["sum"], language="shell", file="later.sh")
    plan = cli.plan(run_code("sum", language="shell", code="echo 1"), missing)
    everywhere = {"MASTER_AGENT_UNSAFE_EXEC": "1"}
    cli.file(".env", "MASTER_AGENT_UNSAFE_EXEC=1\nMASTER_AGENT_EXEC_SECONDS=9999\n")

    first = cli("run", plan, "--unsafe-exec", "--json", env=everywhere)
    assert first.json["results"]["sum"]["data"]["mechanism"] == "unsafe"
    cli.file("later.sh", "echo later")
    again = cli("resume", "--yes", "--json", env=everywhere)  # it has to be said again

    assert again.json["results"]["after"]["data"]["mechanism"] == sandbox
    (cli.home / "config").mkdir()
    (cli.home / "config/config.toml").write_text("unsafe_exec = true\n")
    assert 'unknown key "unsafe_exec"' in cli("run", plan).err
    (cli.home / "config/config.toml").write_text("no_exec = true\n")
    both = cli("agents", "run", "code", "x", "--unsafe-exec", cli.script(says("x")))
    assert both.code == 2 and "exclude each other" in both.err


def test_without_any_sandbox_code_is_refused_and_everybody_is_told_what_to_install(cli: Cli) -> None:
    tries = ("run_code", {"language": "python", "code": "print(42)", "last": True})
    script = cli.script(
        calls(tries, step="words", turn=1),
        says("It was not run.", step="words", turn=2, when="no sandbox works here"),
    )
    agent = {"id": "words", "agent": "code", "prompt": "Compute", "needs": []}
    plan = cli.plan(run_code("tool", language="python", code="print(42)"), agent)
    ran = cli("run", plan, script, "--json", env=NOWHERE)

    assert ran.code == 3, ran.out + ran.err
    error = ran.json["results"]["tool"]["error"]
    assert error["type"] == "no_sandbox" and "apt install bubblewrap" in error["hint"]
    assert ran.json["results"]["words"]["text"] == "It was not run."
    (way,) = ran.json["executions"]
    assert (way["mechanism"], sorted(way["steps"]), way["error"]["type"]) == (None, ["tool", "words"], "no_sandbox")
    told = cli("run", plan, script, env=NOWHERE)
    assert "2 steps may run code but cannot: no sandbox works here" in told.err
    assert "note: no code was run in" in told.out and "apt install bubblewrap" in told.out
    doctor = {finding["name"]: finding for finding in cli("doctor", "--json", script, env=NOWHERE).json["findings"]}
    assert doctor["code"]["status"] == "missing" and "bubblewrap: " in doctor["code"]["message"]


def test_doctor_names_the_sandbox_and_what_it_does_not_stop(cli: Cli, sandbox: str) -> None:
    said = next(line for line in cli("doctor").out.splitlines() if " code: " in line)

    assert sandbox in said and "it does not stop: " in said
    assert "none is run: no_exec is set (flag)" in cli("doctor", "--no-exec").out
    assert "there is no Python at" in cli("doctor", "--exec-python", "nowhere").out


def test_no_exec_takes_the_tool_from_plans_agents_and_planner(cli: Cli) -> None:
    plan = cli.plan(run_code("sum", language="python", code="print(42)"))
    checked = cli("check", plan, "--no-exec")
    assert checked.code == 2 and 'no tool "run_code"' in checked.err and "--no-exec" in checked.err
    assert cli("check", plan).code == 0
    assert "run_code" in cli("tools").out and "run_code" not in cli("tools", "--no-exec").out
    tries = calls(("run_code", {"language": "python", "code": "print(42)", "last": True}), step="code", turn=1)
    script = cli.script(tries, says("As you like.", step="code", when="not a tool of code"))
    env = {"MASTER_AGENT_NO_EXEC": "1"}
    assert cli("agents", "run", "code", "Compute", script, "--json", env=env).json["final"] == "As you like."
    cassette = cli.home / "c.jsonl"
    planned = cli.script(plans({"id": "a", "agent": "code", "prompt": "x"}), says("x"))
    for flags, there in ((("--no-exec",), False), ((), True)):
        env = {"MASTER_AGENT_RECORD": str(cassette)}
        cli("Do it", planned, "--dry-run", *flags, env=env)
        assert ("run_code" in cassette.read_text()) is there


@pytest.mark.slow
def test_a_program_that_died_half_way_is_run_again_on_what_it_had_found(cli: Cli, sandbox: str) -> None:
    count = "import pathlib\np = pathlib.Path('n.txt')\np.write_text(str(int(p.read_text()) + 1))\nprint(p.read_text())"
    plan = cli.plan(run_code("count", language="python", code=count, files=["n.txt"]))

    script = cli.script(says("nothing")).removeprefix("--")

    def die(number: int, how: str) -> list[str]:
        cli.file("n.txt", "1")
        command = [sys.executable, "-m", "tests.crash_driver", plan, str(number), how, script]
        subprocess.run(
            command, cwd=cli.folder, env={**cli.environ, "PYTHONPATH": f"{cli.environ['PYTHONPATH']}:{ROOT}"}
        )
        return [event["type"] for event in cli("show", "--events").events]

    whole = die(0, "after")
    changed = whole.index("file_changed") + 1
    assert whole[changed] == "tool_returned"
    for number, how, was in ((changed, "after", "1"), (changed + 1, "at once", "2")):
        assert die(number, how)[-1] == "file_changed"
        assert (cli.folder / "n.txt").read_text() == was
        again = cli("resume", "--json")
        assert (again.code, again.json["results"]["count"]["data"]["stdout"]) == (0, "2\n"), again.out
        assert (cli.folder / "n.txt").read_text() == "2"
        assert cli("undo", again.json["run_id"]).code == 0
        assert (cli.folder / "n.txt").read_text() == "1"


def test_a_recorded_run_runs_its_code_again_in_a_replay(cli: Cli, sandbox: str) -> None:
    other, cassette = elsewhere(cli), cli.home / "run.jsonl"
    use = ("run_code", {"language": "shell", "code": "echo made > made.txt; echo 42"})
    script = cli.script(calls(use, step="code", turn=1), says("It is 42.", step="code", turn=2, when="42"))
    ran = cli("agents", "run", "code", "Compute", "--json", script, env={"MASTER_AGENT_RECORD": str(cassette)})
    again = other("agents", "run", "code", "Compute", "--json", "--replay", str(cassette))

    assert (ran.code, again.code) == (0, 0), ran.out + again.out
    assert tree(other.folder) == tree(cli.folder) == {"made.txt": b"made\n"}
    assert timeless(again.json)["final"] == timeless(ran.json)["final"] == "It is 42."


@pytest.fixture
def environment() -> Iterator[Path]:
    """An environment with a package, where everybody may read."""
    top = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="environment-"))
    top.chmod(0o755)
    systems = next(iter(sorted(Path("/usr/bin").glob("python3.[0-9]*[0-9]"))), None)  # which everybody may read
    python = systems or Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    packages = top / "lib" / python.name / "site-packages"
    packages.mkdir(parents=True)
    (top / "bin").mkdir()
    (top / "bin/python").symlink_to(python)
    (top / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
    (packages / "mine.py").write_text("answer = 42\n")
    yield top
    shutil.rmtree(top)


def test_the_packages_of_an_environment_that_was_named_can_be_used(cli: Cli, sandbox: str, environment: Path) -> None:
    plan = cli.plan(run_code("sum", language="python", code="import mine; print(mine.answer)"))

    assert "No module named 'mine'" in cli("run", plan, "--json").json["results"]["sum"]["data"]["stderr"]
    for named in (environment, environment / "bin/python"):
        ran = cli("run", plan, "--json", "--exec-python", str(named))
        assert ran.code == 0, ran.out
        assert json.loads(ran.out)["results"]["sum"]["data"]["stdout"] == "42\n"


PROBE = """import os, sys
for path in sys.argv[1:]:
    try: print(open(path).read() if os.path.isfile(path) else os.listdir(path))
    except OSError as error: print(type(error).__name__)
"""


def test_of_an_environment_that_was_named_nothing_else_is_read_that_lies_in_its_folder(
    cli: Cli, sandbox: str, environment: Path, tmp_path: Path
) -> None:
    """It may be made in the folder of a project, hold links, or be no environment but a folder with programs."""
    secret = environment / "secret.txt"
    secret.write_text("SECRET")

    def read(named: Path) -> str:
        plan = cli.plan(run_code("x", language="python", code=PROBE, arguments=[str(secret)]))
        result = cli("run", plan, "--json", "--exec-python", str(named)).json["results"]["x"]
        return str(result["text"] or result["error"]["message"])

    assert "SECRET" not in read(environment) and "Error" in read(environment)

    (environment / "pyvenv.cfg").unlink()
    assert "exit code 0" in read(environment) and "SECRET" not in read(environment)
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (environment / "include").symlink_to(tmp_path)
    assert "leads out of its environment" in read(environment)


@pytest.mark.slow  # the README's picture shows it in every run
def test_the_demo_runs_a_real_program(cli: Cli, sandbox: str) -> None:
    ran = cli("demo", "--json")
    check = ran.json["results"]["check"]

    assert ran.code == 0, ran.out
    assert "images/hero.png: 1368 x 768, described as 'The roastery at dawn'\nall well\n[exit code 0" in check["text"]
    assert (check["data"]["mechanism"], check["usage"]["calls"]) == (sandbox, 1)


@pytest.mark.slow
def test_the_demo_ends_well_where_no_program_can_run_and_says_what_to_install(cli: Cli) -> None:
    ran = cli("demo", env=NOWHERE)
    assert ran.code == 0, ran.out + ran.err
    assert "The page was not checked: no program can be run safely on this machine." in ran.out
    assert "note: no code was run in check: no sandbox works here" in ran.out and "apt install bubblewrap" in ran.out

    assert "The page was not checked: no program may be run here." in cli("demo", "--no-exec", "--quiet").out


def test_a_file_that_is_new_is_never_executable_and_one_that_is_replaced_keeps_its_mode(cli: Cli, sandbox: str) -> None:
    cli.file("old.sh", "#!/bin/sh\necho old\n").chmod(0o750)
    cli.file("plain.sh", "echo plain\n").chmod(0o604)
    changes = 'for f in old.sh plain.sh made.sh; do printf "#!/bin/sh\\necho ran\\n" > $f; chmod 777 $f; done\n'
    write = {"tool": "write_file", "needs": ["run"]}
    plan = cli.plan(
        run_code("run", language="sh", code=changes, files=["old.sh", "plain.sh"]),
        {**write, "id": "new", "with": {"path": "new.sh", "content": "#!/bin/sh\necho new\n"}},
        {**write, "id": "again", "with": {"path": "old.sh", "content": "#!/bin/sh\necho 2\n", "overwrite": True}},
        {**write, "id": "page", "with": {"path": "page.html", "content": "<p>"}},
    )

    ran = cli("run", plan, "--json")

    assert ran.code == 0, ran.out
    modes = {path.name: path.stat().st_mode & 0o777 for path in cli.folder.glob("*.sh")}
    assert (modes["old.sh"], modes["plain.sh"]) == (0o750, 0o604)
    assert modes["made.sh"] & 0o111 == modes["new.sh"] & 0o111 == 0
    texts = {name: result["text"] for name, result in ran.json["results"].items()}
    assert "new.sh (19 bytes); whoever runs it as a program makes it executable first: chmod +x new.sh" in texts["new"]
    assert "chmod" not in texts["again"] + texts["page"]
