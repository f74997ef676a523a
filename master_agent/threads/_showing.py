"""From the pieces of a text as it is written to what of it can be shown at once: no thought, and no half of a call."""

import re
from collections.abc import Iterable

from master_agent.threads._heard import CALL_MARKS, without_thought

_THINKS = ("<think>", "<thinking>")
_LINES = ("Action:", "Final Answer:", "Observation:", "Thought:")


class Shown:
    """One answer; from where a call may begin, the text is held back until it is known what it is."""

    def __init__(self, tools: Iterable[str]) -> None:
        names = tuple(tools)
        self._marks = (*CALL_MARKS, "```", "{", "<|", "</think>") if names else ("</think>",)
        self._line = (*_LINES, "[", *(f"{name}(" for name in names)) if names else ()
        signs = [re.escape(mark) for mark in self._marks]
        signs += [rf"^[ \t]*\**{re.escape(word)}" for word in self._line]
        self._sign = re.compile("|".join(signs), re.MULTILINE)
        self._text = ""
        self._given = ""
        self._held = False

    def add(self, piece: str) -> str:
        """Takes in a piece and returns what can be shown now."""
        self._text += piece
        if self._held or self._thinks():
            return ""
        visible = without_thought(self._text)
        begun = len(self._given)
        sign = self._sign.search(visible, begun)
        self._held = sign is not None
        return self._show(visible[: sign.start() if sign else self._safe(visible, begun)])

    def rest(self, answer: str) -> str:
        """What of the answer has not been shown; nothing where another text was shown than the answer's own."""
        return self._show(answer) if answer.startswith(self._given) else ""

    def _show(self, text: str) -> str:
        piece = text[len(self._given) :]
        self._given += piece
        return piece

    def _thinks(self) -> bool:
        """Whether it has begun with a thought that has no end yet, or may have."""
        start = self._text.lstrip()
        if any(mark.startswith(start) for mark in _THINKS):
            return True
        return start.startswith(_THINKS) and "</think" not in start

    def _safe(self, text: str, begun: int) -> int:
        """Up to where no sign of a call can have begun: the last letters may be the first of one."""
        for length in range(min(max(map(len, self._marks)), len(text) - begun), 0, -1):
            if any(mark.startswith(text[-length:]) for mark in self._marks):
                return len(text) - length
        line = max(text.rfind("\n") + 1, begun)
        said = text[line:].lstrip(" \t*")
        return line if self._line and any(word.startswith(said) for word in self._line) else len(text)
