"""The plan contract: what is accepted, what it becomes, and every fault with its place and the nearest right name."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from master_agent.checker import check, load
from master_agent.errors import PlanError
from master_agent.plan import MAX_BYTES, MAX_NEEDS, MAX_STEPS, AgentStep, Plan, ToolStep
from master_agent.tools import StepName, tool

AGENTS = ("image", "code", "file")


@tool(effects={"write"})
async def save_result(step: StepName, path: str, overwrite: bool = False, tags: tuple[str, ...] = ()) -> str:
    "Saves."
    return path


TOOLS = {"save_result": save_result}


def checked(raw: object, **how: Any) -> Plan:
    return check(raw, AGENTS, TOOLS, **how)


def faults(raw: object, **how: Any) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        checked(raw, **how)
    assert all(fault in caught.value.message for fault in caught.value.faults)
    return caught.value.faults or (caught.value.message,)


def fault(raw: object, **how: Any) -> str:
    (only,) = faults(raw, **how)
    return only


def agent(prompt: str = "do it", **more: Any) -> dict[str, Any]:
    return {"agent": "code", "prompt": prompt, **more}


def save(**arguments: Any) -> dict[str, Any]:
    return {"id": "save", "tool": "save_result", "with": {"path": "a.txt", **arguments}}


def needs(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {step.id: step.needs for step in plan.plan}


def test_the_smallest_plan_is_a_sequence_with_ids_made_and_needs_written_out() -> None:
    plan = checked({"plan": [{"agent": "image", "prompt": "a"}, agent("b"), {"agent": "image", "prompt": "c"}]})
    assert plan.order == "sequence"
    assert needs(plan) == {"image_1": (), "code_1": ("image_1",), "image_2": ("code_1",)}
    assert plan.step("code_1") == AgentStep(id="code_1", agent="code", prompt="b", needs=("image_1",))


def test_one_step_with_needs_makes_a_graph_in_which_missing_and_null_mean_everything_before() -> None:
    steps = [agent(id="a", needs=[]), agent(id="b"), agent(id="c", needs=None), agent(id="d", needs=["a"])]
    plan = checked({"plan": steps})
    assert plan.order == "graph"
    assert needs(plan) == {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("a",)}


def test_the_order_that_is_written_wins() -> None:
    steps = [agent(id="a"), agent(id="b")]
    assert checked({"plan": steps, "order": "graph"}).order == "graph"
    assert checked({"plan": [agent(id="a", needs=[]), agent(id="b", needs=["a"])], "order": "sequence"}).plan
    assert "drop" in fault({"plan": [*steps, agent(id="c", needs=["a"])], "order": "sequence"})


def test_a_printed_plan_is_read_back_as_the_same_plan() -> None:
    steps = [agent("é ${params.city}", id="a", needs=[]), save(step="a"), agent("${save.path}", id="z", needs=["a"])]
    plan = checked({"task": "t", "params": {"city": "Lisboa"}, "plan": steps}, repaired=True)
    assert checked(json.loads(plan.to_json())) == plan
    assert '"with"' in plan.to_json()
    assert "é" in plan.to_json()


def test_the_result_of_a_run_is_taken_for_its_plan() -> None:
    result = {
        "kind": "result",
        "version": 1,
        "run_id": "x",
        "status": "done",
        "task": "t",
        "params": {},
        "order": "graph",
        "plan": [agent(id="a", needs=[])],
        "results": {"a": {"status": "done"}},
    }
    plan = checked(result)
    assert (plan.kind, plan.task, [step.id for step in plan.plan]) == ("plan", "t", ["a"])


def test_task_and_parameters_of_the_command_line_take_the_place_of_the_plans_own() -> None:
    raw = {"task": "old", "params": {"a": "1", "b": 2}, "plan": [agent("${params.a} ${params.b}")]}
    assert checked(raw).params == {"a": "1", "b": "2"}
    plan = checked(raw, task="new", params={"a": "9"})
    assert (plan.task, plan.params) == ("new", {"a": "9", "b": "2"})


def test_agent_names_ignore_case_and_blanks() -> None:
    step = checked({"plan": [{"agent": " Code ", "prompt": "x"}]}).plan[0]
    assert isinstance(step, AgentStep)
    assert step.agent == "code"


def test_a_made_id_keeps_clear_of_those_that_are_given() -> None:
    plan = checked({"plan": [agent(), agent(id="code_1"), agent()]})
    assert [step.id for step in plan.plan] == ["code_2", "code_1", "code_3"]


def test_a_reference_is_a_need_written_or_not() -> None:
    steps = [
        agent(id="a", needs=[]),
        agent(id="b", needs=[]),
        agent("${a.text} ${b.data.x.0} ${a.path}", id="c", needs=["b"]),
    ]
    assert needs(checked({"plan": steps}))["c"] == ("b", "a")


def test_a_step_that_an_argument_names_or_refers_to_is_a_need() -> None:
    steps = [agent(id="a", needs=[]), agent(id="b", needs=[]), {**save(step="a", path="${b.text}"), "needs": []}]
    assert needs(checked({"plan": steps}))["save"] == ("b", "a")
    nested = [agent(id="b", needs=[]), {**save(step="b", tags=["${b.text}"]), "needs": []}]
    assert needs(checked({"plan": nested}))["save"] == ("b",)


def test_in_a_sequence_a_reference_goes_backwards_only() -> None:
    assert needs(checked({"plan": [agent(id="a"), agent(id="b"), agent("${a.text}", id="c")]}))["c"] == ("b",)
    assert 'refers to "b", which comes later' in fault({"plan": [agent("${b.text}", id="a"), agent(id="b")]})
    assert "refers to itself" in fault({"plan": [agent("${a.text}", id="a")]})


def test_the_steps_that_follow_from_one_are_found_through_others() -> None:
    steps = [agent(id="a", needs=["b"]), agent(id="b", needs=["c"]), agent(id="c", needs=[]), agent(id="d", needs=[])]
    plan = checked({"plan": steps})
    assert plan.after("b") == {"a", "b"}
    assert plan.after("c") == {"a", "b", "c"}


FAULTS: list[tuple[Any, str]] = [
    (None, 'no plan: expected an object with a list "plan", found null'),
    ([], "no plan"),
    ({"steps": []}, 'found an object with "steps"'),
    ({"plan": {}}, "no plan"),
    ({"plan": []}, "the plan has no steps"),
    ({"plan": [agent()] * (MAX_STEPS + 1)}, "10,001 steps; 10,000 is the most"),
    ({"plan": [agent()], "pln": 1}, 'pln: unknown field "pln"; did you mean "plan"?'),
    ({"plan": [agent()], "kind": "event"}, 'kind: expected "plan", found "event"'),
    ({"plan": [agent()], "version": 2}, "version: expected 1, found 2; a newer master-agent wrote this plan"),
    ({"plan": [agent()], "version": True}, "version: expected 1, found true"),
    ({"plan": [agent()], "task": 7}, "task: expected text, found 7"),
    ({"plan": [agent()], "params": []}, "params: expected an object"),
    ({"plan": [agent()], "order": "random"}, 'order: expected "sequence" or "graph", found "random"'),
    ({"plan": ["x"]}, 'plan[0]: expected an object, found "x"'),
    ({"plan": [{}]}, "plan[0]: has neither an agent nor a tool"),
    ({"plan": [{**agent(), "tool": "save_result"}]}, "plan[0]: has an agent and a tool"),
    ({"plan": [{"agent": "cod", "prompt": "x"}]}, 'plan[0].agent: no agent "cod"; did you mean "code"?'),
    ({"plan": [{"agent": "zzz", "prompt": "x"}]}, 'no agent "zzz" (there are: code, file, image)'),
    ({"plan": [{"agent": 5, "prompt": "x"}]}, "plan[0].agent: no agent 5"),
    ({"plan": [{"agent": "code"}]}, "plan[0].prompt: expected what the agent shall do, found null"),
    ({"plan": [agent("  \n")]}, "plan[0].prompt: expected what the agent shall do"),
    ({"plan": [agent(promt="x")]}, 'plan[0].promt: unknown field "promt"; did you mean "prompt"?'),
    ({"plan": [{**agent(), "with": {"a": 1}}]}, "plan[0].with: only a step with a tool has arguments"),
    ({"plan": [agent(id="Hero One")]}, 'plan[0].id: "Hero One" is no id'),
    ({"plan": [agent(id="Hero One")]}, '"hero_one" would do'),
    ({"plan": [agent(id="a\n")]}, 'plan[0].id: "a\\n" is no id'),
    ({"plan": [agent(id="")]}, 'plan[0].id: "" is no id'),
    ({"plan": [agent(id=3)]}, "plan[0].id: 3 is no id"),
    ({"plan": [agent(id="x" * 64)]}, "is no id"),
    ({"plan": [agent(id="params")]}, 'plan[0].id: "params" is taken'),
    ({"plan": [agent(id="a"), agent(id="a")]}, 'plan[1].id: "a" is the id of plan[0] already'),
    ({"plan": [agent(needs="a")]}, 'plan[0].needs: expected a list of step ids, found "a"'),
    ({"plan": [agent(needs=[1])]}, "plan[0].needs: expected a list of step ids, found [1]"),
    ({"plan": [agent(id="a", needs=["a"])]}, 'plan[0].needs: "a" needs itself'),
    ({"plan": [agent(id="hero"), agent(needs=["heroo"])]}, 'plan[1].needs: no step "heroo"; did you mean "hero"?'),
    ({"plan": [agent("${her.text}"), agent(id="hero")]}, 'prompt: ${her.text}: no step "her"; did you mean "hero"?'),
    ({"plan": [agent("${Hero.text}", needs=[]), agent(id="hero")]}, 'no step "Hero"; did you mean "hero"?'),
    ({"plan": [agent("${name}")]}, "plan[0].prompt: ${name} is no reference; write ${step.text}, or $${"),
    ({"plan": [agent("${}")]}, "${} is no reference"),
    ({"plan": [agent("${params}")]}, "${params} is no reference"),
    (
        {"plan": [agent("${params.town}")], "params": {"towns": "x"}},
        '${params.town}: no parameter "town"; did you mean "towns"?',
    ),
    ({"plan": [agent("${params.a.b}")], "params": {"a": "x"}}, '${params.a.b}: no parameter "a"'),
    ({"plan": [agent(id="a"), agent("${a.size}")]}, '${a.size}: a step has text, path and data, no "size"'),
    ({"plan": [agent(id="a"), agent("${a.data}")]}, "${a.data}: write ${a.data.name}"),
    ({"plan": [agent(id="a"), agent("${a.text.x}")]}, "${a.text.x}: write ${a.data.name}"),
    ({"plan": [{"tool": "save_reslt"}]}, 'plan[0].tool: no tool "save_reslt"; did you mean "save_result"?'),
    ({"plan": [{"tool": ["x"]}]}, 'plan[0].tool: no tool ["x"]'),
    ({"plan": [{**save(step="save"), "prompt": "x"}]}, "plan[0].prompt: a step with a tool has no prompt"),
    ({"plan": [{**save(), "with": 7}]}, "plan[0].with: expected an object of arguments, found 7"),
    ({"plan": [agent(id="a"), save(step="b")]}, 'plan[1].with.step: no step "b"'),
    ({"plan": [agent(id="a"), save(step=["a"])]}, 'plan[1].with.step: "step": input should be a valid string'),
    ({"plan": [agent(id="a"), save()]}, 'plan[1].with.step: "step" is missing'),
    (
        {"plan": [agent(id="a"), save(step="a", overwrit=True)]},
        'plan[1].with.overwrit: unknown argument "overwrit"; did you mean "overwrite"?',
    ),
    ({"plan": [agent(id="a"), save(step="a", overwrite="maybe")]}, "plan[1].with.overwrite"),
    ({"plan": [agent(id="a"), save(step="a", path="${a.nothing}")]}, "plan[1].with.path: ${a.nothing}"),
    (
        {"plan": [agent(id="a", needs=["c"]), agent(id="b", needs=["a"]), agent(id="c", needs=["b"])]},
        "plan[0].needs: steps that need each other can never start: ",
    ),
    ({"plan": [agent("${a.text}", id="a", needs=[])]}, "can never start: a → a"),
]


@pytest.mark.parametrize(("raw", "said"), FAULTS, ids=[said[:60] for _, said in FAULTS])
def test_a_fault_names_its_place_what_was_found_and_what_is_right(raw: Any, said: str) -> None:
    assert said in fault(raw)


def test_every_fault_of_a_plan_is_told_at_once_and_each_once() -> None:
    raw = {
        "verson": 1,
        "plan": [
            {"agent": "imag", "prompt": ""},
            agent("${nothing.text} and ${nothing.text}", id="Bad Id", extra=1),
            agent(id="x", needs=["y"]),
            agent(id="y", needs=["x"]),
            agent(id="v", needs=["w"]),
            agent(id="w", needs=["v"]),
            {"tool": "save_result", "with": {"step": "zzz", "paths": "p"}, "needs": ["Bad Id"]},
        ],
    }
    told = faults(raw)
    assert [line.split(":")[0] for line in told] == [
        "verson",
        "plan[1].id",
        "plan[0].agent",
        "plan[0].prompt",
        "plan[1].extra",
        "plan[1].prompt",
        "plan[6].with.step",
        "plan[6].with.path",
        "plan[6].with.paths",
        "plan[2].needs",
        "plan[4].needs",
    ]
    assert told[-1].endswith(": v → w → v")


@pytest.mark.parametrize("order", ["sequence", "graph"])
def test_one_wrong_step_brings_no_faults_of_others_that_are_right(order: str) -> None:
    steps = [agent(id="a"), 4, agent(id="c", needs=["a"]), agent(id="b"), agent(id="b")]
    told = faults({"plan": steps, "order": order})
    assert [line.split(":")[0] for line in told] == ["plan[1]", "plan[4].id"]


def test_a_plain_dollar_brace_is_written_with_two_dollars() -> None:
    assert checked({"plan": [agent("const x = `$${name}`; $${a.text}")]}).plan


class TestForgivingAModel:
    """`lenient`: what a model writes is forgiven where its meaning is plain."""

    def test_the_strict_wire_form_is_taken_with_its_nulls_and_empty_lists(self) -> None:
        raw = {
            "plan": [
                {"id": "hero", "agent": "image", "prompt": "x", "tool": None, "with": [], "needs": []},
                {
                    "id": "save",
                    "agent": None,
                    "prompt": None,
                    "tool": "save_result",
                    "with": [{"name": "step", "value": "hero"}, {"name": "path", "value": "a.png"}],
                    "needs": ["hero"],
                },
            ]
        }
        assert checked(raw, lenient=True).plan == (
            AgentStep(id="hero", agent="image", prompt="x"),
            ToolStep.model_validate(
                {"id": "save", "tool": "save_result", "with": {"step": "hero", "path": "a.png"}, "needs": ["hero"]}
            ),
        )

    def test_empty_texts_stand_for_null(self) -> None:
        steps = [
            {"id": "", "agent": "code", "prompt": "x", "tool": "", "with": {}},
            {"agent": "", "prompt": "", "tool": "save_result", "with": {"step": "code_1", "path": "x"}},
        ]
        assert [step.id for step in checked({"plan": steps}, lenient=True).plan] == ["code_1", "save_result_1"]

    def test_hyphens_and_capitals_in_ids_are_forgiven_wherever_the_id_stands(self) -> None:
        steps = [
            agent(id="Hero-Image", needs=[]),
            agent("${Hero-Image.path} ${hero-image.data.a-b} $${Hero-Image.text}", id="b", needs=["Hero-Image"]),
            {**save(step="Hero-Image", tags=["${Hero-Image.text}"]), "needs": []},
        ]
        plan = checked({"plan": steps}, lenient=True)
        assert needs(plan) == {"hero_image": (), "b": ("hero_image",), "save": ("hero_image",)}
        assert plan.plan[1].title == "${hero_image.path} ${hero_image.data.a-b} $${Hero-Image.text}"
        assert isinstance(plan.plan[2], ToolStep)
        assert plan.plan[2].arguments == {"path": "a.txt", "step": "hero_image", "tags": ["${hero_image.text}"]}

    def test_a_person_is_told_instead(self) -> None:
        told = faults({"plan": [agent(id="a-b"), {**agent(), "tool": ""}]})
        assert [line.split(";")[-1] for line in told] == [' "a_b" would do', " a step has one of them"]

    def test_two_ids_that_become_one_are_a_fault(self) -> None:
        assert "is the id of plan[0] already" in fault({"plan": [agent(id="a-b"), agent(id="a_b")]}, lenient=True)


CONTENTS: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b" \n\t", "is empty"),
    (b"\xff\xfe{", "is not UTF-8 text (byte 0)"),
    (b"{'plan': []}", "is not JSON"),
    (b'{"plan": [}', "at line 1, column 11"),
    (b"[" * 100_000, "is nested too deeply"),
    (b'{"plan": ' + b"9" * 5000 + b"}", "cannot be read"),
    (b" " * (MAX_BYTES + 1), "a plan may hold 10,485,760"),
]


@pytest.mark.parametrize(("content", "said"), CONTENTS, ids=[said for _, said in CONTENTS])
def test_a_file_that_holds_no_json_is_said_to_be_so(content: bytes, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        load(content, source="p.json")
    assert caught.value.message.startswith("p.json ")
    assert said in caught.value.message


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load(b'\xef\xbb\xbf{"plan": []}', source="p.json") == {"plan": []}


def test_half_a_character_and_numbers_that_json_has_not_can_be_written_down_afterwards() -> None:
    raw = load(b'{"task": "\\ud83d", "plan": [{"agent": "code", "prompt": "x \\ud83d y"}]}', source="p.json")
    plan = checked(raw)
    assert (plan.task, plan.plan[0].title) == ("�", "x � y")
    assert plan.to_json().encode()
    assert checked({"plan": [agent()]}, task="caf\udce9", params={"a": "\udce9"}).to_json().encode()
    numbers = load(
        b'{"plan": [{"agent": "code", "prompt": "x"}, {"tool": "save_result", "with": {"path": NaN}}]}', source=""
    )
    assert '"path": input should be a valid string, found null' in "".join(faults(numbers))


@pytest.mark.parametrize("depth", [100, 150, 300, 900, 5000])
def test_arguments_that_are_nested_without_end_are_a_fault(depth: int) -> None:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    told = faults({"plan": [agent(id="a"), save(step="a", tags=value)]})
    assert "nested" in "".join(told) or "tags" in "".join(told)


class TestLargePlans:
    """10,000 steps are no problem; what would be is refused before it costs anything."""

    def test_ten_thousand_steps_in_a_row_and_side_by_side(self) -> None:
        assert len(checked({"plan": [agent()] * MAX_STEPS}).plan) == MAX_STEPS
        chain = [agent(id=f"s{i}", needs=[f"s{i - 1}"] if i else []) for i in range(MAX_STEPS)]
        assert len(checked({"plan": chain}).after("s0")) == MAX_STEPS
        assert len(checked({"plan": [agent(needs=[])] * MAX_STEPS}).plan) == MAX_STEPS

    def test_everything_before_for_thousands_of_steps_is_refused_with_what_to_write(self) -> None:
        with pytest.raises(PlanError, match=f"more than {MAX_NEEDS:,} times") as caught:
            checked({"plan": [agent(needs=[]), *[agent()] * (MAX_STEPS - 1)]})
        assert "list what it needs" in str(caught.value.hint)

    def test_thousands_of_faults_are_all_told_and_soon(self) -> None:
        steps = [agent(id=f"some_name_{i}", needs=[f"other_name_{i}"]) for i in range(5000)]
        told = faults({"plan": steps})
        assert len(told) == 5000
        assert "did you mean" in told[0]

    def test_a_circle_of_thousands_is_told_shortly(self) -> None:
        ring = [agent(id=f"s{i}", needs=[f"s{(i + 1) % 5000}"]) for i in range(5000)]
        assert len(fault({"plan": ring})) < 500


WORDS = ["", " ", "a", "a\n", "params", "hero", "CODE", "${hero.text}", "${params.x}", "${", "$${x}", "${x}", "graph",
         "result", "-", "ä", "\ud800", "\x00", "x" * 100, "save_result", "${params}", "step", "path"]  # fmt: skip
FIELDS = ["id", "agent", "tool", "with", "needs", "prompt", "name", "value", "kind", "plan"]


def some_value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(11 if depth < 3 else 7):
        case 0:
            return rng.choice([None, True, False])
        case 1:
            return rng.choice([0, 1, -1, 10**400, 1.5, float("nan"), float("inf")])
        case 7 | 8:
            return [some_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 9 | 10:
            names = [rng.choice(WORDS + FIELDS) for _ in range(rng.randrange(5))]
            return {name: some_value(rng, depth + 1) for name in names}
    return rng.choice(WORDS)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("lenient", [False, True], ids=["person", "model"])
def test_any_json_at_all_is_a_plan_or_a_plan_error(lenient: bool) -> None:
    rng = random.Random(7)
    steps = [agent(id="hero", needs=[]), agent("${hero.path}", id="page", needs=["hero"]), save(step="page")]
    whole = json.dumps({"kind": "plan", "version": 1, "params": {"x": "1"}, "order": "graph", "plan": steps})
    plans = 0
    for _ in range(2500):
        raw = json.loads(whole)
        for _ in range(rng.randrange(1, 4)):
            target, key = rng.choice([*places(raw)] or [(raw, "x")])
            if isinstance(target, dict) and rng.random() < 0.2:
                target[rng.choice(WORDS + FIELDS)] = some_value(rng)
            elif isinstance(target, dict) and rng.random() < 0.2:
                del target[key]
            else:
                target[key] = some_value(rng)
        if rng.random() < 0.05:
            raw = some_value(rng)
        try:
            plan = checked(raw, lenient=lenient)
        except PlanError as error:
            assert error.message.encode()
        else:
            assert checked(json.loads(plan.to_json())) == plan
            plans += 1
    assert plans > 50
