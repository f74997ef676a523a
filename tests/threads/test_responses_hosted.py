"""Tools that the server runs, on the responses wire: how they are asked for, and what becomes of what they leave."""

import asyncio
import base64
import gzip
from dataclasses import replace
from typing import Any

import pytest
from openai import AsyncOpenAI

from master_agent.attachments import Attachment
from master_agent.catalogue import HOSTED
from master_agent.errors import ModelError
from master_agent.results import Usage
from master_agent.threads import CallOptions, Capabilities, Reply, Source, ThreadState, UserTurn, _hosted
from master_agent.threads.chat import Chat
from tests.servers.chat import ChatServer, error, hang_before_first_byte, reset
from tests.servers.loopback import Body, Exchange
from tests.servers.responses import Answer, Said, Stream, call, message, reasoning, reply, response_of
from tests.servers.responses_hosted import (
    HostedServer,
    cites,
    content,
    endless,
    file,
    page,
    picture,
    ran,
    says,
    searched,
)
from tests.test_given_files import png
from tests.threads.chatting import ADDER, AGENT, BOTH, HELLO, KEY, MODEL, STREAMED, WHOLE, said
from tests.threads.responding import STORES, ask, failure, opened

ALL = replace(AGENT, hosted=HOSTED)
PNG = png()


def one(*items: Body, options: CallOptions = WHOLE, **server: Any) -> tuple[Reply, HostedServer]:
    """The one reply of a response of these items, and the server."""
    with HostedServer([says(*items)], **server) as running:
        [answer], _ = ask(running, HELLO, agent=ALL, options=options)
        assert running.faults == []
    return answer, running


# What is asked for


def test_hosted_tools_are_asked_for_after_our_own_and_always_in_the_same_order() -> None:
    agent = replace(ADDER, hosted=("image_generation", "web_search", "code_interpreter", "web_search"))
    with HostedServer() as server:
        ask(server, HELLO, agent=agent)
        ask(server, HELLO, agent=replace(agent, hosted=HOSTED))
        assert server.faults == []
    asked = [
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "web_search"},
        {"type": "image_generation", "output_format": "png"},
    ]
    assert [body["tools"][1:] for body in server.bodies] == [asked, asked]
    assert server.bodies[0]["tools"][0]["name"] == "add"
    assert "include" not in server.bodies[0]


def test_an_agent_with_other_hosted_tools_meets_in_another_cache() -> None:
    with HostedServer() as server:
        for agent in (AGENT, ALL, replace(ALL, hosted=("web_search",))):
            ask(server, HELLO, agent=agent)
    assert len({body["prompt_cache_key"] for body in server.bodies}) == 3


def test_every_name_that_an_agent_file_may_hold_is_offered_and_chat_offers_none() -> None:
    async def run() -> tuple[Capabilities, Capabilities]:
        async with opened(HostedServer()) as wire:
            return wire.capabilities, Chat(KEY, None, MODEL).capabilities

    ours, chats = asyncio.run(run())
    assert ours.hosted_tools == frozenset(HOSTED) == frozenset(_hosted.TOOLS)
    assert chats.hosted_tools == frozenset()


@STORES
def test_what_hosted_tools_did_is_part_of_the_conversation(store: str) -> None:
    rounds: list[Answer] = [
        says(reasoning("s"), ran("print(1)", "1"), searched("tea"), picture(PNG), cites("See."), call("add", {}, "a")),
        reply("Done."),
    ]
    seen: list[list[Body]] = []

    def brain(items: list[Body], _: Body) -> Answer:
        seen.append(items)
        return rounds[len(seen) - 1]

    with HostedServer(brain) as server:
        (first, second), _ = ask(server, HELLO, None, agent=replace(ADDER, hosted=HOSTED), store=store)
        assert server.faults == []
    assert (first.status, second.text) == ("requires_action", "Done.")
    assert [item["type"] for item in seen[1]] == [
        "message", "reasoning", "code_interpreter_call", "web_search_call", "image_generation_call", "message",
        "function_call", "function_call_output",
    ]  # fmt: skip
    assert seen[1][4]["result"] == base64.b64encode(PNG).decode(), "a server that keeps nothing must see the picture"


def test_what_code_printed_is_kept_where_the_server_keeps_nothing() -> None:
    with HostedServer([says(ran("print(1)", "1"), cites("One.")), reply("Done.")]) as server:
        ask(server, HELLO, UserTurn("And?"), agent=ALL, store="none")
        assert server.faults == []
    assert server.bodies[0]["include"] == ["reasoning.encrypted_content", "code_interpreter_call.outputs"]
    assert server.bodies[1]["input"][1]["outputs"] == [{"type": "logs", "logs": "1"}]


# Files


@BOTH
def test_a_picture_comes_with_the_reply_and_is_counted(options: CallOptions) -> None:
    answer, _ = one(picture(PNG), cites("A red square."), options=options)
    assert answer.files == (Attachment("", "image/png", PNG),)
    assert (answer.status, answer.text, answer.lost) == ("completed", "A red square.", ())
    assert answer.usage
    assert (answer.usage.images, answer.usage.input_tokens, answer.usage.complete) == (1, 11, True)


def test_a_picture_is_counted_though_the_server_reports_no_usage() -> None:
    with HostedServer([says(picture(PNG), picture(PNG[:-1] + b"."), usage=None)]) as server:
        [answer], _ = ask(server, HELLO, agent=ALL)
    assert answer.usage == Usage.unknown().model_copy(update={"images": 2})
    assert len(answer.files) == 2


@pytest.mark.parametrize(
    ("item", "lost"),
    [
        (picture("%%%"), ("a picture came that cannot be read",)),
        (picture(b"<html>"), ("a picture came that cannot be read",)),
        (picture("abc"), ("a picture came that cannot be read",)),
        (picture(None), ()),
        (
            picture(None, status="failed", error={"message": "blocked", "type": "x", "code": None, "param": None}),
            ("a picture could not be made: blocked",),
        ),
        (picture(None, status="failed"), ("a picture could not be made: no reason given",)),
    ],
)
def test_what_is_no_picture_is_told_and_not_passed_on(item: Body, lost: tuple[str, ...]) -> None:
    answer, _ = one(item, cites("Here."))
    assert (answer.files, answer.lost, answer.text) == ((), lost, "Here.")


def test_a_picture_may_come_as_a_whole_address() -> None:
    answer, _ = one(picture(f"data:image/png;base64,{base64.b64encode(PNG).decode()}"))
    assert answer.files == (Attachment("", "image/png", PNG),)


@BOTH
def test_files_that_an_answer_cites_are_fetched_each_once_and_in_order(options: CallOptions) -> None:
    table, chart = file("table.csv", "cfile_1"), file("chart.png", "cfile_2")
    files = {("cntr_1", "cfile_1"): b"a,b\n", ("cntr_1", "cfile_2"): PNG, ("cntr_2", "cfile_1"): b"\x00\xff"}
    answer, server = one(
        cites("Here.", table, chart), picture(PNG), cites("And.", chart, file("x", "cfile_1", "cntr_2"), table),
        options=options, files=files,
    )  # fmt: skip
    assert answer.files == (
        Attachment("table.csv", "application/octet-stream", b"a,b\n"),
        Attachment("chart.png", "image/png", PNG),
        Attachment("", "image/png", PNG),
        Attachment("x", "application/octet-stream", b"\x00\xff"),
    )
    assert sorted(server.fetched) == ["cntr_1/cfile_1", "cntr_1/cfile_2", "cntr_2/cfile_1"]
    asked = [one for one in server.requests if "containers" in one.path]
    assert {one.headers["authorization"] for one in asked} == {f"Bearer {KEY}"}


def test_a_file_that_cannot_be_fetched_is_named_and_the_reply_is_not_lost() -> None:
    files = {("cntr_1", "cfile_2"): b"kept", ("cntr_1", "cfile_3"): [error(403, "not yours")]}
    cited = [file("gone.csv", "cfile_1"), file("kept.csv", "cfile_2"), file("theirs.csv", "cfile_3")]
    answer, _ = one(cites("Three files.", *cited, file("odd.csv", "../../secret")), files=files)
    assert (answer.status, answer.text) == ("completed", "Three files.")
    assert [kept.name for kept in answer.files] == ["kept.csv"]
    gone, theirs, odd = answer.lost
    assert "gone.csv" in gone
    assert "404" in gone
    assert "theirs.csv" in theirs
    assert "not yours" in theirs
    assert "odd.csv" in odd


def test_what_can_heal_is_fetched_again() -> None:
    files = {("cntr_1", "cfile_1"): [error(503, "busy"), reset(), content(b"a,b")]}
    answer, server = one(cites("Here.", file("table.csv")), files=files)
    assert [kept.content for kept in answer.files] == [b"a,b"]
    assert len(server.fetched) == 3


def test_a_file_that_never_comes_is_given_up_in_time_and_holds_up_no_other() -> None:
    files = {("cntr_1", "cfile_1"): [hang_before_first_byte()], ("cntr_1", "cfile_2"): b"kept"}
    cited = [file("slow.csv", "cfile_1"), file("kept.csv", "cfile_2")]
    answer, _ = one(cites("Here.", *cited), files=files, options=replace(WHOLE, timeout=0.5))
    assert [kept.name for kept in answer.files] == ["kept.csv"]
    assert "slow.csv" in answer.lost[0]
    assert "within 0.5 s" in answer.lost[0]


def test_a_file_without_end_is_let_go_of_at_the_limit() -> None:
    files = {("cntr_1", "cfile_1"): [endless(b"x" * 1_000_000)]}
    answer, _ = one(cites("Here.", file("flood.bin")), files=files, options=replace(WHOLE, timeout=30))
    assert answer.files == ()
    assert "flood.bin" in answer.lost[0]
    assert "more than 52,428,800 bytes" in answer.lost[0]


def test_a_file_is_as_long_as_it_is_when_it_is_unpacked() -> None:
    async def packed(exchange: Exchange) -> None:
        bomb = gzip.compress(b"x" * 60_000_000)
        await exchange.send(200, bomb, "application/octet-stream", {"content-encoding": "gzip"})

    answer, _ = one(cites("Here.", file("bomb.bin")), files={("cntr_1", "cfile_1"): [packed]})
    assert "more than 52,428,800 bytes" in answer.lost[0]


def test_nothing_is_fetched_for_an_agent_without_hosted_tools() -> None:
    with HostedServer([says(cites("Here.", file("x.csv")))], {("cntr_1", "cfile_1"): b"x"}) as server:
        [answer], _ = ask(server, HELLO, agent=AGENT)
    assert (answer.files, server.fetched) == ((), [])


def test_cancelled_while_a_file_comes_the_thread_is_as_it_was_and_nothing_goes_on() -> None:
    async def run(server: HostedServer) -> None:
        async with opened(server) as wire:
            thread = await wire.open(ALL)
            going = asyncio.ensure_future(said(thread, HELLO))
            assert await asyncio.to_thread(server.wait_for, lambda: bool(server.fetched))
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            assert thread.state == ThreadState("responses")
            assert await asyncio.to_thread(server.wait_for, lambda: server.open_requests == 0)

    answers = [says(cites("Here.", file("x.csv")))]
    with HostedServer(answers, {("cntr_1", "cfile_1"): [hang_before_first_byte()]}) as server:
        asyncio.run(run(server))


# Sources


@BOTH
def test_pages_that_an_answer_cites_are_its_sources_each_once(options: CallOptions) -> None:
    answer, _ = one(
        searched("tea"),
        cites("Tea.", page("https://tea.example/", "All  of\ntea"), page("javascript:alert(1)", "x")),
        cites("More.", page("http://leaf.example/"), page("https://tea.example/", "All of tea")),
        options=options,
    )
    assert answer.sources == (
        Source("All of tea", "https://tea.example/"),
        Source("http://leaf.example/", "http://leaf.example/"),
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "output_text", "text": "Hm.", "annotations": None},
        {"type": "output_text", "text": "Hm.", "annotations": ["x", {"type": "url_citation"}, {"type": "new"}]},
        {"type": "output_text", "text": "Hm.", "annotations": [{"type": "container_file_citation"}]},
    ],
)
def test_citations_that_say_nothing_do_no_harm(odd: Body) -> None:
    answer, server = one(message(odd), {"type": "mcp_call", "output": "?"})
    assert (answer.text, answer.files, answer.sources, server.fetched) == ("Hm.", (), (), [])


# Refusals, silence, replies that came to nothing


@pytest.mark.parametrize(
    ("told", "param", "named"),
    [
        ("Hosted tool 'web_search' is not supported with test-model.", None, "web_search"),
        ("Tool 'image_generation' is not supported with test-model (image).", None, "image_generation"),
        ("body.tools.0.type: Input should be 'function'", None, "code_interpreter"),
        ("Invalid value", "tools[2]", "image_generation"),
    ],
)
def test_a_server_that_refuses_a_hosted_tool_is_told_of_once(told: str, param: str | None, named: str) -> None:
    raised = failure(error(400, told, param=param), STREAMED, ALL)
    assert (raised.type, raised.retryable) == ("bad_request", False)
    assert told.split("'")[0] in raised.message
    assert f"does not run {named}" in str(raised.hint)


def test_a_refusal_of_something_else_is_learnt_as_ever() -> None:
    async def run(server: HostedServer) -> ModelError:
        async with opened(server, store="none") as wire:
            with pytest.raises(ModelError) as caught:
                await said(await wire.open(replace(ALL, temperature=0.2)), HELLO)
            await said(await wire.open(replace(ALL, temperature=0.2)), HELLO)
            return caught.value

    told = "Unsupported parameter: 'temperature'"
    with HostedServer([error(400, told, param="temperature"), reply("Fine.")]) as server:
        assert asyncio.run(run(server)).retryable
    assert [("temperature" in body, len(body["tools"])) for body in server.bodies] == [(True, 3), (False, 3)]


def test_a_server_may_be_silent_while_it_runs_a_tool_but_not_otherwise() -> None:
    async def slow(exchange: Exchange) -> None:
        made = response_of(exchange, Said((cites("Drawn."),)))
        stream = Stream(exchange)
        await stream.begin(made)
        await asyncio.sleep(0.5)
        await stream.item(0, made["output"][0], None, 0.0)
        await stream.send("response.completed", response=made)
        await exchange.end_stream(done=False)

    with HostedServer([slow, slow]) as server:
        [answer], _ = ask(server, HELLO, agent=ALL, options=STREAMED, idle_timeout=0.1)
        assert answer.text == "Drawn."
        with pytest.raises(ModelError, match="fell silent"):
            ask(server, HELLO, agent=AGENT, options=STREAMED, idle_timeout=0.1)


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_what_was_paid_for_comes_with_a_reply_that_came_to_nothing(status: str) -> None:
    with HostedServer([says(picture(PNG), status=status)]) as server:
        [answer], _ = ask(server, HELLO, agent=ALL)
    assert (answer.status, len(answer.files), answer.usage and answer.usage.images) == (status, 1, 1)


# The stand-in


def test_the_real_client_takes_the_stand_in_for_openai() -> None:
    made = says(ran("plot()"), searched("tea"), picture(PNG), cites("Here.", file("a.csv"), page("https://a.example/")))
    kinds = ["code_interpreter_call", "web_search_call", "image_generation_call", "message"]

    async def run(server: HostedServer) -> None:
        async with AsyncOpenAI(
            api_key=KEY, base_url=server.base_url, max_retries=0, _strict_response_validation=True
        ) as client:
            asked: Any = {"model": MODEL, "input": "Draw.", "tools": _hosted.asked_for(HOSTED)}
            whole = await client.responses.create(**asked)
            async with client.responses.stream(**asked) as stream:
                streamed = await stream.get_final_response()
            assert [[item.type for item in one.output] for one in (whole, streamed)] == [kinds, kinds]
            got = await client.containers.files.content.retrieve("cfile_1", container_id="cntr_1")
            assert got.read() == b"a,b"

    with HostedServer([made, made], {("cntr_1", "cfile_1"): b"a,b"}) as server:
        asyncio.run(run(server))
        assert server.faults == []


def test_the_chat_stand_in_is_asked_for_no_hosted_tool() -> None:
    async def run(server: ChatServer) -> None:
        wire = Chat(KEY, server.base_url, MODEL)
        await said(await wire.open(ALL), HELLO)
        await wire.close()

    with ChatServer() as server:
        asyncio.run(run(server))
    assert "tools" not in server.bodies[0]
