"""What a run costs: prices of models and pictures, what has none, and the command that tells it all."""

import sys
from decimal import Decimal
from typing import Any

import pytest

from master_agent.prices import Prices, pictures, with_pictures
from master_agent.results import Usage
from tests.conftest import Cli, calls, plans, says
from tests.servers.chat import ChatServer, reply, status
from tests.servers.replicate import TOKEN, Script, stand_in
from tests.terminal import AtTerminal

OPENAI = Prices()


def used(read: int | None = 0, out: int | None = 0, **more: Any) -> Usage:
    return Usage(calls=1, input_tokens=read, output_tokens=out, **more)


# For a million tokens gpt-5 costs $1.25 in, $0.125 from the cache and $10 out; writing to its cache costs nothing more.
# claude-opus-4-7 costs $5 in, $0.50 from the cache, $6.25 into it and $25 out.
@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        # 8,000 at 1.25 is 0.01; 2,000 at 0.125 is 0.00025; 500 at 10 is 0.005
        ("gpt-5", used(10_000, 500, cached_tokens=2_000), "0.01525"),
        ("gpt-5", used(10_000, 500), "0.0175"),
        ("gpt-5", used(10_000, 500, cached_tokens=None, reasoning_tokens=400), "0.0175"),
        ("gpt-5", used(10_000, 0, cached_tokens=2_000, cache_write_tokens=3_000), "0.01025"),
        ("gpt-5", used(0, 0), "0"),
        ("gpt-5", used(100, 0, cached_tokens=200), "0.0000125"),  # a server that tells nonsense: no more than it read
        ("gpt-5", used(10_000, None), "0.0125"),
        ("gpt-5", Usage.unknown(), None),
        ("a-model-of-nobody", used(10_000, 500), None),
        (None, used(10_000, 500), None),
    ],
)
def test_tokens_cost_what_their_model_costs(model: str | None, usage: Usage, dollars: str | None) -> None:
    assert OPENAI.tokens(model, usage) == (None if dollars is None else Decimal(dollars))


def test_tokens_written_to_the_cache_cost_more_where_the_model_has_such_a_price() -> None:
    """5,000 at 5 is 0.025; 2,000 at 0.50 is 0.001; 3,000 at 6.25 is 0.01875; 500 at 25 is 0.0125."""
    anywhere = Prices("https://models.example.com/v1")
    usage = used(10_000, 500, cached_tokens=2_000, cache_write_tokens=3_000)

    assert anywhere.tokens("claude-opus-4-7", usage) == Decimal("0.05725")


@pytest.mark.parametrize(
    ("address", "model", "known"),
    [
        (None, "gpt-5", True),
        (None, "claude-opus-4-7", False),  # not a model of OpenAI's own address
        ("https://models.example.com/v1", "gpt-5", True),
        ("https://models.example.com/v1", "qwen3.5:9b", False),
        ("http://localhost:11434/v1", "gpt-5", False),  # a namesake: nobody knows what it is, or costs
        ("http://192.168.1.7:8000/v1", "gpt-5", False),
        ("http://gpu-box:8000/v1", "gpt-5", False),
        ("https://openrouter.ai/api/v1", "openai/gpt-5", True),
        ("https://api.groq.com/openai/v1", "gpt-5", False),  # a server with prices of its own, and none for this
    ],
)
def test_the_server_decides_whose_price_it_is_and_else_the_models_name(
    address: str | None, model: str, known: bool
) -> None:
    assert (Prices(address).tokens(model, used(1000, 10)) is not None) is known


@pytest.mark.parametrize(
    ("usage", "more", "cost", "whole"),
    [
        (used(10_000, 500), False, 0.0175, True),
        (used(10_000, 500), True, 0.0175, False),
        (used(10_000, None), False, 0.0125, False),
        (Usage.unknown(), False, None, False),
    ],
)
def test_a_cost_that_is_not_all_is_marked(usage: Usage, more: bool, cost: float | None, whole: bool) -> None:
    settled = OPENAI.settled("gpt-5", usage, more=more)

    assert (settled.cost_usd, settled.cost_complete) == (cost, whole)


def test_known_and_unknown_costs_make_at_least_the_known() -> None:
    known, unknown = used(10, 10, cost_usd=0.1), used(10, 10)

    for parts in ([known, unknown], [unknown, known], [Usage(), unknown, known, known]):
        total = sum(parts, Usage())
        assert total.cost_usd is not None and not total.cost_complete
        assert total.complete  # its tokens are all known
    assert (known + known + Usage()).cost_complete
    assert (unknown + unknown).cost_usd is None
    assert (known + Usage(images=1)).cost_complete is False
    assert (known + known + known).cost_usd == 0.3


def test_without_the_extra_every_cost_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("genai_prices", "genai_prices.data_snapshot"):
        monkeypatch.setitem(sys.modules, name, None)

    assert Prices().tokens("gpt-5", used(10, 10)) is None


@pytest.mark.parametrize(
    ("provider", "model", "dollars"),
    [
        ("replicate", "black-forest-labs/flux-schnell", "0.012"),
        ("replicate", "black-forest-labs/flux-schnell:c846a699", "0.012"),
        ("replicate", "somebody/else", None),
        ("openai", "gpt-image-2", None),
        ("placeholder", "", "0"),
    ],
)
def test_pictures_cost_what_our_table_says(provider: str, model: str, dollars: str | None) -> None:
    assert pictures(provider, model, 4) == (None if dollars is None else Decimal(dollars))


def test_what_is_no_picture_costs_nothing_by_the_table() -> None:
    drawn = ("replicate", "black-forest-labs/flux-schnell")
    assert with_pictures(Usage(), *drawn) == Usage()
    assert with_pictures(Usage(images=1), *drawn).cost_complete
    assert not with_pictures(Usage(images=1, input_tokens=9), *drawn).cost_complete  # the tokens have a price, too


# Whole runs.

NOTE = {"id": "note", "agent": "code", "prompt": "Hi", "needs": []}
TOKENS = {"prompt_tokens": 10_000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 2_000}}


def test_the_cost_of_a_run_is_in_its_result_its_totals_and_its_reading(cli: Cli) -> None:
    with ChatServer(lambda _: reply("Hello.", usage=TOKENS)) as server:
        flags = ("--openai-base-url", server.base_url, "--model", "openai:gpt-5")
        ran = cli("run", cli.plan(NOTE), *flags, "--json")
        assert ran.json["results"]["note"]["usage"]["cost_usd"] == 0.01525
        assert ran.json["usage"]["cost_usd"] == 0.01525
        assert "$0.0152" in cli("run", cli.plan(NOTE), *flags).out

    told = cli("cost", ran.json["run_id"], "--json").json
    assert (told["kind"], told["run_id"]) == ("cost", ran.json["run_id"])
    assert told["total"] == ran.json["usage"]
    (step,) = told["steps"]
    (call,) = step["calls"]
    assert (step["step"], call["name"], call["status"]) == ("note", "gpt-5", "completed")
    assert (call["usage"]["cached_tokens"], call["usage"]["cost_usd"]) == (2000, 0.01525)
    lines = cli("cost").out.splitlines()
    assert lines[0].split() == ["in", "cached", "written", "out", "reasoning", "pictures", "cost"]
    assert lines[1].split() == ["note", "10,000", "2,000", "unknown", "500", "unknown", "0", "$0.0152"]
    assert lines[-1].split()[:3] == ["whole", "run", "10,000"]


def test_a_failed_try_may_have_cost_something(cli: Cli) -> None:
    with ChatServer([status(500), reply("Hello.", usage=TOKENS)]) as server:
        cli("run", cli.plan(NOTE), "--openai-base-url", server.base_url, "--model", "openai:gpt-5")

    ran = cli("cost")

    assert "m1 gpt-5 (failed)" in ran.out
    assert ran.out.splitlines()[-1].split()[2] == "10,000+"
    assert ran.out.splitlines()[-1].endswith("$0.0152+")


def test_what_has_no_price_is_unknown_and_never_0(cli: Cli) -> None:
    with ChatServer(lambda _: reply("Hello.", usage=TOKENS)) as server:
        ran = cli("run", cli.plan(NOTE), "--openai-base-url", server.base_url, "--model", "nobodys", "--json")

    told = cli("cost", "--json").json
    (step,) = told["steps"]
    used = [ran.json["usage"], ran.json["results"]["note"]["usage"], told["total"], step["usage"]]
    used += [call["usage"] for call in step["calls"]]
    assert [(one["cost_usd"], one["cost_complete"]) for one in used] == [(None, False)] * 5
    assert cli("cost").out.splitlines()[-1].endswith("unknown")


def test_pictures_and_the_planner_are_told_by_themselves(cli: Cli) -> None:
    hero = {"id": "hero", "agent": "image", "prompt": "dawn", "needs": []}
    script = cli.script(plans(hero), calls(("generate_image", {"prompt": "dawn", "last": True}), step="hero"))
    with stand_in(Script()) as replicate:
        environ = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url}
        ran = cli("Draw", script, "--yes", "--json", env=environ)

    assert ran.code == 0, ran.err
    assert (ran.json["usage"]["cost_usd"], ran.json["usage"]["cost_complete"]) == (0.003, False)
    told = cli("cost", "--json").json
    assert [step["step"] for step in told["steps"]] == [None, "hero"]
    assert [call["name"] for call in told["steps"][1]["calls"]] == [None, "generate_image"]
    assert "(planner)" in cli("cost").out


def test_each_call_of_a_resumed_run_has_a_name_of_its_own(cli: Cli) -> None:
    hero = {"id": "hero", "agent": "image", "prompt": "dawn", "needs": []}
    poster = {"id": "poster", "tool": "generate_image", "with": {"prompt": "dusk"}, "needs": ["hero"]}
    draws = calls(("generate_image", {"prompt": "dawn", "last": False}), step="hero", turn=1)
    fails = {"step": "hero", "turn": 2, "error": {"type": "bad_request", "message": "no"}}
    offline = ("--image-provider", "placeholder")
    assert cli("run", cli.plan(hero, poster), cli.script(draws, fails), *offline).code in (1, 4)
    assert cli("resume", cli.script(says("Done.", step="hero", turn=2), name="b.jsonl")).code == 0

    told = [(call["call"], call["status"]) for step in cli("cost", "--json").json["steps"] for call in step["calls"]]

    assert told == [
        ("m1", "requires_action"),
        ("t1", "completed"),
        ("m2", "failed"),
        ("m3", "completed"),
        ("t2", "completed"),
    ]


def test_without_a_run_there_is_nothing_to_tell(cli: Cli) -> None:
    ran = cli("cost")

    assert (ran.code, ran.out) == (2, "")
    assert "no run" in ran.err


def test_in_a_narrow_terminal_the_list_of_runs_and_their_cost_break_no_word(cli: Cli) -> None:
    script = cli.script(plans({"agent": "code", "prompt": "Greet."}), calls(("none", {})), {"reply": {"text": "Hi."}})
    assert cli("Write a greeting for everybody who comes by", "--yes", script).code == 0

    for command, words in (("runs", ("everybody who comes", "by")), ("cost", ("whole run", "in", "out", "cost"))):
        code, shown = AtTerminal(cli, command, columns=60).end()
        lines = shown.replace("\r", "").splitlines()
        assert code == 0 and all(word in shown for word in words), shown
        assert max(map(len, lines)) <= 60, shown
    assert "too narrow for reasoning, written" in " ".join(shown.split())
