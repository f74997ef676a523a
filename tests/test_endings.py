"""How the program ends when something breaks: told once, in the form asked for, with what was done until then."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GUARD, Cli, plans, says
from tests.terminal import AtTerminal

QUICK = {"id": "quick", "agent": "code", "prompt": "Hi", "needs": []}
SLOW = {"id": "slow", "agent": "code", "prompt": "Hi", "needs": ["quick"]}
HELLO = [plans({"agent": "code", "prompt": "Hi"}), says("Hello.", step="code_1")]


GUARDED = f"""
import importlib.util, os, runpy, signal, sys
runpy.run_path({str(GUARD / "sitecustomize.py")!r})
"""
WITH_A_BUG = """
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name != "master_agent.runner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module._schema_fault = broken
        spec.loader.exec_module = exec_module
        return spec

def broken(*_):
    raise RuntimeError("broken on purpose")

sys.meta_path.insert(0, Broken())
"""
INTERRUPTED = """
class Once:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Once())
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A file that Python runs at its start, with no socket leaving the machine."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder / "sitecustomize.py"


@pytest.fixture
def with_a_bug(cli: Cli, site: Path) -> Sequence[str]:
    """A run whose second step meets a bug."""
    site.write_text(GUARDED + WITH_A_BUG)
    cli.variables["PYTHONPATH"] = str(site.parent)
    judge = "---\nname: judge\ndescription: Judges.\noutput: {type: object}\n---\nYou judge.\n"
    cli.file(".master-agent/agents/judge.md", judge)
    plan = cli.plan(QUICK, {"id": "slow", "agent": "judge", "prompt": "Hi", "needs": ["quick"]})
    return "run", plan, cli.script(says("Hi", step="quick"), says('{"good": true}', step="slow"))


def test_a_bug_in_a_run_ends_the_events_once(cli: Cli, with_a_bug: Sequence[str]) -> None:
    ran = cli(*with_a_bug, "--events")

    types = [event["type"] for event in ran.events]
    assert (ran.code, types.count("run_started"), types.count("run_finished")) == (70, 1, 1)
    assert (types[-1], ran.events[-1]["error"]["type"]) == ("run_finished", "bug")
    assert "Traceback" in ran.err and "report it" in ran.err


def test_a_bug_in_a_run_loses_nothing_that_was_done(cli: Cli, with_a_bug: Sequence[str]) -> None:
    ran = cli(*with_a_bug, "--json")
    plain = cli(*with_a_bug)

    assert (ran.code, ran.json["status"], ran.json["error"]["type"]) == (70, "failed", "bug")
    assert ran.json["results"]["quick"]["text"] == "Hi"
    assert ran.json["run_id"]
    assert (plain.code, "== quick (code): done" in plain.out) == (70, True)
    assert plain.err.count("broken on purpose") == 4  # the progress, its result, the traceback, the message


@pytest.mark.parametrize("output", ["--events", "--json"])
def test_a_journal_that_breaks_in_a_run_is_told_once(cli: Cli, output: str) -> None:
    script = cli.script(says("Hi", step="quick"), {"step": "slow", "reply": {"hang": True}})
    log = cli.folder / "log.jsonl"
    process = cli.start("run", cli.plan(QUICK, SLOW), script, output, "--log-file", str(log))
    _wait_for_step(log, "slow")
    with sqlite3.connect(cli.home / "state" / "journal.db") as database:
        database.execute("DROP TABLE events")
    database.close()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 2
    assert b"the journal cannot be written" in err and b"Traceback" not in err
    if output == "--json":
        result = json.loads(out)
        assert (result["status"], result["error"]["type"]) == ("failed", "journal")
        assert result["results"]["quick"]["text"] == "Hi"
    else:
        types = [json.loads(line)["type"] for line in out.splitlines()]
        assert (types.count("run_started"), types.count("run_finished"), types[-1]) == (1, 1, "run_finished")


def _wait_for_step(log: Path, step: str) -> None:
    from time import monotonic, sleep

    end = monotonic() + 30
    while not (log.exists() and f'"type":"model_called","step":"{step}"' in _compact(log)):
        assert monotonic() < end, "it never came to that"
        sleep(0.02)


def _compact(log: Path) -> str:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return "\n".join(f'"type":"{line["type"]}","step":"{line.get("step")}"' for line in lines)


@pytest.mark.parametrize("arguments", [["plan", "Greet"], ["Greet", "--dry-run"]])
def test_a_plan_as_events_is_events_alone(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments, cli.script(*HELLO), "--events")

    assert (ran.code, ran.events[-1]["type"]) == (0, "run_finished")
    assert ran.events[-2]["type"] == "plan_made"


def test_a_terminal_that_goes_away_ends_a_run_well(cli: Cli) -> None:
    script = cli.script({"step": "quick", "reply": {"hang": True}})
    log = cli.folder / "log.jsonl"

    def as_usual() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    arguments = ("run", cli.plan(QUICK), script, "--events", "--log-file", str(log))
    process = cli.start(*arguments, preexec_fn=as_usual)
    _wait_for_step(log, "quick")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=30)

    last = json.loads(out.splitlines()[-1])
    assert process.returncode == 143
    assert (last["type"], last["status"], last["error"]["type"]) == ("run_finished", "cancelled", "terminated")
    assert last["error"]["hint"] == f"Go on with: master-agent resume {last['run_id']}"


def test_under_nohup_a_terminal_may_go_away(cli: Cli) -> None:
    def ignored() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    log = cli.folder / "log.jsonl"
    script = cli.script({"step": "quick", "reply": {"hang": True}})
    arguments = ("run", cli.plan(QUICK), script, "--timeout", "2", "--log-file", str(log))
    process = cli.start(*arguments, preexec_fn=ignored)
    _wait_for_step(log, "quick")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)

    assert process.returncode == 5


@pytest.mark.parametrize("output", [None, "--json", "--events"])
def test_ctrl_c_while_the_program_starts_is_quiet(cli: Cli, site: Path, output: str | None) -> None:
    site.write_text(GUARDED + INTERRUPTED)

    ran = cli("Greet", *([output] if output else []), env={"PYTHONPATH": str(site.parent)})

    assert (ran.code, ran.err) == (130, "")
    if output == "--json":
        assert (ran.json["status"], ran.json["error"]["type"]) == ("cancelled", "interrupted")
    elif output:
        assert ran.events[-1]["error"]["type"] == "interrupted"
    else:
        assert ran.out == ""


COMMANDS = [
    ["--version"],
    ["--help"],
    ["schema", "plan"],
    ["demo", "--list"],
    ["Greet", "--yes", "--json"],
    ["Greet", "--yes", "--events"],
    ["Greet", "--yes"],
    ["Greet", "--yes", "--quiet"],
    ["plan", "Greet"],
    ["run", "nowhere.json", "--json"],
]


def _into(cli: Cli, arguments: Sequence[str], redirection: str) -> "subprocess.CompletedProcess[bytes]":
    words = [*arguments, *([cli.script(*HELLO)] if "Greet" in arguments else [])]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "master_agent", *words],
        cwd=cli.folder,
        env=cli.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("arguments", COMMANDS)
def test_an_output_that_cannot_be_written_is_one_message(cli: Cli, arguments: list[str]) -> None:
    ran = _into(cli, arguments, ">/dev/full")

    err = ran.stderr.decode()
    assert err.count("standard output cannot be written: No space left on device") == 1, err
    assert "Traceback" not in err and "Exception ignored" not in err
    assert ran.returncode == 1


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_closed_output_is_one_message_and_nothing_is_run(cli: Cli, arguments: list[str]) -> None:
    ran = _into(cli, arguments, ">&-")

    assert ran.stderr.decode() == "master-agent: standard output cannot be written: it is closed\n"
    assert ran.returncode == 1
    assert not (cli.home / "state").exists()


def test_closed_input_and_errors_stop_nothing(cli: Cli) -> None:
    ran = _into(cli, ["Greet", "--yes", "--quiet"], "<&- 2>&-")

    assert (ran.returncode, ran.stdout) == (0, b"Hello.\n")


@pytest.mark.parametrize(
    ("output", "said"),
    [(".", "it is a folder"), ("", "it is a folder"), ("no/plan.json", "there is no folder no"), ("sub", "a folder")],
)
def test_where_a_plan_is_saved_is_looked_at_before_a_model_is_asked(cli: Cli, output: str, said: str) -> None:
    (cli.folder / "sub").mkdir()

    ran = cli("plan", "Greet", cli.script(*HELLO), "-o", output)

    assert (ran.code, ran.out, said in ran.err) == (2, "", True), ran.err
    assert not (cli.home / "state").exists()  # no run has begun


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_takes_no_plan(cli: Cli) -> None:
    (cli.folder / "sub").mkdir(mode=0o500)

    ran = cli("plan", "Greet", cli.script(*HELLO), "-o", "sub/plan.json")

    assert (ran.code, "may not be written" in ran.err) == (2, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_plan_that_cannot_be_saved_after_all_is_printed(cli: Cli) -> None:
    ran = cli("plan", "Greet", cli.script(*HELLO), "-o", "/dev/full")

    assert (ran.code, ran.json["kind"], len(ran.json["plan"])) == (2, "plan", 1)
    assert "the plan cannot be saved to /dev/full: No space left" in ran.err


def test_a_saved_plan_keeps_its_link_and_leaves_nothing_beside_it(cli: Cli) -> None:
    (cli.folder / "real").mkdir()
    (cli.folder / "plan.json").symlink_to("real/plan.json")

    assert cli("plan", "Greet", cli.script(*HELLO), "-o", "plan.json").code == 0

    assert (cli.folder / "plan.json").is_symlink()
    assert [path.name for path in (cli.folder / "real").iterdir()] == ["plan.json"]


def test_a_path_that_no_file_can_have_is_no_bug(cli: Cli) -> None:
    save = {"tool": "write_file", "with": {"path": "x" * 300, "content": "y", "overwrite": True}}

    ran = cli("run", cli.plan(save), "--json")

    assert (ran.code, "Traceback" in ran.err) == (1, False)
    assert ran.json["results"]["write_file_1"]["error"]["type"] == "file_refused"


def test_an_editor_that_is_no_command_is_told(cli: Cli) -> None:
    terminal: Any = AtTerminal(cli, "Greet", cli.script(*HELLO), EDITOR="vi '", VISUAL="")

    terminal.answer("Run it.*: ", "e\n")
    terminal.child.expect("cannot be started: No closing quotation")
    terminal.answer("Run it.*: ", "n\n")
    code, _ = terminal.end()

    assert code == 0
