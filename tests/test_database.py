"""Runs in the database: listed, found, held by one process, brought up to date; long texts kept once."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path

import pytest

from master_agent.database import LEASE_SECONDS, find_run, list_runs, open_database, take_lease
from master_agent.errors import JournalError
from master_agent.events import ModelReplied, RunFinished, RunStarted
from master_agent.journal import Journal, read
from master_agent.rows import LONG_TEXT


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


def a_run(database: Path, run_id: str, task: str = "Greet", status: str = "done") -> None:
    with Journal(database, run_id) as journal:
        journal.note(RunStarted(task=task, workspace="/w"))
        journal.note(RunFinished(status=status))  # type: ignore[arg-type]


def test_runs_are_listed_newest_first_with_what_became_of_them(database: Path) -> None:
    a_run(database, "a1", "First")
    a_run(database, "b2", "Second", "partial")

    runs = list_runs(database)

    assert [(run.run_id, run.task, run.status, run.alive) for run in runs] == [
        ("b2", "Second", "partial", False),
        ("a1", "First", "done", False),
    ]


def test_a_run_is_found_by_the_beginning_of_its_id_and_the_newest_by_none(database: Path) -> None:
    for run_id in ("a1", "ab", "b2"):
        a_run(database, run_id)

    assert find_run(database, "b").run_id == "b2"
    assert find_run(database, None).run_id == "b2"
    with pytest.raises(JournalError, match='2 runs begin with "a": ab, a1'):
        find_run(database, "a")
    with pytest.raises(JournalError, match='no run "zz"'):
        find_run(database, "zz")


def test_a_run_at_work_belongs_to_one_process(database: Path) -> None:
    with Journal(database, "r1") as journal:
        journal.note(RunStarted(task="Greet"))
        with pytest.raises(JournalError, match="is at work in process"):
            Journal(database, "r1", resume=True)
    with Journal(database, "r1", resume=True) as journal:
        assert journal.state.task == "Greet"


def test_a_dead_processs_run_can_be_taken_when_its_lease_is_over(database: Path) -> None:
    connection = open_database(database)
    connection.execute("INSERT INTO runs (run_id, owner, lease_until) VALUES ('r1', 'host/1/x', 1000.0)")
    with pytest.raises(JournalError, match="process 1 on host"):
        take_lease(connection, "r1", "me/2/y", now=999.0)
    take_lease(connection, "r1", "me/2/y", now=1000.5)
    with pytest.raises(JournalError, match="process 2 on me"):
        take_lease(connection, "r1", "host/1/x", now=1001.0)
    connection.close()


def test_a_living_process_keeps_its_lease(database: Path) -> None:
    with Journal(database, "r1"):
        connection = sqlite3.connect(database)
        (first,) = connection.execute("SELECT lease_until FROM runs").fetchone()
        deadline = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < deadline:
            (later,) = connection.execute("SELECT lease_until FROM runs").fetchone()
            if later > first:
                break
            time.sleep(0.1)
        connection.close()
    assert later > first


def test_a_journal_whose_run_was_taken_away_writes_no_more(database: Path) -> None:
    journal = Journal(database, "r1")
    thief = sqlite3.connect(database)
    with thief:
        thief.execute("UPDATE runs SET owner = 'thief/9/z', lease_until = 1e12")
    thief.close()

    async def write() -> None:
        deadline = time.monotonic() + 2 * LEASE_SECONDS
        while time.monotonic() < deadline:
            await journal.append(RunStarted(task="x"))
            await asyncio.sleep(0.2)

    with pytest.raises(JournalError, match="process 9 on thief"):
        asyncio.run(write())
    with pytest.raises(JournalError):
        journal.close()


def test_a_resumed_journal_goes_on_where_it_ended(database: Path) -> None:
    a_run(database, "r1", status="failed")
    with Journal(database, "r1", resume=True) as journal:
        assert [event.type for event in journal.history] == ["run_started", "run_finished"]
        stamped = journal.note(RunFinished(status="done"))
        assert stamped.seq == 3
    assert list_runs(database)[0].status == "done"


def test_long_texts_are_kept_once_and_come_back_whole(database: Path) -> None:
    long = "é" * LONG_TEXT
    with Journal(database, "r1") as journal:
        for _ in range(3):
            journal.note(ModelReplied(status="completed", text=long, items=[{"text": long, "short": "x"}]))

    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (1,)
    bodies = [json.loads(body) for (body,) in connection.execute("SELECT body FROM events")]
    connection.close()
    assert all(len(json.dumps(body)) < 2000 for body in bodies)
    assert [(e.text, e.items[0]) for e in read(database, "r1") if isinstance(e, ModelReplied)] == [
        (long, {"text": long, "short": "x"})
    ] * 3


def test_a_journal_of_the_first_version_is_brought_up_to_date(database: Path) -> None:
    database.parent.mkdir()
    old = sqlite3.connect(database)
    old.executescript(
        "CREATE TABLE events (run_id TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, step TEXT, at TEXT NOT "
        "NULL, body TEXT NOT NULL, PRIMARY KEY (run_id, seq)) WITHOUT ROWID;"
        f"PRAGMA application_id = {0x6D61676A}; PRAGMA user_version = 1;"
    )
    started = RunStarted(seq=1, at="2026-11-20T10:00:00.000Z", run_id="old", task="Greet", workspace="/w")
    ended = RunFinished(seq=2, at="2026-11-20T10:00:05.000Z", run_id="old", status="partial")
    with old:
        for event in (started, ended):
            row = ("old", event.seq, event.type, None, event.at, event.model_dump_json())
            old.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
    old.close()

    (run,) = list_runs(database)

    assert (run.run_id, run.task, run.status, run.workspace) == ("old", "Greet", "partial", "/w")
    assert (run.began, run.ended) == (started.at, ended.at)
    assert len(read(database, "old")) == 2
