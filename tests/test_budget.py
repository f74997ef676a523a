"""Limits of a whole run: what is reserved before a request, what is settled after it, and how a run ends at a limit."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from master_agent.attachments import Attachment
from master_agent.budget import LEAST_OUTPUT, OUTPUT, PICTURE, Amount, Budget, payments_reserved, reserved
from master_agent.catalogue import Agent
from master_agent.cli.models import nobody
from master_agent.cli.order import Team
from master_agent.cli.spending import check_plan
from master_agent.errors import LimitError, ModelError, SettingsError, StepError
from master_agent.events import ModelCalled, ModelReplied
from master_agent.limits import Limits
from master_agent.plan import AgentStep, Plan, Step, ToolStep
from master_agent.prices import Prices
from master_agent.results import Usage
from master_agent.settings import load
from master_agent.threads import AgentSpec, CallOptions, CallRequest, Reply, ThreadState, UserTurn
from master_agent.threads.scripted import Script, ScriptedThread
from master_agent.tools import ToolCall, ToolOutput, Use, load_tools, tool
from tests.conftest import Cli, plans, says
from tests.servers.chat import ChatServer, reply, status
from tests.servers.loopback import Behaviour, Body
from tests.servers.replicate import TOKEN, stand_in
from tests.servers.replicate import Script as ReplicateScript
from tests.virtual_time import run_in_virtual_time

FREE = Prices()


@dataclass
class Server:
    """Answers after a second of virtual time; remembers what it was asked and how many it answered at once."""

    usage: Usage | None = field(default_factory=lambda: Usage(calls=1, input_tokens=10, output_tokens=20))
    error: Exception | None = None
    reason: str | None = None
    caps: list[int | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: CallRequest) -> Reply:
        self.caps.append(request.options.output_tokens)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(1)
        self.at_once -= 1
        if self.error:
            raise self.error
        return Reply("incomplete" if self.reason else "completed", "x" * 30, usage=self.usage, reason=self.reason)


def request(text: str = "", *, output: int | None = None, turn: int = 1, **more: Any) -> CallRequest:
    thread = ScriptedThread(AgentSpec("a", "", max_output_tokens=output), ThreadState("scripted"), Script([]))
    return CallRequest(thread, UserTurn(text, **more), CallOptions(agent="a", step="s", turn=turn))


def budget(**limits: Any) -> Budget:
    return Budget(Limits(**limits))


def many(count: int, server: Server, within: Budget, make: Callable[[], CallRequest]) -> list[Reply | BaseException]:
    call = reserved(server.answer, within, FREE, None)

    async def all_at_once() -> list[Reply | BaseException]:
        return await asyncio.gather(*(call(make()) for _ in range(count)), return_exceptions=True)

    return run_in_virtual_time(all_at_once())


def one(server: Server, within: Budget, asked: CallRequest) -> Reply:
    (result,) = many(1, server, within, lambda: asked)
    if isinstance(result, BaseException):
        raise result
    return result


# What is reserved, and what it becomes.


def test_of_many_requests_only_so_many_go_out_and_the_others_are_refused_when_those_are_back() -> None:
    server = Server()

    results = many(16, server, budget(calls=3), request)

    assert len(server.caps) == 3
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 13 and all(isinstance(error, LimitError) for error in refused)
    assert "that it may: 3" in str(refused[0])


def test_without_a_limit_nothing_is_added_around_a_request() -> None:
    call: Callable[[CallRequest], Awaitable[Reply]] = Server().answer

    assert reserved(call, budget(), FREE, None) is call


def test_requests_wait_for_each_other_rather_than_have_their_answers_cut_short() -> None:
    server, within = Server(), budget(tokens=1000)

    results = many(4, server, within, lambda: request(output=900))

    assert all(isinstance(result, Reply) for result in results)
    assert server.most_at_once == 1
    assert server.caps == [900, 900, 900, 900]
    assert within.left().tokens == 1000 - 4 * 30


def test_the_last_request_is_held_to_what_is_left() -> None:
    server, within = Server(), budget(tokens=1000)

    one(server, within, request("x" * 300, output=5000))

    assert server.caps == [900]  # 1000 less a third of 300 bytes


@pytest.mark.parametrize(
    ("tokens", "output", "cap"),
    [
        (100_000, None, OUTPUT),
        (100_000, 50_000, 50_000),
        (LEAST_OUTPUT, None, LEAST_OUTPUT),
        (LEAST_OUTPUT - 1, None, None),
        (LEAST_OUTPUT - 1, 40, 40),
    ],
)
def test_an_answers_length_is_limited_by_its_agent_or_the_rest(
    tokens: int, output: int | None, cap: int | None
) -> None:
    server = Server()
    if cap is None:
        with pytest.raises(LimitError, match="needs 256 tokens, and 255 of the run's 255 are left"):
            one(server, budget(tokens=tokens), request(output=output))
    else:
        one(server, budget(tokens=tokens), request(output=output))
    assert server.caps == ([] if cap is None else [cap])


@pytest.mark.parametrize(
    ("usage", "error", "tokens"),
    [
        (Usage(calls=1, input_tokens=700, output_tokens=50), None, 750),
        (None, None, 100 + 10),  # by estimate: 300 bytes in, 30 out
        (Usage(calls=1, input_tokens=70, output_tokens=None), None, 70 + 10),
        (None, ModelError("slow down", type="rate_limited"), 0),
        (None, ModelError("no", type="connection"), 0),
        (None, ModelError("late", type="model_timeout"), 100),
        (None, ModelError("half", type="malformed_reply"), 100),
    ],
)
def test_what_was_used_takes_the_place_of_what_was_reserved(
    usage: Usage | None, error: Exception | None, tokens: int
) -> None:
    within = budget(tokens=10_000, calls=5)

    many(1, Server(usage, error), within, lambda: request("x" * 300))

    assert (within.left().tokens, within.left().calls) == (10_000 - tokens, 4)


def test_a_cancelled_request_gives_back_what_it_cannot_have_used() -> None:
    within = budget(tokens=10_000)
    call = reserved(Server().answer, within, FREE, None)

    async def cancel() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(request("x" * 300)), 0.5)

    run_in_virtual_time(cancel())

    assert within.left().tokens == 9_900


def test_a_conversation_counts_with_the_tokens_that_its_last_answer_told() -> None:
    server, within = Server(Usage(calls=1, input_tokens=2000, output_tokens=500)), budget(tokens=10_000)

    one(server, within, request(output=100))
    one(server, within, request("x" * 30, output=50_000, turn=2))

    assert server.caps == [100, 10_000 - 2500 - (2500 + 10)]


def test_a_picture_counts_with_what_a_look_at_it_costs_and_not_with_its_bytes() -> None:
    server, within = Server(), budget(tokens=10_000)

    one(server, within, request(output=50_000, pictures=(Attachment("a.png", "image/png", b"x" * 100_000),)))

    assert server.caps == [10_000 - PICTURE]


def test_an_answer_that_was_cut_off_for_the_budget_says_so() -> None:
    with pytest.raises(LimitError, match="cut off after the 1,000 tokens") as caught:
        one(Server(reason="max_output_tokens"), budget(tokens=1000), request())
    assert "--max-tokens" in str(caught.value.hint)

    assert one(Server(reason="max_output_tokens"), budget(tokens=1000), request(output=500)).status == "incomplete"


def test_money_limits_answers_as_tokens_do() -> None:
    """gpt-5 costs $10 for a million tokens of output: 0.01 dollars are a thousand of them."""
    server, within = Server(), budget(cost=0.01)

    one(server, within, replace_model(request(), "gpt-5"))

    assert server.caps == [1000]
    # 10 in at $1.25 and 20 out at $10 for a million
    assert within.left().cost == Decimal("0.01") - Decimal("0.0002125")


def replace_model(asked: CallRequest, model: str) -> CallRequest:
    thread = ScriptedThread(AgentSpec("a", "", model=model), ThreadState("scripted"), Script([]))
    return CallRequest(thread, asked.turn, asked.options)


def test_what_earlier_processes_used_counts_and_so_does_a_request_that_died_with_its_process() -> None:
    called = ModelCalled(agent="a", wire="chat", turn=1, input={})
    replied = ModelReplied(status="completed", usage=Usage(calls=1, input_tokens=70, output_tokens=30))

    before = Budget(Limits(calls=5, tokens=1000), replied.usage, [called, replied, called])

    assert (before.left().calls, before.left().tokens) == (3, 900)


def test_amounts_add_up() -> None:
    assert Amount(1, 2, Decimal("0.3")) + Amount(4, 5, Decimal("0.1")) == Amount(5, 7, Decimal("0.4"))


# Whole runs.


def wide(count: int) -> list[dict[str, Any]]:
    return [{"id": f"s{i}", "agent": "code", "prompt": "Hi", "needs": []} for i in range(count)]


def server_flags(server: ChatServer) -> tuple[str, ...]:
    return ("--openai-base-url", server.base_url, "--model", "m")


def test_sixteen_parallel_steps_with_room_for_three_requests_make_exactly_three(cli: Cli) -> None:
    with ChatServer(lambda _: reply("Hello.", delay=0.2)) as server:
        flags = (*server_flags(server), "--concurrency=16", "--max-calls=3")
        ran = cli("run", cli.plan(*wide(16)), *flags, "--json")
        assert server.count == 3

        assert (ran.code, ran.json["status"], ran.json["error"]["type"]) == (5, "limited", "limit")
        assert "--max-calls" in ran.json["error"]["hint"]
        statuses = [result["status"] for result in ran.json["results"].values()]
        assert statuses.count("done") == 3
        assert ran.json["usage"]["calls"] == 3

        again = cli("resume", "--json")
        assert (again.code, server.count) == (5, 3)
        more = cli("resume", "--max-calls=20", "--json")
        assert (more.code, more.json["status"], server.count) == (0, "done", 16)


def test_a_retried_request_counts_each_time(cli: Cli) -> None:
    with ChatServer([status(500), status(500), reply("Hello.")]) as server:
        ran = cli("run", cli.plan(*wide(1)), *server_flags(server), "--max-calls=2", "--json")

        assert (ran.code, server.count) == (5, 2)


def test_the_planners_requests_count_too(cli: Cli) -> None:
    script = cli.script(plans(*wide(2)), says("Hello.", repeat=True))

    ran = cli("Greet", script, "--yes", "--max-calls=2", "--concurrency=1", "--json")

    assert (ran.code, ran.json["status"]) == (5, "limited")
    assert [result["status"] for result in ran.json["results"].values()] == ["done", "failed"]


def test_tokens_are_limited_and_answers_held_to_what_is_left(cli: Cli) -> None:
    def brain(body: Body) -> Behaviour:
        return reply("Hello.", usage={"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000})

    with ChatServer(brain) as server:
        flags = (*server_flags(server), "--concurrency=1", "--max-tokens=5000")
        ran = cli("run", cli.plan(*wide(3)), *flags, "--json")

        assert (ran.code, ran.json["error"]["type"]) == (5, "limit")
        first, second = (body["max_tokens"] for body in server.bodies)
        assert 4000 < first < 5000
        assert second == first - 3000
    assert "the next request needs" in ran.json["error"]["message"]


def test_without_such_a_limit_requests_are_as_they_were(cli: Cli) -> None:
    with ChatServer(lambda _: reply("Hello.")) as server:
        cli("run", cli.plan(*wide(1)), *server_flags(server), "--max-calls=5")

        assert "max_tokens" not in server.bodies[0]


def test_a_run_may_start_only_so_many_steps_and_goes_on_with_more(cli: Cli) -> None:
    script = cli.script(says("Hello.", repeat=True))

    ran = cli("run", cli.plan(*wide(4)), script, "--max-steps=2", "--concurrency=1", "--json")

    statuses = [result["status"] for result in ran.json["results"].values()]
    assert (ran.code, statuses) == (5, ["done", "done", "not_started", "not_started"])
    assert "--max-steps" in ran.json["error"]["hint"]
    assert cli("resume", script).code == 5
    assert cli("resume", script, "--max-steps=4").code == 0


def test_a_step_that_is_tried_again_is_no_other_step(cli: Cli) -> None:
    fails = cli.script({"error": {"type": "bad_request", "message": "no"}})
    plan = cli.plan(*wide(1))
    assert cli("run", plan, fails, "--max-steps=1").code == 4

    assert cli("resume", cli.script(says("Hello."), name="good.jsonl")).code == 0


def test_a_person_is_told_of_the_limit_and_how_to_go_on(cli: Cli) -> None:
    ran = cli("run", cli.plan(*wide(2)), cli.script(says("Hello.", repeat=True)), "--max-calls=1", "--concurrency=1")

    assert ran.code == 5
    assert "all the requests to models that it may: 1" in ran.out + ran.err
    assert "master-agent resume --max-calls" in ran.out + ran.err


def test_a_folder_may_not_set_limits(cli: Cli) -> None:
    cli.file(".env", "MASTER_AGENT_MAX_CALLS=1\n")

    ran = cli("run", cli.plan(*wide(2)), cli.script(says("Hello.", repeat=True)))

    assert ran.code == 0
    assert "MASTER_AGENT_MAX_CALLS in .env is not used" in ran.err


# Money.


def test_money_ends_a_run_before_it_is_overspent(cli: Cli) -> None:
    """Each answer costs 0.01 for 8,000 tokens in and 0.01 for 1,000 out."""
    used = {"prompt_tokens": 8000, "completion_tokens": 1000}
    with ChatServer(lambda _: reply("Hello.", usage=used)) as server:
        flags = ("--openai-base-url", server.base_url, "--model", "openai:gpt-5", "--concurrency=1", "--max-cost=0.042")
        ran = cli("run", cli.plan(*wide(6)), *flags, "--json")

        assert (ran.code, ran.json["error"]["type"], server.count) == (5, "limit", 2), ran.out
        assert "--max-cost" in ran.json["error"]["hint"]
        ran = cli("run", cli.plan(*wide(1)), *flags[:-1], "--max-cost=0.0000001", "--json")
        assert "of the run's $0.0000001 are left" in ran.json["error"]["message"]


@pytest.mark.parametrize("where", ["model", "planner"])
def test_a_model_without_a_price_is_refused_before_anything_is_asked(cli: Cli, where: str) -> None:
    models = {"model": ("--model", "nobodys"), "planner": ("--model", "openai:gpt-5", "--planner-model", "nobodys")}[
        where
    ]
    with ChatServer(lambda _: reply("Hello.")) as server:
        flags = ("--openai-base-url", server.base_url, *models, "--max-cost=1")
        ran = cli("Greet", *flags, "--yes")

        assert (ran.code, server.count) == (2, 0)
        assert "nobodys" in ran.err and "--allow-unpriced" in ran.err
        cli("run", cli.plan(*wide(1)), *flags, "--allow-unpriced")
        assert server.count == 1


@pytest.mark.parametrize(
    ("flags", "money", "bought", "type"),
    [
        ((), "0.0075", 2, "limit"),
        ((), "0.009", 3, None),
        (("--image-model", "somebody/else"), "1", 0, "settings"),
        (("--image-model", "somebody/else", "--allow-unpriced"), "1", 3, None),
    ],
)
def test_pictures_are_bought_only_as_far_as_the_money_goes(
    cli: Cli, flags: tuple[str, ...], money: str, bought: int, type: str | None
) -> None:
    steps = [{"id": f"p{i}", "tool": "generate_image", "with": {"prompt": "dawn"}, "needs": []} for i in range(3)]
    with stand_in(ReplicateScript()) as replicate:
        environ = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url}
        ran = cli("run", cli.plan(*steps), f"--max-cost={money}", *flags, "--json", env=environ)

        assert len(replicate.seen("create")) == bought
    assert (ran.json["error"] or {"type": None})["type"] == type
    assert ran.code == {"limit": 5, "settings": 2, None: 0}[type]
    if type == "settings":
        assert "the pictures of somebody/else (p0, p1, p2)" in ran.json["error"]["message"]


@tool(effects={"pay"})
async def send_letter(to: str) -> str:
    "Sends a letter by post."
    return to


TEAM = Team(
    {
        "clerk": Agent("clerk", "", "", tools=("read_file", "send_letter")),
        "painter": Agent("painter", "", "", tools=("generate_image",)),
        "scout": Agent("scout", "", "", hosted=("web_search",)),
        "writer": Agent("writer", "", "", tools=("read_file",)),
    },
    {**load_tools(), "send_letter": send_letter},
)
DRAWN = ToolStep(id="hero", tool="generate_image")
REPLICATE, OPENAI = {"REPLICATE_API_TOKEN": TOKEN}, {"OPENAI_API_KEY": "sk-right-and-long-enough"}


@pytest.mark.parametrize(
    ("step", "environ", "free", "said"),
    [
        (ToolStep(id="post", tool="send_letter"), {}, False, "what send_letter pays for (post)"),
        (AgentStep(id="ask", agent="clerk", prompt="x"), {}, False, "what send_letter pays for (ask)"),
        (AgentStep(id="find", agent="scout", prompt="x"), {}, False, "web_search at the model's provider (find)"),
        (AgentStep(id="find", agent="scout", prompt="x"), {}, True, None),  # a server of one's own runs it
        (AgentStep(id="done", agent="clerk", prompt="x"), {}, False, None),
        (AgentStep(id="page", agent="writer", prompt="x"), {}, False, None),
        (DRAWN, REPLICATE, False, None),
        (DRAWN, OPENAI, False, "the pictures of openai (hero)"),
        (AgentStep(id="hero", agent="painter", prompt="x"), OPENAI, False, "the pictures of openai (hero)"),
        (DRAWN, {}, False, None),  # nobody makes any, which the step will be told
    ],
)
def test_a_plan_is_refused_before_its_first_step_where_it_may_pay_for_what_has_no_price(
    tmp_path: Path, step: Step, environ: dict[str, str], free: bool, said: str | None
) -> None:
    first = AgentStep(id="first", agent="writer", prompt="x")
    chosen = replace(nobody(), prices=Prices(free=free))

    def check(**flags: str) -> None:
        settings = load(flags, {"MASTER_AGENT_CONFIG_DIR": str(tmp_path), **environ}, tmp_path)
        check_plan(Plan(plan=(first, step)), {"done"}, TEAM, settings, chosen)

    check()  # where money is not limited, nothing is refused
    if said is None:
        check(max_cost="1")
    else:
        with pytest.raises(SettingsError) as refused:
            check(max_cost="1")
        assert refused.value.message == f"--max-cost: no price is known of {said}"
        assert "--allow-unpriced" in (refused.value.hint or "")


@pytest.mark.parametrize("name", ["generate_image", "send_letter"])
def test_a_tool_without_a_price_is_refused_at_its_use_as_well(name: str) -> None:
    async def use(call: ToolCall) -> ToolOutput:
        return ToolOutput(f"paid for {call.tool}")

    call = ToolCall("c", name, {"count": 1})
    guarded, let = (
        payments_reserved(use, budget(cost=1), None, TEAM.tools, allow_unpriced=allow) for allow in (False, True)
    )

    with pytest.raises(StepError, match="no price is known"):
        asyncio.run(_once(guarded, call))
    assert asyncio.run(_once(let, call)).text == f"paid for {name}"


async def _once(use: Use, call: ToolCall) -> ToolOutput:
    return await use(call)
