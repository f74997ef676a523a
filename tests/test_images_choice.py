"""Who makes pictures, through the command line: as set, else by the key that is there, else nobody, and said so."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, Ran, calls, plans
from tests.servers import chat
from tests.servers.chat import error, status
from tests.servers.images import USAGE, ImageServer, pictures, png
from tests.servers.replicate import TOKEN, stand_in
from tests.terminal import AtTerminal

KEY = "sk-right-and-long-enough"
HERO = {"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn", "aspect_ratio": "16:9"}, "needs": []}


def draw(cli: Cli, *arguments: str, env: dict[str, str] | None = None) -> Ran:
    return cli("run", cli.plan(HERO), "--json", *arguments, env={"MASTER_AGENT_ATTEMPTS": "1", **(env or {})})


def hero(ran: Ran) -> dict[str, Any]:
    result: dict[str, Any] = ran.json["results"]["hero"]
    return result


def at(server: ImageServer, **more: str) -> dict[str, str]:
    return {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url, **more}


# By setting


def test_pictures_by_openai_land_in_the_workspace_with_their_tokens(cli: Cli) -> None:
    with ImageServer(key=KEY) as server:
        ran = draw(cli, "--image-provider", "openai", env=at(server))

    made = hero(ran)
    assert (ran.code, made["status"]) == (0, "done"), ran.out + ran.err
    assert (cli.folder / "images/hero.png").read_bytes() == png(1280, 720)
    assert (made["data"]["provider"], made["data"]["model"]) == ("openai", "gpt-image-2")
    assert (made["data"]["seed"], made["data"]["source_url"]) == (None, None)
    assert (made["data"]["width"], made["data"]["height"]) == (1280, 720)
    assert "the seed was not used" in made["text"]
    used = made["usage"]
    assert (used["images"], used["calls"]) == (1, 0)
    assert (used["input_tokens"], used["output_tokens"]) == (USAGE["input_tokens"], USAGE["output_tokens"])
    assert used["complete"] is True
    assert server.faults == []


def test_tokens_of_a_picture_that_were_not_reported_are_null_in_the_result(cli: Cli) -> None:
    with ImageServer(pictures(usage=None)) as server:
        used = hero(draw(cli, "--image-provider", "openai", env=at(server)))["usage"]

    assert (used["images"], used["input_tokens"], used["output_tokens"]) == (1, None, None)
    assert used["complete"] is False


def test_an_agent_that_makes_a_picture_is_told_that_its_seed_was_not_used(cli: Cli) -> None:
    script = cli.script(
        plans({"id": "hero", "agent": "image", "prompt": "dawn", "needs": []}),
        calls(("generate_image", {"prompt": "dawn", "seed": 7, "last": True}), step="hero"),
    )
    with ImageServer() as server:
        ran = cli("Draw dawn", script, "--yes", "--json", "--image-provider", "openai", env=at(server))

    assert (ran.code, hero(ran)["status"]) == (0, "done"), ran.out + ran.err
    assert "the seed was not used" in hero(ran)["text"]


def test_the_model_that_is_set_is_asked(cli: Cli) -> None:
    with ImageServer() as server:
        draw(cli, "--image-provider", "openai", "--image-model", "gpt-image-1.5", env=at(server))
        (body,) = server.bodies

    assert (body["model"], body["size"]) == ("gpt-image-1.5", "1536x1024")


def test_a_setting_goes_before_a_token(cli: Cli) -> None:
    with ImageServer() as server, stand_in() as replicate:
        token = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url}
        ran = draw(cli, env=at(server, **token, MASTER_AGENT_IMAGE_PROVIDER="openai"))
        assert replicate.requests == []

    assert hero(ran)["data"]["provider"] == "openai"


@pytest.mark.parametrize(
    ("provider", "missing", "other"),
    [("openai", "OPENAI_API_KEY", "REPLICATE_API_TOKEN"), ("replicate", "REPLICATE_API_TOKEN", "OPENAI_API_KEY")],
)
def test_who_is_set_needs_its_own_key_and_no_other_is_taken(cli: Cli, provider: str, missing: str, other: str) -> None:
    ran = draw(cli, "--image-provider", provider, env={other: KEY})

    failure = hero(ran)["error"]
    assert failure["type"] == "missing_token"
    assert failure["message"] == f"no picture can be made: {missing} is not set"
    assert f"{missing}=…" in failure["hint"]


# By the key that is there


def test_replicates_token_goes_before_openais_key(cli: Cli) -> None:
    env = {"OPENAI_API_KEY": KEY, "REPLICATE_API_TOKEN": TOKEN}
    with stand_in() as replicate:
        ran = draw(cli, env={**env, "REPLICATE_BASE_URL": replicate.url})

    assert hero(ran)["data"]["provider"] == "replicate"
    assert hero(ran)["data"]["model"] == "black-forest-labs/flux-schnell"


def test_openais_key_alone_is_enough_and_goes_to_openai(cli: Cli) -> None:
    failure = hero(draw(cli, env={"OPENAI_API_KEY": KEY}))["error"]

    # The guard of the tests refuses the way to OpenAI itself, so this is as far as it can go.
    assert failure["type"] == "connection"
    assert "https://api.openai.com/v1" in failure["message"]
    assert "paid" not in failure["hint"]


def test_another_servers_key_is_no_reason_to_ask_it_for_pictures(cli: Cli) -> None:
    with ImageServer() as server:
        failure = hero(draw(cli, env=at(server)))["error"]
        assert server.requests == []

    assert failure["type"] == "missing_token"
    assert "no REPLICATE_API_TOKEN" in failure["message"]
    assert "no OPENAI_API_KEY for OpenAI" in failure["message"]
    assert "--image-provider openai" in failure["hint"]


def test_without_any_key_no_placeholder_is_passed_off_as_a_picture(cli: Cli) -> None:
    ran = draw(cli)

    failure = hero(ran)["error"]
    assert (ran.code, failure["type"]) == (1, "missing_token")
    assert failure["message"] == "no picture can be made: neither REPLICATE_API_TOKEN nor OPENAI_API_KEY is set"
    assert "--image-provider placeholder" in failure["hint"]
    assert not (cli.folder / "images").exists()


# What goes wrong


def test_a_prompt_that_is_refused_fails_its_step_and_says_so(cli: Cli) -> None:
    with ImageServer(error(400, "Rejected by the safety system.", reason="moderation_blocked")) as server:
        ran = draw(cli, "--image-provider", "openai", env=at(server))

    assert (ran.code, hero(ran)["error"]["type"]) == (1, "refused")


def test_the_tries_that_are_set_are_made(cli: Cli) -> None:
    with ImageServer(*[status(429, None, {"retry-after": "0"})] * 9) as server:
        ran = draw(cli, "--image-provider", "openai", "--attempts", "2", env=at(server))
        assert len(server.orders) == 2

    assert hero(ran)["error"]["type"] == "rate_limited"


def test_ctrl_c_leaves_no_picture_on_order(cli: Cli) -> None:
    with ImageServer(chat.hang_before_first_byte()) as server:
        process = cli.start("run", cli.plan(HERO), "--json", "--image-provider", "openai", env=at(server))
        assert server.wait_for(lambda: server.open_requests == 1, 30)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

        assert server.wait_for(lambda: server.open_requests == 0)
        assert len(server.orders) == 1
    assert process.returncode == 130
    assert json.loads(out)["results"]["hero"]["status"] == "cancelled"


# What is said beforehand


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "but no picture can be made: neither REPLICATE_API_TOKEN nor OPENAI_API_KEY is set"),
        ({"OPENAI_API_KEY": KEY}, "paid for at OpenAI"),
        ({"REPLICATE_API_TOKEN": TOKEN}, "paid for at Replicate"),
        ({"MASTER_AGENT_IMAGE_PROVIDER": "placeholder"}, "drawn offline as a placeholder, free"),
        ({"MASTER_AGENT_IMAGE_PROVIDER": "openai"}, "but no picture can be made: OPENAI_API_KEY is not set"),
    ],
)
def test_a_plan_says_who_is_paid_for_its_pictures(cli: Cli, env: dict[str, str], words: str) -> None:
    ran = cli("run", cli.plan(HERO), "--attempts", "1", env=env)

    assert f"1 step may make pictures, {words}: hero" in " ".join(ran.err.split())


def test_a_plan_names_the_server_of_the_users_own_that_shall_make_its_pictures(cli: Cli) -> None:
    with ImageServer() as server:
        ran = cli("run", cli.plan(HERO), env=at(server, MASTER_AGENT_IMAGE_PROVIDER="openai"))

    assert f"paid for, if it asks for pay, at {server.base_url}: hero" in " ".join(ran.err.split())


def look(cli: Cli, env: dict[str, str]) -> dict[str, Any]:
    ran = cli("doctor", "--json", env=env)
    assert KEY not in ran.out + ran.err
    return next(finding for finding in ran.json["findings"] if finding["name"] == "pictures")


def test_doctor_contacts_the_pictures_that_it_calls_found(cli: Cli) -> None:
    with ImageServer(key=KEY) as server:
        found = look(cli, at(server, MASTER_AGENT_IMAGE_PROVIDER="openai"))
        assert server.orders == []
    gone = look(cli, at(server, MASTER_AGENT_IMAGE_PROVIDER="openai"))

    assert found["status"] == "found"
    assert "openai (as set)" in found["message"]
    assert "gpt-image-2" in found["message"]
    assert gone["status"] == "wrong"


def test_doctor_tells_a_wrong_key_from_none(cli: Cli) -> None:
    with ImageServer(key=KEY) as server:
        wrong = look(cli, {**at(server, MASTER_AGENT_IMAGE_PROVIDER="openai"), "OPENAI_API_KEY": "sk-another-one"})
    missing = look(cli, {})

    assert (wrong["status"], "OPENAI_API_KEY" in wrong["hint"]) == ("wrong", True)
    assert missing["status"] == "missing"
    assert "neither REPLICATE_API_TOKEN nor OPENAI_API_KEY" in missing["message"]


def test_a_plan_says_of_each_step_what_may_be_paid_for(cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "sending-1.dist-info").mkdir(parents=True)
    (site / "sending-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: sending\nVersion: 1\n")
    (site / "sending-1.dist-info" / "entry_points.txt").write_text(
        "[master_agent.tools]\nsend_letter = sending:send_letter"
    )
    (site / "sending.py").write_text(
        "from master_agent.tools import tool\n\n\n@tool(effects={'pay', 'write'})\n"
        "async def send_letter(context, to: str) -> str:\n    'Sends a letter by post.'\n    return 'sent'\n"
    )
    agents = cli.home / "config" / "agents"
    agents.mkdir(parents=True)
    (agents / "clerk.md").write_text(
        "---\ndescription: Writes.\ntools: [generate_image, write_file]\nmodel: anthropic:claude-x\n---\nWrite.\n"
    )
    letter = {"id": "post", "tool": "send_letter", "with": {"to": "me"}, "needs": []}
    plan = cli.plan(HERO, letter, {"id": "page", "agent": "clerk", "prompt": "Write", "needs": ["hero"]})
    environ = {"PYTHONPATH": f"{site}{os.pathsep}{cli.environ['PYTHONPATH']}", "ANTHROPIC_API_KEY": KEY}

    said = " ".join(cli("run", plan, "--attempts", "1", env=environ).err.split())

    assert "2 steps may make pictures, but no picture can be made:" in said
    assert "1 step may spend money with send_letter: post" in said
    assert "1 step may spend money on a model of Anthropic, as its agent says: page" in said
    assert f"2 steps may write files beneath {cli.folder}: post, page" in said

    listed = {"id": "first", "tool": "list_files", "needs": []}
    plan, money = cli.plan(listed, {**letter, "needs": ["first"]}), ("--max-cost", "1", "--json")
    unpriced, uncounted = (cli("run", plan, *money, *more, env=environ) for more in ((), ("--allow-unpriced",)))
    error = unpriced.json["error"]
    assert error["message"] == "--max-cost: no price is known of what send_letter pays for (post)"
    assert "--allow-unpriced" in error["hint"] and (unpriced.code, uncounted.code) == (2, 0)
    assert unpriced.json["results"] == {}, "a step was done before the plan was refused"
    used = [uncounted.json["usage"], uncounted.json["results"]["post"]["usage"], cli("cost", "--json").json["total"]]
    assert [(one["cost_usd"], one["cost_complete"]) for one in used] == [(None, False)] * 3
    assert cli("cost").out.splitlines()[-1].endswith("unknown")


# Pictures whose making nobody saw the end of


@pytest.mark.parametrize("then", ["skip", "retry", "no"])
def test_a_picture_that_may_have_been_bought_is_left_or_bought_anew_as_a_person_says(cli: Cli, then: str) -> None:
    with ImageServer(pictures(delay=60)) as server:
        flags = ("--image-provider", "openai")
        process = cli.start("run", cli.plan(HERO), *flags, env=at(server))
        while not server.orders:
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=30)

        waits = cli("resume", "--json", env=at(server))
        unknown = cli("cost").out
        if then == "no":
            terminal = AtTerminal(cli, "resume", columns=200, to=None, **at(server))
            terminal.answer("may have been done: OpenAI keeps no pictures .*Do it again", "n\n")
            assert terminal.end()[0] == 1
            decided = cli("show", "--json")
        else:
            decided = cli("resume", f"--{then}-unverified", "--json", env=at(server))

        assert len(server.orders) == (2 if then == "retry" else 1)
    assert (waits.code, waits.json["status"], hero(waits)["error"]["type"]) == (75, "waiting", "effect_unverified")
    assert "OpenAI keeps no pictures that could be looked up" in hero(waits)["error"]["message"]
    assert "t1 generate_image (no answer)" in unknown and unknown.splitlines()[-1].split()[-1] == "unknown"
    if then == "retry":
        assert (decided.code, decided.json["status"], hero(decided)["status"]) == (0, "done", "done")
    else:
        assert (decided.code, decided.json["status"], hero(decided)["status"]) == (
            int(then == "skip"),
            "failed",
            "failed",
        )
        assert "it was not used again" in hero(decided)["error"]["message"]
        assert cli("cost").out.splitlines()[-1].split()[-1] == "unknown"  # it may have been bought
        assert decided.json["usage"]["cost_complete"] is False
