"""From the pieces of a text as it is written to what of it can be shown at once: no thought, and no half of a call."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from master_agent.threads._heard import CALL_MARKS, without_thought

_THINKS = ("<think>", "<thinking>")
_THOUGHT = re.compile(r"</think(?:ing)?>")
_LINES = ("Action:", "Final Answer:", "Observation:", "Thought:")


class _Signs(NamedTuple):
    """Where a call may begin: at a mark, or at a line that begins with a word; and what may be the first of a mark."""

    pattern: re.Pattern[str]
    words: tuple[str, ...]
    beginnings: frozenset[str]
    longest: int


class Shown:
    """One answer; from where a call may begin, the text is held back until it is known what it is.

    A piece costs the same however much came before it.
    """

    def __init__(self, tools: Iterable[str]) -> None:
        self._signs = _signs(tuple(tools))
        self._begins = True  # it is not known yet whether with a thought
        self._after_thought = False
        self._held = False
        self._waiting = ""  # what came and was not shown
        self._given: list[str] = []

    def add(self, piece: str) -> str:
        """Takes in a piece and returns what can be shown now."""
        if self._held:
            return ""
        before = len(self._waiting)
        self._waiting += piece
        if self._begins and self._thinks(before):
            return ""
        if self._after_thought:
            self._waiting = self._waiting.lstrip()
            self._after_thought = not self._waiting
        last = self._given[-1][-1] if self._given else ""
        sign = self._signs.pattern.search(last + self._waiting, len(last))  # a line may begin after what was shown
        self._held = sign is not None
        return self._show(sign.start() - len(last) if sign else self._safe(self._waiting))

    def rest(self, answer: str) -> str:
        """What of the answer has not been shown; nothing where another text was shown than the answer's own."""
        given = "".join(self._given)
        return answer[len(given) :] if answer.startswith(given) else ""

    def _show(self, length: int) -> str:
        piece, self._waiting = self._waiting[:length], self._waiting[length:]
        if piece:
            self._given.append(piece)
        return piece

    def _thinks(self, before: int) -> bool:
        """Whether it has begun with a thought that has no end yet, or may have; `before` characters were looked at."""
        start = self._waiting.lstrip()
        if any(mark.startswith(start) for mark in _THINKS):
            return True
        if start.startswith(_THINKS):
            if not _THOUGHT.search(self._waiting, max(0, before - len("</thinking"))):
                return True
            self._waiting, self._after_thought = without_thought(self._waiting), True
        self._begins = False
        return False

    def _safe(self, text: str) -> int:
        """Up to where no sign of a call can have begun: the last letters may be the first of one."""
        signs = self._signs
        for length in range(min(signs.longest, len(text)), 0, -1):
            if text[-length:] in signs.beginnings:
                return len(text) - length
        line = text.rfind("\n") + 1
        said = text[line:].lstrip(" \t*")
        return line if any(word.startswith(said) for word in signs.words) else len(text)


@lru_cache
def _signs(tools: tuple[str, ...]) -> _Signs:
    """The signs of calls of these tools; without tools only that what came was a thought."""
    marks = (*CALL_MARKS, "```", "{", "<|", "</think>") if tools else ("</think>",)
    words = (*_LINES, "[", *(f"{name}(" for name in tools)) if tools else ()
    signs = [re.escape(mark) for mark in marks]
    signs += [rf"^[ \t]*\**{re.escape(word)}" for word in words]
    beginnings = frozenset(mark[:length] for mark in marks for length in range(1, len(mark) + 1))
    return _Signs(re.compile("|".join(signs), re.MULTILINE), words, beginnings, max(map(len, marks)))
