"""The result contract: usage adds up without turning what is unknown into 0, and results survive their JSON."""

import itertools
import json
from typing import Any

import pytest

from master_agent.errors import ERROR_TYPES, ImageError, PlanError
from master_agent.results import Artifact, ErrorInfo, RunResult, StepResult, Usage

KNOWN = Usage(calls=1, input_tokens=300, cached_tokens=0, output_tokens=40, reasoning_tokens=5, cost_usd=0.5)
HALF = Usage(calls=1, input_tokens=7, output_tokens=None, complete=False)
PICTURE = Usage(images=2)
MANY = (Usage(), KNOWN, HALF, PICTURE, Usage.unknown())


def test_what_is_known_adds_up() -> None:
    both = KNOWN + KNOWN + PICTURE
    assert (both.calls, both.input_tokens, both.output_tokens, both.reasoning_tokens) == (2, 600, 80, 10)
    assert (both.images, both.cost_usd, both.tokens, both.complete) == (2, 1.0, 680, True)


@pytest.mark.parametrize("empty", [Usage(), PICTURE, sum([PICTURE, PICTURE], Usage())])
def test_what_no_server_reported_is_null_and_never_0(empty: Usage) -> None:
    total = empty + Usage.unknown() + Usage.unknown()
    assert (total.calls, total.input_tokens, total.output_tokens, total.tokens) == (2, None, None, None)
    assert not total.complete


def test_known_and_unknown_make_at_least_what_is_known_and_say_that_it_is_not_all() -> None:
    total = KNOWN + Usage.unknown()
    assert (total.calls, total.input_tokens, total.tokens, total.cost_usd) == (2, 300, 340, 0.5)
    assert total.cached_tokens is None
    assert not total.complete


def test_the_order_of_adding_makes_no_difference() -> None:
    totals = {sum(order, Usage()).model_dump_json() for order in itertools.permutations(MANY)}
    assert len(totals) == 1
    assert KNOWN + (HALF + Usage.unknown()) == (KNOWN + HALF) + Usage.unknown()


def test_nothing_added_changes_nothing() -> None:
    for usage in MANY:
        assert usage + Usage() == Usage() + usage == usage


@pytest.mark.parametrize(
    ("usage", "whole"),
    [
        (Usage(), True),  # nothing was used: nothing is owed
        (Usage(calls=1, input_tokens=0, output_tokens=0), False),
        (Usage(calls=1, cost_usd=0.0), True),
        (Usage(calls=1, cost_usd=0.5, cost_complete=False), False),
        (Usage(output_tokens=3), False),
        (Usage.unknown(), False),
        (PICTURE, False),
        (Usage(images=2, cost_usd=0.006), True),
        (Usage.model_validate({"calls": 1, "cost_complete": True}), False),  # as an earlier version wrote it
        (KNOWN + Usage(), True),
        (KNOWN + PICTURE, False),
        (PICTURE + PICTURE, False),
        (KNOWN + Usage(cost_complete=False), False),
    ],
)
def test_a_cost_is_whole_only_where_all_that_was_used_has_a_price(usage: Usage, whole: bool) -> None:
    assert usage.cost_complete is whole
    assert Usage.model_validate_json(usage.model_dump_json()) == usage


def test_no_cost_is_null_until_one_is_known() -> None:
    assert (Usage() + PICTURE).cost_usd is None
    assert (PICTURE + KNOWN).cost_usd == 0.5


def result() -> RunResult:
    step = StepResult(
        status="failed",
        reason="r",
        agent="image",
        text="é",
        data={"files": [{"name": "a"}], "n": None},
        artifacts=(Artifact(path="a.png", media_type="image/png", bytes=3, sha256="0" * 64),),
        error=ErrorInfo.of(ImageError("no", hint="h", type="missing_token", retryable=True)),
        usage=KNOWN,
        seconds=1.5,
    )
    plan: tuple[Any, ...] = ({"id": "a", "tool": "x", "with": {"y": 1}, "needs": []},)
    return RunResult(run_id="r", task="t", status="failed", order="graph", plan=plan, results={"a": step})


def test_a_result_survives_its_json() -> None:
    public = result().model_dump_public()
    assert RunResult.model_validate(json.loads(json.dumps(public))) == result()
    assert (public["kind"], public["version"]) == ("result", 1)
    assert public["results"]["a"]["error"] == {"type": "missing_token", "message": "no", "hint": "h", "retryable": True}


def test_fields_of_a_later_version_are_passed_over() -> None:
    public = result().model_dump_public()
    public["later"] = public["results"]["a"]["later"] = public["usage"]["later"] = 1
    assert RunResult.model_validate(public) == result()


def test_values_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        result().status = "done"


@pytest.mark.parametrize(
    ("status", "usable"), [("done", True), ("reused", True), ("failed", False), ("skipped", False), ("waiting", False)]
)
def test_later_steps_build_on_what_is_done_or_reused(status: Any, usable: bool) -> None:
    assert StepResult(status=status).usable is usable


def test_the_schema_holds_the_closed_list_of_error_types() -> None:
    schema = RunResult.model_json_schema()
    assert tuple(schema["$defs"]["ErrorInfo"]["properties"]["type"]["enum"]) == ERROR_TYPES
    with pytest.raises(ValueError, match="type"):
        ErrorInfo.model_validate({"type": "something", "message": ""})


def test_an_error_with_faults_says_them_all() -> None:
    assert ErrorInfo.of(PlanError("2 faults", ("a: x", "b: y"), hint="h")).message == "2 faults\n  a: x\n  b: y"
