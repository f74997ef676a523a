"""Runs that go on: what was interrupted, failed or killed is resumed where its journal ends, and not paid twice."""

import json
import signal
import sqlite3
from pathlib import Path

import pytest

from master_agent.events import RunStarted
from master_agent.journal import Journal
from tests.conftest import GUARD, Cli, calls, plans, says
from tests.servers.chat import ChatServer, call, reply, status
from tests.servers.loopback import Behaviour, Body
from tests.servers.replicate import TOKEN, Script, stand_in

FIRST = {"id": "first", "agent": "code", "prompt": "Hi", "needs": []}
SECOND = {"id": "second", "agent": "file", "prompt": "Hi", "needs": ["first"]}
THIRD = {"id": "third", "agent": "code", "prompt": "Hi", "needs": ["second"]}


def test_a_failed_run_goes_on_with_the_steps_that_are_not_done(cli: Cli) -> None:
    plan = cli.plan(FIRST, SECOND, THIRD)
    bad = cli.script(says("One.", step="first"), {"step": "second", "error": {"type": "bad_request", "message": "no"}})
    assert cli("run", plan, bad, "--json").code == 3

    good = cli.script(says("Two.", step="second"), says("Three.", step="third"), name="good.jsonl")
    ran = cli("resume", good, "--json")

    assert ran.code == 0, ran.out + ran.err
    assert {name: r["status"] for name, r in ran.json["results"].items()} == dict.fromkeys(
        ("first", "second", "third"), "done"
    )
    assert ran.json["results"]["second"]["attempt"] == 2
    assert ran.json["final"] == "Three."
    assert cli("resume", good).code == 2  # there is nothing to go on with


def test_an_interrupted_run_goes_on_and_its_list_says_how_it_ended(cli: Cli) -> None:
    plan = cli.plan(FIRST, SECOND)
    hang = cli.script(says("One.", step="first"), {"step": "second", "reply": {"hang": True}})
    process = cli.start("run", plan, hang, "--events")
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "model_called" and event["step"] == "second":
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    (listed,) = cli("runs", "--json").json["runs"]
    assert listed["status"] == "cancelled"

    ran = cli("resume", listed["run_id"][:4], cli.script(says("Two.", step="second"), name="b.jsonl"), "--json")

    assert (ran.code, ran.json["run_id"]) == (0, listed["run_id"])
    assert cli("runs").out.split()[:2] == [listed["run_id"], "done"]


def test_a_conversation_goes_on_with_the_very_request_that_was_due(cli: Cli) -> None:
    """The first request after the resume equals, byte for byte, the one that an uninterrupted run sends."""
    cli.file("a.txt", "hello")
    refused = False

    def brain(body: Body) -> Behaviour:
        if sum(message["role"] == "assistant" for message in body["messages"]) == 0:
            return reply(calls=[call("read_file", {"path": "a.txt"}), call("list_files", {})])
        return status(400) if refused else reply("It says hello.")

    with ChatServer(brain) as server:
        flags = ("--openai-base-url", server.base_url, "--model", "m")
        refused = True
        assert cli("agents", "run", "file", "Look", *flags).code == 4
        refused = False
        ran = cli("resume", "--json")

    assert (ran.code, ran.json["final"]) == (0, "It says hello."), ran.out + ran.err
    assert server.count == 3  # not the first turn again
    assert server.requests[-1].raw == server.requests[-2].raw


def test_a_picture_that_was_paid_is_not_bought_again_after_a_failure(cli: Cli) -> None:
    hero = {"id": "hero", "agent": "image", "prompt": "dawn", "needs": []}
    turn1 = calls(("generate_image", {"prompt": "dawn", "last": False}), step="hero", turn=1)
    fails = cli.script(turn1, {"step": "hero", "turn": 2, "error": {"type": "bad_request", "message": "no"}})
    with stand_in(Script()) as replicate:
        environ = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url}
        assert cli("run", cli.plan(hero), fails, env=environ).code in (1, 4)

        ran = cli("resume", cli.script(says("Done.", step="hero", turn=2), name="b.jsonl"), "--json", env=environ)

        assert len(replicate.seen("create")) == 1
    assert ran.code == 0, ran.out
    assert ran.json["results"]["hero"]["artifacts"][0]["path"] == "images/hero.png"
    assert ran.json["usage"]["images"] == 1


def test_a_missing_token_can_be_added_and_the_run_resumed(cli: Cli) -> None:
    hero = {"id": "hero", "agent": "image", "prompt": "dawn", "needs": []}
    turn1 = calls(("generate_image", {"prompt": "dawn", "last": True}), step="hero", turn=1)
    assert cli("run", cli.plan(hero), cli.script(turn1)).code == 1

    ran = cli("resume", "--image-provider", "placeholder", "--json")

    assert ran.code == 0, ran.out
    assert (cli.folder / "images" / "hero.png").exists()


def test_a_plan_that_waits_is_run_by_resume_with_yes(cli: Cli) -> None:
    script = cli.script(plans(FIRST))
    assert cli("Greet", script).code == 75

    assert cli("resume").code == 75
    ran = cli("resume", "--yes", cli.script(says("Hi.", step="first"), name="b.jsonl"), "--quiet")

    assert (ran.code, ran.out.strip()) == (0, "Hi.")


def test_flags_of_the_first_command_line_hold_and_can_be_said_anew(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    plan = cli.plan({"id": "note", "agent": "file", "prompt": "x"})
    fails = cli.script({"error": {"type": "bad_request", "message": "no"}})
    cli("run", plan, fails, "--workspace", str(other), "--turns", "7")
    saves = calls(("write_file", {"path": "note.txt", "content": "x", "last": True}))

    assert cli("resume", cli.script(saves, name="b.jsonl"), cwd=tmp_path).code == 0

    assert (other / "note.txt").read_text() == "x"


def test_a_password_in_an_address_is_kept_nowhere(cli: Cli) -> None:
    address = "http://user:hunter2@127.0.0.1:9/v1?key=hunter2"

    ran = cli("run", cli.plan(FIRST), "--openai-base-url", address, "--model", "m", "--attempts", "1", "--events")

    assert ran.code == 4
    kept = b"".join(path.read_bytes() for path in (cli.home / "state").iterdir())
    assert "hunter2" not in ran.out + ran.err
    assert b"hunter2" not in kept


def test_a_run_at_work_is_not_resumed_by_another_process(cli: Cli) -> None:
    process = cli.start("run", cli.plan(FIRST), cli.script({"reply": {"hang": True}}), "--events")
    while not cli("runs", "--json").json["runs"]:  # written down by a thread of its own
        continue

    ran = cli("resume")

    assert ran.code == 2 and "is at work in process" in ran.err
    assert cli("show").out.splitlines()[-1].startswith("At work: ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def test_a_run_that_ends_while_it_is_shown_is_shown_as_its_events_have_it(cli: Cli) -> None:
    assert cli("run", cli.plan(FIRST), cli.script(says("One.")), "--quiet").code == 0
    with sqlite3.connect(cli.home / "state" / "journal.db") as database:  # as the list of runs had it the moment before
        database.execute("UPDATE runs SET status = NULL")

    ran = cli("show", "--json")

    assert (ran.json["status"], ran.json["results"]["first"]["status"]) == ("done", "done")


def test_the_run_of_a_process_that_was_killed_is_free_at_once(cli: Cli) -> None:
    waits = {**SECOND, "agent": "code"}
    process = cli.start("run", cli.plan(FIRST, waits), cli.script({"reply": {"hang": True}}), "--events")
    while "model_called" not in cli("show", "--events").out:
        continue

    def shown() -> tuple[str, list[str]]:
        result = cli("show", "--json").json
        return result["status"], [step["status"] for step in result["results"].values()]

    assert shown() == ("running", ["running", "not_started"])
    process.kill()
    process.communicate(timeout=30)
    assert shown() == ("died", ["died"])
    assert "go on with it: master-agent resume" in cli("show").err

    assert [run["status"] for run in cli("runs", "--json").json["runs"]] == ["died"]
    ran = cli("resume", cli.script(says("One.", step="first"), says("Two.", step="second"), name="b.jsonl"), "--json")
    assert (ran.code, ran.json["final"]) == (0, "Two."), ran.err


def test_a_run_that_has_not_taken_in_its_plan_yet_is_at_work_too(cli: Cli) -> None:
    with Journal(cli.home / "state" / "journal.db", "r1") as journal:
        journal.note(RunStarted(task="Greet", workspace=str(cli.folder), folder=str(cli.folder), planned=True))
        while not cli("show", "r1", "--events").out:  # written down by a thread of its own
            continue

        ran = cli("resume", "r1", cli.script(says("Hello.")))

    assert ran.code == 2 and "is at work in process" in ran.err, ran.err


@pytest.mark.parametrize("arguments", [["resume"], ["resume", "zzz"], ["show"]])
def test_without_such_a_run_it_is_said(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert "no run" in ran.err


def test_a_run_can_be_shown_again_as_it_was_reported(cli: Cli) -> None:
    script = cli.script(plans(FIRST), says("Hello.", step="first"))
    first = cli("Greet", script, "--yes", "--json")

    assert cli("show", "--json").json == first.json
    assert "Hello." in cli("show").out
    events = cli("show", first.json["run_id"][:5], "--events").events
    assert events[0]["type"] == "run_started" and events[-1]["type"] == "run_finished"
    wrong = cli("runs", "--status", "finished")
    assert wrong.code == 2 and 'no run ends "finished"' in wrong.err and "cancelled" in wrong.err


DIES = """
import os, signal

def or_die(function, wanted):
    def call(*arguments, **options):
        if wanted(arguments, options):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

if os.environ["DIES_AT"] == "fsync":  # the half file is there, under its first name
    os.fsync = or_die(os.fsync, lambda arguments, options: True)
else:  # the file is there, under both of its names
    os.unlink = or_die(os.unlink, lambda arguments, options: "dir_fd" in options)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["fsync", "unlink"])
@pytest.mark.parametrize("then", ["resume", "undo"])
def test_what_a_write_that_died_has_left_beside_the_file_is_removed(
    cli: Cli, tmp_path: Path, at: str, then: str
) -> None:
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text((GUARD / "sitecustomize.py").read_text() + DIES)
    cli.file("folder/.master-agent-0123456789abcdef-01234567.tmp", "somebody else's")
    step = {"id": "a", "tool": "write_file", "with": {"path": "folder/a.txt", "content": "whole"}}
    died = cli("run", cli.plan(step), env={"PYTHONPATH": str(site.parent), "DIES_AT": at})
    left = [path.name for path in (cli.folder / "folder").iterdir() if path.name.startswith(".master-agent-")]
    assert (died.code, len(left)) == (-signal.SIGKILL, 2), died.err

    assert cli(then, cli("runs", "--json").json["runs"][0]["run_id"]).code == 0

    names = sorted(path.name for path in (cli.folder / "folder").iterdir())
    theirs = [".master-agent-0123456789abcdef-01234567.tmp"]
    assert names == (theirs if then == "undo" else [*theirs, "a.txt"])
    if then == "resume":
        assert (cli.folder / "folder" / "a.txt").read_text() == "whole"


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(cli: Cli) -> None:
    import resource

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    long = "".join(f"{number} is a number. " for number in range(50_000))
    plan = cli.plan(FIRST, {**SECOND, "agent": "code"}, THIRD)
    script = cli.script(says("One.", step="first"), says(long, step="second"), says("Three.", step="third"))
    process = cli.start("run", plan, script, preexec_fn=full)
    _, said = process.communicate(timeout=60)
    err = said.decode()

    assert process.returncode == 2, err
    assert "the journal cannot be written: " in err and "Free some disk space" in err and "Traceback" not in err

    ran = cli("resume", cli.script(says("Two.", step="second"), says("Three.", step="third"), name="b.jsonl"), "--json")

    assert (ran.code, ran.json["final"]) == (0, "Three."), ran.out + ran.err
    assert [result["text"] for result in ran.json["results"].values()] == ["One.", "Two.", "Three."]
