"""Long streams cost as much work as they have text, however small their pieces: counted in characters, not in time."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from master_agent.threads import _completions, _responses
from master_agent.threads._openai import Server

PIECES = 2000
PIECE = "twelve chars"


class Copied(str):
    """A text that counts what is copied when something is added to it piece by piece."""

    characters = 0

    def __add__(self, other: str) -> "Copied":
        return self._sum(str(self), other)

    def __radd__(self, other: str) -> "Copied":
        return self._sum(other, str(self))

    @classmethod
    def _sum(cls, one: str, other: str) -> "Copied":
        cls.characters += len(one) + len(other)
        return cls("".join((one, other)))


@contextmanager
def characters_read_as_json() -> Iterator[Callable[[], int]]:
    """Counts the characters of all that is given to the JSON reader meanwhile."""
    read = 0

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal read
        if event == "call" and frame.f_code is json.JSONDecoder.raw_decode.__code__:
            read += len(frame.f_locals["s"])

    sys.setprofile(look)
    try:
        yield lambda: read
    finally:
        sys.setprofile(None)


@pytest.fixture(autouse=True)
def _from_zero() -> None:
    Copied.characters = 0


@pytest.mark.parametrize("field", ["content", "reasoning_content", "refusal"])
def test_text_of_a_completion_is_put_together_once(field: str) -> None:
    answer = _completions.Answer(Server())
    for _ in range(PIECES):
        answer.add({"choices": [{"delta": {field: Copied(PIECE)}}]})
    answer.add({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    reply, _ = answer.reply(frozenset())
    assert reply.text == ("" if field != "content" else PIECE * PIECES)
    assert Copied.characters <= 2 * PIECES * len(PIECE)


def test_text_of_a_response_is_put_together_once() -> None:
    answer = _responses.Answer(Server())
    for _ in range(PIECES):
        answer.add({"type": "response.output_text.delta", "output_index": 0, "delta": Copied(PIECE)})
    answer.add({"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}})
    reply, _ = answer.reply(None)
    assert reply.text == PIECE * PIECES
    assert Copied.characters <= 2 * PIECES * len(PIECE)


@pytest.mark.parametrize("index", [{"index": 0}, {}], ids=["with an index", "without"])
def test_arguments_are_read_once_even_if_each_piece_repeats_the_name(index: dict[str, int]) -> None:
    arguments = json.dumps({"text": 'a "b" \\ {[' * PIECES})
    answer = _completions.Answer(Server())
    with characters_read_as_json() as read:
        for start in range(0, len(arguments), 7):
            function = {"name": "write", "arguments": Copied(arguments[start : start + 7])}
            answer.add({"choices": [{"delta": {"tool_calls": [{**index, "function": function}]}}]})
        assert read() <= 2 * len(arguments)
    answer.add({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    reply, _ = answer.reply(frozenset())
    assert [(call.name, call.arguments) for call in reply.calls] == [("write", arguments)]
    assert Copied.characters <= 4 * len(arguments)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_where_one_call_ends_and_another_begins_is_seen_however_they_are_cut(size: int) -> None:
    whole = [json.dumps({"text": text}) for text in ("plain", 'a "quoted} one\\', "[", "\\\\")]
    answer = _completions.Answer(Server())
    for arguments in whole:
        for start in range(0, len(arguments), size):
            function = {"name": "write", "arguments": arguments[start : start + size]}
            answer.add({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": function}]}}]})
    answer.add({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    assert [call.arguments for call in answer.reply(frozenset())[0].calls] == whole
