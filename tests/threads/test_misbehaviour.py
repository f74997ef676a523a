"""One table of services that misbehave, on every wire: what is tried again, what is said, what the journal holds.

A row is what the server does and what must come of it. Whatever it was, the run can be resumed when it is over.
"""

import asyncio
import contextlib
import email.utils
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from master_agent.errors import ErrorType
from master_agent.events import ModelCalled, ModelReplied, ToolReturned
from master_agent.results import Usage
from master_agent.retry import RetryPolicy
from master_agent.threads import Wire
from master_agent.threads.assistants import Assistants
from master_agent.threads.chat import Chat
from master_agent.threads.responses import Responses
from tests.servers import assistant_runs, chat, responses
from tests.servers.assistant_runs import Act
from tests.servers.assistants import AssistantsServer
from tests.servers.chat import ChatServer, call, error, status
from tests.servers.loopback import Behaviour, Exchange
from tests.servers.responses import ResponsesServer
from tests.threads.assisting import Waits
from tests.threads.carrying import Carried, carry_out
from tests.threads.chatting import KEY, MODEL

Answer = Any  # what the server of a wire takes: a Behaviour, a Said, an Act
WIRES = ("chat", "responses", "assistants")
SECONDS = 0.4  # for one request, where the server hangs


@dataclass(frozen=True)
class There:
    """A server that gives these answers, then a good one; `asked` counts the requests that let a model speak."""

    base_url: str
    connect: Callable[[], Wire]
    asked: Callable[[], int]


@contextlib.contextmanager
def there(wire: str, answers: Sequence[Answer], **settings: Any) -> Iterator[There]:
    match wire:
        case "chat":
            with ChatServer([*answers, chat.reply("Fine.")]) as server:
                yield There(server.base_url, lambda: Chat(KEY, server.base_url, MODEL), lambda: server.count)
                assert server.faults == []
        case "responses":
            with ResponsesServer([*answers, responses.reply("Fine.")]) as speaking:
                yield There(
                    speaking.base_url,
                    lambda: Responses(KEY, speaking.base_url, MODEL, **settings),
                    lambda: speaking.count,
                )
                assert speaking.faults == []
        case "assistants":
            acts = [one for one in answers if isinstance(one, Act)]
            faults = {"run": [one for one in answers if not isinstance(one, Act)]}
            with AssistantsServer([*acts, assistant_runs.says("Fine.")], faults=faults) as keeping:
                yield There(
                    keeping.base_url,
                    lambda: Assistants(KEY, keeping.base_url, MODEL, idle_timeout=SECONDS),
                    lambda: len(keeping.asked("run")),
                )
                assert keeping.bad_bodies == []
                assert keeping.running == [], "no run is left running"


def until_a_date(seconds: int) -> Behaviour:
    """429 with the date from which on it may be tried again."""

    async def behave(exchange: Exchange) -> None:
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        await status(429, headers={"retry-after": date})(exchange)

    return behave


@dataclass(frozen=True)
class Case:
    """What a server does, on all wires or on each, and what comes of it.

    It is `asked` twice where that can help, and four times where it says itself when it will.
    `waits` are the seconds between the tries, at least and at most. Where it is `mended` no harm is done.
    """

    answer: Answer | Mapping[str, Answer]
    type: ErrorType
    told: str = ""
    asked: int = 2
    waits: tuple[float, float] = (0.25, 0.5)
    retry_after: tuple[float, float] | None = None
    mended: frozenset[str] = field(default_factory=frozenset)

    def answer_of(self, wire: str) -> Answer:
        return self.answer[wire] if isinstance(self.answer, Mapping) else self.answer


QUOTA = error(429, "You exceeded your quota", reason="insufficient_quota")
A_RUN = {"id": "run_1", "object": "thread.run"}
ASSISTANTS = frozenset({"assistants"})
"""There a stream is only a view of the run, which goes on without it."""

CASES: dict[str, Case] = {
    "400": Case(error(400, "messages: too long"), "bad_request", "400: messages: too long", asked=1),
    "401": Case(error(401, "Incorrect API key provided"), "authentication", "OPENAI_API_KEY", asked=1),
    "403": Case(error(403, "Not for you"), "permission", "403: Not for you", asked=1),
    "404": Case(error(404, "gone", reason="model_not_found"), "model_not_found", "404: gone", asked=1),
    "408": Case(status(408), "model_timeout", "408"),
    "409": Case(status(409), "server_error", "409"),
    "429": Case(status(429), "rate_limited", "429"),
    "429 for seconds": Case(
        status(429, headers={"retry-after": "7"}), "rate_limited", "429", asked=4, waits=(7, 7.1), retry_after=(7, 7)
    ),
    "429 until a date": Case(until_a_date(30), "rate_limited", "429", asked=4, waits=(20, 30.1), retry_after=(20, 30)),
    "429 for an hour": Case(
        status(429, headers={"retry-after": "3600"}), "rate_limited", "3600", asked=1, retry_after=(3600, 3600)
    ),
    "no money": Case(QUOTA, "rate_limited", "You exceeded your quota", asked=1),
    "500": Case(status(500), "server_error", "500"),
    "503": Case(status(503), "server_error", "503"),
    "503 for seconds": Case(
        status(503, headers={"retry-after": "3"}), "server_error", "503", asked=4, waits=(3, 3.1), retry_after=(3, 3)
    ),
    "html": Case(chat.html(), "malformed_reply", "Sign in to the hotel"),
    "half a json": Case(
        {"chat": chat.half_json(), "responses": responses.half_json(), "assistants": chat.half_json()},
        "malformed_reply",
        "cannot be read",
    ),
    "nothing": Case(chat.nothing(), "connection", "no connection to http://127.0.0.1:"),
    "a reset": Case(chat.reset(), "connection", "no connection to http://127.0.0.1:"),
    "a reset in mid-stream": Case(
        {
            "chat": chat.reset(after="And th"),
            "responses": responses.reset(after="And th"),
            "assistants": assistant_runs.says("Fine.", resets=True, gap=0.5),
        },
        "connection",
        "no connection to http://127.0.0.1:",
        mended=ASSISTANTS,
    ),
    "a hang before the first byte": Case(chat.hang_before_first_byte(), "model_timeout", "within 0.4 s"),
    "a hang in mid-stream": Case(
        {
            "chat": chat.hang_mid_stream(),
            "responses": responses.hang_mid_stream(),
            "assistants": assistant_runs.hangs(),
        },
        "model_timeout",
        "0.4 s",
    ),
    "a stream without its end": Case(
        {
            "chat": chat.stream_without_end(),
            "responses": responses.stream_without_end(),
            "assistants": assistant_runs.says("Fine.", ends=False),
        },
        "malformed_reply",
        "ended before the reply did",
        mended=ASSISTANTS,
    ),
    "no answer in the answer": Case(
        {
            "chat": chat.empty_choices(),
            "responses": chat.json_body({"id": "resp_1"}),
            "assistants": chat.json_body(A_RUN),
        },
        "malformed_reply",
        "127.0.0.1",
    ),
    "an error in a good answer": Case(
        chat.json_body({"error": {"message": "Overloaded", "code": 503}}), "server_error", "reported: Overloaded"
    ),
}  # fmt: skip


def carried(at: There, folder: Path, waits: Waits, **more: Any) -> Carried:
    policy = RetryPolicy(attempts=2)
    return asyncio.run(carry_out(at.connect(), ["a"], folder, policy=policy, sleep=waits, **more))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", CASES)
def test_a_misbehaving_service_is_tried_again_where_that_helps_and_told_of_once(
    name: str, wire: str, tmp_path: Path
) -> None:
    case, waits = CASES[name], Waits()
    mended = wire in case.mended
    tries = 1 if mended else case.asked
    with there(wire, [case.answer_of(wire)] * tries) as at:
        run = carried(at, tmp_path, waits, seconds=SECONDS if "hang" in name else 10)
        assert at.asked() == tries

        result = run.result.results["a"]
        if mended:
            assert (result.status, result.text, run.said_of_models) == (
                "done",
                "Fine.",
                [("called", None), ("completed", None)],
            )
            return
        assert result.status == "failed"
        assert result.error is not None
        assert result.error.type == case.type
        assert case.told in f"{result.error.message} {result.error.hint}"
        assert "\n" not in result.error.message
        assert KEY not in str(run.events)
        _the_journal_says_so(run, case, tries, waits)

        on = asyncio.run(carry_out(at.connect(), [], tmp_path, resume=True))
        assert (on.result.status, on.result.results["a"].text) == ("done", "Fine.")
        assert at.asked() == tries + 1


def _the_journal_says_so(run: Carried, case: Case, tries: int, waits: Waits) -> None:
    assert run.said_of_models == [("called", None), ("failed", case.type)] * tries
    assert [one.attempt for one in run.of(ModelCalled)] == list(range(1, tries + 1))
    for one in run.of(ModelReplied):
        if case.retry_after is None:
            assert one.retry_after is None
        else:
            assert case.retry_after[0] <= one.retry_after <= case.retry_after[1]
        assert one.usage == Usage.unknown(), "what a lost request cost is not known"
    assert len(waits.seconds) == tries - 1
    assert all(case.waits[0] <= seconds <= case.waits[1] for seconds in waits.seconds)


@pytest.mark.parametrize("wire", WIRES)
def test_a_server_that_is_not_there_is_tried_again_and_named(wire: str, tmp_path: Path) -> None:
    address, waits = "http://127.0.0.1:9/v1", Waits()
    make = {"chat": Chat, "responses": Responses, "assistants": Assistants}[wire]
    run = carried(There(address, lambda: make(KEY, address, MODEL), lambda: 0), tmp_path, waits)
    info = run.result.results["a"].error
    assert info is not None
    assert (info.type, address in info.message) == ("connection", True)
    assert run.said_of_models == [("called", None), ("failed", "connection")] * 2
    assert len(waits.seconds) == 1


# Answers that are good but odd


@pytest.mark.parametrize("wire", WIRES)
def test_usage_that_is_null_is_unknown_and_no_failure(wire: str, tmp_path: Path) -> None:
    told: dict[str, Answer] = {
        "chat": chat.reply("Hm.", usage=None),
        "responses": responses.reply("Hm.", usage=None),
        "assistants": assistant_runs.says("Hm.", usage=None),
    }
    with there(wire, [told[wire]]) as at:
        run = carried(at, tmp_path, Waits())
        assert at.asked() == 1
    usage = run.result.usage
    assert (run.result.status, run.result.results["a"].text) == ("done", "Hm.")
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.complete) == (1, None, None, False)


def calling(wire: str, *ids_and_arguments: tuple[str, str]) -> Answer:
    """A round that calls `add` by these ids, with these arguments."""
    if wire == "responses":
        return responses.reply(calls=[responses.call("add", text, id_) for id_, text in ids_and_arguments])
    calls = [call("add", text, id_) for id_, text in ids_and_arguments]
    return chat.reply(calls=calls) if wire == "chat" else assistant_runs.says(calls=calls)


GOOD = '{"a": 1, "b": 1}'


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("written", ['{"a": 1', "add one and one", "[1, 1]", '{"a": 1}', '{"a": 1, "b": "x"}'])
def test_arguments_that_are_none_are_told_to_the_model_and_nothing_is_tried_again(
    wire: str, written: str, tmp_path: Path
) -> None:
    with there(wire, [calling(wire, ("one", written), ("two", GOOD))]) as at:
        run = carried(at, tmp_path, Waits())
    assert (run.result.status, run.result.results["a"].text) == ("done", "Fine.")
    assert [status for status, _ in run.said_of_models] == ["called", "requires_action", "called", "completed"]
    assert [(one.asked, one.text) for one in run.of(ToolReturned)] == [("two", "a: 2")], "what is wrong is not used"


@pytest.mark.parametrize("wire", ["chat", "responses kept here"])
@pytest.mark.parametrize("ids", [("", ""), ("one", "one"), ("", "one")], ids=["none", "double", "one missing"])
def test_ids_that_tell_no_calls_apart_are_made_anew_where_they_are_ours_to_make(
    wire: str, ids: Sequence[str], tmp_path: Path
) -> None:
    on, _, kept = wire.partition(" ")
    settings = {"store": "none"} if kept else {}
    with there(on, [_exactly(on, ids)], **settings) as at:
        run = carried(at, tmp_path, Waits())
        assert at.asked() == 2
    assert (run.result.status, run.result.results["a"].text) == ("done", "Fine.")
    assert len({one.asked for one in run.of(ToolReturned)}) == 2


@pytest.mark.parametrize("wire", ["responses", "assistants"])
@pytest.mark.parametrize("ids", [("one", "one"), ("", "one")], ids=["double", "one missing"])
def test_ids_that_tell_no_calls_apart_are_no_reply_where_the_server_holds_on_to_them(
    wire: str, ids: Sequence[str], tmp_path: Path
) -> None:
    with there(wire, [_exactly(wire, ids)] * 2) as at:
        run = carried(at, tmp_path, Waits())
        assert at.asked() == 2
    info = run.result.results["a"].error
    assert info is not None
    assert info.type == "malformed_reply"
    assert run.of(ToolReturned) == [], "no tool is used of which the output could not be given back"
    assert run.said_of_models == [("called", None), ("failed", "malformed_reply")] * 2


def _exactly(wire: str, ids: Sequence[str]) -> Answer:
    """A round of two calls with these ids and no others, whatever the server would make of them."""
    if wire == "responses":
        return calling(wire, *((id_, GOOD) for id_ in ids))
    calls = [{"id": id_, "type": "function", "function": {"name": "add", "arguments": GOOD}} for id_ in ids]
    if wire == "assistants":
        asked = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
        return chat.json_body({**A_RUN, "status": "requires_action", "required_action": asked})
    return chat.deltas({"tool_calls": [{"index": n, **one} for n, one in enumerate(calls)]}, finish_reason="tool_calls")
