"""Planning with models that read little at once: told in short, held to a form with less to write."""

import asyncio
import json

import jsonschema
import pytest

from master_agent.answers import find_plan
from master_agent.catalogue import load_agents
from master_agent.checker import check
from master_agent.cli.build import builtin
from master_agent.context import Boundaries, Inputs, tell
from master_agent.errors import ModelError
from master_agent.planner import SHORT, Planner, plan_schema, short_plan_schema
from master_agent.prompts import Prompts
from master_agent.results import StepResult
from master_agent.threads import AgentSpec, CallOptions, CallRequest, Capabilities, Reply, UserTurn
from master_agent.threads.scripted import Scripted, read_script
from master_agent.tools import load_tools
from tests.conftest import Cli
from tests.servers.chat import ChatServer, error, reply
from tests.servers.loopback import Behaviour, Body

TOOLS = load_tools()
AGENTS = load_agents([builtin("agents")], TOOLS)
OFFERED = {name: tool for name, tool in TOOLS.items() if name != "run_code"}  # which its agents have all the same
SLOT = 4_096 * 1.65  # characters that the tiny model reads and writes at once
ANSWER = 800  # of them for a plan of five steps or so


def told(able: Capabilities) -> tuple[AgentSpec, UserTurn]:
    """What the planner asks a model that can do so much."""
    asked: list[CallRequest] = []

    async def call(request: CallRequest) -> Reply:
        asked.append(request)
        raise ModelError("enough", type="bad_request")

    wire = Scripted(read_script("", source="script"))
    wire.capabilities = able
    options, marks = CallOptions(agent="planner"), Boundaries("data-0123456789ab")
    planner = Planner(wire, call, Prompts(builtin("prompts")), AGENTS, TOOLS, marks, options)
    files = [(f"notes/{number}.txt", 10) for number in range(30)]
    with pytest.raises(ModelError):
        asyncio.run(planner.make("Draw a cat and put it on a page", {}, files))
    assert isinstance(asked[0].turn, UserTurn)
    return asked[0].thread.agent, asked[0].turn


@pytest.mark.parametrize("grammar", [True, False])
def test_what_a_small_model_is_told_leaves_it_room_for_its_plan(grammar: bool) -> None:
    agent, turn = told(Capabilities(context=4_096, grammar=grammar))

    # A server without a grammar of its own may tell the model the form in words.
    form = "" if grammar else json.dumps(agent.output, separators=(",", ":"))
    assert len(agent.instructions) + len(turn.text) + len(form) < SLOT - ANSWER
    assert agent.output == short_plan_schema(AGENTS, OFFERED, exact=grammar)
    assert all(f"`{name}`" in agent.instructions for name in (*AGENTS, *OFFERED))
    assert "(10 more files)" in turn.text


@pytest.mark.parametrize("context", [None, SHORT + 1])
def test_a_model_that_reads_much_or_nobody_knows_how_much_is_told_all(context: int | None) -> None:
    agent, turn = told(Capabilities(context=context))

    assert "# Rules" in agent.instructions
    assert agent.output == plan_schema(AGENTS, TOOLS)
    assert "notes/29.txt" in turn.text


def test_the_example_in_short_is_of_the_form_and_a_good_plan() -> None:
    agent, _ = told(Capabilities(context=SHORT))
    example = find_plan(Reply("completed", agent.instructions)).raw

    jsonschema.validate(example, short_plan_schema(AGENTS, TOOLS, exact=True))
    assert [step.id for step in check(example, AGENTS, TOOLS).plan] == ["hero", "page", "save"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "My page"},
        {"agent": "nobody"},
        {"prompt": ""},
        {"agent": None},
        {"tool": "list_files"},
        {"agent": None, "prompt": None, "tool": "save_result", "with": {"path": "a"}},
        {"agent": None, "prompt": None, "tool": "save_result", "with": {"step": "a", "path": "a", "colour": "red"}},
    ],
    ids=str,
)
def test_the_form_in_short_leaves_no_room_for_a_fault_of_form(wrong: dict[str, object]) -> None:
    form = jsonschema.Draft202012Validator(short_plan_schema(AGENTS, TOOLS, exact=True))
    step = {"id": "page", "agent": "code", "prompt": "A page", "needs": []}
    assert form.is_valid({"plan": [step]})
    assert not form.is_valid({"plan": [{key: value for key, value in {**step, **wrong}.items() if value is not None}]})
    assert not form.is_valid({"plan": []})


def test_what_a_small_model_is_told_of_earlier_steps_leaves_it_room_too() -> None:
    results = {name: StepResult(status="done", agent="code", text=name * 9_000) for name in ("a", "b")}
    told = tell(Inputs(results), Boundaries("data-0123456789ab"), 4_096)

    assert 4_000 < len(told) < 5_000
    assert '[cut: 4096 of 9000 characters; save_result with step "b" saves the whole]' in told
    assert "[cut: 200 of 9000 characters" in told


def test_a_run_goes_by_the_size_that_the_user_says_and_a_replay_by_the_recorded_one(cli: Cli) -> None:
    plan = {"plan": [{"id": "note", "tool": "write_file", "with": {"path": "a.txt", "content": "A"}, "needs": []}]}

    def brain(body: Body) -> Behaviour:
        if len(json.dumps(body["messages"])) > 4_096 * 2:
            return error(400, "exceeds the available context size")
        return reply(json.dumps(plan))

    with ChatServer(brain) as server:
        at = {"OPENAI_BASE_URL": server.base_url, "MASTER_AGENT_MODEL": "small"}
        flags = ("--yes", "--json", "--context-size", "4096", "--record", "run.jsonl")
        ran = cli("Write a note", *flags, env=at)
        (body,) = server.bodies
        too_long = cli("Write this: " + "much " * 4000, "--yes", "--json", "--context-size", "2048", env=at)
        assert server.count == 1, "what cannot fit is not asked"

    assert (ran.code, (cli.folder / "a.txt").read_text()) == (0, "A"), ran.err
    assert "# Rules" not in body["messages"][0]["content"]
    assert "anyOf" in body["response_format"]["json_schema"]["schema"]["properties"]["plan"]["items"]
    assert (too_long.code, too_long.json["error"]["type"]) == (1, "context_exceeded")
    assert "reads 2,048 at once" in too_long.json["error"]["message"]

    (cli.folder / "a.txt").unlink()
    replayed = cli("Write a note", "--yes", "--json", "--replay", "run.jsonl")
    assert (replayed.code, (cli.folder / "a.txt").read_text()) == (0, "A"), replayed.err
