"""From addresses to the servers of models that answer there: each is asked what it is, all at once, in a bounded time.

Ollama, LM Studio, llama-server and vLLM are told apart by what they say of themselves, not by their ports. Whatever
else answers is none of them, and a port that is silent is no server. No key goes out, and no proxy is asked.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 0.3
"""How long all of the looking may take where nobody said that there is anything."""

SAID = 3.0
"""How long it may take at an address, or for a kind, that a person named."""

DETAILS = 2.0
"""How long a server that was found may take to describe its models."""

PORTS = {"ollama": 11434, "lmstudio": 1234, "llama-server": 8080, "vllm": 8000}
HERE = "127.0.0.1"
_EVERYWHERE = {"0.0.0.0": HERE, "::": "::1"}  # noqa: S104 - what servers listen on, and where they are asked then
_MOST = 4 * 1024 * 1024
_EMBEDS = re.compile(r"embed|\bbge\b|rerank", re.IGNORECASE)
_PATHS = ("/api/version", "/api/v0/models", "/props")


@dataclass(frozen=True)
class LocalModel:
    """A model that a local server offers; what the server does not say of it is None.

    `context` is what one request and its answer may hold now, in tokens; `trained` what the model was made for, of
    which a server may give less. `tools` and `pictures`: whether the model takes any. `elsewhere`: the server only
    passes requests on to a service.
    """

    name: str
    context: int | None = None
    trained: int | None = None
    bytes: int | None = None
    loaded: bool = False
    tools: bool | None = None
    pictures: bool | None = None
    talks: bool = True
    elsewhere: bool = False


@dataclass(frozen=True)
class LocalServer:
    """A server that answered: which kind it is, where, and what it offers."""

    kind: str
    origin: str
    version: str | None
    models: tuple[LocalModel, ...]

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def model(self, name: str) -> LocalModel | None:
        """The model of that name, if there is one; one of Ollama's may be named without its tag `latest`."""
        names = (name, f"{name}:latest") if self.kind == "ollama" else (name,)
        return next((model for model in self.models if model.name in names), None)

    def offers(self, name: str) -> bool:
        """Whether it has a model of that name."""
        return self.model(name) is not None

    def best(self) -> LocalModel | None:
        """The model to ask where nobody says: one that talks, here, that knows tools, and that is loaded already."""
        able = [model for model in self.models if model.talks and not model.elsewhere]
        return min(able, key=lambda model: (model.tools is False, not model.loaded), default=None)


def origin_of(text: str, port: int | None = None) -> str | None:
    """The scheme, host and port of an address as people and Ollama write it; None when it is none.

    An address that a server listens on everywhere is asked for on this machine.
    """
    text = text.strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    with contextlib.suppress(ValueError):
        parts = urlsplit(f"{scheme}://{rest if rest[:1] != ':' or rest[:2] == '::' else HERE + rest}")
        host = parts.hostname or ""
        usual = {"http": 80, "https": 443}.get(scheme) if mark else port
        number = parts.port or usual or port
        if scheme in ("http", "https") and host and number and not re.search(r"\s", text):
            host = _EVERYWHERE.get(host, host)
            return f"{scheme}://{f'[{host}]' if ':' in host else host}:{number}"
    return None


async def find(
    origins: Iterable[str], within: float = SECONDS, wanted: Callable[[LocalServer], bool] | None = None
) -> list[LocalServer]:
    """The servers that answer at these addresses, in their order; takes no longer than `within` seconds.

    The looking ends as soon as one has answered that is `wanted`.
    """
    heard: dict[str, dict[str, Any]] = {origin: {} for origin in origins}
    looks = {asyncio.create_task(_look(origin, answers)) for origin, answers in heard.items()}
    end, late = asyncio.get_running_loop().time() + within, looks
    found: list[LocalServer] = []
    while late and not (wanted and any(map(wanted, found))):
        left = max(end - asyncio.get_running_loop().time(), 0.0)
        done, late = await asyncio.wait(late, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        recognised = (_recognised(origin, answers) for origin, answers in heard.items())
        found = [server for server in recognised if server is not None]
        if not done:
            break
    for look in late:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)
    return found


async def described(server: LocalServer, within: float = DETAILS) -> LocalServer:
    """The server with all that it says of its models, as far as it says it in time: Ollama does so one by one."""
    if server.kind != "ollama":
        return server
    told: dict[str, Any] = {}

    async def ask(name: str) -> None:
        told[name] = await _ask(server.origin, "/api/show", {"model": name})

    asked = [asyncio.create_task(ask(model.name)) for model in server.models]
    asked += [asyncio.create_task(_into(told, server.origin, path)) for path in ("/api/ps", "/api/tags")]
    _, late = await asyncio.wait(asked, timeout=within)
    for task in late:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    running = {str(one.get("name")): one for one in _entries(told.get("/api/ps"), "models")}
    kept = {str(one.get("name")): one for one in _entries(told.get("/api/tags"), "models")}
    models = tuple(
        _shown(model.name, _mapping(told.get(model.name)), running.get(model.name), _mapping(kept.get(model.name)))
        for model in server.models
    )
    return LocalServer(server.kind, server.origin, server.version, models)


async def _look(origin: str, answers: dict[str, Any]) -> None:
    """Fills in what a server answers. One that does not list models as OpenAI does is asked nothing more."""
    listed = await _ask(origin, "/v1/models")
    if not isinstance(listed, Mapping) or not isinstance(listed.get("data", ""), list | None):
        return
    answers["/v1/models"] = listed
    await asyncio.gather(*(_into(answers, origin, path) for path in _PATHS))


async def _into(answers: dict[str, Any], origin: str, path: str) -> None:
    answers[path] = await _ask(origin, path)


def _recognised(origin: str, answers: Mapping[str, Any]) -> LocalServer | None:
    """The server that gives such answers; None when it is none of the four."""
    entries = _entries(answers.get("/v1/models"), "data")
    owners = {entry.get("owned_by") for entry in entries}
    props = _mapping(answers.get("/props"))
    own = _entries(answers.get("/api/v0/models"), "data")
    version = _mapping(answers.get("/api/version")).get("version")
    if "vllm" in owners:
        return LocalServer("vllm", origin, None, tuple(map(_of_vllm, entries)))
    if "llamacpp" in owners or "default_generation_settings" in props:
        context = _mapping(props.get("default_generation_settings")).get("n_ctx")
        build = props.get("build_info")
        return LocalServer(
            "llama-server",
            origin,
            build if isinstance(build, str) else None,
            tuple(_of_llama_cpp(entry, props, _whole(context)) for entry in entries),
        )
    if own and all("state" in entry and "type" in entry for entry in own):
        return LocalServer("lmstudio", origin, None, tuple(map(_of_lm_studio, own)))
    if isinstance(version, str):
        return LocalServer("ollama", origin, version, tuple(_of_ollama(str(entry.get("id"))) for entry in entries))
    return None


def _of_vllm(entry: Mapping[str, Any]) -> LocalModel:
    return LocalModel(str(entry.get("id")), _whole(entry.get("max_model_len")), loaded=True)


def _of_llama_cpp(entry: Mapping[str, Any], props: Mapping[str, Any], context: int | None) -> LocalModel:
    meta, modalities = _mapping(entry.get("meta")), _mapping(props.get("modalities"))
    name = str(entry.get("id"))
    pictures = bool(modalities["vision"]) if "vision" in modalities else None
    trained, size = _whole(meta.get("n_ctx_train")), _whole(meta.get("size"))
    return LocalModel(name, context, trained, size, loaded=True, pictures=pictures, talks=_talks(name))


def _of_lm_studio(entry: Mapping[str, Any]) -> LocalModel:
    loaded = entry.get("state") == "loaded"
    can = entry.get("capabilities")
    return LocalModel(
        str(entry.get("id")),
        _whole(entry.get("loaded_context_length")),
        _whole(entry.get("max_context_length")),
        loaded=loaded,
        tools="tool_use" in can if isinstance(can, list) else None,
        pictures=entry.get("type") == "vlm",
        talks=entry.get("type") != "embeddings",
    )


def _of_ollama(name: str) -> LocalModel:
    return LocalModel(name, talks=_talks(name), elsewhere=name.endswith(("-cloud", ":cloud")))


def _shown(
    name: str, told: Mapping[str, Any], running: Mapping[str, Any] | None, kept: Mapping[str, Any]
) -> LocalModel:
    """What Ollama says of a model by itself, of it as it is loaded, and as it is kept."""
    model = _of_ollama(name)
    said, info = told.get("capabilities"), _mapping(told.get("model_info"))
    can = said if isinstance(said, list) else None
    trained = next((_whole(value) for key, value in info.items() if key.endswith(".context_length")), None)
    return LocalModel(
        name,
        _whole(_mapping(running).get("context_length")),
        trained,
        _whole(kept.get("size")),
        loaded=running is not None,
        tools="tools" in can if can is not None else None,
        pictures="vision" in can if can is not None else None,
        talks="completion" in can if can is not None else model.talks,
        elsewhere=model.elsewhere or bool(told.get("remote_host") or kept.get("remote_host")),
    )


def _talks(name: str) -> bool:
    return _EMBEDS.search(name) is None


async def _ask(origin: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON that a server answers with status 200; None for anything else, and where nobody answers."""
    parts = urlsplit(origin)
    content = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.0",  # so that the answer ends with the connection
        f"Host: {parts.netloc}",
        "Accept: application/json",
        "Connection: close",
        *([] if body is None else ["Content-Type: application/json", f"Content-Length: {len(content)}"]),
    ]
    try:
        secure = True if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=secure)
    except (OSError, ValueError):
        return None
    try:
        writer.write("\r\n".join([*head, "", ""]).encode() + content)
        return await _answer(reader)
    except (OSError, ValueError, EOFError, RecursionError, asyncio.LimitOverrunError):
        return None
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> Any:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    if first.split(" ")[1:2] != ["200"]:
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return json.loads(await _chunks(reader))
    length = int(headers.get("content-length", "-1"))
    if length > _MOST:
        return None
    return json.loads(await (reader.readexactly(length) if length >= 0 else _rest(reader)))


async def _rest(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while piece := await reader.read(65_536):
        content += piece
        if len(content) > _MOST:
            raise ValueError("too much for a list of models")
    return bytes(content)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while (size := int((await reader.readline()).split(b";")[0], 16)) and len(content) + size <= _MOST:
        content += await reader.readexactly(size)
        await reader.readline()
    return bytes(content)


def _entries(answer: Any, name: str) -> list[Mapping[str, Any]]:
    listed = answer.get(name) if isinstance(answer, Mapping) else None
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
