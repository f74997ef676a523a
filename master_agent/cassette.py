"""The file of a recorded run: exchanges go in as lines of JSON; a replay takes each out once, or says what differs.

The first line is the head; every other one holds a `port`, who asked (`agent`, `step`, `turn`, `attempt`), the
`request` in a form that no run changes by chance, and what came back. Each line holds the hash of the rest of itself.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from master_agent.errors import ReplayError, SettingsError
from master_agent.secrets import Secrets
from master_agent.values import clean

KIND, VERSION, DIGEST = "cassette", 1, "sha256"
PORTS = ("thread", "image", "fetch")
PLACE = "⟨workspace⟩"
CODED = "content"  # in what came back: bytes in Base64, which stay as they are
MARK = "data-000000000000"
MOST_LINES, WIDTH = 40, 160  # of a difference that is shown
_WHO = ("port", "step", "turn", "attempt")

Data = dict[str, JsonValue]


@dataclass(frozen=True)
class Forms:
    """How values of one run are written so that those of another are equal: without secrets, folder, mark and times."""

    secrets: Secrets
    workspace: Path
    mark: str

    def asked(self, value: Data) -> Data:
        """A request as it is compared."""
        return _through(clean(value), lambda text: _timeless(self._placeless(text).replace(self.mark, MARK)))

    def answered(self, value: Data) -> Data:
        """What came back, as it is kept: the mark stays, for a replay has the same."""
        return _through(clean(value), self._placeless, CODED)

    def restored(self, value: Data) -> Data:
        """What came back, as it is given to the run of today."""
        return _through(value, lambda text: text.replace(PLACE, str(self.workspace)), CODED)

    def _placeless(self, text: str) -> str:
        if len(self.workspace.parts) > 2:  # "/" and "/home" stand in texts that mean no folder of ours
            text = re.sub(re.escape(str(self.workspace)) + r"(?![\w-])", PLACE, text)
        return self.secrets.hide(text)


def _timeless(text: str) -> str:
    """The text without the seconds that a program took."""
    return re.sub(r"(?m)^(\[(?:exit code|ended)[^\]\n]*, after )[\d.]+ s", r"\1⟨time⟩ s", text)


def _through(value: Data, change: Callable[[str], str], but: str | None = None) -> Data:
    """The value with each of its texts changed, but for those of one name."""

    def changed(part: Any) -> Any:
        match part:
            case str():
                return change(part)
            case list():
                return [changed(item) for item in part]
            case dict():
                return {change(name): item if name == but else changed(item) for name, item in part.items()}
        return part

    whole: Data = changed(value)
    return whole


class Recorder:
    """A new cassette. Each line is on its way to the disk in one piece before the run goes on.

    SettingsError when the file cannot be written, or holds something else than a cassette.
    """

    def __init__(self, path: Path, head: Data) -> None:
        self._path = path
        try:
            _spare_others(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.fchmod(self._fd, 0o600)
        except OSError as error:
            raise SettingsError(f"the cassette {path} cannot be written: {error.strerror}") from None
        self.write({"kind": KIND, "version": VERSION, **head})

    def write(self, line: Data) -> None:
        """Adds a line."""
        content = json.dumps({**line, DIGEST: _digest(line)}, ensure_ascii=False).encode() + b"\n"
        try:
            written = os.write(self._fd, content)
            while written < len(content):
                written += os.write(self._fd, content[written:])
        except OSError as error:
            raise SettingsError(f"the cassette {self._path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._fd)


def _spare_others(path: Path) -> None:
    """SettingsError when a file is there that is no cassette."""
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    try:
        recorded = not first or json.loads(first)["kind"] == KIND
    except (ValueError, TypeError, KeyError, RecursionError):
        recorded = False
    if not recorded:
        raise SettingsError(f"{path} is there and is no cassette; it is left alone", hint="Name another: --record FILE")


def _digest(line: Mapping[str, Any]) -> str:
    plain = json.dumps({name: line[name] for name in line if name != DIGEST}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


@dataclass
class Cassette:
    """The exchanges of a recorded run; each is taken once. After the first difference nothing is given any more."""

    path: Path
    head: Data
    lines: dict[int, Data]
    _left: dict[tuple[JsonValue, ...], list[int]] = field(default_factory=dict)
    _difference: ReplayError | None = None

    def __post_init__(self) -> None:
        for number, line in self.lines.items():
            self._left.setdefault(_key(line), []).append(number)

    def take(self, who: Data, request: Data) -> Data:
        """The line that answers this request; ReplayError, now and ever after, when there is none."""
        if self._difference is not None:
            raise self._again(self._difference)
        left = self._left.get(_key(who), [])
        found = next((number for number in left if self.lines[number]["request"] == request), None)
        if found is None:
            raise self._differs(who, request, left)
        left.remove(found)
        line = self.lines[found]
        if line.get(DIGEST) != _digest(line):
            raise self._stop(
                f"line {found} of {self.path} ({_named(line)}) is not as it was recorded",
                hint="To play replies that were changed by hand, use --script in place of --replay.",
            )
        return line

    def unreadable(self, line: Data, why: str) -> ReplayError:
        """The error for a line whose answer cannot be made sense of."""
        number = next((number for number, known in self.lines.items() if known is line), 0)
        return self._stop(f"line {number} of {self.path} ({_named(line)}) cannot be read: {why}")

    def finish(self) -> None:
        """ReplayError when something differed, or something that was recorded has not been asked for."""
        if self._difference is not None:
            raise self._again(self._difference)
        left = sorted(number for numbers in self._left.values() for number in numbers)
        if left:
            many = "1 exchange was" if len(left) == 1 else f"{len(left)} exchanges were"
            raise self._stop(
                f"{many} not asked for; the first is line {left[0]} of {self.path} ({_named(self.lines[left[0]])})"
            )

    def _differs(self, who: Data, request: Data, left: list[int]) -> ReplayError:
        name = _named(who)
        if left:
            shown = "\n".join(difference(self.lines[left[0]]["request"], request))
            return self._stop(f"the request of {name} differs from line {left[0]} of {self.path}:\n{shown}")
        return self._stop(f"{self.path} has no exchange for {name}")

    def _stop(self, message: str, hint: str | None = None) -> ReplayError:
        hint = hint or "Undo what has changed since, or record the run again: --record FILE"
        self._difference = ReplayError(message, hint=hint)
        return self._difference

    @staticmethod
    def _again(error: ReplayError) -> ReplayError:
        return ReplayError(error.message, hint=error.hint)


def read_cassette(path: Path) -> Cassette:
    """The cassette of a file; SettingsError with the number of the line that is wrong."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the cassette {path} cannot be read: {error}") from None
    raw = dict(_parsed(path, content))
    head = raw.pop(1, {})
    if head.get("kind") != KIND:
        raise SettingsError(f"{path} is no cassette: its first line must be the one that --record wrote")
    if head.get("version") != VERSION:
        raise SettingsError(f"{path} is a cassette of version {head.get('version')}; this program reads {VERSION}")
    for number, line in raw.items():
        if line.get("port") not in PORTS:
            raise SettingsError(f'{path}, line {number}: no port "{line.get("port")}"')
        if not isinstance(line.get("request"), dict):
            raise SettingsError(
                f"{path}, line {number} holds no request to compare with: it was not recorded",
                hint="Replies that were written by hand are played with --script FILE.",
            )
    if head.get(DIGEST) != _digest(head):
        raise SettingsError(f"{path}, line 1 is not as it was recorded")
    return Cassette(path, head, raw)


def _parsed(path: Path, content: str) -> Iterator[tuple[int, Data]]:
    for number, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            raise SettingsError(f"{path}, line {number} is not JSON: was it cut off?") from None
        if not isinstance(line, dict):
            raise SettingsError(f"{path}, line {number} is no object")
        yield number, line


def _key(line: Data) -> tuple[JsonValue, ...]:
    return tuple(json.dumps(line.get(name)) for name in _WHO)


def _named(who: Data) -> str:
    """Who asked, in words."""
    asker = f"step {who['step']}" if who.get("step") else f"the {who.get('agent') or 'run'}"
    kinds = {"image": " for a picture", "fetch": " for a download"}
    turn = f", turn {who['turn']}" if who.get("turn") else kinds.get(str(who.get("port")), "")
    attempt = who.get("attempt")
    return asker + turn + (f", attempt {attempt}" if attempt not in (None, 1) else "")


def difference(then: Any, now: Any) -> list[str]:
    """What differs between two requests, as a short unified diff; each line says to which field it belongs."""
    compared = difflib.unified_diff(list(_told(then)), list(_told(now)), "recorded", "asked now", n=1, lineterm="")
    lines = [line for line in compared if not line.startswith("@@")]
    more = [f"… and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return [*lines[:MOST_LINES], *more]


def _told(value: Any, name: str = "") -> Iterator[str]:
    match value:
        case dict():
            for key in sorted(value):
                yield from _told(value[key], f"{name}.{key}" if name else key)
        case list() if value:
            for place, item in enumerate(value):
                yield from _told(item, f"{name}[{place}]")
        case str():
            for line in value.split("\n"):
                for start in range(0, max(len(line), 1), WIDTH):
                    yield f"{name}: {line[start : start + WIDTH]}"
        case _:
            yield f"{name} = {json.dumps(value)}"
