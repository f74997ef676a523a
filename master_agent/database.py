"""The SQLite file that journals live in: opened, checked, brought up to date; its runs, its leases and its blobs."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from master_agent import holders
from master_agent.errors import JournalError

APPLICATION_ID = 0x6D61676A  # "magj", in the file's header: this database is a journal of ours
SCHEMA_VERSION = 4
LEASE_SECONDS = 10.0  # how long a run belongs to a process that has stopped saying so
ELSEWHERE = "Name another folder for it: --state-dir DIR"

_MIGRATIONS = {
    1: """
CREATE TABLE events (
  run_id TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, step TEXT, at TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
""",
    2: """
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, task TEXT, status TEXT, began TEXT, ended TEXT, workspace TEXT,
  owner TEXT, lease_until REAL
) WITHOUT ROWID;
CREATE TABLE blobs (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO runs (run_id, task, status, began, ended, workspace)
  SELECT first.run_id, json_extract(first.body, '$.task'),
    (SELECT json_extract(body, '$.status') FROM events WHERE run_id = first.run_id AND type = 'run_finished'
      ORDER BY seq DESC LIMIT 1),
    first.at, (SELECT max(at) FROM events WHERE run_id = first.run_id), json_extract(first.body, '$.workspace')
  FROM events AS first WHERE first.type = 'run_started';
""",
    3: """
ALTER TABLE runs ADD COLUMN parent TEXT;
ALTER TABLE runs ADD COLUMN origin TEXT;
CREATE INDEX file_changes ON events (run_id) WHERE type = 'file_changed';
""",
    4: """
CREATE TABLE done_steps (
  key TEXT NOT NULL, run_id TEXT NOT NULL, step TEXT NOT NULL, doer TEXT NOT NULL, at TEXT NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (key, run_id, step)
) WITHOUT ROWID;
""",
}


@dataclass(frozen=True)
class RunRecord:
    """One run as it is listed. `status` is null while it runs, or when its process died.

    `parent` is the run that it came from, `origin` how: `undo`, `fork` or `continue`.
    """

    run_id: str
    task: str | None
    status: str | None
    began: str
    ended: str | None
    workspace: str | None
    alive: bool
    parent: str | None = None
    origin: str | None = None


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the journals at `path`, made or migrated where needed; JournalError when it cannot be used."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # of a new one, nobody else reads
        connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"the journal {path} cannot be opened: {_why(path, error)}", hint=ELSEWHERE) from None
    try:
        # Looked at before anything is changed, the mode included: it may be somebody else's.
        application, version, tables = _look(connection)
        if (tables == 0 and application == 0) or (application == APPLICATION_ID and version < SCHEMA_VERSION):
            _migrate(connection)
            application, version, tables = _look(connection)
        if application != APPLICATION_ID:
            raise JournalError(f"{path} is a database, but not a journal of master-agent", hint=ELSEWHERE)
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} was written by a newer master-agent (version {version})",
                hint="Upgrade master-agent, or name another folder: --state-dir DIR",
            )
        _turn_to_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise JournalError(f"the journal {path} cannot be used: {_why(path, error)}", hint=ELSEWHERE) from None
    except JournalError:
        connection.close()
        raise
    return connection


def _why(path: Path, error: OSError | sqlite3.Error) -> str:
    """What is wrong with a journal that cannot be opened, in words that name what SQLite leaves out."""
    if path.parent.exists() and not path.parent.is_dir():
        return f"{path.parent} is not a folder"
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        return f"the folder {path.parent} cannot be written to"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to look with; damage that shows only then is a JournalError too."""
    connection = open_database(path)
    try:
        yield connection
    except (sqlite3.Error, ValueError) as error:
        raise JournalError(f"the journal {path} is damaged: {error}", hint=ELSEWHERE) from None
    finally:
        connection.close()


def list_runs(path: Path, *, now: float | None = None) -> list[RunRecord]:
    """Every run, the newest first."""
    moment = time.time() if now is None else now
    holder = "CASE WHEN lease_until >= ? THEN owner END"
    columns = f"run_id, task, status, began, ended, workspace, {holder}, parent, origin"
    with reading(path) as connection:
        rows = connection.execute(f"SELECT {columns} FROM runs ORDER BY began DESC, run_id DESC", (moment,)).fetchall()  # noqa: S608
    return [
        RunRecord(run_id, task, status, began, ended, workspace, _is_at_work(holder), parent, origin)
        for run_id, task, status, began, ended, workspace, holder, parent, origin in rows
        if began is not None
    ]


def _is_at_work(holder: str | None) -> bool:
    return holder is not None and not holders.is_gone(holder)


def find_run(path: Path, prefix: str | None) -> RunRecord:
    """The run whose id begins so, or the newest; JournalError when there is none, or more than one."""
    if prefix == "":
        raise JournalError("the id of the run is empty", hint="master-agent runs lists them.")
    runs = list_runs(path)
    if prefix is None and runs:
        return runs[0]
    found = [run for run in runs if prefix is not None and run.run_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        what = f'no run "{prefix}"' if prefix is not None else "no runs yet"
        raise JournalError(what, hint="master-agent runs lists them." if runs else None)
    raise JournalError(
        f'{len(found)} runs begin with "{prefix}": {", ".join(run.run_id for run in found[:5])}'
        + (", …" if len(found) > 5 else ""),
        hint="Give more of the id.",
    )


def take_lease(connection: sqlite3.Connection, run_id: str, owner: str, *, now: float | None = None) -> None:
    """Makes the run this owner's for a while; JournalError when another process holds it that is not known gone."""
    moment = time.time() if now is None else now
    if _taken(connection, run_id, owner, owner, moment):
        return
    (holder,) = connection.execute("SELECT owner FROM runs WHERE run_id = ?", (run_id,)).fetchone() or (None,)
    if holder is not None and holders.is_gone(holder) and _taken(connection, run_id, owner, holder, moment):
        return
    if holder is None:
        raise JournalError(f'no run "{run_id}"')
    raise JournalError(
        f"the run {run_id} is at work in {holders.in_words(holder)}",
        hint="Wait for it or stop it. A process that died elsewhere (on another host, in another container) gives its "
        f"run free within {LEASE_SECONDS:g} seconds.",
    )


def _taken(connection: sqlite3.Connection, run_id: str, owner: str, from_: str, moment: float) -> bool:
    """Gives the run to the owner where nobody holds it, or `from_` does, or whoever does has not said so for long."""
    with connection:
        return bool(
            connection.execute(
                "UPDATE runs SET owner = ?, lease_until = ? WHERE run_id = ? AND (owner IS NULL OR owner = ? "
                "OR lease_until < ?)",
                (owner, moment + LEASE_SECONDS, run_id, from_, moment),
            ).rowcount
        )


def give_back(connection: sqlite3.Connection, run_id: str, owner: str) -> None:
    """Ends the owner's hold on the run."""
    with connection:
        connection.execute(
            "UPDATE runs SET owner = NULL, lease_until = NULL WHERE run_id = ? AND owner = ?", (run_id, owner)
        )


@contextmanager
def held(path: Path, run_id: str) -> Iterator[Callable[[], None]]:
    """The run as this process's own, without going on with it; what is yielded keeps it so, or raises."""
    owner, connection = holders.new_holder(), open_database(path)
    try:
        take_lease(connection, run_id, owner)
        try:
            yield lambda: take_lease(connection, run_id, owner)
        finally:
            give_back(connection, run_id, owner)
    finally:
        connection.close()


def undone_by(runs: Sequence[RunRecord], run_id: str) -> str | None:
    """The undo that took back what the run had done, unless it was undone itself."""
    done = (run.run_id for run in runs if (run.parent, run.origin, run.status) == (run_id, "undo", "done"))
    return next((undo for undo in done if undone_by(runs, undo) is None), None)


def put_blobs(connection: sqlite3.Connection, blobs: Mapping[str, bytes]) -> None:
    """Keeps contents by their hash, each once; part of the caller's transaction."""
    connection.executemany("INSERT OR IGNORE INTO blobs (sha256, content) VALUES (?, ?)", blobs.items())


def get_blob(connection: sqlite3.Connection, sha256: str) -> bytes | None:
    """A content by its hash."""
    row = connection.execute("SELECT content FROM blobs WHERE sha256 = ?", (sha256,)).fetchone()
    return None if row is None else bytes(row[0])


def _look(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Whose database it is, its version and the number of its tables, all of one moment."""
    connection.execute("BEGIN")
    with connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return application, version, tables


def _turn_to_wal(connection: sqlite3.Connection) -> None:
    # For this one change SQLite does not wait for another process, whatever its timeout.
    for wait in (0.01, 0.05, 0.2, 0.5, 1.0):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(wait)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")


def _migrate(connection: sqlite3.Connection) -> None:
    """Brings the schema up to date, wholly or not at all."""
    # Two first runs may get here together: the lock is taken before the second look.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and tables:
            return  # somebody else was faster
        for number in range(version + 1, SCHEMA_VERSION + 1):
            for statement in _MIGRATIONS[number].split(";\n"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
