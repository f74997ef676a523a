"""From a request to pictures by OpenAI's image models, or by a server that speaks as theirs: one POST, base64 back.

A picture is bought once: only a request that cannot have been accepted is sent again. A client lives as long as its
request, so that nothing is left to close, and cancelling closes the connection. The SDK's `post` is used, as the wires
do, and the answer read here: `images.generate` would check nothing of it and turn what is no JSON into text.
"""

import asyncio
import base64
import binascii
import json
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import JsonValue

from master_agent.errors import ErrorType, ImageError, ModelError
from master_agent.images import ASPECT_RATIOS, ImageRequest, Picture, Pictures, measure
from master_agent.openai_server import (
    QUOTED,
    Deadline,
    RefusedRequestError,
    Server,
    request_options,
    sendable,
    usage_of,
)
from master_agent.results import Usage
from master_agent.retry import RetryPolicy, retrying

MODEL = "gpt-image-2"  # without a shutdown date as of 2026-11
CHECK_TIMEOUT = 10.0  # seconds
MOST_PICTURES = 10  # that one request can ask for
PIXELS = 1024 * 1024
STEP = 16  # pixels: the sides of a free size are multiples of it

_FIXED = ((1024, 1024), (1536, 1024), (1024, 1536))
_IMAGE_MODEL = re.compile(r"(chatgpt-image-|gpt-image-(?P<generation>\d+))")
_MODERATED = re.compile(r"moderation_blocked|content_policy|safety system", re.IGNORECASE)
_NO_CREDIT = re.compile(r"billing_hard_limit_reached|billing_not_active|insufficient_quota")
_NO_SEED = "the seed was not used: OpenAI's image models take none"


class OpenAIImages:
    """Makes pictures with an image model of OpenAI, or of the compatible server at `base_url`, with its /v1.

    `timeout` is in seconds, from the first try to the last picture. `sleep` is the world's, unless a test brings its
    own. Nothing but the arguments is looked at: no key and no address of the environment.
    """

    name = "openai"
    paid = True

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None = None,
        *,
        model: str = MODEL,
        timeout: float = 300.0,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        proxy: str | None = None,
    ) -> None:
        self.model = model
        self._server = Server(base_url, api_key, proxy=proxy)
        self._timeout = timeout
        self._policy = policy or RetryPolicy()
        self._sleep = sleep

    async def settle(self, request: ImageRequest, remote_id: str | None) -> Pictures | None:  # noqa: ARG002
        raise ImageError("OpenAI keeps no pictures that could be looked up", type="effect_unverified")

    async def check(self) -> str:
        """Asks which models there are, which costs nothing; ImageError when the key is refused or ours is not there."""
        deadline = Deadline.after(CHECK_TIMEOUT, f"did not list its models within {CHECK_TIMEOUT:g} s")
        try:
            content, _ = await self._call("GET", "/models", None, deadline, CHECK_TIMEOUT)
        except ModelError as error:
            raise self._refusal(error) from error
        try:
            offered = [str(entry["id"]) for entry in json.loads(content)["data"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise self._malformed(content, "a list of models that cannot be read") from None
        if self.model not in offered:
            known = sorted(name for name in offered if "image" in name) or offered
            raise ImageError(
                f"{self._server.shown} takes the key, but does not offer {self.model}; "
                f"it offers {', '.join(known[:12]) or 'no model'}",
                hint=_OTHER_MODEL,
                type="model_not_found",
            )
        return f"the key is taken at {self._server.shown}; model {self.model}"

    async def generate(self, request: ImageRequest) -> Pictures:
        """The pictures; ImageError when there are none. Cancelling it closes the connection at once."""
        width, height = size_of(self.model, request.aspect_ratio)
        body = self._body(request, f"{width}x{height}")
        deadline = Deadline.after(self._timeout, f"did not make the picture within {self._timeout:g} s")
        content, remote_id = await retrying(lambda _: self._buy(body, deadline), self._policy, sleep=self._sleep)
        answer = await asyncio.to_thread(self._read, content)
        pictures, failure = await asyncio.to_thread(_pictures, answer)
        if not pictures:
            if failure:
                failure.hint = self._paid_hint
            raise failure or self._malformed(content, "an answer without a picture", self._paid_hint)
        notes = [_NO_SEED]
        if not _in_ratio(width, height, request.aspect_ratio):
            notes.append(f"{self.model} has no {request.aspect_ratio}: the picture is {width}×{height}")
        if len(pictures) < request.count:
            why = f": {failure.message}" if failure else ""
            notes.append(f"only {len(pictures)} of {request.count} pictures came{why}")
        usage = usage_of(answer.get("usage")) or Usage.unknown()
        return Pictures(
            pictures=tuple(pictures),
            provider=self.name,
            model=self.model,
            remote_id=remote_id,
            note="; ".join(notes),
            usage=usage.model_copy(update={"calls": 0}),  # the calls of a usage are those of models that write
        )

    def _body(self, request: ImageRequest, size: str) -> dict[str, JsonValue]:
        body: dict[str, JsonValue] = {"model": self.model, "prompt": sendable(request.prompt)}
        body |= {"n": request.count, "size": size}
        if _IMAGE_MODEL.match(self.model):
            return {**body, "output_format": "png"}
        return {**body, "response_format": "b64_json"}  # other servers' models give addresses unless told not to

    async def _buy(self, body: dict[str, JsonValue], deadline: Deadline) -> tuple[bytes, str | None]:
        """The answer to the one request that costs money; its error is retryable only if nothing was bought."""
        try:
            return await self._call("POST", "/images/generations", body, deadline, self._timeout)
        except ModelError as error:
            refusal = self._refusal(error, buying=True)
            left = deadline.at - asyncio.get_running_loop().time()
            if (refusal.retry_after or 0.0) > left:
                refusal.retryable = False
            raise refusal from error

    async def _call(
        self, method: str, path: str, body: JsonValue, deadline: Deadline, seconds: float
    ) -> tuple[bytes, str | None]:
        """One request with a client of its own: the answer's body, and the name that the server gave the request."""
        import httpx2

        options = request_options(seconds)
        async with self._server.client() as client:
            if method == "GET":
                asked = client.get(path, cast_to=httpx2.Response, options=options)
            else:
                asked = client.post(path, cast_to=httpx2.Response, body=body, options=options)
            response = await self._server.bounded(asked, deadline)
            return response.content, response.headers.get("x-request-id")

    def _read(self, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and answer.get("error"):
            raise self._refusal(self._server.reported(answer["error"]), buying=True)
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
            raise self._malformed(content, "an answer that holds no pictures", self._paid_hint)
        return answer

    def _malformed(self, content: bytes, what: str, hint: str | None = None) -> ImageError:
        error = self._server.malformed(content[: 4 * QUOTED].decode("utf-8", "replace"), what)
        return ImageError(error.message, hint=error.hint or hint, type="malformed_reply")

    @property
    def _paid_hint(self) -> str:
        bills = "https://platform.openai.com/usage" if self._server.is_openai else "the server's bills"
        return f"It may have been made and paid for: look at {bills} before you ask again."

    def _refusal(self, error: ModelError, *, buying: bool = False) -> ImageError:
        """A failure of the server as one of a picture."""
        said = error.complaint if isinstance(error, RefusedRequestError) else ""
        if _MODERATED.search(said):
            return ImageError(
                f"the prompt was refused: {error.message}",
                hint="The same prompt will be refused again: let the picture show something else.",
                type="refused",
            )
        type_, hint = error.type, error.hint
        if type_ == "authentication":
            type_ = "missing_token"  # as where there is no key: no model can heal it
        elif type_ == "model_not_found":
            hint = _OTHER_MODEL
        elif _NO_CREDIT.search(said):
            type_, hint = "rate_limited", "The account has no credit left: see the plan and the bills at the provider."
        elif _status(error) == 404:
            hint = "Does this server make pictures? Name who does: --image-provider replicate, openai or placeholder."
        if buying and _may_be_bought(type_, error):
            hint = self._paid_hint
        retryable = error.retryable and (not buying or type_ == "rate_limited" or _never_sent(error))
        after = error.retry_after if retryable else None
        return ImageError(error.message, hint=hint, type=type_, retryable=retryable, retry_after=after)


_OTHER_MODEL = "Name another: --image-model NAME, or MASTER_AGENT_IMAGE_MODEL=NAME in .env"


def size_of(model: str, aspect_ratio: str) -> tuple[int, int]:
    """Width and height in pixels for OpenAI's models: about a megapixel and exactly the ratio from gpt-image-2 on.

    Older models and other servers' know three sizes; of these it is the one with the nearest ratio.
    """
    if aspect_ratio not in ASPECT_RATIOS:
        raise ImageError(f'no aspect ratio "{aspect_ratio}"; there are: {", ".join(ASPECT_RATIOS)}')
    wide, high = map(int, aspect_ratio.split(":"))
    named = _IMAGE_MODEL.match(model)
    if named is None or int(named["generation"] or 1) < 2:
        return min(_FIXED, key=lambda size: abs(math.log(size[0] / size[1] * high / wide)))
    common = math.gcd(wide, high)
    width, height = wide // common * STEP, high // common * STEP
    times = round(math.sqrt(PIXELS / (width * height)))
    return width * times, height * times


def _in_ratio(width: int, height: int, aspect_ratio: str) -> bool:
    wide, high = map(int, aspect_ratio.split(":"))
    return width * high == height * wide


def _pictures(answer: dict[str, Any]) -> tuple[list[Picture], ImageError | None]:
    """The pictures of an answer, and what was wrong with the last of those that are none: the others are paid for."""
    pictures: list[Picture] = []
    failure: ImageError | None = None
    for entry in answer["data"][:MOST_PICTURES]:
        try:
            content = _decoded(entry)
            measure(content)
            pictures.append(Picture(content))
        except ImageError as error:
            failure = error
    return pictures, failure


def _decoded(entry: object) -> bytes:
    encoded = entry.get("b64_json") if isinstance(entry, dict) else None
    if not isinstance(encoded, str) or not encoded:
        given = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ImageError(f"a picture came without b64_json (it has: {given})", type="malformed_reply")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(
            f"a picture came in base64 that cannot be decoded: {encoded[:QUOTED]!r}", type="malformed_reply"
        ) from None


def _status(error: ModelError) -> int | None:
    status: int | None = getattr(error.__cause__, "status_code", None)
    return status


def _may_be_bought(type_: ErrorType, error: ModelError) -> bool:
    return type_ in ("model_timeout", "server_error") or (type_ == "connection" and not _never_sent(error))


def _never_sent(error: ModelError) -> bool:
    """Whether no connection came about, so that nobody can have got the request."""
    import httpx2

    never = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, never):
            return True
        cause = cause.__cause__
    return False
