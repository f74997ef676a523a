"""The contract of all wires: the same words of a model come to the same results, replies and journal on each of them.

What the model says is described once; `contracting` makes of it each wire's stateful server, or a script.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from master_agent.events import ModelReplied, TextDelta, ToolReturned
from master_agent.threads import ModelToolCall
from tests.threads.carrying import MARK, PICTURE, Carried, carry_out
from tests.threads.contracting import READ, SIDES, WRITTEN, Model, Say, Side, Told

ALL = pytest.mark.parametrize("side", SIDES)
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def call(id: str, name: str = "add", **arguments: int) -> ModelToolCall:  # noqa: A002
    return ModelToolCall(id, name, json.dumps(arguments))


ONE_ROUND = {"a": [Say("It is four.\nSo be it.")]}
THREE_ROUNDS = {"a": [Say("Let me add.", (call("one", a=1, b=1),)), Say(calls=(call("two", a=2, b=1),)),
                      Say("And\nonce more.", (call("three", a=3, b=1),)), Say("Four.")]}  # fmt: skip
TWO_CALLS = {"a": [Say("Both.", (call("one", a=1, b=1), call("two", a=2, b=2))), Say("Two and four.")]}
PARALLEL = {step: [Say(f"I am {step}.", (call(f"of_{step}", a=1, b=1),)), Say(f"{step} is done.")] for step in "abcdef"}
CUT_OFF = {"a": [Say("It is f", end="cut off")]}
CUT_OFF_LATER = {"a": [Say(calls=(call("one", a=1, b=1),)), Say("It is f", end="cut off")]}
REFUSED = {"a": [Say("I will not do that.", end="refused")]}
TOOL_ERROR = {"a": [Say(calls=(call("one", "divide", a=1, b=0), call("two", a=1, b=1))),
                    Say(calls=(call("three", "divide", a=4, b=2),)), Say("Two.")]}  # fmt: skip
WRONG_CALLS = {"a": [Say(calls=(ModelToolCall("one", "add", '{"a": 1'), ModelToolCall("two", "fly", "{}"))),
                     Say("Never mind.")]}  # fmt: skip
SCENARIOS: dict[str, tuple[Mapping[str, Sequence[Say]], dict[str, str]]] = {
    # name: what the model says by step, the text that each step has in the end or the error it fails with
    "one round": (ONE_ROUND, {"a": "It is four.\nSo be it."}),
    "three rounds": (THREE_ROUNDS, {"a": "Four."}),
    "two calls in a round": (TWO_CALLS, {"a": "Two and four."}),
    "parallel steps": (PARALLEL, {step: f"{step} is done." for step in "abcdef"}),
    "cut off": (CUT_OFF, {"a": "incomplete"}),
    "cut off after a round": (CUT_OFF_LATER, {"a": "incomplete"}),
    "refused": (REFUSED, {"a": "refused"}),
    "a tool's error": (TOOL_ERROR, {"a": "Two."}),
    "calls that cannot be carried out": (WRONG_CALLS, {"a": "Never mind."}),
}


def ran(connect: str, lines: Mapping[str, Sequence[Say]], folder: Path, **more: Any) -> tuple[Carried, list[Told]]:
    """A run on that side, which must have understood all requests and have nothing left to do."""
    model = Model(lines)
    opened: AbstractContextManager[Side] = SIDES[connect](model)
    with opened as side:
        carried = asyncio.run(carry_out(side.connect(), list(lines), folder, **more))
        assert side.faults() == []
        assert side.left_over() == []
    return carried, model.told


def results(carried: Carried) -> dict[str, Any]:
    """What each step left, without its seconds."""
    found = carried.result.model_dump_public()["results"]
    return {step: {**result, "seconds": None} for step, result in found.items()}


def replies(carried: Carried) -> dict[str, list[Any]]:
    """What the journal holds of the model's replies, by step."""
    told: dict[str, list[Any]] = {}
    for one in carried.of(ModelReplied):
        told.setdefault(one.step, []).append(
            (one.attempt, one.status, one.text, one.calls, one.reason, one.usage, one.error, one.retry_after)
        )
    return told


def outputs(carried: Carried) -> dict[str, Any]:
    """What the journal holds of tools, by the id by which they were asked for."""
    return {one.asked: (one.step, one.tool, one.text, one.error, one.pictures) for one in carried.of(ToolReturned)}


def by_step(told: list[Told]) -> list[Told]:
    return sorted(told, key=lambda one: one.step)


@STREAMED
@ALL
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_words_come_to_the_same_results(name: str, side: str, stream: bool, tmp_path: Path) -> None:
    lines, ends = SCENARIOS[name]
    for folder in ("here", "scripted"):
        (tmp_path / folder).mkdir()
    deltas: list[TextDelta] = []
    carried, told = ran(
        *(side, lines, tmp_path / "here"),
        stream=stream,
        listeners=[lambda event: deltas.append(event) if isinstance(event, TextDelta) else None],
    )
    scripted, told_there = ran("scripted", lines, tmp_path / "scripted", stream=stream)

    left = carried.result.results
    assert {step: one.error.type if one.error else one.text for step, one in left.items()} == ends
    assert results(carried) == results(scripted)
    assert replies(carried) == replies(scripted)
    assert outputs(carried) == outputs(scripted)
    assert by_step(told) == by_step(told_there), "the model is told the same, in the same requests"
    requests = sum(map(len, lines.values()))
    assert len(told) == carried.result.usage.calls == requests
    assert (carried.result.usage.input_tokens, carried.result.usage.output_tokens) == (
        READ * requests,
        WRITTEN * requests,
    )
    for step, says in lines.items():
        written = "".join(one.text for one in deltas if one.step == step)
        assert written == "".join(say.text for say in says if stream and say.end != "refused")


@STREAMED
@ALL
def test_pictures_in_a_turn_and_in_an_output_are_seen_or_named(side: str, stream: bool, tmp_path: Path) -> None:
    lines = {"a": [Say(calls=(call("one", "look"), call("two", a=1, b=1))), Say("A cat.")]}
    carried, (first, second) = ran(side, lines, tmp_path, given=(PICTURE,), stream=stream)

    assert carried.result.results["a"].text == "A cat."
    assert first.pictures == ("cat.png",)
    assert "Do step a." in first.words
    marked = {"one": ("look", "here it is"), "two": ("add", "a: 2")}
    said = {call: f'<{MARK} tool="{name}">\n{text}\n</{MARK}>' for call, (name, text) in marked.items()}
    assert second == Told("a", said, ("a.png",))


@STREAMED
@ALL
def test_a_request_that_is_cancelled_in_mid_air_is_let_go_and_the_run_can_go_on(
    side: str, stream: bool, tmp_path: Path
) -> None:
    asks = Say("I add.", (call("one", a=1, b=1),))
    model = Model({"a": [asks, Say("It is", end="hangs"), Say("It is two.")]})
    with SIDES[side](model) as there:
        cut = asyncio.run(
            carry_out(there.connect(), ["a"], tmp_path, stream=stream, until=lambda: len(model.told) == 2)
        )
        assert not there.server or there.server.wait_for(lambda: there.left_over() == [])
        result = cut.result.results["a"]
        assert (cut.result.status, result.status, result.text) == ("cancelled", "cancelled", "")
        assert [(one.status, one.error and one.error.type) for one in cut.of(ModelReplied)] == [
            ("requires_action", None),
            ("failed", "cancelled"),
        ]

        on = asyncio.run(carry_out(there.connect(), [], tmp_path, stream=stream, resume=True))
        assert there.faults() == []
        assert not there.server or there.server.wait_for(lambda: there.left_over() == [])
    result = on.result.results["a"]
    assert (on.result.status, result.status, result.text, result.attempt) == ("done", "done", "It is two.", 2)
    assert [(one.status, one.text) for one in on.of(ModelReplied)][2:] == [("completed", "It is two.")]
    assert [one.text for one in on.of(ToolReturned)] == ["a: 2"]
    assert "a: 2" in str(model.told[2].words), "what the tool gave is not lost"
    assert len(model.told) == 3, "no turn that was answered is asked for again"


@ALL
def test_a_conversation_goes_on_from_the_journal_after_a_reply_that_was_cut_off(side: str, tmp_path: Path) -> None:
    model = Model({"a": [Say(calls=(call("one", a=1, b=1),)), Say("It is", end="cut off"), Say("It is two.")]})
    with SIDES[side](model) as there:
        failed = asyncio.run(carry_out(there.connect(), ["a"], tmp_path))
        assert (failed.result.status, [one.type for one in _errors(failed)]) == ("failed", ["incomplete"])
        on = asyncio.run(carry_out(there.connect(), [], tmp_path, resume=True))
        assert (there.faults(), there.left_over()) == ([], [])
    assert (on.result.status, on.result.results["a"].text) == ("done", "It is two.")
    assert len(on.of(ToolReturned)) == 1, "what a tool did is not done again"
    assert "a: 2" in str(model.told[2].words)


def _errors(carried: Carried) -> list[Any]:
    return [one.error for one in carried.result.results.values() if one.error]
