"""Purged runs are gone wholly, and what other runs need stays; what lies elsewhere is named."""

import signal
import sqlite3
from pathlib import Path

import pytest

from master_agent.events import ModelReplied, RunFinished, RunStarted, ToolProgressed
from master_agent.journal import LONG_TEXT, Journal
from tests.conftest import Cli
from tests.terminal import AtTerminal
from tests.test_undo import run, writes


def database(cli: Cli) -> Path:
    return cli.home / "state" / "journal.db"


def rows(cli: Cli, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(database(cli))
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def make_old(cli: Cli, run_id: str) -> None:
    connection = sqlite3.connect(database(cli))
    with connection:
        connection.execute(
            "UPDATE runs SET began = '2020-01-01T00:00:00.000Z', ended = NULL WHERE run_id = ?", (run_id,)
        )
    connection.close()


def test_a_purged_run_is_gone_with_all_that_only_it_needs(cli: Cli) -> None:
    cli.file("a.txt", "SECRET-BEFORE")
    cli.file("shared.txt", "shared")
    first = run(cli, [writes("a.txt", "SECRET-AFTER" * 1000), writes("shared.txt", "x")])
    cli.file("shared.txt", "shared")
    second = run(cli, [writes("shared.txt", "y")])

    ran = cli("purge", first, "--yes", "--json")

    assert (ran.code, ran.json["purged"], ran.json["not_removed"]) == (0, [first], [])
    assert [one["run_id"] for one in cli("runs", "--json").json] == [second]
    assert cli("show", first).code == 2
    assert rows(cli, f"SELECT count(*) FROM events WHERE run_id = '{first}'") == [(0,)]
    kept = b"".join(path.read_bytes() for path in database(cli).parent.glob("journal.db*"))
    assert b"SECRET" not in kept
    assert cli("undo", second).code == 0
    assert (cli.folder / "shared.txt").read_text() == "shared"


def test_without_a_terminal_and_yes_nothing_is_removed(cli: Cli) -> None:
    run_id = run(cli, [writes("a.txt", "a")])

    ran = cli("purge", run_id)

    assert ran.code == 2 and "--yes" in ran.err
    assert cli("show", run_id).code == 0


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_at_a_terminal_it_is_asked(cli: Cli, answer: str, left: int) -> None:
    run_id = run(cli, [writes("a.txt", "a")])
    terminal = AtTerminal(cli, "purge", run_id)

    terminal.answer("Remove 1 run from the journal", answer + "\n")

    assert terminal.end()[0] == 0
    assert len(cli("runs", "--json").json) == left


def test_a_run_at_work_is_not_purged(cli: Cli) -> None:
    hang = cli.script({"port": "thread", "reply": {"hang": True}})
    process = cli.start("run", cli.plan({"agent": "code", "prompt": "x"}), hang, "--events")
    assert process.stdout is not None
    process.stdout.readline()

    ran = cli("purge", cli("runs", "--json").json[0]["run_id"], "--yes")

    assert ran.code == 2 and "is at work in process" in ran.err
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def test_what_lies_at_services_is_named(cli: Cli) -> None:
    with Journal(database(cli), "r1") as journal:
        journal.note(RunStarted(task="Greet"))
        journal.note(ModelReplied(step="a", status="completed", text="x" * LONG_TEXT, ids={"conversation": "conv_1"}))
        journal.note(ToolProgressed(step="a", tool="generate_image", remote_id="p1"))
        journal.note(RunFinished(status="done"))

    ran = cli("purge", "r1", "--yes")

    assert "conversation conv_1 (run r1)" in ran.err and "prediction p1 (run r1)" in ran.err
    assert rows(cli, "SELECT count(*) FROM blobs") == [(0,)]


def test_clean_removes_what_is_old_and_a_dry_run_nothing(cli: Cli) -> None:
    old, new = run(cli, [writes("a.txt", "a")]), run(cli, [writes("b.txt", "b")])
    make_old(cli, old)

    dry = cli("clean", "--older-than", "30d", "--dry-run", "--json").json
    assert (dry["found"], dry["purged"]) == ([old], [])
    assert cli("clean", "--older-than", "8w", "--yes").out.startswith(old)
    assert [one["run_id"] for one in cli("runs", "--json").json] == [new]
    wrong = cli("clean", "--older-than", "soon")
    assert wrong.code == 2 and "12h, 30d or 8w" in wrong.err
