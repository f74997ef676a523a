"""Takes a run out of the journal wholly: its events, its place in the list, and contents that no other run needs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from master_agent import done_steps
from master_agent.database import held, open_database
from master_agent.events import Event, ModelReplied, ToolProgressed

_HASH = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Remote:
    """Something of a run that is kept elsewhere, and is not removed with it."""

    kind: str
    id: str


def remotes(history: Iterable[Event]) -> list[Remote]:
    """What a run has left at services, as far as its journal names it: conversations, threads, predictions."""
    found: dict[Remote, None] = {}
    for event in history:
        match event:
            case ModelReplied():
                found.update(dict.fromkeys(Remote(kind, id_) for kind, id_ in event.ids.items() if id_))
            case ToolProgressed():
                found[Remote("prediction", event.remote_id)] = None
    return list(found)


def purge(database: Path, run_id: str) -> None:
    """Removes the run; JournalError while a process is at work on it."""
    with held(database, run_id):
        connection = open_database(database)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                mine: set[str] = set()
                others: set[str] = set()
                for owner, body in connection.execute("SELECT run_id, body FROM events"):
                    (mine if owner == run_id else others).update(_HASH.findall(body))
                connection.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
                connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
                done_steps.forget(connection, run_id)
                gone = [(sha256,) for sha256 in mine - others]
                connection.executemany("DELETE FROM blobs WHERE sha256 = ?", gone)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
