"""The list of steps that are done, beside the events of all runs: kept by what they are made of, looked up by it."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple


class DoneStep(NamedTuple):
    """A step that a run has done: its key, who did it and when, and the places of its first and last event."""

    key: str
    run_id: str
    step: str
    doer: str
    at: str
    first: int
    last: int


_OF_OTHERS = """
SELECT d.key, d.run_id, d.step, d.doer, d.at, d.first, d.last
FROM done_steps AS d JOIN runs ON runs.run_id = d.run_id
WHERE runs.workspace = ? AND d.run_id <> ?
"""
_OF_KEY = _OF_OTHERS + "AND d.key = ? ORDER BY d.at DESC LIMIT ?"
_LIKE = _OF_OTHERS + "AND (d.step = ? OR d.doer = ?) AND d.at < ? ORDER BY d.at DESC LIMIT ?"


def keep(connection: sqlite3.Connection, steps: Iterable[DoneStep]) -> None:
    """Adds to the list; part of the caller's transaction."""
    connection.executemany("INSERT OR REPLACE INTO done_steps VALUES (?, ?, ?, ?, ?, ?, ?)", steps)


def forget(connection: sqlite3.Connection, run_id: str) -> None:
    """Takes the steps of a run out of the list; part of the caller's transaction."""
    connection.execute("DELETE FROM done_steps WHERE run_id = ?", (run_id,))


def of_key(connection: sqlite3.Connection, key: str, workspace: str, run_id: str, most: int = 3) -> list[DoneStep]:
    """The steps of that key which other runs did in the same folder, the newest first."""
    return [DoneStep(*row) for row in connection.execute(_OF_KEY, (workspace, run_id, key, most))]


def like(
    connection: sqlite3.Connection, step: str, doer: str, workspace: str, run_id: str, before: str, most: int = 200
) -> list[DoneStep]:
    """The steps of that id or by that doer which other runs did in the same folder before a time, the newest first."""
    rows = connection.execute(_LIKE, (workspace, run_id, step, doer, before, most))
    return [DoneStep(*row) for row in rows]
