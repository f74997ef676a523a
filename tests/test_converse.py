"""The loop of model and tools: rounds, matched outputs, finish tools, and every way it ends."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from master_agent.converse import Outcome, converse, with_last
from master_agent.errors import JournalError, ModelError, StepError, ToolError
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    CallRequest,
    Output,
    Reply,
    ToolOutputs,
    ToolSpec,
    UserTurn,
)
from master_agent.threads.scripted import Scripted, read_script
from master_agent.tools import ToolCall, ToolOutput
from tests.conftest import calls, says
from tests.virtual_time import run_in_virtual_time


def fails(error: ToolError) -> ToolOutput:
    return ToolOutput.failed(error)


class Conversation:
    """Converses with a scripted model; tools answer `made NAME`, or as `outputs` says, after `seconds`."""

    def __init__(self, *lines: Mapping[str, Any], **outputs: Any) -> None:
        script = "\n".join(json.dumps(line) for line in lines)
        self.wire = Scripted(read_script(script, source="test"))
        self.outputs = outputs
        self.requests: list[CallRequest] = []
        self.used: list[ToolCall] = []
        self.most_at_once = self.at_once = 0

    async def call(self, request: CallRequest) -> Reply:
        self.requests.append(request)
        async for part in request.thread.send(request.turn, request.options):
            if isinstance(part, Reply):
                return part
        raise AssertionError("no reply")

    async def use(self, call: ToolCall) -> ToolOutput:
        self.used.append(call)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        seconds, output = self.outputs.get(call.tool, (1, ToolOutput(f"made {call.tool}")))
        await asyncio.sleep(seconds)
        self.at_once -= 1
        if isinstance(output, BaseException):
            raise output
        assert isinstance(output, ToolOutput)
        return output

    def run(self, turns: int = 20, finish: Sequence[str] = ("save",), first_turn: int = 1) -> Outcome:
        async def run() -> Outcome:
            return await converse(
                await self.wire.open(AgentSpec("code", "Do it.")),
                UserTurn("Please."),
                call=self.call,
                use=self.use,
                options=CallOptions(agent="code", step="a", turn=first_turn),
                make=lambda asked: ToolCall(asked.id, asked.name, asked.arguments, "a"),
                marked=lambda _, output: output.text,
                turns=turns,
                remind=lambda quote: UserTurn(f"What is {quote}?"),
                finish=frozenset(finish),
            )

        return run_in_virtual_time(run())

    def failed(self, turns: int = 20) -> StepError:
        with pytest.raises(StepError) as caught:
            self.run(turns)
        return caught.value

    @property
    def sent(self) -> list[Any]:
        return [request.turn for request in self.requests]


def test_an_answer_without_tools_is_the_outcome() -> None:
    conversation = Conversation(says("Here."))
    assert conversation.run() == Outcome("Here.", (), 1)
    assert conversation.sent == [UserTurn("Please.")]


def test_rounds_go_on_until_the_model_has_done() -> None:
    conversation = Conversation(
        calls(("look", {"a": 1})), calls(("look", {"a": 2}), ("read", {})), says("Done."), look=(1, ToolOutput("seen"))
    )
    outcome = conversation.run()
    assert (outcome.text, outcome.turns) == ("Done.", 3)
    assert [output.text for output in outcome.outputs] == ["seen", "seen", "made read"]
    assert [json.loads(str(call.arguments)) for call in conversation.used] == [{"a": 1}, {"a": 2}, {}]
    assert [request.options.turn for request in conversation.requests] == [1, 2, 3]
    assert len({id(request.thread) for request in conversation.requests}) == 1


def test_all_outputs_of_a_round_go_back_at_once_matched_by_id_though_the_last_came_first() -> None:
    round_of_three = {
        "reply": {
            "calls": [
                {"name": "slow", "id": "call_z"},
                {"name": "quick", "id": "call_a"},
                {"name": "bad", "id": "call_m"},
            ]
        }
    }
    conversation = Conversation(
        round_of_three,
        says("Done."),
        slow=(9, ToolOutput("slow output")),
        quick=(1, ToolOutput("quick output")),
        bad=(2, fails(ToolError("it broke"))),
    )
    outcome = conversation.run()
    assert conversation.most_at_once == 3
    assert conversation.sent[1] == ToolOutputs(
        (Output("call_z", "slow output"), Output("call_a", "quick output"), Output("call_m", "error: it broke."))
    )
    assert [output.text for output in outcome.outputs] == ["slow output", "quick output"], "what failed left nothing"


def test_a_finish_tool_with_last_true_ends_it_without_another_request() -> None:
    conversation = Conversation(calls(("look", {}), ("save", {"path": "é", "last": True})))
    outcome = conversation.run()
    assert (outcome.text, outcome.turns, len(conversation.requests)) == ("made look\nmade save", 1, 1)
    assert json.loads(str(conversation.used[1].arguments)) == {"path": "é"}, "the tool itself knows no `last`"


@pytest.mark.parametrize(
    "arguments",
    [{"last": False}, {}, {"last": None}, {"last": 1}, {"last": "true"}],
    ids=json.dumps,
)
def test_a_finish_tool_without_last_true_lets_the_model_go_on(arguments: dict[str, Any]) -> None:
    conversation = Conversation(calls(("save", {"path": "x", **arguments})), says("More to say."))
    assert conversation.run().text == "More to say."
    assert json.loads(str(conversation.used[0].arguments)) == {"path": "x"}


def test_any_finish_tool_of_the_round_may_say_that_it_was_the_last() -> None:
    conversation = Conversation(calls(("save", {"last": False}), ("save", {"last": True})))
    assert conversation.run().turns == 1


def test_a_round_in_which_anything_failed_goes_back_to_the_model() -> None:
    conversation = Conversation(
        calls(("look", {}), ("save", {"last": True})), says("I see."), look=(1, fails(ToolError("gone")))
    )
    outcome = conversation.run()
    assert (outcome.text, len(conversation.requests)) == ("I see.", 2)


def test_last_of_a_tool_that_is_no_finish_tool_is_its_own_argument() -> None:
    conversation = Conversation(calls(("look", {"last": True})), says("Done."))
    assert conversation.run().text == "Done."
    assert json.loads(str(conversation.used[0].arguments)) == {"last": True}


@pytest.mark.parametrize("written", ["", "{", "[]", "null", '"last"', "[" * 100_000, '{"last": ' + "9" * 5000 + "}"])
def test_arguments_that_are_no_object_are_passed_on_as_written(written: str) -> None:
    line = {"reply": {"calls": [{"name": "save", "arguments": written}]}}
    conversation = Conversation(line, says("Sorry."))
    conversation.run()
    assert conversation.used[0].arguments == written


def test_an_agent_whose_finish_tools_all_failed_has_failed_whatever_it_says() -> None:
    bad = fails(ToolError("the disk is full", hint="Free some space."))
    conversation = Conversation(calls(("save", {"last": True})), says("I saved it!"), save=(1, bad))
    error = conversation.failed()
    assert (error.message, error.hint, error.type) == ("the disk is full", "Free some space.", "tool_failed")


def test_what_no_model_can_heal_ends_it_before_another_request() -> None:
    bad = fails(ToolError("no token", type="missing_token"))
    conversation = Conversation(calls(("look", {})), says("never asked"), look=(1, bad))
    assert conversation.failed().type == "missing_token"
    assert len(conversation.requests) == 1


@pytest.mark.parametrize("turns", [1, 3])
def test_no_more_requests_are_made_than_allowed(turns: int) -> None:
    conversation = Conversation({**calls(("look", {})), "repeat": True})
    error = conversation.failed(turns)
    assert len(conversation.requests) == turns
    assert error.type == "turn_limit"
    assert f"within {turns} turns" in error.message
    assert "limits.turns" in str(error.hint)


def test_the_last_allowed_turn_may_still_end_it() -> None:
    conversation = Conversation(calls(("look", {})), says("Done."))
    assert conversation.run(turns=2).turns == 2


def test_turns_are_counted_on_from_where_an_earlier_loop_ended() -> None:
    conversation = Conversation(calls(("look", {})), says("Done."))
    assert conversation.run(turns=2, first_turn=5).turns == 6
    assert [request.options.turn for request in conversation.requests] == [5, 6]


@pytest.mark.parametrize(
    ("reply", "type", "said"),
    [
        ({"status": "incomplete", "text": "half", "reason": "max_output_tokens"}, "incomplete", "(max_output_tokens)"),
        ({"status": "incomplete"}, "incomplete", "no reason given"),
        ({"status": "failed", "reason": "refused: no"}, "refused", "did not answer: refused: no"),
        ({"status": "cancelled"}, "refused", "ended as cancelled"),
        ({"status": "expired"}, "refused", "ended as expired"),
    ],
)
def test_every_other_end_of_a_run_fails_the_step_with_its_reason(reply: Any, type: str, said: str) -> None:
    error = Conversation({"reply": reply}).failed()
    assert error.type == type
    assert said in error.message


def test_a_failed_request_fails_it_as_it_is() -> None:
    conversation = Conversation(calls(("look", {})), {"error": {"type": "server_error", "message": "down"}})
    with pytest.raises(ModelError, match="down"):
        conversation.run()


@pytest.mark.parametrize("error", [JournalError("the disk is full"), ZeroDivisionError("a bug")])
def test_what_the_layers_raise_goes_on_as_itself(error: Exception) -> None:
    conversation = Conversation(calls(("look", {}), ("slow", {})), look=(1, error), slow=(60, ToolOutput("")))
    with pytest.raises(type(error)) as caught:
        conversation.run()
    assert caught.value is error


def test_tools_that_run_are_cancelled_with_it() -> None:
    conversation = Conversation(calls(("slow", {})), slow=(1000, ToolOutput("")))

    async def run() -> None:
        thread = await conversation.wire.open(AgentSpec("code", ""))
        work = converse(
            thread,
            UserTurn("x"),
            call=conversation.call,
            use=conversation.use,
            options=CallOptions(agent="code"),
            make=lambda asked: ToolCall(asked.id, asked.name, asked.arguments),
            marked=lambda _, output: output.text,
            turns=3,
            remind=UserTurn,
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work, 5)
        assert asyncio.get_running_loop().time() == 5
        assert len(asyncio.all_tasks()) == 1

    run_in_virtual_time(run())


def test_a_tool_that_may_finish_is_shown_with_a_required_last() -> None:
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    spec = ToolSpec("save", "Saves.", parameters)
    shown = with_last(spec).parameters
    assert shown["required"] == ["path", "last"]
    assert shown["properties"]["last"]["type"] == "boolean"
    assert parameters["required"] == ["path"], "the tool's own schema stays as it is"
    assert with_last(ToolSpec("x", "", {"type": "object"})).parameters["required"] == ["last"]
