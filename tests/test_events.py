"""The event contract: every type survives its JSON line, and what JSON cannot hold is cleaned before it is written."""

import json
from typing import Any, get_args

import jsonschema
import pytest

from master_agent.checker import check
from master_agent.events import (
    EVENT,
    Event,
    FileChanged,
    FileChangeFailed,
    FileContested,
    ModelCalled,
    ModelReplied,
    PlanMade,
    PlanRevised,
    ReuseRefused,
    RunFinished,
    RunResumed,
    RunStarted,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCalled,
    ToolProgressed,
    ToolReturned,
    to_json,
    written,
)
from master_agent.results import Artifact, ErrorInfo, StepResult, Usage

FILE = Artifact(path="a.png", media_type="image/png", bytes=3, sha256="0" * 64)
ERROR = ErrorInfo(type="cancelled", message="m")
DONE = StepResult(status="done", agent="code", text="é\n", data={"x": [1, None, {"y": 1.5}]}, artifacts=(FILE,))
PLAN = check({"plan": [{"id": "a", "agent": "code", "prompt": "x", "needs": []}]}, ["code"], {}, task="t")
WHERE: dict[str, Any] = {"step": "a", "attempt": 2, "call": "m1"}

EVENTS: list[Event] = [
    RunStarted(task="t", params={"a": "b"}, workspace="/w", mark="data-1", program="p"),
    RunStarted(),
    RunStarted(task="t", parent="r0", origin="undo"),
    RunResumed(),
    PlanMade(plan=PLAN, by="model", earlier={"a": DONE}),
    PlanRevised(plan=PLAN),
    StepStarted(step="a", attempt=1, agent="code"),
    ReuseRefused(step="a", from_run="run-0", reason="a.txt, which it made, has changed since"),
    TextDelta(**WHERE, text="piece"),
    ModelCalled(**WHERE, agent="code", wire="scripted", model=None, turn=1, input={"role": "user", "text": "x"}),
    ModelCalled(**WHERE, agent="code", wire="chat", model="m", turn=1, input={}),
    ModelReplied(**WHERE, status="completed", text="x", calls=[{"id": "1"}], usage=Usage(calls=1), items=[{"a": None}]),
    ModelReplied(**WHERE, status="failed", usage=Usage.unknown(), error=ERROR, retry_after=1.5),
    ToolCalled(**WHERE, tool="t", arguments={"a": None, "b": [1]}, effects=["read"]),
    ToolProgressed(step="a", tool="t", asked="call_1", remote_id="p1"),
    ToolReturned(**WHERE, tool="t", text="x", data={"a": 1}, artifacts=(FILE,), usage=Usage(images=1), seconds=0.5),
    ToolReturned(**WHERE, tool="t", error=ERROR),
    FileChanged(step="a", file=FILE, before=None),
    FileChanged(file=FILE, before="1" * 64, mode=0o644, folders=("a", "a/b")),
    FileChanged(file=FILE, before="0" * 64, removed=True),
    FileChangeFailed(step="a", file=FILE, error=ERROR),
    FileContested(step="a", path="a.png", by="b"),
    StepFinished(step="a", attempt=1, result=DONE),
    RunFinished(status="cancelled", error=ERROR, usage=Usage(calls=3), seconds=2.5),
]


def stamped(event: Event) -> Event:
    return event.model_copy(update={"seq": 3, "at": "2026-11-20T10:00:00.000Z", "run_id": "r"})


def test_there_is_an_example_of_every_type() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_survives_its_line(event: Event) -> None:
    for kept in (event, stamped(event)):
        line = to_json(kept)
        assert "\n" not in line
        assert EVENT.validate_json(line) == kept
        assert written(kept) == (kept, line)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_a_line_follows_the_schema_and_names_its_kind(event: Event) -> None:
    line = json.loads(to_json(stamped(event)))
    jsonschema.Draft202012Validator(EVENT.json_schema(mode="serialization")).validate(
        {**EVENT.dump_python(stamped(event), mode="json", by_alias=True), **line}
    )
    assert (line["kind"], line["version"], line["seq"]) == ("event", 1, 3)
    assert "step" in line


def test_fields_of_a_later_version_are_passed_over() -> None:
    line = {**json.loads(to_json(EVENTS[0])), "later": {"a": 1}}
    assert EVENT.validate_python(line) == EVENTS[0]


def test_what_json_cannot_hold_is_cleaned_out_of_the_event_and_its_line_alike() -> None:
    event = ToolReturned(tool="t", text="half \ud83d", data={"k": [float("nan"), float("inf"), 1.5, "é\ud800"]})
    kept, line = written(event)
    assert line.encode()
    assert isinstance(kept, ToolReturned)
    assert (kept.text, kept.data) == ("half �", {"k": [None, None, 1.5, "é�"]})
    assert EVENT.validate_json(line) == kept
    json.loads(line, parse_constant=pytest.fail)
