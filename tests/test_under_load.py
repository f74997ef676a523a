"""Many steps on a server that is busy now and then, and Ctrl-C at any moment: nothing is lost, nothing is left over."""

import contextlib
import random
import re
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import Cli, Ran
from tests.servers import assistant_runs, chat, responses
from tests.servers.assistants import Asked, AssistantsServer
from tests.servers.chat import ChatServer, call, status
from tests.servers.loopback import Behaviour, Body, Loopback, Recorded
from tests.servers.responses import ResponsesServer

STEPS = [f"s{number}" for number in range(16)]
PAUSE = 1.0
"""Seconds that a refused request is asked to wait."""


# A server that is busy


@dataclass
class Busy:
    """A model that uses a tool and then answers, and refuses every third request with a Retry-After."""

    requests: int = 0
    refused: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    too_early: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)

    def refuses(self, said: str) -> str | None:
        """The step that a request is of, unless the request is refused."""
        now = time.monotonic()
        found = re.search(r"This is step (s\d+)\.", said)
        assert found, said
        step = found.group(1)
        if self.refused[step] and now < self.refused[step][-1] + PAUSE:
            self.too_early.append(step)
        self.requests += 1
        if self.requests % 3 == 0:
            self.refused[step].append(now)
            return None
        self.answered[step] += 1
        return step


LATER = status(429, headers={"retry-after": f"{PAUSE:g}"})


def chatting(busy: Busy) -> ChatServer:
    def brain(body: Body) -> Behaviour:
        step = busy.refuses(str(body["messages"]))
        if step is None:
            return LATER
        if any(one["role"] == "tool" for one in body["messages"]):
            return chat.reply(f"{step} is done.")
        return chat.reply(calls=[call("list_files", {}, f"of_{step}")], delay=0.05)

    return ChatServer(brain)


def responding(busy: Busy) -> ResponsesServer:
    def brain(items: list[Body], _: Body) -> responses.Answer:
        step = busy.refuses(str(items))
        if step is None:
            return LATER
        if any(one["type"] == "function_call_output" for one in items):
            return responses.reply(f"{step} is done.")
        return responses.reply(calls=[responses.call("list_files", {}, f"of_{step}")], delay=0.05)

    return ResponsesServer(brain)


@pytest.mark.parametrize(("wire", "serve"), [("chat", chatting), ("responses", responding)])
def test_sixteen_steps_come_to_their_end_on_a_server_that_refuses_every_third_request(
    cli: Cli, wire: str, serve: Callable[[Busy], Any]
) -> None:
    busy = Busy()
    plan = cli.plan(*({"id": s, "agent": "file", "prompt": f"This is step {s}.", "needs": []} for s in STEPS))
    with serve(busy) as server:
        flags = ("--wire", wire, "--openai-base-url", server.base_url, "--model", "m", "--concurrency", "16")
        ran = cli("run", plan, *flags, "--events")
        assert server.faults == []
        assert server.most_open > 4, "the steps run at the same time"

    assert ran.code == 0, ran.out[-2000:] + ran.err
    assert busy.too_early == [], "no request comes sooner than it was asked to"
    assert busy.answered == dict.fromkeys(STEPS, 2), "no request that was answered is made again"
    refusals = sum(map(len, busy.refused.values()))
    assert refusals == busy.requests // 3 == 15
    finished = {event["step"]: event["result"] for event in _of(ran, "step_finished")}
    assert {step: result["text"] for step, result in finished.items()} == {s: f"{s} is done." for s in STEPS}
    failed = [event for event in _of(ran, "model_replied") if event["status"] == "failed"]
    assert [(event["error"]["type"], event["retry_after"]) for event in failed] == [("rate_limited", PAUSE)] * refusals


def _of(ran: Ran, kind: str) -> list[dict[str, Any]]:
    return [event for event in ran.events if event["type"] == kind]


# Ctrl-C


class Hanging(Loopback):
    """A server that takes every request and never answers."""

    def behaviour(self, request: Recorded) -> Behaviour:  # noqa: ARG002
        return chat.hang_before_first_byte()


@contextlib.contextmanager
def hanging(wire: str, moment: str, address: str) -> Iterator[Any]:
    """A model's server that brings a run to that moment and no further."""
    fetch = call("download_image", {"url": f"{address}/cat.png", "path": "cat.png", "last": True}, "one")
    in_stream, in_tool = moment == "in mid-stream", moment == "while a tool runs"
    match wire:
        case "chat":
            asks = chat.reply(calls=[fetch])
            waits = chat.hang_mid_stream() if in_stream else chat.hang_before_first_byte()
            with ChatServer(lambda _: asks if in_tool else waits) as server:
                yield server
        case "responses":
            function = fetch["function"]
            wants = responses.reply(calls=[responses.call(function["name"], function["arguments"], "one")])
            stays = responses.hang_mid_stream() if in_stream else chat.hang_before_first_byte()
            with ResponsesServer(lambda *_: wants if in_tool else stays) as speaking:
                yield speaking
        case "assistants":
            text = ("And then",) if in_stream else ()

            def brain(_: Asked) -> assistant_runs.Act:
                if in_tool:
                    return assistant_runs.says(calls=[fetch])
                return assistant_runs.says(*text, looks=None, ends=False, hangs=True)

            with AssistantsServer(brain) as keeping:
                yield keeping


MOMENTS = ["while planning", "before the first byte", "in mid-stream", "while a tool runs"]
OFTEN = [("chat", "while planning"), ("responses", "in mid-stream"), ("assistants", "in mid-stream"),
         ("assistants", "while a tool runs")]  # fmt: skip
RARELY = [(wire, moment) for wire in ("chat", "responses", "assistants") for moment in MOMENTS
          if (wire, moment) not in OFTEN]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "moment"), [*OFTEN, *(pytest.param(*rare, marks=pytest.mark.slow) for rare in RARELY)]
)
def test_ctrl_c_leaves_no_request_running_at_any_moment(cli: Cli, wire: str, moment: str) -> None:
    with Hanging() as pictures, hanging(wire, moment, pictures.origin) as server:
        flags = ("--wire", wire, "--openai-base-url", server.base_url, "--model", "m", "--json")
        what = ("Greet", "--yes") if moment == "while planning" else ("agents", "run", "file", "Fetch the cat")
        process = cli.start(*what, *flags, "--allow-host", pictures.origin.removeprefix("http://"))
        there = pictures if moment == "while a tool runs" else server
        assert there.wait_for(lambda: there.open_requests == 1 and _speaks(there), 30)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=20)

        assert process.returncode == 130, out + err
        assert b"Traceback" not in err
        assert _nothing_left(server, 5 - (time.monotonic() - began))
        assert pictures.wait_for(lambda: pictures.open_requests == 0, 5 - (time.monotonic() - began))


def _speaks(server: Loopback) -> bool:
    """Whether the request is one that lets a model speak, where there are others."""
    return bool(server.running) if isinstance(server, AssistantsServer) else True


def _nothing_left(server: Any, seconds: float) -> bool:
    runs = server.runs.values() if isinstance(server, AssistantsServer) else ()
    ended = ("cancelling", "cancelled", "completed")
    return bool(
        server.wait_for(lambda: server.open_requests == 0 and all(run.status in ended for run in runs), seconds)
    )


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["chat", "responses", "assistants"])
@pytest.mark.parametrize("seed", range(6))
def test_ctrl_c_at_a_moment_drawn_by_chance_leaves_nothing_running(cli: Cli, wire: str, seed: int) -> None:
    plan = cli.plan(*({"id": s, "agent": "file", "prompt": f"This is step {s}.", "needs": []} for s in STEPS))
    with _slow_server(wire) as server:
        process = cli.start("run", plan, "--wire", wire, "--openai-base-url", server.base_url, "--model", "m", "--json")
        assert server.wait_for(lambda: server.requests, 30)
        threading.Event().wait(random.Random(seed).uniform(0, 1.0))
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=20)

        assert process.returncode == 130, out + err
        assert b"Traceback" not in err
        assert _nothing_left(server, 5 - (time.monotonic() - began))


def _slow_server(wire: str) -> Any:
    """A model that takes its time over tools and words."""
    files = call("list_files", {})
    words = "word\n" * 20
    match wire:
        case "chat":
            return ChatServer(
                lambda body: (
                    chat.reply(words, gap=0.05)
                    if body["messages"][-1]["role"] == "tool"
                    else chat.reply(calls=[files], delay=0.1)
                )
            )
        case "responses":
            return ResponsesServer(
                lambda items, _: (
                    responses.reply(words, gap=0.05)
                    if items[-1]["type"] == "function_call_output"
                    else responses.reply(calls=[responses.call("list_files", {})], delay=0.1)
                )
            )
    return AssistantsServer(
        lambda asked: assistant_runs.says(words, gap=0.05) if asked.outputs else assistant_runs.says(calls=[files])
    )
