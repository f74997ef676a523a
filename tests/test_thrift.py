"""What a run costs, counted and never timed: requests, connections, events, and operations for a step."""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from master_agent.checker import check
from master_agent.cli.programs import Manner
from master_agent.context import Inputs
from master_agent.dispatcher import Dispatcher
from master_agent.events import ModelCalled, PlanMade
from master_agent.plan import Plan, Step
from master_agent.quick import WAITING
from master_agent.results import StepResult
from master_agent.settings import load
from tests.conftest import Cli, plans, says
from tests.servers import assistant_runs, chat, responses
from tests.servers.assistants import AssistantsServer
from tests.servers.chat import ChatServer
from tests.servers.responses import ResponsesServer

# Requests

PAGE = "```html index.html\n<img src=images/hero.png>\n```\n"
PICTURE = ("generate_image", {"prompt": "A roastery", "last": True})


def step(name: str, needs: list[str], **rest: Any) -> dict[str, Any]:
    return {"id": name, "agent": None, "prompt": None, "tool": None, "with": [], "needs": needs, **rest}


PLAN = json.dumps(
    {
        "plan": [
            step("hero", [], agent="image", prompt="A roastery"),
            step("page", ["hero"], agent="code", prompt="Show ${hero.path}"),
            step(
                "save",
                ["page"],
                tool="save_result",
                **{"with": [{"name": "step", "value": "page"}, {"name": "path", "value": "index.html"}]},
            ),
        ]
    }
)
SERVERS: Mapping[str, Any] = {
    "chat": lambda: ChatServer([chat.reply(PLAN), chat.reply(calls=[chat.call(*PICTURE)]), chat.reply(PAGE)]),
    "responses": lambda: ResponsesServer(
        [responses.reply(PLAN), responses.reply(calls=[responses.call(*PICTURE)]), responses.reply(PAGE)]
    ),
    "assistants": lambda: AssistantsServer(
        [
            assistant_runs.says(PLAN),
            assistant_runs.says(calls=[chat.call(*PICTURE)]),
            assistant_runs.says(PAGE),
        ]
    ),
}


@pytest.mark.parametrize("wire", SERVERS)
def test_a_picture_a_page_and_its_saving_cost_the_plan_and_two_requests_on_one_connection(cli: Cli, wire: str) -> None:
    with SERVERS[wire]() as server:
        ran = cli(
            *("Make a landing page", "--yes", "--json", "--wire", wire, "--openai-base-url", server.base_url),
            *("--model", "test-model", "--image-provider", "placeholder"),
            env={"OPENAI_API_KEY": "sk-test"},
        )

    assert ran.code == 0, ran.out + ran.err
    assert ran.json["usage"]["calls"] == 3
    assert (cli.folder / "index.html").read_text() == "<img src=images/hero.png>\n"
    assert server.connections == 1 or wire == "assistants"  # which lets go of a stream before its end, to ask again


def test_what_a_step_is_told_holds_what_it_needs_once_and_begins_as_for_every_step_of_its_agent(cli: Cli) -> None:
    plan = cli.plan(
        {"id": "a", "agent": "code", "prompt": "First", "needs": []},
        {"id": "b", "agent": "code", "prompt": "Second", "needs": []},
        {"id": "c", "agent": "code", "prompt": "Third, on ${a.text}", "needs": ["a"]},
    )
    with ChatServer(lambda body: chat.reply(f"Left by {body['messages'][-1]['content'].split()[0]}.")) as server:
        ran = cli("run", plan, "--openai-base-url", server.base_url, "--model", "test-model", "--concurrency", "1")

    assert ran.code == 0, ran.err
    told = {body["messages"][-1]["content"].split()[0]: body for body in server.bodies}
    third = told["Third,"]["messages"][-1]["content"]
    assert "Left by Second." not in third
    assert third.count("Left by First.") == 2  # where the prompt refers to it, and as what the step builds on
    assert len({json.dumps(body["messages"][0]) for body in server.bodies}) == 1


@pytest.mark.slow
def test_a_thousand_ready_steps_keep_to_two_hundred_connections_and_few_file_handles(cli: Cli) -> None:
    plan = cli.plan(*({"id": f"s{i}", "agent": "code", "prompt": "Say it.", "needs": []} for i in range(1000)))
    with ChatServer(lambda _: chat.reply("Done.", delay=0.05)) as server:
        process = cli.start(
            *("run", plan, "--json", "--concurrency", "200", "--openai-base-url", server.base_url),
            *("--model", "test-model"),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
        )
        out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert Counter(one["status"] for one in json.loads(out)["results"].values()) == {"done": 1000}
    assert server.count == 1000
    assert server.most_open <= 200
    assert server.connections < 300  # most are used again


# Programs


@pytest.fixture
def tried() -> Iterator[tuple[Path, dict[str, str]]]:
    """Where it shows that a sandbox was tried, and the variables with which it does; for a program of another user."""
    with tempfile.TemporaryDirectory() as made:
        log, program = Path(made) / "tried", Path(made) / "bwrap"
        program.write_text(f"#!/bin/sh\necho tried >> {log}\nexit 1\n")
        program.chmod(0o755)
        Path(made).chmod(0o777)
        yield log, {"PATH": f"{made}:{os.environ['PATH']}"}


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")
def test_no_sandbox_is_tried_for_a_line_that_nobody_reads(cli: Cli, tried: tuple[Path, dict[str, str]]) -> None:
    log, environ = tried
    run = ("run", cli.plan({"agent": "code", "prompt": "Say it."}), cli.script(says("Done.", repeat=True)))

    for flags in (["--quiet"], ["--json"], ["--events"]):
        assert cli(*run, *flags, env=environ).code == 0
        assert not log.exists(), flags
    assert "may run code" in cli(*run, env=environ).err
    assert log.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")
def test_a_sandbox_is_tried_while_the_planner_thinks(cli: Cli, tried: tuple[Path, dict[str, str]]) -> None:
    log, environ = tried
    known: list[bool] = []

    def answer(body: dict[str, Any]) -> Any:
        if known:
            return chat.reply("Done.")
        until = time.monotonic() + 20
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.01)
        known.append(log.exists())
        return chat.reply(json.dumps({"plan": [step("only", [], agent="code", prompt="Say it.")]}))

    with ChatServer(answer) as server:
        ran = cli("Say it", "--yes", "--openai-base-url", server.base_url, "--model", "test-model", env=environ)

    assert ran.code == 0, ran.err
    assert known == [True]
    assert "may run code" in ran.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")
@pytest.mark.parametrize("agent", ["image", "code"])
def test_a_sandbox_that_does_not_start_holds_up_no_run_for_long(cli: Cli, agent: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        program = Path(made) / "bwrap"
        program.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 61.25\n")
        program.chmod(0o755)
        Path(made).chmod(0o777)
        plan = plans({"id": "only", "agent": agent, "prompt": "Say it.", "needs": []})
        ran = cli(
            *("Say it", cli.script(plan, says("Done."))),
            "--yes",
            env={"PATH": f"{made}:{os.environ['PATH']}"},
            timeout=30,
        )
        left = subprocess.run(["pgrep", "-f", "sleep 61.25"], capture_output=True, text=True).stdout

    assert ran.code == 0, ran.err
    assert ("in a sandbox that is still being tried" in ran.err) == (agent == "code")
    assert left == ""


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="there is nothing to try")
def test_what_is_tried_while_the_planner_thinks_is_left_off_before_the_run_ends(cli: Cli) -> None:
    never_tried = load({"exec_image": "of-this-test"}, cli.environ, cli.folder)  # else an earlier test has the answer
    code = Manner(never_tried, lambda _: True, unsafe=False)

    async def work() -> set[asyncio.Task[Any]]:
        telling = asyncio.create_task(code.told())
        for _ in range(10_000):
            if len(asyncio.all_tasks()) >= 4:  # a program's start is a task of its own
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("no sandbox is being tried")
        async with asyncio.timeout(30):
            await code.end()
        return {task for task in asyncio.all_tasks() if task not in (asyncio.current_task(), telling)}

    assert asyncio.run(work()) == set()


def test_the_requests_of_a_plan_that_runs_no_code_try_no_sandbox(cli: Cli) -> None:
    code = Manner(load({"exec_image": "of-that-test"}, cli.environ, cli.folder), lambda _: False, unsafe=False)
    plan = check({"plan": [{"agent": "image", "prompt": "A roastery"}]}, ["image"], {})

    def asked(step: str | None) -> ModelCalled:
        return ModelCalled(step=step, agent="image", wire="scripted", turn=1, input={})

    async def work() -> int:
        for event in (asked(None), PlanMade(plan=plan, by="model"), asked(plan.plan[0].id)):
            code.hear(event)
        await asyncio.sleep(3 * WAITING)
        begun = len(asyncio.all_tasks()) - 1
        await code.end()
        return begun

    assert asyncio.run(work()) == 0


# Events


def test_a_step_writes_four_events_and_a_run_three_besides(cli: Cli) -> None:
    for count in (1, 20):
        steps = ({"id": f"s{i}", "agent": "code", "prompt": "Say it.", "needs": []} for i in range(count))
        ran = cli("run", cli.plan(*steps), cli.script(says("Done.", repeat=True)), "--events")
        kept = Counter(event["type"] for event in ran.events if event["seq"] is not None)
        of_each = ("step_started", "model_called", "model_replied", "step_finished")
        assert kept == {"run_started": 1, "plan_made": 1, "run_finished": 1, **dict.fromkeys(of_each, count)}


# Operations


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts calls of functions of any kind in this thread."""
    calls: Counter[str] = Counter()

    def seen(_frame: object, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            calls["all"] += 1

    sys.setprofile(seen)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def _done(_step: Step, _inputs: Inputs) -> StepResult:
    await asyncio.sleep(0)
    return StepResult(status="done")


def _plan(shape: str, count: int) -> Plan:
    shapes: dict[str, list[list[str]]] = {
        "at once": [[] for _ in range(count)],
        "in a row": [[f"s{i - 1}"] if i else [] for i in range(count)],
        "in layers": [[f"s{i - 10 - i % 10 + k}" for k in range(10)] if i >= 10 else [] for i in range(count)],
    }
    needs = shapes[shape]
    steps = [{"id": f"s{i}", "agent": "code", "prompt": "x", "needs": needs[i]} for i in range(count)]
    return check({"plan": steps}, ["code"], {})


@pytest.mark.parametrize("shape", ["at once", "in a row", "in layers"])
def test_twice_the_steps_are_twice_the_operations_however_they_hang_together(shape: str) -> None:
    spent = []
    for count in (300, 600):
        plan = _plan(shape, count)
        with counted() as calls:
            asyncio.run(Dispatcher(plan, _done, lambda _: None, most=10_000).run())
        spent.append(calls["all"])

    assert spent[1] < 2.1 * spent[0]
    assert spent[1] / 600 < 250  # of which the largest part is asyncio's and pydantic's
