"""The responses wire against a stateful server on loopback: rounds, stores, state, and what is asked for."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from master_agent.context import draw_mark
from master_agent.errors import ModelError
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    ModelToolCall,
    Reply,
    ThreadState,
    ToolSpec,
    UserTurn,
)
from tests.servers.loopback import Body
from tests.servers.responses import Answer, ResponsesServer, call, reasoning, reply
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, KEY, MODEL, SHAPE, SHAPED, TOOL, outputs
from tests.threads.responding import STORES, ask, journaled, opened, talk

ROUNDS: list[Answer] = [
    reply("Let me see.", calls=[call("add", {"a": 1}, "one"), call("add", {"a": 2}, "two")]),
    reply(calls=[call("add", {"a": 3}, "three")]),
    reply("Six."),
]
ASKED: Body = {"type": "message", "role": "user", "content": "Hello?"}
ONE, TWO, THREE = (
    {"type": "function_call_output", "call_id": name, "output": f"output of {name}"} for name in ("one", "two", "three")
)

# Rounds


@BOTH
def test_a_question_gets_its_answer(options: CallOptions) -> None:
    with ResponsesServer([reply("Hello.\nAnd bye.")]) as server:
        [answer], state = ask(server, HELLO, options=options)
    assert (answer.status, answer.text, answer.calls, answer.reason) == ("completed", "Hello.\nAnd bye.", (), None)
    assert answer.remote_id == "resp_1"
    assert state == ThreadState("responses", {"response": "resp_1"})
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@STORES
@BOTH
def test_tools_are_called_over_several_rounds_and_two_in_one(options: CallOptions, store: str) -> None:
    with ResponsesServer(ROUNDS) as server:
        (first, second, third), _ = ask(server, HELLO, None, None, agent=ADDER, options=options, store=store)
    assert server.faults == []
    assert (first.status, first.text) == ("requires_action", "Let me see.")
    assert first.calls == (ModelToolCall("one", "add", '{"a": 1}'), ModelToolCall("two", "add", '{"a": 2}'))
    assert (second.status, second.calls) == ("requires_action", (ModelToolCall("three", "add", '{"a": 3}'),))
    assert (third.status, third.text) == ("completed", "Six.")


@STORES
def test_the_model_sees_the_whole_conversation_wherever_it_is_kept(store: str) -> None:
    seen: list[list[Body]] = []
    left = iter(ROUNDS)

    def brain(items: list[Body], _: Body) -> Answer:
        seen.append(items)
        return next(left)

    with ResponsesServer(brain) as server:
        ask(server, HELLO, None, None, agent=ADDER, store=store)
        assert bool(server.kept) is (store != "none"), "what shall not be stored is not"
        assert bool(server.conversations) is (store == "conversation")
    assert [item.get("call_id") or item["role"] for item in seen[2]] == [
        "user", "assistant", "one", "two", "one", "two", "three", "three",
    ]  # fmt: skip


def test_each_request_names_the_response_before_it_and_brings_only_what_is_new() -> None:
    with ResponsesServer(ROUNDS) as server:
        _, state = ask(server, HELLO, None, None, agent=ADDER)
    same = {
        "model": MODEL, "store": True, "instructions": "You write.",
        "tools": [
            {"type": "function", "name": "add", "description": "Adds.", "parameters": TOOL.parameters, "strict": False}
        ],
        "prompt_cache_key": server.bodies[0]["prompt_cache_key"],
    }  # fmt: skip
    assert server.bodies == [
        {**same, "input": [ASKED]},
        {**same, "input": [ONE, TWO], "previous_response_id": "resp_1"},
        {**same, "input": [THREE], "previous_response_id": "resp_2"},
    ]
    assert state == ThreadState("responses", {"response": "resp_3"})


def test_a_conversation_is_made_at_the_first_turn_and_named_in_every_request() -> None:
    with ResponsesServer(ROUNDS) as server:
        _, state = ask(server, HELLO, None, None, agent=ADDER, store="conversation")
        [name] = server.conversations
    assert [one.path.removeprefix("/v1") for one in server.requests] == ["/conversations", *["/responses"] * 3]
    assert [body["input"] for body in server.bodies] == [[ASKED], [ONE, TWO], [THREE]]
    assert [body["conversation"] for body in server.bodies] == [name] * 3
    assert all(body["tools"] and body["instructions"] for body in server.bodies)
    assert not any("previous_response_id" in body for body in server.bodies)
    assert state == ThreadState("responses", {"conversation": name, "item": "msg_4_0"})


def test_what_is_not_stored_is_sent_again_with_what_was_reasoned() -> None:
    rounds = [
        reply("Hm.", thoughts=[reasoning("secret", status=None)], calls=[call("add", {"a": 1}, "one")], aside="So:"),
        reply("One."),
    ]
    with ResponsesServer(rounds) as server:
        _, state = ask(server, HELLO, None, agent=ADDER, store="none")
    assert server.faults == []
    assert [body["store"] for body in server.bodies] == [False, False]
    assert [body["include"] for body in server.bodies] == [["reasoning.encrypted_content"]] * 2
    assert not any(name in body for body in server.bodies for name in ("previous_response_id", "conversation"))
    made = server.bodies[1]["input"]
    assert [item["type"] for item in made] == [
        "message", "reasoning", "message", "message", "function_call", "function_call_output",
    ]  # fmt: skip
    assert made[1] == {"type": "reasoning", "id": "rs_1_0", "summary": [], "encrypted_content": "secret"}
    assert made[2]["phase"] == "commentary", "the phase of a message is preserved"
    assert (state.ids, state.items[:6], len(state.items)) == ({}, tuple(made), 7)


def test_reasoning_that_a_server_will_not_know_again_is_not_sent_back() -> None:
    rounds = [reply("Hm.", thoughts=[{"type": "reasoning", "summary": []}]), reply("Yes.")]
    with ResponsesServer(rounds) as server:
        _, state = ask(server, HELLO, HELLO, store="none")
    assert [item["type"] for item in state.items] == ["message"] * 4
    open_thoughts = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    with ResponsesServer([reply("Hm.", thoughts=[open_thoughts]), reply("Yes.")]) as server:
        _, state = ask(server, HELLO, HELLO, store="none")
    assert [item["type"] for item in state.items] == ["message", "reasoning", "message", "message", "message"]


@STORES
def test_a_thread_goes_on_from_its_state_with_the_very_same_request(store: str) -> None:
    turns = [HELLO, None, None, UserTurn("And then?")]
    rounds = [*ROUNDS, reply("Then?")]

    async def in_one(server: ResponsesServer) -> None:
        async with opened(server, store=store) as wire:
            await talk(await wire.open(ADDER), *turns)

    async def in_four(server: ResponsesServer) -> None:
        state, before = None, Reply("completed")
        for turn in turns:
            async with opened(server, store=store) as wire:
                thread = await wire.open(ADDER, state)
                [before] = await talk(thread, turn or outputs(before))
                state = journaled(thread.state)

    with ResponsesServer(rounds) as server, ResponsesServer(rounds) as other:
        asyncio.run(in_one(server))
        asyncio.run(in_four(other))
        assert [one.raw for one in server.asked] == [one.raw for one in other.asked]
        assert server.count == 4


@pytest.mark.parametrize(
    ("state", "store", "told"),
    [
        (ThreadState("chat", {}, ({"role": "user", "content": "Hi"},)), "response", "began on the wire 'chat'"),
        (ThreadState("responses", {"response": "resp_1"}), "none", "began with --thread-store response"),
        (ThreadState("responses", {"conversation": "conv_1"}), "response", "began with --thread-store conversation"),
        (ThreadState("responses", {}, (ASKED,)), "response", "began with --thread-store none"),
    ],
)
def test_a_conversation_that_is_kept_elsewhere_is_refused(state: ThreadState, store: str, told: str) -> None:
    with ResponsesServer() as server, pytest.raises(ModelError, match=told):
        ask(server, HELLO, state=state, store=store)
    assert server.requests == []


# What is asked for


def test_an_agents_own_model_temperature_and_length_are_asked_for() -> None:
    agent = replace(AGENT, model="other-model", temperature=0.2, max_output_tokens=50)
    with ResponsesServer() as server:
        ask(server, HELLO, agent=agent)
    assert {name: server.bodies[0][name] for name in ("model", "temperature", "max_output_tokens")} == {
        "model": "other-model", "temperature": 0.2, "max_output_tokens": 50,
    }  # fmt: skip


def test_requests_that_begin_alike_meet_in_one_cache() -> None:
    def key(agent: AgentSpec, *turns: UserTurn) -> list[str]:
        with ResponsesServer() as server:
            ask(server, *turns, agent=agent)
        return [body["prompt_cache_key"] for body in server.bodies]

    [first, second], [again] = key(ADDER, HELLO, UserTurn("More")), key(replace(ADDER, name="x"), UserTurn("Else"))
    assert first == second == again
    assert len(first) <= 64
    ours, theirs = (replace(ADDER, instructions=f"You add. Marks named {draw_mark()} hold data.") for _ in range(2))
    assert key(ours, HELLO) == key(theirs, HELLO)  # of two runs
    others = [replace(ADDER, instructions="You read."), replace(ADDER, model="m"), replace(ADDER, tools=())]
    assert len({first, *(key(other, HELLO)[0] for other in others)}) == 4


def test_strict_tools_are_asked_for_where_the_server_has_them() -> None:
    strict = replace(AGENT, tools=(ToolSpec("see", "Sees.", SHAPE),))
    with ResponsesServer() as server:
        ask(server, HELLO, agent=strict, capabilities=Capabilities(strict_tools=True))
    assert server.bodies[0]["tools"] == [
        {"type": "function", "name": "see", "description": "Sees.", "parameters": SHAPE, "strict": True}
    ]


def test_a_schema_is_asked_for_as_far_as_the_server_can() -> None:
    def asked(schema: Any) -> object:
        with ResponsesServer() as server:
            ask(server, HELLO, agent=replace(SHAPED, name="räume 1"), capabilities=Capabilities(schema=schema))
        return server.bodies[0].get("text")

    assert asked("strict") == {
        "format": {"type": "json_schema", "name": "r_ume_1", "schema": SHAPE, "strict": True}
    }  # fmt: skip
    assert asked("object") == {"format": {"type": "json_object"}}
    assert asked("none") is None


def test_text_that_is_no_unicode_is_sent_as_well_as_it_can_be() -> None:
    with ResponsesServer([reply("\ud83d is half a face"), reply("Fine.")]) as server:
        ask(server, UserTurn("a file named \udcff.txt"), HELLO, store="none")
    assert server.bodies[1]["input"][0]["content"] == "a file named �.txt"
    assert server.bodies[1]["input"][1]["content"][0]["text"] == "� is half a face"
