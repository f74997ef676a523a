"""References such as `${hero.path}` in prompts and arguments: found, checked and filled in, never scanned twice."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import JsonValue

FIELDS = ("text", "path", "data")
_TOKEN = re.compile(r"\$\$\{|\$\{([^${}]*)\}")
_SHAPE = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)((?:\.[A-Za-z0-9_-]+)+)")


@dataclass(frozen=True)
class Reference:
    """`${source.field.rest}`: a step's id or `params`, and the way into what it left."""

    source: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return "${" + ".".join((self.source, *self.path)) + "}"


@dataclass(frozen=True)
class Malformed:
    """Something between `${` and `}` that is no reference."""

    text: str


def find(value: JsonValue) -> Iterator[Reference | Malformed]:
    """Every reference in a text, or in the texts of a list or map, in order."""
    match value:
        case str():
            for match in _TOKEN.finditer(value):
                if match.group(0) != "$${":
                    yield _read(match.group(1))
        case list():
            for item in value:
                yield from find(item)
        case dict():
            for item in value.values():
                yield from find(item)


def fill(value: JsonValue, resolve: Callable[[Reference], JsonValue], show: Callable[[JsonValue], str]) -> JsonValue:
    """The value with every reference replaced by what `resolve` returns; what is put in is not scanned again.

    A text that is one reference and nothing else becomes the resolved value itself; inside a longer text it becomes
    what `show` makes of it. `$${` becomes `${`.
    """
    match value:
        case str():
            whole = _TOKEN.fullmatch(value)
            if whole and whole.group(0) != "$${":
                reference = _read(whole.group(1))
                return resolve(reference) if isinstance(reference, Reference) else value
            return fill_text(value, lambda reference: show(resolve(reference)))
        case list():
            return [fill(item, resolve, show) for item in value]
        case dict():
            return {name: fill(item, resolve, show) for name, item in value.items()}
    return value


def fill_text(text: str, resolve: Callable[[Reference], str]) -> str:
    """The text with every reference replaced; malformed ones stay as they are written."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$${":
            return "${"
        reference = _read(match.group(1))
        return resolve(reference) if isinstance(reference, Reference) else match.group(0)

    return _TOKEN.sub(replace, text)


def rename(value: JsonValue, names: Callable[[str], str]) -> JsonValue:
    """The value with the source of every reference renamed."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$${":
            return match.group(0)
        reference = _read(match.group(1))
        if isinstance(reference, Malformed):
            return match.group(0)
        return str(Reference(names(reference.source), reference.path))

    match value:
        case str():
            return _TOKEN.sub(replace, value)
        case list():
            return [rename(item, names) for item in value]
        case dict():
            return {name: rename(item, names) for name, item in value.items()}
    return value


def _read(inside: str) -> Reference | Malformed:
    match = _SHAPE.fullmatch(inside.strip())
    if match is None:
        return Malformed("${" + inside + "}")
    return Reference(match.group(1), tuple(match.group(2)[1:].split(".")))
