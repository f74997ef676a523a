"""The append-only list of events of a run, in SQLite: the only truth about it. Events go in, a State comes out."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

from master_agent import events
from master_agent.errors import JournalError
from master_agent.events import (
    Event,
    FileChanged,
    ModelReplied,
    PlanMade,
    PlanRevised,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    ToolReturned,
)
from master_agent.plan import Plan
from master_agent.results import Artifact, ErrorInfo, RunStatus, StepResult, Usage

APPLICATION_ID = 0x6D61676A  # "magj", in the file's header: this database is a journal of ours
SCHEMA_VERSION = 1
_ELSEWHERE = "Name another folder for it: --state-dir DIR"
GATHER_SECONDS = 0.02  # how long an event that nobody waits for may wait for company

_SCHEMA = """
CREATE TABLE events (
  run_id TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, step TEXT, at TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
"""


@dataclass
class State:
    """What a run has come to: the fold of its events."""

    run_id: str | None = None
    task: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    results: dict[str, StepResult] = field(default_factory=dict)
    started: dict[str, StepStarted] = field(default_factory=dict)
    files: dict[str, Artifact] = field(default_factory=dict)
    used: dict[str | None, Usage] = field(default_factory=dict)
    status: RunStatus | None = None
    error: ErrorInfo | None = None
    began: str | None = None
    ended: str | None = None

    @property
    def usage(self) -> Usage:
        """What the whole run has used so far, the planner's calls included."""
        return sum(self.used.values(), Usage())

    @property
    def seconds(self) -> float:
        """From the first event to the last one, in seconds."""
        if self.began is None or self.ended is None:
            return 0.0
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)).total_seconds()


def apply(state: State, event: Event) -> None:
    """One event folded into the state."""
    state.ended = event.at
    match event:
        case RunStarted():
            state.run_id, state.task, state.params, state.began = event.run_id, event.task, event.params, event.at
        case PlanMade() | PlanRevised():
            state.plan = event.plan
            state.task = event.plan.task if event.plan.task is not None else state.task
            state.params = event.plan.params or state.params
            if isinstance(event, PlanMade):
                state.results.update(event.earlier)
        case StepStarted() if event.step:
            state.started[event.step] = event
        case ModelReplied() | ToolReturned():
            state.used[event.step] = state.used.get(event.step, Usage()) + event.usage
        case FileChanged():
            state.files[event.file.path] = event.file
        case StepFinished() if event.step:
            state.results[event.step] = event.result
        case RunFinished():
            state.status, state.error = event.status, event.error


def fold(history: Iterable[Event]) -> State:
    """The state that a list of events leads to."""
    state = State()
    for event in history:
        apply(state, event)
    return state


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Entry:
    row: tuple[str, int, str, str | None, str, str]
    safe: Future[None] | None


class Journal:
    """Takes events, stamps them, keeps them and tells the listeners; `state` is their fold at every moment.

    A thread of its own writes what has gathered in one transaction. `append` returns when the event is on the disk,
    with all before it; `note` returns at once.
    """

    def __init__(
        self,
        database: Path,
        run_id: str,
        *,
        listeners: Iterable[Callable[[Event], None]] = (),
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.run_id = run_id
        self.state = State()
        self._listeners = tuple(listeners)
        self._clock = clock
        self._seq = 0
        self._closed = False
        self._broken: JournalError | None = None
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._connection = _open(database)
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def note(self, event: Event) -> Event:
        """Takes an event without waiting for the disk; returns it stamped."""
        return self._take(event, None)

    async def append(self, event: Event) -> Event:
        """Takes an event; returns it, stamped, when it is on the disk. JournalError when it cannot be."""
        safe: Future[None] = Future()
        safe.set_running_or_notify_cancel()  # a caller that is cancelled must not break the writer
        stamped = self._take(event, safe)
        await asyncio.wrap_future(safe)
        return stamped

    def tell(self, event: Event) -> None:
        """Tells the listeners of something that is not kept, such as a piece of text."""
        for listener in self._listeners:
            listener(event.model_copy(update={"run_id": self.run_id, "at": _stamp(self._clock())}))

    def close(self) -> None:
        """Writes what is left and closes the file; JournalError when something could not be kept."""
        if not self._closed:
            self._closed = True
            self._entries.put(None)
            self._writer.join()
            self._connection.close()
        if self._broken:
            raise self._broken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except JournalError:
            if error is None:
                raise

    def _take(self, event: Event, safe: Future[None] | None) -> Event:
        if self._broken:
            raise self._broken
        if self._closed:
            raise JournalError("the journal is closed")
        stamped, body = events.written(self._stamp(event))
        apply(self.state, stamped)
        row = (self.run_id, self._seq, stamped.type, stamped.step, stamped.at or "", body)
        self._entries.put(_Entry(row, safe))
        for listener in self._listeners:  # after it is on its way to the disk: a listener may fail
            listener(stamped)
        return stamped

    def _stamp(self, event: Event) -> Event:
        self._seq += 1
        update: dict[str, object] = {"seq": self._seq, "at": _stamp(self._clock()), "run_id": self.run_id}
        if isinstance(event, StepFinished):
            used = self.state.used.get(event.step, Usage())
            update["result"] = event.result.model_copy(update={"usage": used})
        if isinstance(event, RunFinished):
            update["usage"] = self.state.usage
        return event.model_copy(update=update)

    def _write(self) -> None:
        durable = False
        while True:
            batch, last = self._gather()
            waited = any(entry.safe for entry in batch)
            failure: JournalError | None = self._broken
            if batch and failure is None:
                try:
                    if (waited or last) != durable:
                        durable = not durable
                        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    with self._connection:
                        self._connection.executemany(
                            "INSERT INTO events (run_id, seq, type, step, at, body) VALUES (?, ?, ?, ?, ?, ?)",
                            [entry.row for entry in batch],
                        )
                except Exception as error:  # whatever it is: a writer that died would let everyone wait for ever
                    failure = self._broken = JournalError(
                        f"the journal cannot be written: {error}",
                        hint="Free some disk space, or name another folder: --state-dir DIR",
                    )
            for entry in batch:
                if entry.safe:
                    if failure:
                        entry.safe.set_exception(failure)
                    else:
                        entry.safe.set_result(None)
            if last:
                return

    def _gather(self) -> tuple[list[_Entry], bool]:
        batch: list[_Entry] = []
        deadline: float | None = None
        while True:
            try:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                entry = self._entries.get(timeout=wait)
            except queue.Empty:
                return batch, False
            if entry is None:
                return batch, True
            batch.append(entry)
            if deadline is None:
                deadline = time.monotonic() + GATHER_SECONDS
            if entry.safe:
                deadline = 0.0


def read(database: Path, run_id: str) -> list[Event]:
    """The events of a run, oldest first; those of types that this version does not know are passed over."""
    known = {member.model_fields["type"].default for member in get_args(Event)}
    connection = _open(database)
    try:
        rows = connection.execute("SELECT type, body FROM events WHERE run_id = ? ORDER BY seq", (run_id,)).fetchall()
        return [events.EVENT.validate_json(body) for type_, body in rows if type_ in known]
    except (sqlite3.Error, ValueError) as error:
        raise JournalError(f"the journal {database} is damaged: {error}", hint=_ELSEWHERE) from None
    finally:
        connection.close()


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _open(database: Path) -> sqlite3.Connection:
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(database, check_same_thread=False, timeout=10)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"the journal {database} cannot be opened: {error}", hint=_ELSEWHERE) from None
    try:
        # Looked at before anything is changed, the mode included: it may be somebody else's.
        application, version, tables = _look(connection)
        if tables == 0 and application == 0:
            _create(connection)
            application, version, tables = _look(connection)
        if application != APPLICATION_ID:
            raise JournalError(f"{database} is a database, but not a journal of master-agent", hint=_ELSEWHERE)
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {database} was written by a newer master-agent (version {version})",
                hint="Upgrade master-agent, or name another folder: --state-dir DIR",
            )
        _turn_to_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise JournalError(f"the journal {database} cannot be used: {error}", hint=_ELSEWHERE) from None
    except JournalError:
        connection.close()
        raise
    return connection


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


def _create(connection: sqlite3.Connection) -> None:
    # Two first runs may get here together: the lock is taken before the second look.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
