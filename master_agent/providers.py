"""Who answers: a row for each provider of models, with its address, its key, its wire and what it can do there.

Addresses, names of keys and gaps are from each provider's documentation, as of 2026-11; none of the hosted ones was
asked live. What a row does not know a server may still refuse: the wires learn that as they go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from master_agent.threads import Capabilities

Kind = Literal["hosted", "local"]


@dataclass(frozen=True)
class Provider:
    """One provider: `name` is what stands before the colon of `--model NAME:MODEL`, `title` is for people.

    `base_url` is None where the address is found out, `key` the variable that holds its key, None where none is
    wanted. `capabilities` is None where nothing is known that its wire would not try by itself. `agents` and `planner`
    are the models that are asked where nobody chooses; None for the one that is there. `prices` is the provider's name
    in the data of genai-prices. `listing` are headers that its list of models wants besides; `{key}` is the key.
    """

    name: str
    title: str
    base_url: str | None = None
    key: str | None = None
    kind: Kind = "hosted"
    wire: Literal["responses", "chat"] = "chat"
    capabilities: Capabilities | None = None
    agents: str | None = None
    planner: str | None = None
    prices: str | None = None
    listing: Mapping[str, str] = field(default_factory=dict)


OPENAI = Provider(
    "openai",
    "OpenAI",
    key="OPENAI_API_KEY",
    wire="responses",
    agents="gpt-6-luna",  # both without a shutdown date
    planner="gpt-6-sol",
    prices="openai",
)

OTHER = Provider("openai", "a server of your own", key="OPENAI_API_KEY")
"""What OPENAI_BASE_URL puts in OpenAI's place: nothing is known of it but its address."""

HOSTED: tuple[Provider, ...] = (
    Provider(
        # platform.claude.com/docs/en/cli-sdks-libraries/libraries/openai-sdk: response_format and strict are ignored.
        "anthropic",
        "Anthropic",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        capabilities=Capabilities(schema="none"),
        agents="claude-sonnet-5-5",
        planner="claude-opus-5-5",
        prices="anthropic",
        listing={"x-api-key": "{key}", "anthropic-version": "2023-06-01"},
    ),
    Provider(
        # ai.google.dev/gemini-api/docs/openai; that a schema goes with tools is said of its newest models only.
        "gemini",
        "Google Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        capabilities=Capabilities(schema_with_tools=False),
        agents="gemini-3.8-flash",
        planner="gemini-3.8-flash",
        prices="google",
    ),
    Provider(
        # openrouter.ai/docs/api-reference/overview; what a model there can do is the model's own.
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        agents="openrouter/auto",
        planner="openrouter/auto",
        prices="openrouter",
    ),
    Provider(
        # console.groq.com/docs/openai and /docs/structured-outputs: a schema goes neither with tools nor with streams.
        "groq",
        "Groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        capabilities=Capabilities(schema_with_tools=False, stream_with_schema=False, length="max_completion_tokens"),
        agents="openai/gpt-oss-20b",
        planner="openai/gpt-oss-120b",
        prices="groq",
    ),
    Provider(
        # docs.mistral.ai/api: unknown fields are refused, stream_options among them; usage comes without being asked.
        "mistral",
        "Mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        capabilities=Capabilities(usage_in_stream=False, length="max_tokens"),
        agents="mistral-small-latest",
        planner="mistral-large-latest",
        prices="mistral",
    ),
    Provider(
        # api-docs.deepseek.com: any JSON object, but no schema.
        "deepseek",
        "DeepSeek",
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        capabilities=Capabilities(schema="object", length="max_tokens"),
        agents="deepseek-v4-flash",
        planner="deepseek-v4-pro",
        prices="deepseek",
    ),
    Provider(
        # docs.x.ai/api
        "xai",
        "xAI",
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        agents="grok-4.7",
        planner="grok-4.7",
        prices="x-ai",
    ),
    Provider(
        # docs.together.ai/docs/inference/openai-compatibility
        "together",
        "Together AI",
        "https://api.together.ai/v1",
        "TOGETHER_API_KEY",
        capabilities=Capabilities(length="max_tokens"),
        agents="openai/gpt-oss-20b",
        planner="openai/gpt-oss-120b",
        prices="together",
    ),
    Provider(
        # docs.fireworks.ai
        "fireworks",
        "Fireworks AI",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        agents="accounts/fireworks/models/gpt-oss-20b",
        planner="accounts/fireworks/models/gpt-oss-120b",
        prices="fireworks",
    ),
    Provider(
        # inference-docs.cerebras.ai/resources/openai; that a schema goes with tools is nowhere said.
        "cerebras",
        "Cerebras",
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        capabilities=Capabilities(schema_with_tools=False, length="max_completion_tokens"),
        agents="gpt-oss-120b",
        planner="gpt-oss-120b",
        prices="cerebras",
    ),
)
"""In the order in which their keys are looked for."""

# All of them leave calls in the text that a model did not write as their parsers want them, so those count too.
LOCAL: tuple[Provider, ...] = (
    Provider(
        # docs.ollama.com/api/openai-compatibility: no tool_choice; tool calls got lost in streams of older versions.
        "ollama",
        "Ollama",
        kind="local",
        capabilities=Capabilities(stream_with_tools=False, tool_choice=False, length="max_tokens", tool_calls="either"),
    ),
    Provider(
        # lmstudio.ai/docs/developer/openai-compat
        "lmstudio",
        "LM Studio",
        kind="local",
        capabilities=Capabilities(length="max_tokens", tool_calls="either"),
    ),
    Provider(
        # tools/server/README.md of llama.cpp: one call a reply unless asked otherwise; ggml-org/llama.cpp#11847: a
        # schema beside tools is refused or passed over.
        "llama-server",
        "llama.cpp's llama-server",
        kind="local",
        capabilities=Capabilities(
            schema_with_tools=False, parallel_tools=False, length="max_tokens", tool_calls="either"
        ),
    ),
    Provider(
        # docs.vllm.ai/en/latest/serving/openai_compatible_server.html
        "vllm",
        "vLLM",
        kind="local",
        capabilities=Capabilities(length="max_tokens", tool_calls="either"),
    ),
)
"""In the order in which they are chosen where several answer."""

EMBEDDED: tuple[Provider, ...] = (
    Provider("gguf", "the embedded engine", kind="local"),
    Provider("local", "the embedded engine", kind="local"),
)
"""The engine of the run's own: a file as `gguf:PATH`, or one that was downloaded as `local:NAME`."""

PROVIDERS: dict[str, Provider] = {row.name: row for row in (OPENAI, *HOSTED, *LOCAL, *EMBEDDED)}


def named(model: str) -> tuple[str | None, str]:
    """The provider's name before the first colon and the model's after it; a colon may also be the model's own.

    `llama3.2:3b` is a model of nobody in particular, `ollama:llama3.2:3b` is Ollama's.
    """
    before, colon, after = model.partition(":")
    return (before.lower(), after) if colon and before.lower() in PROVIDERS else (None, model)
