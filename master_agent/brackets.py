"""From a text in which a bracket opens to where it is closed again, however badly what stands between is written."""

import re
from collections.abc import Callable
from dataclasses import dataclass

DEEPEST = 200  # brackets in one another; nothing that is read here has so many

_SIGN = re.compile(r"//[^\n]*|/\*.*?\*/|[\"'{}\[\]]", re.DOTALL)


@dataclass(frozen=True)
class Region:
    """Where it ends; None where it breaks off, with `depth` brackets open, and `quoted` when within a text."""

    end: int | None
    depth: int = 0
    quoted: bool = False


def region(text: str, start: int, opened: Callable[[int, int], None] | None = None) -> Region:
    """The region of the bracket at `start`; `opened` is told of each bracket in it: its depth, from 0, and its place.

    Follows the brackets, and the texts between quotes of either kind.
    """
    depth, position, before = 0, start, ""
    while depth <= DEEPEST and (sign := _SIGN.search(text, position)):
        found, here = sign.group(0), sign.start()
        before = text[position:here].rstrip()[-1:] or before
        position = sign.end()
        if found in ("{", "["):
            if opened is not None:
                opened(depth, here)
            depth += 1
        elif found in ("}", "]"):
            depth -= 1
            if depth == 0:
                return Region(position)
        elif found in ("'", '"') and before in tuple("{[,:\"'"):
            end = _text_end(text, position, found)  # elsewhere it is an apostrophe, or a quote inside a text
            if end is None:
                return Region(None, depth, quoted=True)
            position = end
        if found[0] != "/":
            before = text[position - 1]
    return Region(None, depth)


def _text_end(text: str, position: int, quote: str) -> int | None:
    """After the quote that closes a text: one that something follows which can follow a text."""
    closing = re.compile(rf"\\.|{quote}(?=\s*(?:[,:}}\]\"'/]|\Z))", re.DOTALL)
    while found := closing.search(text, position):
        position = found.end()
        if found.group(0) == quote:
            return position
    return None
