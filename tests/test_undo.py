"""Undo: every file that a run changed gets its bytes and mode back, or nothing is touched."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Cli, calls
from tests.test_crashes import tree

STEP = {"id": "work", "agent": "file", "prompt": "Work"}


def writes(path: str, content: str, *, overwrite: bool = True, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("write_file", {"path": path, "content": content, "overwrite": overwrite, "last": False, **more})


def run(cli: Cli, *rounds: list[tuple[str, dict[str, Any]]]) -> str:
    """A run that writes the files; its id."""
    lines = [calls(*uses, turn=turn) for turn, uses in enumerate(rounds, start=1)]
    end = {"port": "thread", "turn": len(lines) + 1, "reply": {"text": "Done."}}
    ran = cli("run", cli.plan(STEP), cli.script(*lines, end), "--json")
    assert ran.code == 0, ran.out + ran.err
    return str(ran.json["run_id"])


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.fixture
def before(cli: Cli) -> tuple[dict[str, str], dict[str, int]]:
    """A folder with files in it, one of them a program."""
    cli.file("old.txt", "old")
    cli.file("tool.sh", "#!/bin/sh\n").chmod(0o750)
    cli.file("keep/mine.txt", "mine")
    return tree(cli.folder), modes(cli.folder)


def test_an_undone_run_leaves_the_folder_as_it_was_and_an_undone_undo_as_the_run_left_it(
    cli: Cli, before: tuple[dict[str, str], dict[str, int]]
) -> None:
    run_id = run(
        cli,
        [writes("old.txt", "new"), writes("tool.sh", "echo"), writes("a/b/c.txt", "c"), writes("keep/x.txt", "x")],
        [writes("old.txt", "newer"), writes("a/d.txt", "d")],
    )
    after = tree(cli.folder), modes(cli.folder)

    ran = cli("undo", run_id[:9], "--json")

    assert ran.code == 0, ran.err
    assert (tree(cli.folder), modes(cli.folder)) == before
    assert not (cli.folder / "a").exists() and (cli.folder / "keep").is_dir()
    assert sorted(ran.json["restored"]) == ["old.txt", "tool.sh"]
    assert sorted(ran.json["removed"]) == ["a/b/c.txt", "a/d.txt", "keep/x.txt"]
    assert ran.json["folders"] == ["a/b", "a"]
    undo_id = ran.json["run_id"]
    listed = {one["run_id"]: one for one in cli("runs", "--json").json["runs"]}[undo_id]
    assert (listed["parent"], listed["origin"], listed["status"]) == (run_id, "undo", "done")

    assert cli("undo", undo_id).code == 0
    assert (tree(cli.folder), modes(cli.folder)) == after
    assert cli("undo", run_id).code == 0
    assert (tree(cli.folder), modes(cli.folder)) == before


@pytest.mark.slow
def test_the_list_of_runs_says_what_was_undone(cli: Cli) -> None:
    run_id = run(cli, [writes("a.txt", "a")])
    undo = cli("undo", run_id, "--json").json["run_id"]

    assert f"(undone by {undo})" in next(line for line in cli("runs").out.splitlines() if line.startswith(run_id))
    cli("undo", undo)
    assert {one["run_id"]: one["undone_by"] for one in cli("runs", "--json").json["runs"]}[run_id] is None


def test_a_second_undo_finds_nothing_to_do(cli: Cli) -> None:
    run_id = run(cli, [writes("a.txt", "a")])
    assert cli("undo", run_id).out == "removed a.txt\n"
    shown = cli("show")
    assert (shown.code, shown.out.splitlines()[0]) == (0, "removed a.txt") and f"undo of {run_id}" in shown.err

    undo = cli("runs", "--json").json["runs"][0]["run_id"]
    assert f"{run_id}: undone by {undo}" in cli("show", run_id).err

    ran = cli("undo", run_id)

    assert (ran.code, ran.out) == (0, "")
    assert "Nothing to undo" in ran.err
    assert len(cli("runs", "--json").json["runs"]) == 2


def test_where_files_changed_since_each_is_named_and_nothing_is_touched(
    cli: Cli, before: tuple[dict[str, str], dict[str, int]]
) -> None:
    run_id = run(cli, [writes("old.txt", "new"), writes("tool.sh", "echo"), writes("a.txt", "a"), writes("b.txt", "b")])
    cli.file("old.txt", "by a person")
    (cli.folder / "tool.sh").unlink()
    (cli.folder / "a.txt").unlink()
    (cli.folder / "a.txt").symlink_to("b.txt")
    there = tree(cli.folder)

    ran = cli("undo", run_id)

    assert (ran.code, ran.out) == (2, "")
    assert '"old.txt" was changed since' in ran.err
    assert '"tool.sh" is no longer there' in ran.err
    assert '"a.txt" is a link' in ran.err
    assert "b.txt" not in ran.err
    assert tree(cli.folder) == there
    assert len(cli("runs", "--json").json["runs"]) == 1


def test_a_later_run_on_the_same_file_is_named_and_undone_first(cli: Cli) -> None:
    cli.file("page.html", "0")
    first = run(cli, [writes("page.html", "1")])
    second = run(cli, [writes("page.html", "2")])

    refused = cli("undo", first)

    assert refused.code == 2 and f"changed since by the run {second}" in refused.err
    assert cli("undo", second).code == 0 and cli("undo", first).code == 0
    assert (cli.folder / "page.html").read_text() == "0"


def test_what_a_person_wrote_between_two_writes_of_a_run_is_what_comes_back(cli: Cli) -> None:
    fails = {"turn": 2, "error": {"type": "bad_request", "message": "no"}}
    cli("run", cli.plan(STEP), cli.script(calls(writes("a.txt", "1"), turn=1), fails))
    cli.file("a.txt", "a person's")
    more = [calls(writes("a.txt", "2"), turn=2), {"port": "thread", "turn": 3, "reply": {"text": "Done."}}]
    assert cli("resume", cli.script(*more, name="b.jsonl")).code == 0

    run_id = cli("runs", "--json").json["runs"][0]["run_id"]

    assert cli("undo", run_id).code == 0
    assert (cli.folder / "a.txt").read_text() == "a person's"


def test_a_file_already_put_back_by_hand_is_left_and_its_mode_too(cli: Cli) -> None:
    cli.file("a.txt", "0")
    run_id = run(cli, [writes("a.txt", "1"), writes("b.txt", "b")])
    cli.file("a.txt", "0").chmod(0o700)

    assert cli("undo", run_id).out == "removed b.txt\n"
    assert stat.S_IMODE((cli.folder / "a.txt").stat().st_mode) == 0o700


def test_a_folder_that_holds_something_else_by_now_stays(cli: Cli) -> None:
    run_id = run(cli, [writes("made/a.txt", "a")])
    cli.file("made/mine.txt", "mine")

    assert cli("undo", run_id).out == "removed made/a.txt\n"
    assert tree(cli.folder).keys() == {"made/mine.txt"}


def test_a_run_at_work_is_not_undone(cli: Cli) -> None:
    hang = {"port": "thread", "reply": {"hang": True}}
    process = cli.start("run", cli.plan(STEP), cli.script(hang), "--events")
    assert process.stdout is not None
    process.stdout.readline()
    run_id = cli("runs", "--json").json["runs"][0]["run_id"]

    ran = cli("undo", run_id)

    assert ran.code == 2 and "is at work in process" in ran.err
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def test_an_undone_run_and_an_undo_are_not_resumed(cli: Cli) -> None:
    fails = cli.script(
        calls(writes("a.txt", "1"), turn=1), {"turn": 2, "error": {"type": "bad_request", "message": "x"}}
    )
    cli("run", cli.plan(STEP), fails)
    run_id = cli("runs", "--json").json["runs"][0]["run_id"]
    undo_id = cli("undo", run_id, "--json").json["run_id"]

    assert f"was undone by {undo_id}" in cli("resume", run_id, fails).err
    connection = sqlite3.connect(cli.home / "state" / "journal.db")
    with connection:
        connection.execute("UPDATE runs SET status = NULL WHERE run_id = ?", (undo_id,))
    connection.close()
    assert "is an undo" in cli("resume", undo_id).err


def test_a_run_that_changed_files_does_not_go_on_in_another_folder(cli: Cli) -> None:
    fails = {"turn": 2, "error": {"type": "bad_request", "message": "no"}}
    cli("run", cli.plan(STEP), cli.script(calls(writes("a.txt", "1"), turn=1), fails))
    (cli.home / "other").mkdir()

    ran = cli("resume", "--workspace", str(cli.home / "other"))

    assert ran.code == 2 and "cannot go on in another workspace" in ran.err


def killed(cli: Cli, run_id: str, number: int, how: str) -> int:
    """The undo in a process that dies at its event of that number; its exit code."""
    environ = {**cli.environ, "PYTHONPATH": os.pathsep.join([cli.environ["PYTHONPATH"], str(ROOT)])}
    command = [sys.executable, "-m", "tests.undo_driver", run_id, str(number), how]
    ran = subprocess.run(command, cwd=cli.folder, env=environ, capture_output=True, timeout=60)
    return ran.returncode


@pytest.mark.slow
@pytest.mark.parametrize("how", ["at once", "after"])
def test_an_undo_killed_at_any_event_goes_on_and_can_be_undone(
    cli: Cli, before: tuple[dict[str, str], dict[str, int]], how: str
) -> None:
    run_id = run(cli, [writes("old.txt", "new"), writes("a/b.txt", "b"), writes("tool.sh", "x")])
    after = tree(cli.folder), modes(cli.folder)
    number = 1
    while killed(cli, run_id, number, how) == -signal.SIGKILL:
        assert cli("undo", run_id).code == 0
        assert (tree(cli.folder), modes(cli.folder)) == before, number
        undos = [
            one for one in cli("runs", "--json").json["runs"] if one["parent"] == run_id and one["status"] == "done"
        ]
        assert cli("undo", undos[0]["run_id"]).code == 0
        assert (tree(cli.folder), modes(cli.folder)) == after, number
        number += 1
    assert number == 6  # begun, three files, ended: each was a boundary
    assert (tree(cli.folder), modes(cli.folder)) == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["at once", "after"])
def test_a_run_killed_at_any_event_is_undone(cli: Cli, before: tuple[dict[str, str], dict[str, int]], how: str) -> None:
    steps = [
        {"id": "one", "tool": "write_file", "with": {"path": "old.txt", "content": "1", "overwrite": True}},
        {"id": "two", "tool": "write_file", "with": {"path": "new/a.txt", "content": "2"}},
    ]
    environ = {**cli.environ, "PYTHONPATH": os.pathsep.join([cli.environ["PYTHONPATH"], str(ROOT)])}
    number, code = 3, -9
    while code == -9:
        server = ["openai_base_url=http://127.0.0.1:9/v1", "model=m"]  # nobody there; tools' steps need no model
        command = [sys.executable, "-m", "tests.crash_driver", cli.plan(*steps), str(number), how, *server]
        code = subprocess.run(command, cwd=cli.folder, env=environ, capture_output=True, timeout=60).returncode
        run_id = cli("runs", "--json").json["runs"][0]["run_id"]
        assert cli("undo", run_id).code == 0
        assert (tree(cli.folder), modes(cli.folder)) == before, number
        number += 1
    assert number >= 10
