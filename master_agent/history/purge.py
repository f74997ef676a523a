"""Takes a run out of the journal wholly: its events, its place in the list, and contents that no other run needs."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from master_agent import done_steps
from master_agent.database import held, open_database
from master_agent.events import Event, ModelReplied, ToolProgressed

_HASH = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Remote:
    """Something of a run that is kept elsewhere."""

    kind: str
    id: str


_STORED = ("response", "conversation", "thread", "assistant")


def remotes(history: Iterable[Event]) -> list[Remote]:
    """What a run has left at services, as far as its journal names it, each once: what others lie in comes last."""
    found: dict[Remote, None] = {}
    for event in history:
        match event:
            case ModelReplied():
                stored = {kind: id_ for kind, id_ in event.ids.items() if kind in _STORED and id_}
                if event.remote_id and stored.keys() & {"response", "conversation"}:
                    found[Remote("response", event.remote_id)] = None
                found.update(dict.fromkeys(Remote(kind, id_) for kind, id_ in stored.items()))
                found.update(dict.fromkeys(Remote("container", id_) for id_ in _containers(event.items)))
            case ToolProgressed():
                found[Remote("prediction", event.remote_id)] = None
    return sorted(found, key=lambda one: one.kind in ("conversation", "assistant"))


def _containers(value: JsonValue | list[dict[str, JsonValue]]) -> Iterator[str]:
    """The containers that items of a reply name, wherever they do."""
    if isinstance(value, dict):
        id_ = value.get("container_id")
        if isinstance(id_, str) and id_:
            yield id_
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inside:
        yield from _containers(one)


def purge(database: Path, run_id: str, first: Callable[[Callable[[], None]], None] = lambda _: None) -> None:
    """Removes the run; JournalError while a process is at work on it.

    `first` is what is done before that, while the run is held; it is given what keeps it so.
    """
    with held(database, run_id) as still_ours:
        first(still_ours)
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
