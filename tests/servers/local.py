"""Stand-ins for the servers of models that people run: what each answers when it is asked what it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.servers.chat import Brain, ChatServer, json_body, respond, status
from tests.servers.loopback import Behaviour, Recorded


def ollama(*names: str, running: Sequence[str] = (), tools: Sequence[str] | None = None) -> dict[str, Any]:
    """Ollama with these models, of which some are loaded and, unless all do, some take tools."""
    shows = {
        name: {
            "capabilities": ["completion", *(["tools"] if tools is None or name in tools else [])],
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960},
        }
        for name in names
    }
    return {
        "/v1/models": {"object": "list", "data": [{"id": name, "owned_by": "library"} for name in names] or None},
        "/api/version": {"version": "0.12.6"},
        "/api/tags": {"models": [{"name": name, "model": name, "size": 3_400_000_000} for name in names]},
        "/api/ps": {"models": [{"name": name, "context_length": 4096} for name in running]},
        "/api/show": shows,
    }


def lm_studio(*entries: Mapping[str, Any]) -> dict[str, Any]:
    """LM Studio, which answers 200 to whatever it does not know."""
    return {
        "/v1/models": {
            "object": "list",
            "data": [{"id": one["id"], "owned_by": "organization_owner"} for one in entries],
        },
        "/api/v0/models": {"object": "list", "data": list(entries)},
        "else": {"error": "Unexpected endpoint or method. (GET). Returning 200 anyway"},
    }


def llama_server(name: str, context: int = 4096) -> dict[str, Any]:
    """llama.cpp's server, which answers some of Ollama's requests too."""
    return {
        "/v1/models": {
            "object": "list",
            "data": [{"id": name, "owned_by": "llamacpp", "meta": {"n_ctx_train": 131_072, "size": 707_520}}],
            "models": [{"name": name, "capabilities": ["completion"]}],
        },
        "/api/tags": {"models": [{"name": name}]},
        "/props": {
            "default_generation_settings": {"n_ctx": context},
            "total_slots": 1,
            "modalities": {"vision": False},
            "build_info": "b6500-abc",
        },
    }


def vllm(name: str, context: int = 8192) -> dict[str, Any]:
    """vLLM with one model."""
    entry = {"id": name, "object": "model", "owned_by": "vllm", "root": name, "max_model_len": context}
    return {"/v1/models": {"object": "list", "data": [entry]}, "/version": {"version": "0.11.0"}}


class LocalStandIn(ChatServer):
    """A server that gives these answers by path, and completions; with a `key` it wants to be shown that one."""

    def __init__(self, answers: Mapping[str, Any], behaviours: Brain | Sequence[Behaviour] = respond) -> None:
        super().__init__(behaviours)
        self._answers = answers

    def behaviour(self, request: Recorded) -> Behaviour:
        if request.path == "/v1/chat/completions":
            return super().behaviour(request)
        if request.path == "/api/show":
            return json_body(self._answers.get("/api/show", {}).get(request.body["model"], {}))
        found = self._answers.get(request.path, self._answers.get("else"))
        return status(404, "404 page not found") if found is None else json_body(found)
