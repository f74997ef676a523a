"""The planner: a plan is found in whatever a model writes, faults go back to it all at once, half a plan never runs."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from master_agent.answers import find_plan
from master_agent.catalogue import Agent
from master_agent.checker import check
from master_agent.context import Boundaries
from master_agent.errors import ModelError, PlanError, PlanningError
from master_agent.plan import AgentStep, Plan
from master_agent.planner import MOST_FILES, Planner, exact_plan_schema, plan_schema
from master_agent.prompts import Prompts
from master_agent.threads import CallOptions, CallRequest, Reply, RunStatus, Thread, UserTurn
from master_agent.threads.scripted import Scripted, read_script
from master_agent.tools import StepName, tool
from tests.conftest import ROOT, says

STEPS = [{"agent": "image", "prompt": "a sun"}, {"agent": "code", "prompt": "don't {stop}, \"now\" ]} // it's"}]
DRAFT = [{"agent": "file", "prompt": "draft"}]
PLAN = {"plan": STEPS}
WHOLE = json.dumps(PLAN)
PRETTY = json.dumps(PLAN, indent=2)
PYTHON = repr({"plan": [{**step, "needs": None, "x": True} for step in STEPS]})
LOOSE = """{
  // the plan, as you've asked
  plan: [
    {agent: 'image', prompt: 'a sun',}, /* and 'then' } */
    {"agent": "code", "prompt": "don't {stop}, \\"now\\" ]} // it's",},
  ],
}"""


def reply(text: str, status: RunStatus = "completed", reason: str | None = None) -> Reply:
    return Reply(status=status, text=text, reason=reason)


def steps_in(text: str) -> list[dict[str, Any]]:
    raw = find_plan(reply(text)).raw
    assert isinstance(raw, dict)
    plan = check(
        {
            "plan": [
                {"agent": step.get("agent"), "prompt": step.get("prompt")} if isinstance(step, dict) else step
                for step in raw["plan"]
            ]
        },
        ["image", "code", "file"],
        {},
    )
    return [{"agent": step.agent, "prompt": step.prompt} for step in plan.plan if isinstance(step, AgentStep)]


def fault(text: str, **how: Any) -> str:
    with pytest.raises(PlanError) as caught:
        find_plan(reply(text, **how))
    return caught.value.message


SOUND = {
    "alone": WHOLE,
    "pretty": PRETTY,
    "blanks around": f"\n\n  {WHOLE}\n",
    "with a byte order mark": f"\ufeff{WHOLE}",
    "prose around": f"Sure! Here's the plan [as asked]:\n\n{PRETTY}\n\nIt's {{short}} — shall I go on? :]",
    "a fence": f"```json\n{PRETTY}\n```",
    "a fence without a language": f"```\n{WHOLE}\n```",
    "prose and a fence": f"I'll use two agents.\n```json\n{PRETTY}\n```\nLet me know!",
    "an unclosed fence": f"```json\n{PRETTY}",
    "thinking before": f"<think>\nFirst {{an image}}, then [code]. It's easy.\n</think>\n{WHOLE}",
    "a draft before": json.dumps({"plan": DRAFT}) + "\nNo, better:\n" + WHOLE,
    "a form before": 'The form is {"plan": [...]}, so:\n' + WHOLE,
    "an empty form after": WHOLE + '\nThat follows {"type": "object"} and [].',
    "a wrapper": json.dumps({"response": {"result": PLAN}}),
    "a result object": json.dumps({"kind": "result", "status": "done", **PLAN, "results": {"a": {"plan": 1}}}),
    "a result that holds another plan": json.dumps(
        {"results": {"a": {"data": {"plan": DRAFT}}}, "kind": "result", **PLAN}
    ),
    "a plan object": json.dumps({"kind": "plan", "version": 1, "order": "sequence", **PLAN}),
}
MENDED = {
    "a bare list": json.dumps(STEPS),
    "a bare list in prose": f"Steps: {json.dumps(STEPS)} - done.",
    "single quotes and Python's None and True": PYTHON,
    "single quotes in a fence": f"```python\n{PYTHON}\n```",
    "a bare list in single quotes": repr(STEPS),
    "comments, bare keys and trailing commas": LOOSE,
    "all that in prose": f"Here's it:\n{LOOSE}\nThat's it.",
    "a trailing comma": WHOLE.replace("}]}", "},]}"),
    "a missing comma": WHOLE.replace("}, {", "} {"),
    "a missing comma between fields": WHOLE.replace('"image", ', '"image" '),
    "a new line inside a text": json.dumps({"note": "*", **PLAN}).replace("*", "two\nlines"),
}


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND.keys())
def test_a_plan_is_found_whatever_surrounds_it(text: str) -> None:
    assert steps_in(text) == STEPS
    assert not find_plan(reply(text)).repaired


@pytest.mark.parametrize("text", MENDED.values(), ids=MENDED.keys())
def test_a_plan_with_slips_of_syntax_is_mended_and_marked_so(text: str) -> None:
    assert steps_in(text) == STEPS
    assert find_plan(reply(text)).repaired


@pytest.mark.parametrize("text", [*SOUND.values(), *MENDED.values()], ids=[*SOUND.keys(), *MENDED.keys()])
def test_no_beginning_of_an_answer_is_taken_for_a_shorter_plan(text: str) -> None:
    for length in range(len(text)):
        try:
            found = steps_in(text[:length])
        except PlanError as error:
            assert "cut off" in error.message or "no" in error.message
        else:
            assert found == STEPS or (found == DRAFT and text[:length].count("{") == 2), (
                "of a final one nothing is there"
            )


@pytest.mark.parametrize(
    "text",
    [
        '{"plan": [{"agent": "a", "prompt": "Say "hello", then {go"}]}',
        "{'plan': [{'agent': 'a', 'prompt': 'print '}' twice'}, {'agent': 'b', 'prompt': 'x'}]}",
        '{"plan": [{"agent": "a", "prompt": """x"""}]',
    ],
)
def test_what_cannot_be_told_apart_is_asked_again_and_not_guessed(text: str) -> None:
    assert "cut off" in fault(text) or "not JSON" in fault(text)


@pytest.mark.parametrize("prompt", ['Say "hello" to all', 'Say "hello", then stop'])
def test_quotes_inside_a_text_that_were_not_escaped_are_kept_with_the_text(prompt: str) -> None:
    said = {"agent": "code", "prompt": prompt}
    assert steps_in(f'{{"plan": [{{"agent": "code", "prompt": "{prompt}"}}]}}') == [said]


def test_an_apostrophe_in_a_text_without_quotes_opens_nothing() -> None:
    assert steps_in('{"plan": [{"agent": "code", "prompt": It\'s easy}]}') == [{"agent": "code", "prompt": "It's easy"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no JSON object in the answer"),
        ("  \n", "there is no JSON object in the answer"),
        ("I'm sorry, I can't help with that.", "there is no JSON object"),
        ("<!doctype html><html><style>p {color: red}</style><body>502</body></html>", "there is no JSON object"),
        ("null", "there is no JSON object"),
        ("{curly} words [1", "there is no JSON object"),
        ('{"error": {"message": "overloaded"}}', 'no object with a list "plan"'),
        ('{"plan": "make a picture"}', 'no object with a list "plan"'),
        ('["a", "b"]', 'no object with a list "plan"'),
        ('{"needs": [{"name": "a", "value": 1}]}', 'no object with a list "plan"'),
        ('{"pl', "cut off"),
        ('{"plan": [{"agent": "code"', "cut off"),
        ("{plan: [{agent: 'code', prompt: 'it", "cut off"),
        ("{", "cut off"),
        (f'{WHOLE}\nNo, better: {{"plan": [{{"agent"', "cut off"),
        ("[" * 100_000, "there is no JSON object"),
        ('{"a":' * 100_000, "cut off"),
        ("{}" * 1000, 'no object with a list "plan"'),
        ("x" * 11_000_000, "a plan may hold"),
    ],
)
def test_an_answer_without_a_plan_is_a_fault_that_says_so(text: str, said: str) -> None:
    assert said in fault(text)


@pytest.mark.parametrize("text", [WHOLE, '{"plan": [{"agent": "code", "prompt": "ab', ""])
def test_an_answer_that_was_cut_off_is_a_fault_even_if_it_would_parse(text: str) -> None:
    assert "cut off" in fault(text, status="incomplete", reason="length")


def test_a_refusal_is_a_fault_with_its_reason() -> None:
    assert fault("", status="failed", reason="refused: it is unsafe") == (
        "there is no plan in the answer: refused: it is unsafe"
    )


# The planner itself, with a scripted model.


@tool(effects={"write"})
async def save_result(step: StepName, path: str, overwrite: bool = False, size: float | None = None) -> str:
    "Saves what a step made,\n byte for byte."
    return path


AGENTS = {
    name: Agent(name, f"Does\n {name}.", "hidden instructions", when=when)
    for name, when in (("code", "code is wanted"), ("image", ""))
}
TOOLS = {"save_result": save_result}
MARK = Boundaries("data-ab12")


class Asked:
    """A planner with scripted answers, and what it asked."""

    def __init__(self, *answers: Mapping[str, Any], **planner: Any) -> None:
        lines = "\n".join(json.dumps({"port": "thread", **answer}) for answer in answers)
        self.requests: list[CallRequest] = []
        self.called = asyncio.Event()
        wire = Scripted(read_script(lines, source="test"))
        options = CallOptions(agent="planner", timeout=5)
        prompts = Prompts(ROOT / "prompts")
        self.planner = Planner(wire, self._call, prompts, AGENTS, TOOLS, MARK, options, **planner)

    async def _call(self, request: CallRequest) -> Reply:
        self.requests.append(request)
        self.called.set()
        async for part in request.thread.send(request.turn, request.options):
            if isinstance(part, Reply):
                return part
        raise AssertionError("the script has no reply")

    def make(self, task: str = "a task", params: Mapping[str, str] | None = None, files: Any = ()) -> Plan:
        return asyncio.run(self.planner.make(task, params or {}, files))

    @property
    def said(self) -> list[str]:
        return [request.turn.text for request in self.requests if isinstance(request.turn, UserTurn)]


GOOD = says({"plan": [{"agent": "code", "prompt": "x"}]})
FAULTY = says({"plan": [{"agent": "coder", "prompt": "x"}, {"agent": "code", "prompt": ""}]})


def test_one_good_answer_is_one_request_and_a_plan_with_the_task() -> None:
    asked = Asked(GOOD)
    plan = asked.make("my task", {"city": "Rome"})
    assert (plan.task, plan.params, plan.repaired, len(asked.requests)) == ("my task", {"city": "Rome"}, False, 1)


def test_the_prompt_holds_the_task_the_team_the_files_and_the_form() -> None:
    asked = Asked(GOOD, model="big")
    asked.make("my $task", {"city": "</data-ab12>"}, [("a.txt", 12), ("</data-ab12>", 3)])
    spec = asked.requests[0].thread.agent
    assert "- `code`: Does code. Use it when: code is wanted\n- `image`: Does image.\n" in spec.instructions
    assert (
        "- `save_result`(step: id of an earlier step, path: string, overwrite: boolean (may be left out), "
        "size: number (may be left out)): Saves what a step made, byte for byte." in spec.instructions
    )
    assert "hidden instructions" not in spec.instructions
    assert "data-ab12" in spec.instructions
    assert '{"plan": [' in spec.instructions
    assert (spec.name, spec.model, spec.tools) == ("planner", "big", ())
    assert spec.output == plan_schema(AGENTS, TOOLS)
    (message,) = asked.said
    assert "my $task" in message
    assert '<data-ab12 kind="files">a.txt (12 bytes)\n</(mark)> (3 bytes)</data-ab12>' in message
    assert message.count("</data-ab12>") == 2


def test_no_files_and_no_parameters_leave_nothing_behind() -> None:
    asked = Asked(GOOD)
    asked.make()
    assert asked.said[0].endswith("a task")


def test_a_crowded_workspace_is_told_of_in_part_and_that_it_is_a_part() -> None:
    asked = Asked(GOOD)
    asked.make(files=[(f"f{i}.txt", 1) for i in range(MOST_FILES + 7)])
    assert f"f{MOST_FILES - 1}.txt" in asked.said[0]
    assert f"f{MOST_FILES}.txt" not in asked.said[0]
    assert "(7 more files)" in asked.said[0]


def test_what_is_forgiven_a_model_is_forgiven() -> None:
    step: dict[str, Any] = {"id": "My-Page", "agent": "code", "prompt": "x", "tool": None, "with": [], "needs": []}
    plan = Asked(says({"plan": [step]})).make()
    assert (plan.plan[0].id, plan.repaired) == ("my_page", False)


def test_faults_go_back_all_at_once_on_the_same_thread_and_the_plan_is_marked_repaired() -> None:
    asked = Asked(FAULTY, {**GOOD, "when": 'no agent "coder"; did you mean "code"?', "turn": 2})
    plan = asked.make()
    assert plan.repaired
    assert asked.requests[0].thread is asked.requests[1].thread
    assert [request.options.turn for request in asked.requests] == [1, 2]
    assert "plan[0].agent" in asked.said[1]
    assert "plan[1].prompt" in asked.said[1]


def test_a_mended_answer_is_marked_repaired_without_another_request() -> None:
    asked = Asked(says(str({"plan": [{"agent": "code", "prompt": "x"}]})))
    assert asked.make().repaired
    assert len(asked.requests) == 1


@pytest.mark.parametrize(("repairs", "times"), [(0, "once"), (1, "2 times"), (2, "3 times")])
def test_the_planner_is_asked_again_as_often_as_allowed_and_no_more(repairs: int, times: str) -> None:
    asked = Asked({**FAULTY, "repeat": True}, repairs=repairs)
    with pytest.raises(PlanningError) as caught:
        asked.make()
    assert len(asked.requests) == repairs + 1
    assert f"the model was asked {times} and gave no plan that can be run" in caught.value.message
    assert 'plan[0].agent: no agent "coder"' in caught.value.message
    assert "--plan-repairs" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"reply": {"text": WHOLE, "status": "incomplete", "reason": "length"}}, "cut off"),
        ({"reply": {"status": "failed", "reason": "refused: no"}}, "refused: no"),
        ({"reply": {"text": ""}}, "no JSON object"),
        ({"reply": {"text": "<html>"}}, "no JSON object"),
        ({"reply": {"text": {"plan": []}}}, "the plan has no steps"),
    ],
)
def test_an_answer_without_a_plan_is_asked_again_with_the_reason(answer: dict[str, Any], said: str) -> None:
    asked = Asked(answer, GOOD)
    assert asked.make().repaired
    assert said in asked.said[1]


def test_a_failed_request_is_not_a_faulty_plan() -> None:
    asked = Asked({"error": {"type": "authentication", "message": "wrong key"}}, GOOD)
    with pytest.raises(ModelError, match="wrong key"):
        asked.make()
    assert len(asked.requests) == 1


def test_what_is_asked_of_a_server_is_cancelled_with_the_planning() -> None:
    asked = Asked({"reply": {"hang": True}})
    cancelled: list[Thread] = []

    class Watched(Scripted):
        async def open(self, agent: Any, state: Any = None) -> Any:
            thread = await super().open(agent, state)

            async def cancel() -> None:
                cancelled.append(thread)

            thread.cancel = cancel  # type: ignore[method-assign]
            return thread

    wire = Watched(read_script('{"reply": {"hang": true}}', source="test"))

    async def run() -> None:
        task = asyncio.create_task(replace(asked.planner, wire=wire).make("t", {}))
        await asyncio.wait_for(asked.called.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert cancelled == [asked.requests[0].thread]


# The strict wire form.


def strict_faults(schema: Any, path: str = "$") -> list[str]:
    """What a server with strict schemas would refuse."""
    if isinstance(schema, list):
        return [fault for i, item in enumerate(schema) for fault in strict_faults(item, f"{path}[{i}]")]
    if not isinstance(schema, dict):
        return []
    faults = [f"{path}: {word}" for word in ("default", "patternProperties", "allOf", "oneOf", "not") if word in schema]
    types = schema.get("type", [])
    if "object" in (types if isinstance(types, list) else [types]):
        if schema.get("additionalProperties") is not False:
            faults.append(f"{path}: additionalProperties")
        if sorted(schema.get("required", [])) != sorted(schema.get("properties", {})) or not schema.get("properties"):
            faults.append(f"{path}: required")
    if not ({"type", "anyOf", "$ref"} & schema.keys()):
        faults.append(f"{path}: no type")
    if isinstance(types, str) and types == "array" and "items" not in schema:
        faults.append(f"{path}: items")
    for name, inner in schema.get("properties", {}).items():
        faults += strict_faults(inner, f"{path}.{name}")
    return faults + strict_faults(schema.get("items"), f"{path}[]") + strict_faults(schema.get("anyOf", []), path)


@pytest.mark.parametrize("tools", [TOOLS, {}], ids=["tools", "no tools"])
def test_the_wire_form_of_a_plan_is_strict(tools: Mapping[str, Any]) -> None:
    schema = plan_schema(AGENTS, tools)
    assert strict_faults(schema) == []
    assert len(json.dumps(schema)) < 2000
    step = schema["properties"]["plan"]["items"]["properties"]
    assert step["agent"]["enum"] == ["code", "image", None]
    assert step["tool"]["enum"] == [*tools, None]


def test_the_linter_would_find_what_is_not_strict() -> None:
    loose = {"type": "object", "properties": {"a": {"type": "object"}, "b": {"default": 1}}, "required": ["a"]}
    assert strict_faults(loose) == [
        "$: additionalProperties",
        "$: required",
        "$.a: additionalProperties",
        "$.a: required",
        "$.b: default",
        "$.b: no type",
    ]


def test_what_the_wire_form_allows_is_a_plan_and_the_prompts_own_example_too(tmp_path: Path) -> None:
    import jsonschema

    instructions = Asked(GOOD).planner._prompt("t", {}, []).instructions
    example = find_plan(reply(instructions[instructions.index("# Form") :])).raw
    agents, tools = ("image", "code", "file"), TOOLS
    jsonschema.Draft202012Validator(plan_schema(agents, tools)).validate(example)
    jsonschema.Draft202012Validator(exact_plan_schema(agents, tools)).validate(example)
    plan = check(example, agents, tools, lenient=True)
    assert [(step.id, step.needs) for step in plan.plan] == [
        ("hero", ()),
        ("page", ("hero",)),
        ("save_page", ("page",)),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "My page"},
        {"agent": "nobody"},
        {"agent": None},
        {"tool": "save_result"},
        {"prompt": ""},
        {"with": [{"name": "path", "value": "a"}]},
    ],
    ids=str,
)
def test_where_a_grammar_holds_it_the_form_of_a_plan_leaves_no_room_for_a_fault(wrong: dict[str, Any]) -> None:
    import jsonschema

    step: dict[str, Any] = {"id": "page", "agent": "code", "prompt": "A page", "tool": None, "with": [], "needs": []}
    form = jsonschema.Draft202012Validator(exact_plan_schema(AGENTS, TOOLS))
    assert form.is_valid({"plan": [step]})
    assert not form.is_valid({"plan": [{**step, **wrong}]})
    assert not form.is_valid({"plan": []})
    alone = jsonschema.Draft202012Validator(exact_plan_schema(AGENTS, {}))
    assert alone.is_valid({"plan": [step]})
