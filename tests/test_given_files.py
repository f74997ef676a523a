"""Files that are given with a task: texts as data, pictures to be looked at, by planner and agents."""

import base64
import io
import json
from typing import Any

import pytest

from tests.conftest import Cli, calls, plans, says
from tests.servers import chat
from tests.servers.chat import ChatServer, call, reply
from tests.servers.loopback import Behaviour, Body

STEP = {"id": "note", "agent": "code", "prompt": "Describe it", "needs": []}


def png() -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 30)).save(content, "PNG")
    return content.getvalue()


def test_texts_and_pictures_are_given_to_planner_and_agents(cli: Cli) -> None:
    cli.file("brief.md", "Red, not blue.")
    cli.file("logo.png", png())
    script = cli.script(plans(STEP), says("Red.", step="note"))

    ran = cli("Describe it", script, "--yes", "--events", "--file", "brief.md", "-f", "logo.png")

    assert ran.code == 0, ran.err
    for event in (e for e in ran.events if e["type"] == "model_called"):
        assert 'given="brief.md">\nRed, not blue.\n<' in event["input"]["text"]
        (picture,) = event["input"]["pictures"]
        assert (picture["name"], picture["media_type"]) == ("logo.png", "image/png")
        assert "content" not in picture


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x00\xff\xfe\x80", "neither a picture nor text"), (b"x" * 300_000, "too large")],
)
def test_a_file_that_cannot_be_given_is_exit_2(cli: Cli, content: bytes, said: str) -> None:
    cli.file("thing.bin", content)

    ran = cli("Describe it", cli.script(), "--file", "thing.bin")

    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert cli("Describe it", cli.script(), "--file", "nowhere.txt").code == 2


def images(body: Body) -> list[bytes]:
    """The pictures in a request of Chat Completions."""
    parts: list[dict[str, Any]] = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def test_on_the_chat_wire_pictures_are_sent_as_pictures(cli: Cli) -> None:
    cli.file("logo.png", png())
    with ChatServer() as server:
        ran = cli(
            *("agents", "run", "code", "Describe it", "--file", "logo.png"),
            *("--openai-base-url", server.base_url, "--model", "m"),
        )

    assert ran.code == 0, ran.err
    assert images(server.bodies[0]) == [png()]
    assert server.faults == []


def test_a_picture_that_an_agent_reads_is_shown_to_it(cli: Cli) -> None:
    cli.file("logo.png", png())

    def brain(body: Body) -> Behaviour:
        if images(body):
            return reply("It is red.")
        return reply(calls=[call("read_file", {"path": "logo.png"}), call("list_files", {})])

    with ChatServer(brain) as server:
        ran = cli(
            *("agents", "run", "file", "What colour is logo.png?", "--json"),
            *("--openai-base-url", server.base_url, "--model", "m"),
        )

    assert (ran.code, ran.json["final"]) == (0, "It is red."), ran.out
    assert images(server.bodies[-1]) == [png()]
    assert server.faults == []


def test_a_model_that_cannot_see_is_told_so_and_goes_on(cli: Cli) -> None:
    cli.file("logo.png", png())

    def brain(body: Body) -> Behaviour:
        if images(body):
            return chat.error(400, "This model does not support image input (image_url).")
        assert "logo.png" in json.dumps(body["messages"])
        return reply("I cannot see it.")

    with ChatServer(brain) as server:
        ran = cli(
            *("agents", "run", "code", "Describe it", "--file", "logo.png", "--json"),
            *("--openai-base-url", server.base_url, "--model", "m"),
        )

    assert (ran.code, ran.json["final"]) == (0, "I cannot see it."), ran.out
    assert server.count == 2


def test_a_picture_is_read_in_a_scripted_run_too(cli: Cli) -> None:
    cli.file("logo.png", png())
    script = cli.script(
        calls(("read_file", {"path": "logo.png"}), step="file", turn=1),
        says("Red.", step="file", turn=2, when="the picture"),
    )

    ran = cli("agents", "run", "file", "Look at logo.png", script, "--events")

    assert ran.code == 0, ran.err
    second = [event for event in ran.events if event["type"] == "model_called"][1]
    assert second["input"]["outputs"][0]["pictures"][0]["name"] == "logo.png"
