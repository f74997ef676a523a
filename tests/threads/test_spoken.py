"""Conversations with models that call tools in their text, through the chat wire to a server on loopback."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from master_agent.context import Boundaries
from master_agent.prompts import Prompts
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    Output,
    Reply,
    ThreadState,
    ToolOutputs,
    Turn,
    UserTurn,
)
from master_agent.threads.chat import Chat
from master_agent.threads.scripted import Scripted, read_script
from master_agent.threads.spoken import Spoken
from tests.servers.chat import ChatServer, call, error, reply
from tests.servers.loopback import Behaviour, Body
from tests.threads.chatting import ADDER, HELLO, KEY, MODEL, SHAPE, STREAMED, WHOLE, said

PROMPTS, MARKS = Prompts(Path(__file__).parents[2] / "prompts"), Boundaries("data-0123")
ADDS = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
IN_TEXT = Capabilities(tool_calls="text")
EITHER = Capabilities(tool_calls="either")


def talk(
    server: ChatServer,
    *turns: Turn,
    agent: AgentSpec = ADDER,
    able: Capabilities = IN_TEXT,
    options: CallOptions = WHOLE,
    state: ThreadState | None = None,
) -> tuple[list[Reply], list[str], ThreadState]:
    """A conversation: its replies, what was streamed, and its state in the end."""

    async def run() -> tuple[list[Reply], list[str], ThreadState]:
        wire = Spoken(Chat(KEY, server.base_url, MODEL, capabilities=able), PROMPTS, MARKS)
        try:
            thread = await wire.open(agent, state)
            came = [await said(thread, turn, options) for turn in turns]
            return [answer for _, answer in came], [piece for pieces, _ in came for piece in pieces], thread.state
        finally:
            await wire.close()

    with server:
        return asyncio.run(run())


def gave(replied: Reply | Sequence[str], text: str = "2") -> ToolOutputs:
    ids = [one.id for one in replied.calls] if isinstance(replied, Reply) else replied
    return ToolOutputs(tuple(Output(id_, text) for id_ in ids))


def test_tools_are_told_in_words_and_their_outputs_come_back_as_marked_text() -> None:
    server = ChatServer([reply(f"I add.\n{ADDS}\nObservation: 7"), reply("It is 2.")])
    replies, _, state = talk(server, HELLO, gave(["said_2_1"], "It gave 2"))

    first, second = server.bodies
    assert (replies[0].status, replies[0].text, replies[0].calls[0].id) == ("requires_action", "I add.", "said_2_1")
    assert (replies[0].calls[0].name, json.loads(replies[0].calls[0].arguments)) == ("add", {"a": 1})
    assert (replies[1].status, replies[1].text) == ("completed", "It is 2.")
    assert "tools" not in first
    assert first["messages"][0]["content"].startswith("You write.\n\n# Tools")
    assert '{"name": "add", "description": "Adds.", "parameters": ' in first["messages"][0]["content"]
    assert second["messages"][2] == {"role": "assistant", "content": f"I add.\n{ADDS}"}, "without what was invented"
    assert second["messages"][3]["role"] == "user"
    assert second["messages"][3]["content"].endswith("\n\nIt gave 2")
    assert second["messages"][:2] == first["messages"], "what was said before stays as it was, for the server's cache"
    assert json.loads(json.dumps(state.items)) == list(state.items)
    assert server.faults == []


def test_a_resumed_conversation_makes_the_very_request_that_was_due() -> None:
    whole = ChatServer([reply(f"{ADDS}\n{ADDS} and so on"), reply("4")])
    replies, _, state = talk(whole, HELLO, gave(["said_2_1", "said_2_2"]))
    assert len(replies[0].calls) == 2

    resumed = ChatServer([reply("4")])
    _, _, again = talk(resumed, gave(replies[0]), state=ThreadState("chat", {}, state.items[:2]))

    assert resumed.bodies[0] == whole.bodies[1]
    assert again == state


@pytest.mark.parametrize("streamed", [True, False])
def test_what_is_streamed_holds_no_half_of_a_call(streamed: bool) -> None:
    deltas = ["I a", "dd.\n<to", "ol_ca", "ll>\n", ADDS[12:30], ADDS[30:], "\nObser", "vation: 7"]
    server = ChatServer([reply("".join(deltas), deltas=deltas), reply("It is <2>.")])
    _, pieces, _ = talk(server, HELLO, gave(["said_2_1"]), options=STREAMED if streamed else WHOLE)

    assert "".join(pieces) == ("I add.\nIt is <2>." if streamed else "")


def test_what_a_server_left_in_the_text_counts_where_it_is_known_for_that() -> None:
    brain = [reply(f"```json\n{ADDS[12:-13]}\n```"), reply("", calls=[call("add", {"a": 2}, "c1")]), reply("3")]
    server = ChatServer(brain)
    replies, _, _ = talk(server, HELLO, gave(["said_2_1"]), gave(["c1"]), able=EITHER)

    assert [one.status for one in replies] == ["requires_action", "requires_action", "completed"]
    assert [body["tools"][0]["function"]["name"] for body in server.bodies] == ["add"] * 3
    assert [message["role"] for message in server.bodies[2]["messages"]] == [
        "system", "user", "assistant", "user", "assistant", "tool",
    ]  # fmt: skip
    assert server.faults == []


@pytest.mark.parametrize(
    ("able", "agent", "understood"),
    [
        (Capabilities(), ADDER, False),
        (EITHER, replace(ADDER, tool_calls="native"), False),
        (Capabilities(), replace(ADDER, tool_calls="text"), True),
        (IN_TEXT, replace(ADDER, tools=()), False),
    ],
    ids=["native", "the agent says native", "the agent says text", "no tools"],
)
def test_the_agents_file_goes_before_what_is_known_of_the_server(
    able: Capabilities, agent: AgentSpec, understood: bool
) -> None:
    replies, _, _ = talk(ChatServer([reply(ADDS)]), HELLO, able=able, agent=agent)

    assert bool(replies[0].calls) is understood
    assert understood or replies[0].text == ADDS


@pytest.mark.parametrize(
    "complaint",
    [
        "registry.ollama.ai/library/gemma:2b does not support tools",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    ],
)
def test_a_server_that_knows_no_tools_shows_it_once_and_is_spoken_to_in_words(complaint: str) -> None:
    def brain(body: Body) -> Behaviour:
        return error(400, complaint) if "tools" in body else reply(ADDS)

    async def run(server: ChatServer) -> list[Reply]:
        wire = Spoken(Chat(KEY, server.base_url, MODEL), PROMPTS, MARKS)
        thread = await wire.open(ADDER)
        with pytest.raises(Exception, match="so from now on without tools") as refused:
            await said(thread, HELLO)
        assert refused.value.retryable, "the same thread goes on"  # type: ignore[attr-defined]
        replies = [(await said(thread, HELLO))[1], (await said(await wire.open(ADDER), HELLO))[1]]
        await wire.close()
        return replies

    with ChatServer(brain) as server:
        replies = asyncio.run(run(server))
    assert [len(one.calls) for one in replies] == [1, 1]
    assert server.count == 3


def test_a_schema_does_not_keep_a_model_from_calling_tools_in_its_text() -> None:
    server = ChatServer([reply(ADDS), reply('{"x": 1}')])
    talk(server, HELLO, agent=replace(ADDER, output=SHAPE))
    assert "response_format" not in server.bodies[0]


def test_a_call_that_cannot_be_read_requires_action_and_says_which() -> None:
    broken = "<tool_call>\nadd one\n</tool_call>"
    replies, _, _ = talk(ChatServer([reply(f"Well.\n{broken}"), reply("add(1")]), HELLO, UserTurn("What?"))

    assert [(one.status, one.calls) for one in replies] == [("requires_action", ())] * 2
    assert (replies[0].reason, replies[1].reason) == (broken, "add(1")


def test_words_about_a_tool_that_was_used_are_an_answer() -> None:
    server = ChatServer([reply(ADDS), reply("Tool used: add\nIt gave 2.")])
    replies, _, _ = talk(server, HELLO, gave(["said_2_1"]))
    assert (replies[1].status, replies[1].text) == ("completed", "Tool used: add\nIt gave 2.")


def test_a_script_speaks_as_such_a_model_does() -> None:
    lines: list[dict[str, Any]] = [{"reply": {"text": f"Yes.\n{ADDS}"}}, {"reply": {"text": "2"}}]
    script = read_script("\n".join(map(json.dumps, lines)), source="script")

    async def run() -> list[Any]:
        thread = await Spoken(Scripted(script), PROMPTS, MARKS).open(replace(ADDER, tool_calls="text"))
        return [await said(thread, HELLO, STREAMED), await said(thread, gave(["said_2_1"]), STREAMED), thread.state]

    first, second, state = asyncio.run(run())
    assert ("".join(first[0]).strip(), first[1].calls[0].name) == ("Yes.", "add")
    assert second[1].text == "2"
    assert "tools that you called have really given" in state.items[2]["text"]
