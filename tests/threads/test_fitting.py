"""Conversations that grow longer than their model can read, on the chat wire: what is left out, and that it is said."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from master_agent.errors import ModelError
from master_agent.openai_server import Server
from master_agent.threads import CallOptions, Capabilities, Output, Reply, Thread, ThreadState, ToolOutputs
from master_agent.threads._fitting import room_after
from master_agent.threads.chat import Chat
from master_agent.threads.spoken import Spoken
from tests.conftest import Cli
from tests.servers.chat import ChatServer, call, error, reply
from tests.servers.loopback import Behaviour, Body
from tests.threads.chatting import ADDER, HELLO, KEY, MODEL, WHOLE, said
from tests.threads.test_spoken import MARKS, PROMPTS

LLAMA = "request ({asked} tokens) exceeds the available context size ({limit} tokens), try increasing it"
SILENT = "Please reduce the length of the messages or completion."
IN_TEXT = '<tool_call>{"name": "add", "arguments": {"a": %d}}</tool_call>'


def length(body: Body) -> int:
    return len(json.dumps(body["messages"])) // 2


def small(limit: int, complaint: str = LLAMA, *, text: bool = False) -> Any:
    """A server whose model reads so many tokens of two characters, and adds in every answer."""

    def brain(body: Body) -> Behaviour:
        asked = length(body)
        if asked > limit:
            return error(400, complaint.format(asked=asked, limit=limit), reason="exceed_context_size_error")
        return reply(IN_TEXT % asked) if text else reply("Adding.", calls=[call("add", {"a": asked})])

    return brain


async def going_on(thread: Thread, first: Any, rounds: int, options: CallOptions = WHOLE) -> list[Reply]:
    """So many rounds from a turn on, each of outputs that are long; what is retryable at once is tried again."""
    turn, replies = first, list[Reply]()
    for number in range(rounds):
        for attempt in range(4):
            try:
                replies.append((await said(thread, turn, options))[1])
                break
            except ModelError as refused:
                if not refused.retryable or attempt == 3:
                    raise
        turn = ToolOutputs(tuple(Output(one.id, f"{number}: {'x' * 300}") for one in replies[-1].calls))
    return replies


@asynccontextmanager
async def opened(server: ChatServer, able: Capabilities) -> AsyncIterator[Spoken]:
    wire = Spoken(Chat(KEY, server.base_url, MODEL, capabilities=able), PROMPTS, MARKS)
    try:
        yield wire
    finally:
        await wire.close()


def grown(server: ChatServer, able: Capabilities, rounds: int = 9) -> tuple[list[Reply], ThreadState]:
    async def run() -> tuple[list[Reply], ThreadState]:
        async with opened(server, able) as wire:
            thread = await wire.open(ADDER)
            return await going_on(thread, HELLO, rounds), thread.state

    with server:
        return asyncio.run(run())


CASES = {
    "llama.cpp's words": (small(900), Capabilities()),
    "no numbers": (small(900, SILENT), Capabilities()),
    "in text": (small(1400, text=True), Capabilities(tool_calls="text")),
    "known beforehand": (small(900), Capabilities(context=600)),
}


@pytest.mark.parametrize("case", CASES)
def test_whole_rounds_are_left_out_of_the_middle_and_it_is_said(case: str) -> None:
    brain, able = CASES[case]
    server = ChatServer(brain)
    replies, state = grown(server, able)

    assert len(replies) == 9
    assert server.faults == [], "no call without its outputs, no outputs without their call"
    notes = [note for one in replies for note in one.lost]
    assert notes
    assert all("left out of a conversation that grew too long" in note for note in notes)
    last = server.bodies[-1]["messages"]
    first = server.bodies[0]["messages"]
    assert last[0] == first[0], "the instructions stay"
    assert last[1]["content"].startswith(f"{first[1]['content']}\n\n[Left out here"), "so does the first turn"
    assert "8: x" not in str(last)
    assert all(f"{number}: x" in str(last) for number in (6, 7)), "and the last rounds"
    shown = [message["role"] for message in last[2:]]
    assert shown == ["assistant", "user" if "text" in case else "tool"] * (len(shown) // 2)
    assert json.loads(json.dumps(state.items)) == list(state.items)
    refused = server.count - len(replies)
    assert refused == 0 if able.context else refused <= len(notes) + 1, "a refusal is learnt, not repeated"


@pytest.mark.parametrize("case", ["llama.cpp's words", "known beforehand"])
def test_a_resumed_conversation_is_cut_just_so(case: str) -> None:
    brain, able = CASES[case]
    whole = ChatServer(brain)
    replies, state = grown(whole, able)
    answered = [body for body in whole.bodies if length(body) <= 900]
    kept = state.items
    for place in (3, 6, 8):  # as if the process had died when so many replies had come
        ends = [at for at, item in enumerate(kept) if item["role"] == "assistant"]
        turn = ToolOutputs(tuple(Output(one.id, f"{place - 1}: {'x' * 300}") for one in replies[place - 1].calls))
        resumed = ChatServer(brain)

        async def run(resumed: ChatServer = resumed, turn: Any = turn, cut: int = ends[place - 1] + 1) -> ThreadState:
            async with opened(resumed, able) as wire:
                thread = await wire.open(ADDER, ThreadState("chat", {}, kept[:cut]))
                await going_on(thread, turn, 1)
                return thread.state

        with resumed:
            again = asyncio.run(run())
        assert resumed.bodies[-1] == answered[place]
        assert again.items[:-1] == kept[: len(again.items) - 1]


@pytest.mark.parametrize(
    ("limit", "able"),
    [(100, Capabilities()), (600, Capabilities()), (9000, Capabilities(context=16))],
    ids=["the first turn", "the last rounds", "known beforehand"],
)
def test_what_cannot_fit_even_so_is_a_failure_with_a_name(limit: int, able: Capabilities) -> None:
    server = ChatServer(small(limit))
    with pytest.raises(ModelError) as caught:
        grown(server, able)

    assert (caught.value.type, caught.value.retryable) == ("context_exceeded", False)
    assert "ask for less" in (caught.value.hint or "")
    assert server.count <= 6


@pytest.mark.parametrize(
    ("complaint", "room"),
    [
        (LLAMA.format(asked=36018, limit=4096), 8529),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 10240 tokens (9000 and 1240).",
            60000,
        ),
        ("Prompt contains 65536 tokens, too large for model with 32768 maximum context length", 37500),
        ("prompt is too long: 250000 tokens > 200000 maximum", 60000),
        ("context length exceeded", 60000),
    ],
)  # fmt: skip
def test_what_fits_is_read_off_what_servers_say(complaint: str, room: int) -> None:
    assert int(room_after(complaint, 100_000)) == room
    told = Server("http://127.0.0.1:1/v1").reported({"message": complaint, "code": 400})
    assert told.type == "context_exceeded"


def test_a_run_says_what_was_left_out_in_its_result_its_events_and_its_thread(cli: Cli) -> None:
    cli.file(".master-agent/agents/reader.md", "---\ndescription: Reads.\ntools: [read_file]\n---\nYou read.\n")
    for name in "abcdef":
        cli.file(f"{name}.txt", name * 1500)

    def brain(body: Body) -> Behaviour:
        names = [
            json.loads(one["tool_calls"][0]["function"]["arguments"])["path"]
            for one in body["messages"]
            if one["role"] == "assistant"
        ]
        if length(body) > 3000:
            return error(400, LLAMA.format(asked=length(body), limit=3000))
        left = [name for name in "abcdef" if name > (names[-1] if names else "")[:1]]
        return reply("All read.") if not left else reply("", calls=[call("read_file", {"path": f"{left[0]}.txt"})])

    with ChatServer(brain) as server:
        at = {"OPENAI_BASE_URL": server.base_url, "MASTER_AGENT_MODEL": "test-model"}
        ran = cli("agents", "run", "reader", "Read all.", "--json", env=at)

    assert (ran.code, server.faults) == (0, []), ran.err
    (result,) = ran.json["results"].values()
    assert result["data"]["notes"]
    assert all("were left out of a conversation that grew too long" in note for note in result["data"]["notes"])
    assert result["text"].startswith("All read.\n(the first ")
    (step,) = ran.json["results"]
    assert "(the first " in cli("show", ran.json["run_id"], "--thread", step).out


def test_an_agent_without_a_long_conversation_is_not_told_of_any_length() -> None:
    server = ChatServer(small(9000))
    grown(server, Capabilities(context=9000), rounds=3)
    assert "Left out" not in str(server.bodies)
