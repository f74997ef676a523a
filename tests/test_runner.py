"""The runner: an agent whose output is data is held to its schema, asked once more, and then has failed."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from master_agent.catalogue import Agent
from master_agent.context import Boundaries, Inputs
from master_agent.limits import Limits
from master_agent.plan import AgentStep
from master_agent.prompts import Prompts
from master_agent.results import StepResult
from master_agent.runner import Runner
from master_agent.threads import CallRequest, Reply
from master_agent.threads.scripted import Scripted, read_script
from master_agent.tools import Files, ToolCall, ToolOutput
from tests.conftest import ROOT, says

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
COUNTER = Agent("counter", "Counts.", "Count.", output="data", schema=SCHEMA)


def counted(*answers: Mapping[str, Any]) -> tuple[StepResult, list[CallRequest]]:
    """The result of a step of data, and what was asked for it."""
    requests: list[CallRequest] = []

    async def call(request: CallRequest) -> Reply:
        requests.append(request)
        async for part in request.thread.send(request.turn, request.options):
            if isinstance(part, Reply):
                return part
        raise AssertionError("no reply")

    async def use(call: ToolCall) -> ToolOutput:
        raise AssertionError("no tool is there to be used")

    def files_for(step: str | None) -> Files:
        raise AssertionError("nothing is there to be saved")

    wire = Scripted(read_script("\n".join(json.dumps(answer) for answer in answers), source="test"))
    prompts, mark = Prompts(ROOT / "prompts"), Boundaries("data-ab12")
    runner = Runner(wire, call, use, {"counter": COUNTER}, {}, prompts, mark, Limits(), files_for)
    return asyncio.run(runner.perform(AgentStep(id="a", agent="counter", prompt="x"), Inputs())), requests


@pytest.mark.parametrize("text", ['{"n": 3}', '```json\n{"n": 3}\n```', 'Here:\n```\n{"n": 3}\n```\nSo it is.'])
def test_an_answer_that_follows_the_schema_is_the_data(text: str) -> None:
    result, requests = counted(says(text))
    assert (result.status, result.data, len(requests)) == ("done", {"n": 3}, 1)


WRONG = {
    "another type": ('{"n": "three"}', "$.n: 'three' is not of type 'integer'"),
    "something missing": ("{}", "'n' is a required property"),
    "no JSON": ("three", "not JSON: Expecting value at line 1, column 1"),
    "a number without end": ('{"n": ' + "9" * 5000 + "}", "JSON that cannot be read"),
    "brackets without end": ("[" * 100_000, "JSON that cannot be read"),
}


@pytest.mark.parametrize(("text", "fault"), WRONG.values(), ids=WRONG.keys())
def test_one_that_does_not_is_asked_once_more_with_the_fault(text: str, fault: str) -> None:
    result, requests = counted(says(text), {**says('{"n": 3}'), "turn": 2, "when": fault})
    assert (result.status, result.data) == ("done", {"n": 3})
    assert requests[0].thread is requests[1].thread


@pytest.mark.parametrize(("text", "fault"), WRONG.values(), ids=WRONG.keys())
def test_a_second_one_that_does_not_fails_the_step(text: str, fault: str) -> None:
    result, requests = counted(says(text), says(text), says("never asked"))
    assert (result.status, len(requests)) == ("failed", 2)
    assert result.error is not None
    assert result.error.type == "wrong_output"
    assert fault in result.error.message
