"""From a conversation that is too long for its model to one that fits: whole rounds are left out of its middle.

A round is what a model answered and all that it was told of it: a call of tools goes with its outputs or not at all.
The instructions, the first turn and the last rounds stay. That rounds were left out is an item of the conversation, so
that it goes on without them in every later request, in another process too.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Message = Mapping[str, Any]
LeftOut = Callable[[int], str]
"""From how many rounds were left out to what the model is told of it."""

MARK = "left_out"
KEPT = 2  # rounds at the end that always stay
CAREFUL, HOPEFUL = 3.0, 5.0  # characters of a token: few as text goes, and many
PICTURE = 1_500  # tokens of a picture, at most
OF_ANSWERS = 0.25  # of what a model reads at once is for its answer
SHRINK = 0.6  # of a request that was too long, where its server does not say by how much

_LIMIT = re.compile(
    r"(?:context|limit|maximum)[\w \"'_-]{0,30}?(?:\bis\b|\bof\b|[:=(])\D{0,12}(\d{3,})"
    r"|(\d{3,})[ -]?(?:tokens? )?(?:maximum )?context|> ?(\d{3,})",
    re.IGNORECASE,
)


def marked(rounds: int, room: int) -> Message:
    """The item that says how many rounds are left out from here on, and how many characters fit."""
    return {"role": MARK, "rounds": rounds, "room": room}


def left(items: Sequence[Message]) -> int:
    """How many rounds are left out now."""
    mark = _last_mark(items)
    return mark["rounds"] if mark else 0


def room_of(items: Sequence[Message]) -> float | None:
    """How many characters fit, as far as the conversation has shown."""
    mark = _last_mark(items)
    return mark["room"] if mark else None


def seen(items: Sequence[Message], left_out: LeftOut | None) -> tuple[Message, ...]:
    """The messages as the model is shown them: without marks, and without what they leave out."""
    said = [item for item in items if item.get("role") != MARK]
    rounds = _rounds(said)[: left(items)]
    if not rounds or left_out is None:
        return tuple(said)
    first, end = rounds[0][0], rounds[-1][1]
    told = left_out(len(rounds))
    return (*said[: first - 1], _with_words(said[first - 1], told), *said[end:])


def droppable(items: Sequence[Message]) -> int:
    """How many rounds could be left out."""
    said = [item for item in items if item.get("role") != MARK]
    return max(0, len(_rounds(said)) - KEPT)


def fitting(items: Sequence[Message], room: float, size: Callable[[Sequence[Message]], float]) -> int:
    """How many rounds have to be left out for `size` to come down to `room`: as many as can be where none suffice."""
    done, most = left(items), droppable(items)
    for rounds in range(done, most):
        if size([*items, marked(rounds, 0)]) <= room:
            return rounds
    return max(done, most)


def characters(body: Mapping[str, Any]) -> float:
    """The characters that a request comes to for its model; a picture counts for as many as its tokens would be."""
    pictures = 0
    texts: list[str] = []
    for message in body["messages"]:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content or ""}]
        pictures += sum("text" not in part for part in parts)
        texts += [part.get("text", "") for part in parts]
        texts += [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls", ())]
    texts.append(json.dumps(body.get("tools", ""), ensure_ascii=False))
    return sum(map(len, texts)) + pictures * PICTURE * CAREFUL


def room_after(complaint: str, refused: float) -> float:
    """The characters that a request may have after one of `refused` characters was too long."""
    limits = [int(found) for match in _LIMIT.finditer(complaint) for found in match.groups() if found]
    asked = [int(number) for number in re.findall(r"(?<![\d.])\d{3,}(?![\d.]*\d)", complaint)]
    over = [number for number in asked if limits and number > limits[0]]
    if not over:
        return refused * SHRINK
    return refused * limits[0] / max(over) * (1 - OF_ANSWERS)


def _last_mark(items: Sequence[Message]) -> Message | None:
    return next((item for item in reversed(items) if item.get("role") == MARK), None)


def _rounds(said: Sequence[Message]) -> list[tuple[int, int]]:
    """Where each round begins and ends."""
    starts = [place for place, item in enumerate(said) if item.get("role") == "assistant"]
    return list(pairwise([*starts, len(said)]))


def _with_words(message: Message, words: str) -> Message:
    """The message with some words more at its end: two messages of a user in a row are not taken everywhere."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": words}]}
    return {**message, "content": f"{content}\n\n{words}"}
