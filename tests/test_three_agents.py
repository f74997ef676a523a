"""The main job on the real wire: the openai client, a loopback Chat Completions server, Replicate's four calls."""

import json
import re
import signal
import threading
from typing import Any

from tests.conftest import Cli
from tests.servers import chat
from tests.servers.chat import ChatServer, call, reply
from tests.servers.loopback import Behaviour, Body
from tests.servers.replicate import TOKEN, Script, StandIn, stand_in

PAGE = '<!doctype html>\n<img src="images/hero.png">\n'
PLAN = {
    "plan": [
        {"id": "hero", "agent": "image", "prompt": "A roastery", "tool": None, "with": [], "needs": []},
        {"id": "page", "agent": "code", "prompt": "Show ${hero.path}", "tool": None, "with": [], "needs": ["hero"]},
        {"id": "store", "agent": "file", "prompt": "Save the page", "tool": None, "with": [], "needs": ["page"]},
    ]
}


def brain(body: Body) -> Behaviour:
    """A model that knows its job: planner, image, code and file agent by what they were told."""
    messages = body["messages"]
    instructions, rounds = str(messages[0]["content"]), sum(m["role"] == "assistant" for m in messages)
    if "You are the planner" in instructions:
        return reply(json.dumps(PLAN))
    if "You make pictures" in instructions:
        return _image(rounds, messages)
    if "You write code" in instructions:
        return reply(
            f"Here.\n\n```html index.html\n{PAGE}```\n", deltas=["Here.\n\n```html ", f"index.html\n{PAGE}```\n"]
        )
    return _file(rounds, messages)


def _image(rounds: int, messages: list[dict[str, Any]]) -> Behaviour:
    if rounds == 0:
        return reply(calls=[call("generate_image", {"prompt": "A roastery", "aspect_ratio": "17:9", "last": True})])
    assert "aspect_ratio" in messages[-1]["content"]  # the tool has said what was wrong
    return reply(calls=[call("generate_image", {"prompt": "A roastery", "aspect_ratio": "16:9", "last": True})])


def _file(rounds: int, messages: list[dict[str, Any]]) -> Behaviour:
    if rounds == 0:
        return reply(
            calls=[
                call("list_files", {}),
                call("save_result", {"step": "page", "path": "index.html", "last": False}),
            ]
        )
    if rounds == 1:
        outputs = [m["content"] for m in messages if m["role"] == "tool"]
        assert len(outputs) == 2 and "images/hero.png" in outputs[0]
        return reply(calls=[call("read_file", {"path": "index.html"})])
    assert PAGE.splitlines()[1] in messages[-1]["content"]
    return reply("The page is in index.html.")


def run(cli: Cli, server: ChatServer, replicate: StandIn, *arguments: str) -> Any:
    return cli(
        *("Make a landing page", "--yes", *arguments),
        *("--openai-base-url", server.base_url),
        env={"OPENAI_API_KEY": "sk-test", "REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url},
    )


def test_three_agents_make_a_page_with_a_picture(cli: Cli) -> None:
    with ChatServer(brain, key="sk-test") as server, stand_in(Script(polls=2)) as replicate:
        ran = run(cli, server, replicate, "--json")

    assert ran.code == 0, ran.out + ran.err
    result = ran.json
    assert {name: r["status"] for name, r in result["results"].items()} == dict.fromkeys(
        ("hero", "page", "store"), "done"
    )
    assert (cli.folder / "index.html").read_text() == PAGE
    assert (cli.folder / "images/hero.png").read_bytes().startswith(b"\x89PNG")
    assert result["final"] == "The page is in index.html."
    assert result["results"]["hero"]["data"]["source_url"].startswith(replicate.url)
    assert result["results"]["hero"]["usage"]["images"] == 1
    assert result["usage"]["calls"] == server.count == 7
    assert server.faults == []


def test_replicate_is_asked_four_kinds_of_things_and_the_token_stays_with_its_api(cli: Cli) -> None:
    with ChatServer(brain) as server, stand_in(Script(polls=2)) as replicate:
        ran = run(cli, server, replicate, "--json")

        (created,) = replicate.seen("create")
        assert created.json["input"]["seed"] == ran.json["results"]["hero"]["data"]["seed"]
        assert len(replicate.seen("poll")) >= 2
        (fetched,) = replicate.seen("file")
    assert "authorization" not in fetched.headers
    assert all("sk-test" not in str(request.headers) for request in replicate.seen("create"))


def test_every_request_is_streamed_or_not_and_none_repeats_a_seed(cli: Cli) -> None:
    with ChatServer(brain) as server, stand_in() as replicate:
        ran = run(cli, server, replicate, "--events")

    assert ran.code == 0
    deltas = [event for event in ran.events if event["type"] == "text_delta" and event["step"] == "page"]
    assert "".join(delta["text"] for delta in deltas).endswith(f"{PAGE}```\n")
    order = [event["type"] for event in ran.events if event.get("step") == "hero"]
    used = [kind for kind in order if kind in ("tool_called", "file_changed", "tool_returned")]
    assert used == ["tool_returned", "tool_called", "file_changed", "tool_returned"]  # refused once, then used


def test_ctrl_c_cancels_the_prediction_at_replicate(cli: Cli) -> None:
    with ChatServer(brain) as server, stand_in(Script(end="never")) as replicate:
        process = cli.start(
            *("Make a landing page", "--yes", "--json"),
            *("--openai-base-url", server.base_url),
            env={"OPENAI_API_KEY": "sk-test", "REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url},
        )
        polled = threading.Event()
        for _ in range(600):
            if replicate.seen("poll"):
                polled.set()
                break
            threading.Event().wait(0.05)
        assert polled.is_set()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

        assert process.returncode == 130
        assert len(replicate.seen("cancel")) == 1
        assert replicate.running == []
    assert json.loads(out)["results"]["hero"]["status"] == "cancelled"


def test_ctrl_c_leaves_no_request_open_at_the_models_server(cli: Cli) -> None:
    with ChatServer(lambda _: chat.hang_mid_stream()) as server:
        process = cli.start("Greet", "--yes", "--openai-base-url", server.base_url, "--model", "m")
        assert server.wait_for(lambda: server.open_requests == 1, 30)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)

        assert process.returncode == 130
        assert server.wait_for(lambda: server.open_requests == 0)


def test_the_one_model_of_a_server_is_taken_and_of_several_one_must_be_named(cli: Cli) -> None:
    with ChatServer(models=["only-one"]) as server:
        ran = cli("agents", "run", "code", "Hi", "--openai-base-url", server.base_url, "--json")
        assert (ran.code, server.bodies[-1]["model"]) == (0, "only-one")
    with ChatServer(models=["big", "small"]) as server:
        ran = cli("agents", "run", "code", "Hi", "--openai-base-url", server.base_url)
        assert ran.code == 4
        assert "big, small" in ran.err and "--model" in ran.err
        assert server.count == 0


def test_doctor_contacts_what_it_calls_found_and_shows_no_secret(cli: Cli) -> None:
    with ChatServer(key="sk-right-and-long-enough", models=["m1"]) as server, stand_in() as replicate:
        environ = {"OPENAI_BASE_URL": server.base_url, "REPLICATE_BASE_URL": replicate.url}
        flags = ("--json",)
        good = cli(
            "doctor",
            *flags,
            env={
                **environ,
                "OPENAI_API_KEY": "sk-right-and-long-enough",
                "REPLICATE_API_TOKEN": TOKEN,
            },
        )
        bad = cli(
            "doctor",
            *flags,
            env={
                **environ,
                "OPENAI_API_KEY": "sk-wrong-and-long-enough",
                "REPLICATE_API_TOKEN": "r8_wrong",
            },
        )
        seen = server.requests[0]
    gone = cli("doctor", *flags, env={**environ, "OPENAI_API_KEY": "sk-right-and-long-enough"})

    found = {finding["name"]: finding for finding in good.json["findings"]}
    assert (good.code, found["model"]["status"], found["pictures"]["status"]) == (0, "found", "found"), found
    assert seen.path == "/v1/models"
    wrong = {finding["name"]: finding for finding in bad.json["findings"]}
    assert (bad.code, wrong["model"]["status"], wrong["pictures"]["status"]) == (4, "wrong", "wrong")
    assert gone.code == 4
    missing = {finding["name"]: finding for finding in gone.json["findings"]}
    assert missing["model"]["status"] == "wrong"
    assert (missing["pictures"]["status"], "REPLICATE_API_TOKEN" in missing["pictures"]["message"]) == ("missing", True)
    for ran in (good, bad, gone):
        assert not re.search(r"sk-(right|wrong)|r8_", ran.out + ran.err)
