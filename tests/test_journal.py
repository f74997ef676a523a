"""The journal: what is appended is on the disk, what is read folds to what was, and no other database is touched."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from master_agent.checker import check
from master_agent.database import APPLICATION_ID, SCHEMA_VERSION
from master_agent.errors import JournalError
from master_agent.events import (
    Event,
    FileChanged,
    FileChangeFailed,
    ModelReplied,
    PlanMade,
    PlanRevised,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolReturned,
)
from master_agent.journal import GATHER_SECONDS, Journal, read
from master_agent.plan import Plan
from master_agent.results import Artifact, ErrorInfo, StepResult, Usage
from master_agent.state import fold
from tests.conftest import ROOT

DONE = StepResult(status="done", agent="code", text="é")
FILE = Artifact(path="a.png", media_type="image/png", bytes=3, sha256="0" * 64)


def plan(*ids: str) -> Plan:
    steps = [{"id": name, "agent": "code", "prompt": "x", "needs": []} for name in ids]
    return check({"task": "from the plan", "params": {"p": "2"}, "plan": steps}, ["code"], {})


def used(tokens: int | None) -> Usage:
    return Usage(calls=1, input_tokens=tokens, output_tokens=tokens, complete=tokens is not None)


def rows(database: Path, query: str = "SELECT run_id, seq, type FROM events ORDER BY run_id, seq") -> list[Any]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(database: Path) -> Iterator[Journal]:
    with Journal(database, "run-1") as journal:
        yield journal


# On the disk.


def test_what_is_appended_is_there_for_a_second_connection_with_all_before_it(journal: Journal, database: Path) -> None:
    journal.note(StepStarted(step="a"))
    journal.note(StepStarted(step="b"))
    asyncio.run(journal.append(RunStarted(task="t")))
    assert rows(database) == [("run-1", 1, "step_started"), ("run-1", 2, "step_started"), ("run-1", 3, "run_started")]


def test_what_is_appended_outlives_a_killed_process(database: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from master_agent.events import RunStarted
from master_agent.journal import Journal
journal = Journal(Path({str(database)!r}), "killed")
asyncio.run(journal.append(RunStarted(task="t")))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == -signal.SIGKILL
    assert [event.type for event in read(database, "killed")] == ["run_started"]


def test_notes_are_gathered_and_are_there_after_the_close(database: Path) -> None:
    with Journal(database, "run-1") as journal:
        for i in range(500):
            journal.note(StepStarted(step=f"s{i}"))
    assert len(rows(database)) == 500


def test_notes_that_nobody_waits_for_are_written_soon(journal: Journal, database: Path) -> None:
    journal.note(StepStarted(step="a"))
    for _ in range(500):
        if rows(database):
            break
        threading.Event().wait(GATHER_SECONDS)
    assert len(rows(database)) == 1


def test_many_who_wait_at_once_share_a_commit(journal: Journal, database: Path) -> None:
    async def run() -> None:
        await asyncio.gather(*(journal.append(StepStarted(step=f"s{i}")) for i in range(2000)))

    asyncio.run(run())
    assert [seq for _, seq, _ in rows(database)] == list(range(1, 2001))


def test_a_caller_that_is_cancelled_while_it_waits_breaks_nothing(journal: Journal, database: Path) -> None:
    async def run() -> None:
        task = asyncio.create_task(journal.append(StepStarted(step="a")))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await journal.append(StepStarted(step="b"))

    asyncio.run(run())
    assert len(rows(database)) == 2


def test_a_journal_can_be_closed_twice_and_then_takes_nothing_more(database: Path) -> None:
    journal = Journal(database, "run-1")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.note(StepStarted(step="a"))
    with pytest.raises(JournalError, match="closed"):
        asyncio.run(journal.append(StepStarted(step="a")))


# Stamps and listeners.


def test_events_are_stamped_in_order_with_the_run_and_the_time(database: Path) -> None:
    moments = iter(datetime(2026, 11, 20, 10, tzinfo=UTC) + timedelta(seconds=i, microseconds=1500) for i in range(9))
    heard: list[Event] = []
    with Journal(database, "run-7", listeners=[heard.append], clock=lambda: next(moments)) as journal:
        first = journal.note(RunStarted())
        journal.tell(TextDelta(text="a piece"))
        second = asyncio.run(journal.append(StepStarted(step="a")))
    assert [(event.type, event.seq, event.at, event.run_id) for event in heard] == [
        ("run_started", 1, "2026-11-20T10:00:00.001Z", "run-7"),
        ("text_delta", None, "2026-11-20T10:00:01.001Z", "run-7"),
        ("step_started", 2, "2026-11-20T10:00:02.001Z", "run-7"),
    ]
    assert [heard[0], heard[2]] == [first, second] == read(database, "run-7"), "a piece of text is not kept"


def test_an_event_that_a_listener_fails_on_is_kept_all_the_same(database: Path) -> None:
    def fails(_: Event) -> None:
        raise ValueError("a broken reporter")

    with Journal(database, "run-1", listeners=[fails]) as journal, pytest.raises(ValueError, match="broken"):
        journal.note(StepStarted(step="a"))
    assert fold(read(database, "run-1")) == journal.state
    assert list(journal.state.started) == ["a"]


def test_what_json_cannot_hold_is_cleaned_for_disk_state_and_listeners_alike(database: Path) -> None:
    heard: list[Event] = []
    with Journal(database, "run-1", listeners=[heard.append]) as journal:
        result = StepResult(status="done", text="half \ud83d", data={"x": float("nan")})
        asyncio.run(journal.append(StepFinished(step="a", result=result)))
    assert (journal.state.results["a"].text, journal.state.results["a"].data) == ("half �", {"x": None})
    assert read(database, "run-1") == heard


# The state.


def history(journal: Journal) -> None:
    journal.note(RunStarted(task="t", params={"p": "1"}, mark="data-1"))
    journal.note(ModelReplied(status="completed", usage=used(100)))
    journal.note(PlanMade(plan=plan("a", "b", "c"), by="model", earlier={"c": DONE}))
    journal.note(StepStarted(step="a", attempt=1, agent="code"))
    journal.note(ModelReplied(step="a", status="failed", usage=Usage.unknown()))
    journal.note(ModelReplied(step="a", status="requires_action", usage=used(10)))
    journal.note(ToolReturned(step="a", tool="t", usage=Usage(images=2)))
    journal.note(FileChanged(step="a", file=FILE))
    journal.note(FileChanged(step="a", file=FILE.model_copy(update={"bytes": 4})))
    journal.note(StepFinished(step="a", attempt=1, result=DONE))
    journal.note(StepStarted(step="b", attempt=1, agent="code"))
    journal.note(StepFinished(step="b", attempt=1, result=StepResult(status="failed", reason="r")))
    journal.note(RunFinished(status="partial", error=ErrorInfo(type="cancelled", message="m")))


def test_what_is_read_folds_to_the_state_of_the_live_run(database: Path) -> None:
    with Journal(database, "run-1") as journal:
        history(journal)
    assert fold(read(database, "run-1")) == journal.state


def test_the_state_is_what_the_events_say(journal: Journal) -> None:
    history(journal)
    state = journal.state
    assert (state.run_id, state.task, state.params) == ("run-1", "from the plan", {"p": "2"})
    assert state.plan == plan("a", "b", "c")
    assert {name: result.status for name, result in state.results.items()} == {"a": "done", "b": "failed", "c": "done"}
    assert sorted(state.started) == ["a", "b"]
    assert state.files == {"a.png": FILE.model_copy(update={"bytes": 4})}
    assert (state.status, state.error and state.error.type) == ("partial", "cancelled")
    assert state.seconds >= 0


def test_a_finished_step_and_a_finished_run_get_what_they_used(journal: Journal, database: Path) -> None:
    history(journal)
    journal.close()
    finished = [event for event in read(database, "run-1") if isinstance(event, StepFinished | RunFinished)]
    a, b, run = (event.usage if isinstance(event, RunFinished) else event.result.usage for event in finished)
    assert (a.calls, a.input_tokens, a.images, a.complete) == (2, 10, 2, False)
    assert b == Usage()
    assert (run.calls, run.input_tokens, run.images) == (3, 110, 2)


def test_a_revised_plan_takes_the_place_of_the_old_one(journal: Journal) -> None:
    journal.note(PlanMade(plan=plan("a"), by="model"))
    journal.note(PlanRevised(plan=plan("a", "b")))
    assert journal.state.plan == plan("a", "b")


def test_events_of_types_that_a_later_version_knows_are_passed_over(journal: Journal, database: Path) -> None:
    journal.note(StepStarted(step="a"))
    journal.close()
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        body = json.dumps({"kind": "event", "type": "step_dreamt", "dream": "of sheep"})
        connection.execute("INSERT INTO events VALUES ('run-1', 2, 'step_dreamt', 'a', '', ?)", (body,))
    assert [event.type for event in read(database, "run-1")] == ["step_started"]


# Databases that are not ours, or not sound.


def foreign(database: Path, *statements: str) -> bytes:
    database.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return database.read_bytes()


def test_somebody_elses_database_is_refused_and_not_a_byte_of_it_changed(database: Path) -> None:
    before = foreign(database, "CREATE TABLE bookmarks (url TEXT)", "PRAGMA application_id = 7")
    with pytest.raises(JournalError, match="is a database, but not a journal of master-agent") as caught:
        Journal(database, "run-1")
    assert str(database) in caught.value.message
    assert "--state-dir" in str(caught.value.hint)
    assert database.read_bytes() == before
    assert list(database.parent.iterdir()) == [database]


def test_an_empty_database_of_somebody_else_is_refused_too(database: Path) -> None:
    foreign(database, "PRAGMA application_id = 7")
    with pytest.raises(JournalError, match="not a journal of master-agent"):
        Journal(database, "run-1")


def test_a_database_with_tables_and_no_owner_is_refused(database: Path) -> None:
    foreign(database, "CREATE TABLE events (id INTEGER)")
    with pytest.raises(JournalError, match="not a journal of master-agent"):
        Journal(database, "run-1")


def test_a_journal_of_a_newer_version_is_refused_with_what_to_do(database: Path) -> None:
    Journal(database, "run-1").close()
    before = foreign(database, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        JournalError, match=rf"was written by a newer master-agent \(version {SCHEMA_VERSION + 1}\)"
    ) as caught:
        Journal(database, "run-2")
    assert "Upgrade" in str(caught.value.hint)
    assert database.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all " * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_kept(database: Path, content: bytes) -> None:
    database.parent.mkdir()
    database.write_bytes(content)
    with pytest.raises(JournalError, match="cannot be used") as caught:
        Journal(database, "run-1")
    assert str(database) in caught.value.message
    assert database.read_bytes() == content


def test_a_damaged_journal_is_told_as_such_when_it_is_read(database: Path) -> None:
    with Journal(database, "run-1") as journal:
        for i in range(2000):
            journal.note(StepStarted(step=f"s{i}"))
    content = bytearray(database.read_bytes())
    content[4096 * 3 :] = os.urandom(len(content) - 4096 * 3)
    database.write_bytes(content)
    with pytest.raises(JournalError, match=r"damaged|cannot be used"):
        read(database, "run-1")


def test_an_event_that_cannot_be_read_is_told_as_damage(journal: Journal, database: Path) -> None:
    journal.note(StepStarted(step="a"))
    journal.close()
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE events SET body = '{half'")
    with pytest.raises(JournalError, match="damaged"):
        read(database, "run-1")


def test_a_new_journal_is_ours_and_only_its_owner_may_look_into_its_folder(journal: Journal, database: Path) -> None:
    assert rows(database, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert rows(database, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert rows(database, "PRAGMA journal_mode") == [("wal",)]
    assert database.parent.stat().st_mode & 0o777 == 0o700


def test_an_empty_file_becomes_a_journal(database: Path) -> None:
    database.parent.mkdir()
    database.touch()
    with Journal(database, "run-1") as journal:
        journal.note(StepStarted(step="a"))
    assert len(rows(database)) == 1


def test_a_place_where_no_file_can_be_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.db").mkdir()
    for place in (tmp_path / "file" / "journal.db", tmp_path / "folder.db", Path("/proc/no/journal.db")):
        with pytest.raises(JournalError, match=r"cannot be (opened|used)") as caught:
            Journal(place, "run-1")
        assert str(place) in caught.value.message and "Errno" not in caught.value.message
        assert "--state-dir" in str(caught.value.hint)
    with pytest.raises(JournalError, match=f"{tmp_path / 'file'} is not a folder"):
        Journal(tmp_path / "file" / "journal.db", "run-1")


OPEN = """
import os, sys
from pathlib import Path
from master_agent.errors import JournalError
from master_agent.journal import Journal
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Journal(Path(sys.argv[1]), "run-2")
except JournalError as error:
    print(error.message, error.hint)
"""


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "a journal there"])
def test_a_folder_that_may_not_be_written_is_told_with_what_to_do(there: bool) -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders cannot be entered by whom root becomes here
        folder = Path(made)
        database = folder / "journal.db"
        if there:
            Journal(database, "run-1").close()
            database.chmod(0o444)
        folder.chmod(0o555)
        ran = subprocess.run([sys.executable, "-c", OPEN, database], cwd=ROOT, capture_output=True, text=True)
        folder.chmod(0o755)
    assert f"the folder {folder} cannot be written to" in ran.stdout, ran.stderr
    assert "--state-dir" in ran.stdout


# Several at once.


def test_two_journals_write_to_one_database(database: Path) -> None:
    with Journal(database, "one") as one, Journal(database, "two") as two:

        async def run() -> None:
            for i in range(50):
                await asyncio.gather(one.append(StepStarted(step=f"{i}")), two.append(StepStarted(step=f"{i}")))

        asyncio.run(run())
    for run_id in ("one", "two"):
        assert [event.seq for event in read(database, run_id)] == list(range(1, 51))


def test_processes_that_begin_at_the_same_moment_make_one_journal(database: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio, sys, time
from pathlib import Path
from master_agent.events import StepStarted
from master_agent.journal import Journal
print("ready", flush=True)
sys.stdin.read()
with Journal(Path({str(database)!r}), sys.argv[1]) as journal:
    for i in range(20):
        asyncio.run(journal.append(StepStarted(step=f"s{{i}}")))
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"run-{i}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    for process in started:
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
        process.stderr.close()
        assert process.stdout is not None
        process.stdout.close()
    assert len(rows(database)) == 80


def test_threads_that_open_a_new_journal_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    for attempt in range(20):
        database = tmp_path / f"{attempt}.db"
        gate, failures = threading.Barrier(8), list[Exception]()

        def open_it(database: Path, number: int, gate: threading.Barrier, failures: list[Exception]) -> None:
            gate.wait(10)
            try:
                Journal(database, f"run-{number}").close()
            except Exception as error:  # whatever it is, it is told in the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=open_it, args=(database, i, gate, failures)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


# A log that was cut off, as by a crash of the machine.


@pytest.mark.parametrize("how", ["cut off", "half a frame", "noise", "gone"])
def test_what_stands_whole_in_a_damaged_log_is_kept_and_gone_on_from(tmp_path: Path, how: str) -> None:
    live, crashed = tmp_path / "live" / "journal.db", tmp_path / "crashed" / "journal.db"
    crashed.parent.mkdir()
    with Journal(live, "run-1") as journal:
        for i in range(60):
            asyncio.run(journal.append(StepStarted(step=f"s{i}")))
        log = Path(f"{live}-wal").read_bytes()
        crashed.write_bytes(live.read_bytes())  # as the disk was in that moment
    cut = {"cut off": len(log) // 2, "half a frame": len(log) - 100, "noise": len(log) // 3, "gone": 0}[how]
    rest = os.urandom(len(log) - cut) if how == "noise" else b""
    Path(f"{crashed}-wal").write_bytes(log[:cut] + rest)

    kept = [event.step for event in read(crashed, "run-1")] if how != "gone" else []

    assert kept == [f"s{i}" for i in range(len(kept))]  # nothing is missing between two others
    if how == "half a frame":
        assert len(kept) >= 58
    with contextlib.closing(sqlite3.connect(crashed)) as connection, connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        known = how != "gone" and connection.execute("UPDATE runs SET owner = NULL").rowcount
    if known:
        with Journal(crashed, "run-1", resume=True) as journal:
            asyncio.run(journal.append(StepStarted(step="next")))
        assert [event.step for event in read(crashed, "run-1")] == [*kept, "next"]
    else:
        Journal(crashed, "run-2").close()


# A full disk.

FULL = """
import asyncio, json, resource, sys
from pathlib import Path
from master_agent.errors import JournalError
from master_agent.events import StepStarted
from master_agent.journal import Journal
said = {"taken": None, "close": None}
journal = Journal(Path(sys.argv[1]), "run-1")
asyncio.run(journal.append(StepStarted(step="kept")))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    for i in range(1000):
        if sys.argv[3] == "append":
            asyncio.run(journal.append(StepStarted(step="x" * 2000)))
        else:
            journal.note(StepStarted(step="x" * 2000))
except JournalError as error:
    said["taken"] = [error.message, error.hint]
try:
    journal.close()
except JournalError as error:
    said["close"] = [error.message, error.hint]
print(json.dumps(said))
"""


@pytest.mark.parametrize("how", ["append", "note"])
def test_a_full_disk_is_told_when_something_is_taken_and_at_the_close(database: Path, how: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL, database, "200000", how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr == ""
    said = json.loads(ran.stdout)
    assert said["close"], "even if nobody waited, it is told in the end"
    assert said["taken"] or how == "note"
    for message, hint in filter(None, said.values()):
        assert message.startswith("the journal cannot be written: ")
        assert "Free some disk space" in hint
    assert read(database, "run-1")[0].step == "kept"


def test_who_waits_is_told_when_nothing_can_be_written(journal: Journal) -> None:
    journal._connection.execute("DROP TABLE events")
    with pytest.raises(JournalError, match="cannot be written: no such table"):
        asyncio.run(journal.append(StepStarted(step="a")))
    with pytest.raises(JournalError, match="cannot be written"):
        journal.note(StepStarted(step="b"))
    with pytest.raises(JournalError, match="cannot be written"):
        journal.close()
    journal._broken = None


def test_a_change_that_did_not_come_to_be_leaves_what_the_run_had_made_before() -> None:
    first, second = (Artifact(path="a", media_type="text/plain", bytes=1, sha256=digit * 64) for digit in "12")
    error = ErrorInfo(type="file_refused", message="no space")

    assert fold([FileChanged(file=first), FileChanged(file=second)]).files == {"a": second}
    assert fold(
        [FileChanged(file=first), FileChanged(file=second), FileChangeFailed(file=second, error=error)]
    ).files == {"a": first}
    assert fold([FileChanged(file=first), FileChangeFailed(file=first, error=error)]).files == {}
