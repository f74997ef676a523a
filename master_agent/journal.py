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
        self._broken: JournalError | None = None
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._connection = _open(database)
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def note(self, event: Event) -> Event:
        """Takes an event without waiting for the disk; returns it stamped."""
        stamped = self._stamp(event)
        self._entries.put(self._entry(stamped, None))
        return stamped

    async def append(self, event: Event) -> Event:
        """Takes an event; returns it, stamped, when it is on the disk. JournalError when it cannot be."""
        stamped = self._stamp(event)
        safe: Future[None] = Future()
        safe.set_running_or_notify_cancel()  # a caller that is cancelled must not break the writer
        self._entries.put(self._entry(stamped, safe))
        await asyncio.wrap_future(safe)
        return stamped

    def tell(self, event: Event) -> None:
        """Tells the listeners of something that is not kept, such as a piece of text."""
        for listener in self._listeners:
            listener(event.model_copy(update={"run_id": self.run_id, "at": _stamp(self._clock())}))

    def close(self) -> None:
        """Writes what is left and closes the file; JournalError when something could not be kept."""
        if self._writer.is_alive():
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

    def _stamp(self, event: Event) -> Event:
        if self._broken:
            raise self._broken
        self._seq += 1
        update: dict[str, object] = {"seq": self._seq, "at": _stamp(self._clock()), "run_id": self.run_id}
        if isinstance(event, StepFinished):
            used = self.state.used.get(event.step, Usage())
            update["result"] = event.result.model_copy(update={"usage": used})
        if isinstance(event, RunFinished):
            update["usage"] = self.state.usage
        stamped = event.model_copy(update=update)
        apply(self.state, stamped)
        for listener in self._listeners:
            listener(stamped)
        return stamped

    def _entry(self, event: Event, safe: Future[None] | None) -> _Entry:
        row = (self.run_id, event.seq or 0, event.type, event.step, event.at or "", events.to_json(event))
        return _Entry(row, safe)

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
                except sqlite3.Error as error:
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
    connection = _open(database)
    try:
        rows = connection.execute("SELECT type, body FROM events WHERE run_id = ? ORDER BY seq", (run_id,)).fetchall()
    finally:
        connection.close()
    known = {member.model_fields["type"].default for member in get_args(Event)}
    return [events.EVENT.validate_json(body) for type_, body in rows if type_ in known]


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _open(database: Path) -> sqlite3.Connection:
    hint = "Name another folder for it: --state-dir DIR"
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(database, check_same_thread=False, timeout=10)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"the journal {database} cannot be opened: {error}", hint=hint) from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables == 0 and application == 0:
            _create(connection)
        elif application != APPLICATION_ID:
            raise JournalError(f"{database} is a database, but not a journal of master-agent", hint=hint)
        elif version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {database} was written by a newer master-agent (version {version})",
                hint="Upgrade master-agent, or name another folder: --state-dir DIR",
            )
    except sqlite3.DatabaseError as error:
        connection.close()
        raise JournalError(f"the journal {database} cannot be used: {error}", hint=hint) from None
    except JournalError:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    # Two first runs may get here together: the lock is taken before the second look.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
