"""From the events of a run to what each of its files was before the run, and may be now."""

from collections.abc import Iterable
from dataclasses import dataclass

from master_agent.events import Event, FileChanged


@dataclass(frozen=True)
class Origin:
    """What a file was before a run changed it: the hash and mode of its bytes, both null when there was no file.

    `left` are the hashes that the run may have left it with: that of its last change, and, where the program died
    between the intent and the change, the one before. `folders` were made for the file.
    """

    path: str
    before: str | None
    mode: int | None
    left: frozenset[str | None]
    folders: tuple[str, ...] = ()


def origins(history: Iterable[Event]) -> list[Origin]:
    """Every file that a run changed, the last one first."""
    by_path: dict[str, list[FileChanged]] = {}
    for event in history:
        if isinstance(event, FileChanged):
            # Taken out and put in again: the order is that of the last changes.
            by_path[event.file.path] = [*by_path.pop(event.file.path, []), event]
    return [_origin(path, changes) for path, changes in reversed(by_path.items())]


def _origin(path: str, changes: list[FileChanged]) -> Origin:
    """The changes taken back one by one, as far as nobody else changed the file between them."""
    first = last = changes[-1]
    folders = list(last.folders)
    for earlier in reversed(changes[:-1]):
        if earlier.after == first.before:
            first = earlier
        elif earlier.before != first.before:
            break  # what was there is neither what the run had left nor what it had found: somebody else's
        folders += earlier.folders  # a change that never came to be may have made its folders
    return Origin(path, first.before, first.mode, frozenset({last.after, last.before}), tuple(folders))
