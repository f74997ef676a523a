"""The table of providers: what stands in a row, and that no request asks a provider for what it cannot do."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from master_agent.providers import HOSTED, LOCAL, OPENAI, PROVIDERS, Provider, named
from master_agent.threads import CallOptions, Capabilities
from tests.servers.chat import ChatServer, call, error, reply
from tests.servers.loopback import Behaviour, Body
from tests.threads.chatting import ADDER, AGENT, HELLO, SHAPE, SHAPED, STREAMED, WHOLE, ask

ALL = replace(ADDER, output=SHAPE, max_output_tokens=9)


def has(*names: str) -> Callable[[Body], bool]:
    return lambda body: all(name in body for name in names)


def asks_for(kind: str) -> Callable[[Body], bool]:
    return lambda body: body.get("response_format", {}).get("type") == kind


def allows_several_calls(body: Body) -> bool:
    return "tools" in body and body.get("parallel_tool_calls") is not False


SCHEMA_WITH_TOOLS = has("response_format", "tools")
# What each provider's documentation says it refuses, leaves out or gets wrong.
GAPS: dict[str, list[Callable[[Body], bool]]] = {
    "anthropic": [has("response_format")],
    "gemini": [SCHEMA_WITH_TOOLS],
    "openrouter": [],
    "groq": [SCHEMA_WITH_TOOLS, has("response_format", "stream"), has("max_tokens")],
    "mistral": [has("stream_options"), has("max_completion_tokens")],
    "deepseek": [asks_for("json_schema")],
    "xai": [],
    "together": [has("max_completion_tokens")],
    "fireworks": [],
    "cerebras": [SCHEMA_WITH_TOOLS, has("max_tokens")],
    "ollama": [has("stream", "tools"), has("tool_choice")],
    "lmstudio": [asks_for("json_object")],
    "llama-server": [SCHEMA_WITH_TOOLS, allows_several_calls],
    "vllm": [],
}


@pytest.mark.parametrize("row", [*HOSTED, *LOCAL], ids=lambda row: row.name)
def test_no_request_asks_a_provider_for_what_it_cannot_do(row: Provider) -> None:
    asked: list[Body] = []

    def brain(body: Body) -> Behaviour:
        asked.append(body)
        faults = [number for number, gap in enumerate(GAPS[row.name]) if gap(body)]
        if faults:
            return error(400, f"this server cannot: {faults}")
        return reply(calls=[call("add", {"a": 1})]) if "tools" in body else reply('{"x": 1}')

    with ChatServer(brain) as server:
        for agent in (AGENT, ADDER, SHAPED, ALL):
            for options in (STREAMED, WHOLE):
                (said,), _ = ask(server, HELLO, agent=agent, options=options, capabilities=row.capabilities)
                assert bool(said.calls) is bool(agent.tools)
    assert server.faults == []
    assert len(asked) == 8, "nothing had to be learnt"


def test_a_gap_is_kept_to_what_it_is_about() -> None:
    """Where a schema cannot go with tools it still goes without them, and so for streams."""

    def body(agent: str, able: Capabilities, options: CallOptions = STREAMED) -> Body:
        with ChatServer() as server:
            spec = {"plain": AGENT, "tools": ADDER, "schema": SHAPED, "both": ALL}[agent]
            ask(server, HELLO, agent=spec, options=options, capabilities=able)
        return server.bodies[0]

    apart = Capabilities(schema_with_tools=False, stream_with_schema=False)
    assert [("response_format" in body(kind, apart)) for kind in ("plain", "tools", "schema", "both")] == [
        *(False, False, True, False)
    ]
    assert [body(kind, apart).get("stream") for kind in ("plain", "tools", "schema", "both")] == [
        *(True, True, None, True)
    ]
    assert "parallel_tool_calls" not in body("plain", Capabilities(parallel_tools=False))
    assert body("tools", Capabilities(parallel_tools=False))["parallel_tool_calls"] is False
    for name in ("max_tokens", "max_completion_tokens"):
        assert body("both", Capabilities(length=name))[name] == 9


def test_usage_that_no_stream_reports_is_unknown_and_not_asked_for() -> None:
    with ChatServer() as server:
        (said,), _ = ask(server, HELLO, options=STREAMED, capabilities=PROVIDERS["mistral"].capabilities)
    assert "stream_options" not in server.bodies[0]
    assert said.usage is None


@pytest.mark.parametrize("row", [OPENAI, *HOSTED], ids=lambda row: row.name)
def test_a_hosted_provider_has_an_address_a_key_and_models(row: Provider) -> None:
    assert row.base_url is None if row is OPENAI else str(row.base_url).startswith("https://")
    assert row.key == f"{row.name.upper()}_API_KEY"
    assert row.agents and row.planner and row.prices


@pytest.mark.parametrize(
    ("model", "whose"),
    [
        ("gpt-6-luna", (None, "gpt-6-luna")),
        ("llama3.2:3b", (None, "llama3.2:3b")),
        ("ollama:llama3.2:3b", ("ollama", "llama3.2:3b")),
        ("Groq:openai/gpt-oss-120b", ("groq", "openai/gpt-oss-120b")),
        ("llama-server:a:b:c", ("llama-server", "a:b:c")),
        ("openrouter:openai/gpt-6:free", ("openrouter", "openai/gpt-6:free")),
        ("ollama:", ("ollama", "")),
        ("mistral", (None, "mistral")),
        (":x", (None, ":x")),
        ("gguf:/models/a:b.gguf", ("gguf", "/models/a:b.gguf")),
    ],
)
def test_only_a_providers_name_before_the_first_colon_is_one(model: str, whose: tuple[str | None, str]) -> None:
    assert named(model) == whose
