"""A reply that gets lost on its way, wherever the conversation is kept: the turn is said again, and stands once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from master_agent.errors import ModelError
from master_agent.threads import CallOptions, Output, Reply, ThreadState, ToolOutputs, Turn, UserTurn
from tests.servers.chat import error, html, reset, status
from tests.servers.loopback import Behaviour, Body, Recorded
from tests.servers.responses import Answer, ResponsesServer, call, reasoning, reply
from tests.threads.chatting import ADDER, BOTH, HELLO, WHOLE, outputs, said
from tests.threads.responding import STORES, journaled, opened

ONE = call("add", {"a": 1}, "one")
LOST: list[tuple[Answer, Answer | None]] = [  # an answer, and one that was lost before it
    (reply("Let me add.", calls=[ONE]), reply(calls=[call("add", {}, "nobody heard of it")], lost=True)),
    (reply(calls=[call("add", {"a": 2}, "two"), call("add", {"a": 3}, "three")]), reply("It is", lost=True)),
    (reply("Four."), reply(thoughts=[reasoning("secret")], calls=[call("add", {}, "four")], lost=True)),
    (reply("Five."), reply("Fi", status="incomplete", reason="max_output_tokens", lost=True)),
    (reply("Six."), None),
]
TOLD = ["user", "function_call", "function_call_output", "function_call", "function_call"]
TOLD += ["function_call_output", "function_call_output", "assistant", "user", "assistant", "user"]


async def converse(server: ResponsesServer, store: str, options: CallOptions, *, anew: bool) -> list[int]:
    """A conversation in which what got lost is said again, `anew` in another process; the tries of each turn."""
    turns: list[Turn | None] = [HELLO, None, None, UserTurn("And?"), UserTurn("Well?")]
    state, before, tries = None, Reply("completed"), [0] * len(turns)
    async with opened(server, store=store) as wire:
        thread = await wire.open(ADDER)
        for place, turn in enumerate(turns):
            while True:
                tries[place] += 1
                try:
                    before = (await said(thread, turn or outputs(before), options))[1]
                    break
                except ModelError as lost:
                    assert (lost.type, lost.retryable) == ("connection", True)
                    assert thread.state == (state or thread.state), "it is as it was before"
                    if anew and state is not None:
                        thread = await wire.open(ADDER, state)
            state = journaled(thread.state)
    return tries


def heard(items: Sequence[Body]) -> list[str]:
    """What the items are that a model is shown, without what it thought."""
    kinds = [item.get("role") if item.get("type") == "message" else item["type"] for item in items]
    return [str(kind) for kind in kinds if kind != "reasoning"]


@BOTH
@STORES
@pytest.mark.parametrize("anew", [False, True], ids=["at once", "in another process"])
def test_a_turn_whose_reply_got_lost_is_said_once(store: str, options: CallOptions, *, anew: bool) -> None:
    rounds = [one for answer, lost in LOST for one in (lost, answer) if one is not None]
    shown: list[list[Body]] = []

    def brain(items: list[Body], _: Body) -> Answer:
        shown.append(items)
        return rounds[len(shown) - 1]

    with ResponsesServer(brain) as server:
        tries = asyncio.run(converse(server, store, options, anew=anew))
        assert server.faults == []
    assert tries == [2, 2, 2, 2, 1]
    assert len(server.conversations) == (store == "conversation"), "no second one is begun"
    assert [told for told in heard(shown[-1]) if told != "assistant"] == [told for told in TOLD if told != "assistant"]
    assert "nobody heard of it" not in str(shown[-1])
    assert not any(one.method == "GET" for one in server.requests) or store == "conversation"


class Telling(ResponsesServer):
    """A server that has its own way with the items of a Conversation, the first time or always."""

    def __init__(self, rounds: Sequence[Answer], method: str, behaviour: Behaviour, times: int) -> None:
        super().__init__(rounds)
        self._method, self._items, self._left = method, behaviour, times

    def behaviour(self, request: Recorded) -> Behaviour:
        if "/items" in request.path and request.method == self._method and self._left:
            self._left -= 1
            return self._items
        return super().behaviour(request)


LOCKED = error(400, "Another process is on it. Retry soon.", param="conversation", reason="conversation_locked")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (LOCKED, "server_error"),
        (status(429), "rate_limited"),
        (html(), "malformed_reply"),
        (reset(), "connection"),
        (error(401, "No."), "authentication"),
    ],
    ids=["locked", "429", "html", "reset", "401"],
)
def test_what_cannot_be_taken_back_now_is_when_it_is_tried_again(method: str, behaviour: Behaviour, kind: str) -> None:
    async def run(server: ResponsesServer) -> Reply:
        async with opened(server, store="conversation") as wire:
            thread = await wire.open(ADDER)
            await said(thread, HELLO)
            for expected in ("connection", kind):
                with pytest.raises(ModelError) as caught:
                    await said(thread, UserTurn("And?"))
                assert caught.value.type == expected
                assert caught.value.retryable is (expected != "authentication")
            return (await said(thread, UserTurn("And?")))[1]

    rounds = [reply("Hello."), reply("Lost.", lost=True), reply("Yes.")]
    with Telling(rounds, method, behaviour, 1) as server:
        assert asyncio.run(run(server)).text == "Yes."
        [items] = server.conversations.values()
    assert heard(items) == ["user", "assistant", "user", "assistant"]


def test_an_item_that_is_gone_already_keeps_no_other_from_being_taken_back() -> None:
    async def run(server: ResponsesServer) -> Reply:
        async with opened(server, store="conversation") as wire:
            thread = await wire.open(ADDER)
            await said(thread, HELLO)
            with pytest.raises(ModelError):
                await said(thread, UserTurn("Pay 5"))
            return (await said(thread, UserTurn("Pay 5")))[1]

    rounds = [reply("Hello."), reply("Lost.", lost=True), reply("Yes.")]
    with Telling(rounds, "DELETE", error(404, "Item with id 'msg_1' not found."), 1) as server:
        assert asyncio.run(run(server)).text == "Yes."
        [items] = server.conversations.values()
    assert heard(items).count("user") == 2


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("code", [404, 405])
def test_a_server_that_lists_or_deletes_no_items_is_told_the_turn_again(method: str, code: int) -> None:
    async def run(server: ResponsesServer) -> Reply:
        async with opened(server, store="conversation") as wire:
            thread = await wire.open(ADDER)
            with pytest.raises(ModelError):
                await said(thread, HELLO)
            return (await said(thread, HELLO))[1]

    with Telling([reply("Lost.", lost=True), reply("Hello.")], method, error(code, "Invalid URL"), 99) as server:
        assert asyncio.run(run(server)).text == "Hello."


def test_a_conversation_that_tells_nothing_of_ours_is_left_as_it_is() -> None:
    """What is not known to be ours is nobody's to delete: a state without an item, and none of its ids there."""
    others: list[Body] = [{"type": "message", "role": "user", "content": f"{n}", "id": f"msg_{n}"} for n in range(5)]

    async def run(server: ResponsesServer) -> None:
        async with opened(server, store="conversation") as wire:
            for ids in ({"conversation": "conv_1"}, {"conversation": "conv_1", "item": "msg_9"}):
                thread = await wire.open(ADDER, ThreadState("responses", ids))
                await said(thread, HELLO)

    with ResponsesServer() as server:
        server.conversations["conv_1"] = list(others)
        asyncio.run(run(server))
        assert server.conversations["conv_1"][:5] == others
        assert not any(one.method == "DELETE" for one in server.requests)


def test_a_call_tells_where_its_outputs_belong_at_a_server_that_gives_items_other_ids() -> None:
    given: list[Body] = [
        {"type": "message", "role": "user", "content": "Hello", "id": "x_1"},
        {**ONE, "id": "x_2"},
        {"type": "function_call_output", "call_id": "one", "output": "1", "id": "x_3"},
        {"type": "message", "role": "assistant", "content": [], "id": "x_4"},
    ]

    async def run(server: ResponsesServer) -> Reply:
        async with opened(server, store="conversation") as wire:
            thread = await wire.open(ADDER, ThreadState("responses", {"conversation": "conv_1", "item": "fc_1"}))
            return (await said(thread, ToolOutputs((Output("one", "1"),))))[1]

    with ResponsesServer([reply("Done.")]) as server:
        server.conversations["conv_1"] = given
        assert (asyncio.run(run(server)).text, server.faults) == ("Done.", [])
        assert heard(server.conversations["conv_1"]) == [*TOLD[:3], "assistant"]


def test_taking_back_takes_of_the_turns_own_time() -> None:
    async def silent(_: object) -> None:
        await asyncio.Event().wait()

    async def run(server: ResponsesServer) -> ModelError:
        async with opened(server, store="conversation") as wire:
            thread = await wire.open(ADDER)
            for options in (WHOLE, replace(WHOLE, timeout=0.2)):
                with pytest.raises(ModelError) as caught:
                    await said(thread, HELLO, options)
            return caught.value

    with Telling([status(500)], "GET", silent, 1) as server:
        raised = asyncio.run(run(server))
    assert (raised.type, "did not tell what the conversation holds within 0.2 s" in raised.message) == (
        "model_timeout",
        True,
    )
