"""The append-only list of events of a run, in SQLite: the only truth about it. Events go in, and come out again."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from master_agent import done_steps, events
from master_agent.database import (
    ELSEWHERE,
    LEASE_SECONDS,
    get_blob,
    give_back,
    open_database,
    put_blobs,
    reading,
    take_lease,
)
from master_agent.done_steps import DoneStep
from master_agent.errors import JournalError
from master_agent.events import (
    Event,
    RunFinished,
    RunResumed,
    RunStarted,
    StepFinished,
    StepStarted,
)
from master_agent.holders import new_holder
from master_agent.results import Usage
from master_agent.rows import read_rows, without_long_texts
from master_agent.state import State, apply, fold
from master_agent.values import key_of

T = TypeVar("T")

GATHER_SECONDS = 0.02  # how long an event that nobody waits for may wait for company


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


Safe = asyncio.Future[None]
"""Comes to its end on its own loop when an event is on the disk."""


@dataclass(frozen=True)
class _Entry:
    row: tuple[str, int, str, str | None, str, str]
    blobs: dict[str, bytes]
    event: Event
    safe: Safe | None
    done: DoneStep | None = None


class Journal:
    """Takes events, stamps them, keeps them and tells the listeners; `state` is their fold at every moment.

    A thread of its own writes what has gathered in one transaction. `append` returns when the event is on the disk,
    with all before it; `note` returns at once. The run belongs to this process until the journal is closed, or the
    process dies: with `resume`, a run goes on that belongs to nobody, and `history` is what happened before.
    """

    def __init__(
        self,
        database: Path,
        run_id: str,
        *,
        listeners: Iterable[Callable[[Event], None]] = (),
        clock: Callable[[], datetime] = now,
        resume: bool = False,
        history: Sequence[Event] = (),
    ) -> None:
        self.database = database
        self.run_id = run_id
        self.state = State()
        self.history: list[Event] = []
        self._listeners = tuple(listeners)
        self._clock = clock
        self._seq = 0
        self._begun: dict[str, int] = {}
        self._closed = False
        self._broken: JournalError | None = None
        self._entries: list[_Entry] = []
        self._last = False
        self._asked = self._wanted = False  # somebody waits for what has gathered: in this turn of the loop, or before
        self._gathering = threading.Condition()
        self._owner = new_holder()
        self._connection = open_database(database)
        try:
            self._hold(resume, history)
        except BaseException:  # whatever it is, no connection is left open
            self._connection.close()
            raise
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def _hold(self, resume: bool, history: Sequence[Event]) -> None:
        """Makes the run this process's own; one that goes on is read back first."""
        try:
            if not resume:
                with self._connection:
                    self._connection.execute("INSERT INTO runs (run_id) VALUES (?)", (self.run_id,))
            take_lease(self._connection, self.run_id, self._owner)
            if resume:
                last = (history[-1].seq or 0) if history else 0
                self.history = [*history, *_history(self._connection, self.run_id, last)]
                self.state = fold(self.history)
                row = self._connection.execute("SELECT max(seq) FROM events WHERE run_id = ?", (self.run_id,))
                self._seq = row.fetchone()[0] or 0
                for event in self.history:
                    self._note_begin(event)
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"the journal cannot be used: {error}", hint=ELSEWHERE) from None

    def note(self, event: Event, blobs: Mapping[str, bytes] | None = None) -> Event:
        """Takes an event without waiting for the disk; returns it stamped."""
        return self._take(event, None, blobs)

    def look(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What a query finds in the journals of all runs; JournalError when they cannot be read."""
        try:
            return query(self._connection)
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"the journal cannot be read: {error}", hint=ELSEWHERE) from None

    def blob(self, sha256: str) -> bytes:
        """A content that was kept with an event; JournalError when it is not there."""
        content = get_blob(self._connection, sha256)
        if content is None:
            raise JournalError(f"the journal has lost the content {sha256[:12]}…")
        return content

    async def append(self, event: Event, blobs: Mapping[str, bytes] | None = None) -> Event:
        """Takes an event; returns it, stamped, when it is on the disk. JournalError when it cannot be.

        `blobs` are contents that the event names by their SHA-256, kept with it.
        """
        safe: Safe = asyncio.get_running_loop().create_future()
        stamped = self._take(event, safe, blobs)
        await safe
        return stamped

    def tell(self, event: Event) -> None:
        """Tells the listeners of something that is not kept, such as a piece of text."""
        for listener in self._listeners:
            listener(event.model_copy(update={"run_id": self.run_id, "at": _stamp(self._clock())}))

    def close(self) -> None:
        """Writes what is left and closes the file; JournalError when something could not be kept."""
        if not self._closed:
            self._closed = True
            with self._gathering:
                self._last = True
                self._gathering.notify()
            self._writer.join()
            with suppress(sqlite3.Error):  # the lease then ends by itself
                give_back(self._connection, self.run_id, self._owner)
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

    def _take(self, event: Event, safe: Safe | None, contents: Mapping[str, bytes] | None = None) -> Event:
        if self._broken:
            raise self._broken
        if self._closed:
            raise JournalError("the journal is closed")
        stamped, body = events.written(self._stamp(event))
        body, blobs = without_long_texts(body)
        apply(self.state, stamped)
        row = (self.run_id, self._seq, stamped.type, stamped.step, stamped.at or "", body)
        self._note_begin(stamped)
        self._put(_Entry(row, {**blobs, **(contents or {})}, stamped, safe, self._done(stamped)))
        for listener in self._listeners:  # after it is on its way to the disk: a listener may fail
            listener(stamped)
        return stamped

    def _put(self, entry: _Entry) -> None:
        """Leaves an entry for the writer, who is woken twice for a batch: by its first, and when it is wanted."""
        with self._gathering:
            self._entries.append(entry)
            if len(self._entries) == 1:
                self._gathering.notify()
        if entry.safe and not self._asked:
            self._asked = True
            entry.safe.get_loop().call_soon(self._want)  # after all that is appended in the same turn of the loop

    def _want(self) -> None:
        self._asked = False
        with self._gathering:
            self._wanted = True
            self._gathering.notify()

    def _note_begin(self, event: Event) -> None:
        if isinstance(event, StepStarted) and event.step:
            self._begun.setdefault(event.step, event.seq or 0)

    def _done(self, event: Event) -> DoneStep | None:
        """The step that an event says is done, as the list of done steps has it; None for any other event."""
        if not (isinstance(event, StepFinished) and event.step and event.result.status == "done"):
            return None
        started = self.state.started.get(event.step)
        key = key_of(started.parts) if started else None
        if started is None or key is None:
            return None
        doer = f"agent {started.agent}" if started.agent else f"tool {started.tool}"
        return DoneStep(key, self.run_id, event.step, doer, event.at or "", self._begun[event.step], self._seq)

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
        renewed = time.monotonic()
        while True:
            batch, last = self._gather()
            failure: JournalError | None = self._broken
            if failure is None:
                try:
                    if batch and (last or any(entry.safe for entry in batch)) != durable:
                        durable = not durable
                        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    if time.monotonic() - renewed > LEASE_SECONDS / 4:
                        take_lease(self._connection, self.run_id, self._owner)
                        renewed = time.monotonic()
                    with self._connection:
                        self._keep(batch)
                except JournalError as error:
                    failure = self._broken = error
                except Exception as error:  # whatever it is: a writer that died would let everyone wait for ever
                    failure = self._broken = JournalError(
                        f"the journal cannot be written: {error}",
                        hint="Free some disk space, or name another folder: --state-dir DIR",
                    )
            _tell_those_who_wait([entry.safe for entry in batch if entry.safe], failure)
            if last:
                return

    def _keep(self, batch: list[_Entry]) -> None:
        """Writes a batch, as part of one transaction: blobs, events, and what the list of runs shows."""
        for entry in batch:
            if entry.blobs:
                put_blobs(self._connection, entry.blobs)
        self._connection.executemany(
            "INSERT INTO events (run_id, seq, type, step, at, body) VALUES (?, ?, ?, ?, ?, ?)",
            [entry.row for entry in batch],
        )
        done_steps.keep(self._connection, [entry.done for entry in batch if entry.done])
        for event in (entry.event for entry in batch):
            match event:
                case RunStarted():
                    self._connection.execute(
                        "UPDATE runs SET task = ?, began = ?, workspace = ?, parent = ?, origin = ? WHERE run_id = ?",
                        (event.task, event.at, event.workspace, event.parent, event.origin, self.run_id),
                    )
                case RunResumed():
                    self._connection.execute(
                        "UPDATE runs SET status = NULL, ended = NULL WHERE run_id = ?", (self.run_id,)
                    )
                case RunFinished():
                    self._connection.execute(
                        "UPDATE runs SET status = ?, ended = ? WHERE run_id = ?",
                        (event.status, event.at, self.run_id),
                    )

    def _gather(self) -> tuple[list[_Entry], bool]:
        """What has gathered, and whether it is the last: as soon as it is wanted, or after a while; or nothing."""
        with self._gathering:
            self._gathering.wait_for(lambda: self._entries or self._last, LEASE_SECONDS / 3)
            if self._entries:
                self._gathering.wait_for(lambda: self._wanted or self._last, GATHER_SECONDS)
            batch, self._entries, self._wanted = self._entries, [], False
            return batch, self._last


def read(database: Path, run_id: str) -> list[Event]:
    """The events of a run, oldest first; those of types that this version does not know are passed over."""
    with reading(database) as connection:
        return _history(connection, run_id)


def events_of(connection: sqlite3.Connection, done: DoneStep) -> list[Event]:
    """The events of a step that is done, from its first beginning to its end."""
    query = "SELECT type, body FROM events WHERE run_id = ? AND seq BETWEEN ? AND ? AND step = ? ORDER BY seq"
    rows = connection.execute(query, (done.run_id, done.first, done.last, done.step)).fetchall()
    return read_rows(connection, rows)


def _history(connection: sqlite3.Connection, run_id: str, after: int = 0) -> list[Event]:
    query = "SELECT type, body FROM events WHERE run_id = ? AND seq > ? ORDER BY seq"
    rows = connection.execute(query, (run_id, after)).fetchall()
    return read_rows(connection, rows)


def _tell_those_who_wait(waiting: list[Safe], failure: JournalError | None) -> None:
    """Wakes each event loop once for all that wait on it, from the writer's thread."""

    def settle(of_one_loop: list[Safe]) -> None:
        for safe in of_one_loop:
            if not safe.done():  # else its caller was cancelled
                safe.set_exception(failure) if failure else safe.set_result(None)

    by_loop: dict[asyncio.AbstractEventLoop, list[Safe]] = {}
    for safe in waiting:
        by_loop.setdefault(safe.get_loop(), []).append(safe)
    for loop, of_one_loop in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(settle, of_one_loop)


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
