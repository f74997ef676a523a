"""Local servers: told apart by what they answer, wherever they listen; whatever else answers, or does not, is none."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from master_agent.local_servers import LocalModel, LocalServer, described, find, origin_of
from tests.servers.chat import hang_before_first_byte, html, json_body, nothing, reset, status
from tests.servers.local import LocalStandIn, llama_server, lm_studio, ollama, vllm
from tests.servers.loopback import Behaviour, Exchange, Loopback, Recorded

PLENTY = 30.0  # seconds that a busy machine may take; no test waits for them

LM_STUDIO = lm_studio(
    {"id": "qwen3-4b", "type": "llm", "state": "not-loaded", "max_context_length": 32_768},
    {
        "id": "gemma-4-e4b",
        "type": "vlm",
        "state": "loaded",
        "max_context_length": 131_072,
        "loaded_context_length": 8192,
        "capabilities": ["tool_use"],
    },
    {"id": "nomic", "type": "embeddings", "state": "not-loaded", "max_context_length": 2048},
)
KINDS: dict[str, tuple[Mapping[str, Any], str | None, list[LocalModel]]] = {
    "ollama": (
        ollama("qwen3.5:4b", "nomic-embed-text:latest", "gpt-oss:120b-cloud"),
        "0.12.6",
        [
            LocalModel("qwen3.5:4b"),
            LocalModel("nomic-embed-text:latest", talks=False),
            LocalModel("gpt-oss:120b-cloud", elsewhere=True),
        ],
    ),
    "lmstudio": (
        LM_STUDIO,
        None,
        [
            LocalModel("qwen3-4b", trained=32_768, pictures=False),
            LocalModel("gemma-4-e4b", 8192, 131_072, loaded=True, tools=True, pictures=True),
            LocalModel("nomic", trained=2048, pictures=False, talks=False),
        ],
    ),
    "llama-server": (
        llama_server("tiny"),
        "b6500-abc",
        [LocalModel("tiny", 4096, 131_072, 707_520, loaded=True, pictures=False)],
    ),
    "vllm": (vllm("Qwen/Qwen3.5-9B"), None, [LocalModel("Qwen/Qwen3.5-9B", 8192, loaded=True)]),
}


def looked(*servers: Loopback, within: float = PLENTY) -> list[LocalServer]:
    return asyncio.run(find([server.origin for server in servers], within))


def test_each_kind_is_known_by_its_answers_and_all_are_asked_at_once() -> None:
    with ExitStack() as running:
        stand_ins = [running.enter_context(LocalStandIn(answers)) for answers, _, _ in KINDS.values()]
        found = looked(*stand_ins)
    assert [server.kind for server in found] == list(KINDS)
    for server, stand_in, (_, version, models) in zip(found, stand_ins, KINDS.values(), strict=True):
        assert (server.version, list(server.models)) == (version, models)
        assert server.base_url == f"{stand_in.origin}/v1"
        assert not any("authorization" in request.headers for request in stand_in.requests), "nobody's key goes out"


class Behaving(Loopback):
    """A server that does one thing, whatever it is asked."""

    def __init__(self, behave: Behaviour) -> None:
        super().__init__()
        self._behave = behave

    def behaviour(self, _: Recorded) -> Behaviour:
        return self._behave


def endless() -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "application/json"})
        while True:
            exchange.writer.write(b" " * 65_536)
            await exchange.writer.drain()

    return behave


def promising(length: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "application/json", "content-length": length})
        exchange.keep = False

    return behave


NO_SERVER: dict[str, Callable[[], Behaviour]] = {
    "a page": html,
    "nothing there": lambda: status(404),
    "a key is wanted": lambda: status(401),
    "still loading": lambda: status(503, {"error": {"message": "Loading model", "code": 503}}),
    "other JSON": lambda: json_body({"hello": "world"}),
    "a list": lambda: json_body([{"id": "x"}]),
    "a wrong list": lambda: json_body({"object": "list", "data": "many"}),
    "an unknown server": lambda: json_body({"object": "list", "data": [{"id": "x", "owned_by": "somebody"}]}),
    "half an answer": lambda: promising("500"),
    "too long an answer": lambda: promising("99999999999"),
    "no length": lambda: promising("long"),
    "deep JSON": lambda: status(200, "[" * 100_000),
    "closes": nothing,
    "resets": reset,
    "never ends": endless,
}


def test_what_is_none_of_the_four_is_not_found_and_hides_no_other() -> None:
    with ExitStack() as running, LocalStandIn(vllm("m")) as good:
        strange = [running.enter_context(Behaving(behaviour())) for behaviour in NO_SERVER.values()]
        gone = Behaving(html())
        with gone:
            pass
        assert [server.origin for server in looked(*strange, gone, good)] == [good.origin]
        assert all(
            len(server.requests) == 1 for server, name in zip(strange, NO_SERVER, strict=True) if "unknown" not in name
        )


def test_a_port_that_accepts_and_never_answers_is_not_found() -> None:
    with ExitStack() as running:
        silent = [running.enter_context(Behaving(hang_before_first_byte())) for _ in range(3)]
        assert looked(*silent, within=0.3) == []
        with LocalStandIn(vllm("m")) as good:
            (found,) = asyncio.run(find([silent[0].origin, good.origin], 3600, lambda server: server.kind == "vllm"))
            assert found.kind == "vllm", "what is sought and found is not waited for any longer"
        assert silent[0].wait_for(lambda: not any(server.open_requests for server in silent)), "nobody is left waiting"


def test_an_answer_in_chunks_is_read() -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "application/json", "transfer-encoding": "chunked"})
        for piece in (b'{"object": "list", "data": [{"id": "m", ', b'"owned_by": "vllm", "max_model_len": 7}]}'):
            exchange.writer.write(f"{len(piece):x};x=y\r\n".encode() + piece + b"\r\n")
        exchange.writer.write(b"0\r\n\r\n")
        await exchange.writer.drain()

    with Behaving(behave) as server:
        (found,) = looked(server)
    assert found.models == (LocalModel("m", 7, loaded=True),)


def test_ollama_describes_its_models_one_by_one_as_far_as_it_does_in_time() -> None:
    answers = ollama("plain:1b", "able:4b", running=["able:4b"], tools=["able:4b"])
    del answers["/api/show"]["plain:1b"]
    with LocalStandIn(answers) as server:
        (found,) = looked(server)
        told = asyncio.run(described(found, PLENTY))
    size = 3_400_000_000
    assert told.models == (
        LocalModel("plain:1b", bytes=size),
        LocalModel("able:4b", 4096, 40_960, size, loaded=True, tools=True, pictures=False),
    )


def model(name: str, **more: Any) -> LocalModel:
    return LocalModel(name, **more)


@pytest.mark.parametrize(
    ("models", "best"),
    [
        ([], None),
        ([model("a", talks=False), model("b-cloud", elsewhere=True)], None),
        ([model("a", talks=False), model("b"), model("c")], "b"),
        ([model("a"), model("b", loaded=True)], "b"),
        ([model("a", tools=False, loaded=True), model("b", tools=True)], "b"),
        ([model("a", tools=False), model("b", tools=False, loaded=True)], "b"),
    ],
)
def test_the_model_that_is_asked_talks_is_here_takes_tools_and_is_loaded(
    models: Sequence[LocalModel], best: str | None
) -> None:
    chosen = LocalServer("ollama", "http://127.0.0.1:1", None, tuple(models)).best()
    assert (chosen.name if chosen else None) == best


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:1", "http://127.0.0.1:1"),
        ("[::]:9", "http://[::1]:9"),
        ("[::1]", "http://[::1]:11434"),
        ("gpu-box", "http://gpu-box:11434"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu-box/", "https://gpu-box:443"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080"),
        (" gpu-box:1 ", "http://gpu-box:1"),
        ("", None),
        ("ftp://gpu-box", None),
        ("gpu box", None),
        ("gpu-box:many", None),
        ("http://", None),
        ("[::1", None),
    ],
)
def test_an_address_is_understood_as_ollama_writes_it(text: str, origin: str | None) -> None:
    assert origin_of(text, 11434) == origin
