"""A loopback server that makes pictures as OpenAI does: what each request gets is a Behaviour, by default pictures.

    with ImageServer(key="sk-test") as server:
        OpenAIImages("sk-test", server.base_url)

As OpenAI does, it refuses bodies that do not fit the SDK's own types, and what the model does not take.
"""

import asyncio
import base64
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from tests.servers.chat import error, json_body, type_fault
from tests.servers.loopback import Behaviour, Body, Exchange, Loopback, Recorded

PATH = "/v1/images/generations"
MODELS = ("gpt-image-2", "gpt-image-1.5", "gpt-6-luna")
USAGE: Body = {
    "input_tokens": 13,
    "input_tokens_details": {"text_tokens": 13, "image_tokens": 0},
    "output_tokens": 1056,
    "total_tokens": 1069,
}


def png(width: int = 16, height: int = 16, shade: int = 0) -> bytes:
    """A real picture; another shade makes another one."""
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (width, height), (200, 90, shade)).save(content, "PNG")
    return content.getvalue()


def encoded(content: bytes) -> Body:
    """A picture as an entry of an answer."""
    return {"b64_json": base64.b64encode(content).decode()}


def pictures(*entries: Body, usage: Body | None = USAGE, delay: float = 0.0) -> Behaviour:
    """An answer with these entries; without any, with as many pictures as were asked for, of the size asked for."""

    async def behave(exchange: Exchange) -> None:
        asked = exchange.request.body
        width, height = map(int, asked["size"].split("x"))
        made = entries or [encoded(png(width, height, number)) for number in range(asked["n"])]
        await asyncio.sleep(delay)
        answer: Body = {"created": 1, "data": list(made), "size": asked["size"], "output_format": "png"}
        headers = {"x-request-id": f"req_{exchange.number}"}
        await exchange.send_json(200, answer | ({"usage": usage} if usage else {}), headers)

    return behave


class ImageServer(Loopback):
    """The server; a list of behaviours is used up in order, after its end pictures are made.

    `faults` are the bodies it refused for their form. With a `key` it wants to be shown that one.
    """

    def __init__(
        self,
        *behaviours: Behaviour,
        key: str | None = None,
        models: Sequence[str] = MODELS,
        listing: Behaviour | None = None,
    ) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._left = iter(behaviours)
        self._key = key
        self._models = models
        self._listing = listing

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def orders(self) -> list[Recorded]:
        """The requests that cost money."""
        return [one for one in self.requests if one.path == PATH]

    @property
    def bodies(self) -> list[Mapping[str, Any]]:
        return [one.body for one in self.orders]

    def behaviour(self, request: Recorded) -> Behaviour:
        if self._key is not None and request.headers.get("authorization") != f"Bearer {self._key}":
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
            return error(401, f"Incorrect API key provided: {shown}.", reason="invalid_api_key")
        match request.method, request.path:
            case "GET", "/v1/models":
                data = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in self._models]
                return self._listing or json_body({"object": "list", "data": data})
            case "POST", "/v1/images/generations":
                if fault := body_fault(request.body):
                    self.faults.append(fault)
                    return error(400, fault)
                return next(self._left, None) or pictures()
        return error(404, f"Invalid URL ({request.method} {request.path})")


@functools.cache
def _adapter() -> tuple[TypeAdapter[Any], frozenset[str]]:
    from openai.types.image_generate_params import ImageGenerateParamsNonStreaming

    return TypeAdapter(ImageGenerateParamsNonStreaming), frozenset(ImageGenerateParamsNonStreaming.__annotations__)


def body_fault(body: Body) -> str | None:
    """What is wrong with a request, by the SDK's types and by what its texts say of them; None if nothing."""
    if fault := type_fault(body, *_adapter()):
        return fault
    if not 1 <= body.get("n", 1) <= 10:
        return "n must be between 1 and 10"
    model = body.get("model") or ""
    if not model.startswith(("gpt-image", "chatgpt-image")):
        return None if body.get("response_format") == "b64_json" else "this model would answer with addresses"
    if wrong := {"response_format", "style"} & body.keys():
        return f"Unknown parameter: {', '.join(sorted(wrong))}"
    width, height = map(int, body["size"].split("x"))
    if model.startswith("gpt-image-2"):
        fits = width % 16 == height % 16 == 0 and 1 / 3 <= width / height <= 3
        return None if fits else f"Invalid size {body['size']}"
    return None if body["size"] in ("1024x1024", "1536x1024", "1024x1536") else f"Invalid size {body['size']}"
