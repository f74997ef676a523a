"""From the events of a run to what each of its files was before the run, and may be now."""

from collections.abc import Iterable
from dataclasses import dataclass

from master_agent.events import Event, FileChanged, FileChangeFailed


@dataclass(frozen=True)
class Origin:
    """What a file was before a run changed it: the hash and mode of its bytes, both null when there was no file.

    `left` are the hashes that the run may have left it with: that of its last change, and, where the program died
    between the intent and the change, the one before.
    """

    path: str
    before: str | None
    mode: int | None
    left: frozenset[str | None]


def changes_of(history: Iterable[Event]) -> list[FileChanged]:
    """The changes of files, without those that are known not to have come to be."""
    changes: dict[int, FileChanged] = {}
    last: dict[str, int] = {}
    for place, event in enumerate(history):
        if isinstance(event, FileChanged):
            changes[place] = event
            last[event.file.path] = place
        elif isinstance(event, FileChangeFailed):
            changes.pop(last.get(event.file.path, -1), None)
    return list(changes.values())


def folders(history: Iterable[Event]) -> list[str]:
    """Every folder that a run made for a file, even where the file then did not come to be."""
    return [folder for event in history if isinstance(event, FileChanged) for folder in event.folders]


def origins(history: Iterable[Event]) -> list[Origin]:
    """Every file that a run changed, the last one first."""
    by_path: dict[str, list[FileChanged]] = {}
    for change in changes_of(history):
        # Taken out and put in again: the order is that of the last changes.
        by_path[change.file.path] = [*by_path.pop(change.file.path, []), change]
    return [_origin(path, changes) for path, changes in reversed(by_path.items())]


def _origin(path: str, changes: list[FileChanged]) -> Origin:
    """The changes taken back one by one, as far as nobody else changed the file between them."""
    first = last = changes[-1]
    for earlier in reversed(changes[:-1]):
        if earlier.after == first.before:
            first = earlier
        elif earlier.before != first.before:
            break  # what was there is neither what the run had left nor what it had found: somebody else's
    return Origin(path, first.before, first.mode, frozenset({last.after, last.before}))
