"""What speaks through OpenAI's SDK shares: a client without surprises, bounds on waits, its errors as ours, usage."""

import asyncio
import json
import math
import re
import ssl
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from master_agent.errors import ErrorType, ModelError
from master_agent.held_keys import by_shape, in_address, open_part
from master_agent.hosts import is_near, on_this_machine
from master_agent.quick import importing
from master_agent.results import Usage
from master_agent.secrets import SHORTEST

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from openai._types import RequestOptions

T = TypeVar("T")

OPENAI = "https://api.openai.com/v1"
MOST_CONNECTIONS = 1000
QUOTED = 80
"""How many characters of something that could not be read a message quotes."""

_STATUS: dict[int, tuple[ErrorType, bool]] = {
    401: ("authentication", False),
    402: ("rate_limited", False),
    403: ("permission", False),
    408: ("model_timeout", True),
    409: ("server_error", True),
    425: ("server_error", True),
    429: ("rate_limited", True),
}
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_NO_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
_NOT_A_MODEL = re.compile(r"\bmodel\b.*(not found|does not exist|not a valid|unknown)|unknown model", re.I | re.S)
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|exceeds? the (available |model's )?(maximum )?context"
    r"|(maximum|max) context (length|size|window)|context (size|length|window|limit)( has been| is|:)? exceeded"
    r"|context the overflows|longer than the (context|model)|(prompt|input|request) (is|was) too (long|large)"
    r"|too many (input )?tokens|reduce the length of the|input tokens? exceed",
    re.IGNORECASE,
)
_TOO_LONG_STATUS = (400, 413, 422, 500)
_KEYS = re.compile(r"\bsk-[\w*-]{8,}")


@dataclass(frozen=True)
class Said:
    """What a server said of an error, whatever shape it gave it."""

    message: str
    code: str = ""
    param: str = ""
    type: str = ""

    @property
    def complaint(self) -> str:
        """All of it as one text, to be searched for the name of what was refused."""
        return " ".join(part for part in (self.message, self.param, self.code) if part)


class RefusedRequestError(ModelError):
    """The server does not take the request as it is; `complaint` is what it said of it."""

    def __init__(self, message: str, *, type: ErrorType, hint: str | None, complaint: str) -> None:
        super().__init__(message, type=type, hint=hint)
        self.complaint = complaint


@dataclass(frozen=True)
class Deadline:
    """A time of the loop's clock, and what to say of a server that lets it pass."""

    at: float
    late: str

    @classmethod
    def after(cls, seconds: float, late: str) -> "Deadline":
        return cls(asyncio.get_running_loop().time() + seconds, late)

    def or_after(self, seconds: float, late: str) -> "Deadline":
        """This one, or the one after `seconds` if that is sooner."""
        return min(self, Deadline.after(seconds, late), key=lambda deadline: deadline.at)


class _WhenNeeded(ssl.SSLContext):
    """The certificates that are trusted, read when something is encrypted: a plain address only redirects to that."""

    def wrap_bio(self, *arguments: Any, **more: Any) -> ssl.SSLObject:
        import httpx2

        return httpx2.create_ssl_context().wrap_bio(*arguments, **more)


@dataclass(frozen=True)
class Server:
    """Where requests go and with which key; `base_url` None is OpenAI's own address.

    `variable` is where the key comes from. `place` tells an address that a person named from one that is the provider's
    own, from one that was found on this machine and from an engine of the run's own. `listing` are headers for the list
    of models besides. `title` is what people know the server by where its address means nothing to them.
    Requests go through `proxy`, an address, but to a server on this machine they go directly.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    variable: str = "OPENAI_API_KEY"
    place: Literal["named", "hosted", "local", "own"] = "named"
    listing: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    title: str = ""

    @property
    def address(self) -> str:
        return (self.base_url or OPENAI).strip().rstrip("/")

    @property
    def shown(self) -> str:
        """The server for people: its title, or its address without what may be a key in it."""
        return self.title or open_part(self.address)

    @property
    def is_openai(self) -> bool:
        host = urlsplit(self.address).hostname or ""
        return host == "api.openai.com" or host.endswith(".api.openai.com")

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, by its address."""
        return on_this_machine(urlsplit(self.address).hostname or "")

    @property
    def is_near(self) -> bool:
        """Whether it is on this machine or in its own network, by its address."""
        return is_near(self.address)

    def client(self, organization: str | None = None, project: str | None = None) -> "AsyncOpenAI":
        """A client that sends what its arguments say; ModelError when the key cannot be one.

        The SDK would add a key, an address, an organisation, a project and an Authorization header of the environment,
        whichever server this is; so none of them is left to it.
        """
        from master_agent.sdk import openai

        key = (self.api_key or "").strip() or "no-key"  # the SDK wants one; servers that need none do not look at it
        if not key.isascii() or not key.isprintable() or " " in key:
            message = f"the key for {self.shown} holds characters that no key has"
            raise ModelError(message, type="authentication", hint=f"Copy the key again into {self.variable}.")
        with importing():  # of what speaks HTTP
            client = openai.AsyncOpenAI(
                api_key=key,
                base_url=self.address,
                max_retries=0,
                default_headers={"Authorization": f"Bearer {key}"},
                http_client=self._http_client(),
            )
        client.organization, client.project = organization, project
        return client

    def _http_client(self) -> "httpx2.AsyncClient":
        """The SDK's own client, whose connections stay open for the next request, as many as may be open at once.

        For a plain address it is made without the 30 ms of reading certificates.
        """
        import httpx2

        from master_agent.sdk import openai

        limits = httpx2.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS)
        if self.proxy is not None and not self.is_here:
            return openai.DefaultAsyncHttpxClient(limits=limits, proxy=self.proxy, trust_env=False)
        if self.address.startswith("http:"):
            return openai.DefaultAsyncHttpxClient(limits=limits, verify=_WhenNeeded(ssl.PROTOCOL_TLS_CLIENT))
        return openai.DefaultAsyncHttpxClient(limits=limits)

    def clean(self, text: str, length: int = 400) -> str:
        """The text on one line, without keys, and no longer than `length`."""
        keys = {(self.api_key or "").strip(), *in_address(self.address), *by_shape("", self.address)}
        for key in sorted(keys, key=len, reverse=True):
            if len(key) >= SHORTEST:  # a shorter one is a word such as "ollama", given because the SDK wants a key
                text = text.replace(key, "[key]")
        line = " ".join(_KEYS.sub("[key]", text).split())
        return line if len(line) <= length else line[: length - 1] + "…"

    def malformed(self, text: str, what: str = "an answer that cannot be read") -> ModelError:
        """The retryable error for a reply that is none, quoting how it begins."""
        quoted = self.clean(text, QUOTED)
        message = f"{self.shown} gave {what}" + (f": {quoted!r}" if quoted else "")
        return ModelError(message, type="malformed_reply", retryable=True, hint=self.hint())

    def hint(self) -> str | None:
        """For answers that look as if another kind of server gave them."""
        if self.is_openai or self.place != "named" or self.address.endswith("/v1"):
            return None
        return "Check OPENAI_BASE_URL: for most servers it ends in /v1."

    async def bounded(self, awaited: Awaitable[T], deadline: Deadline) -> T:
        """What the SDK returns; ModelError when it fails or the deadline passes."""
        try:
            async with asyncio.timeout_at(deadline.at):
                return await awaited
        except TimeoutError as error:
            raise ModelError(f"{self.shown} {deadline.late}", type="model_timeout", retryable=True) from error
        except _failures() as error:
            raise self.error(error) from error

    def error(self, error: Exception) -> ModelError:
        """An exception of the SDK or of its HTTP client as one of ours."""
        import httpx2

        from master_agent.sdk import openai

        match error:
            case openai.APIStatusError():
                return self.of_status(error.response)
            case openai.APIConnectionError() | httpx2.TransportError():
                return self._unreachable(error if isinstance(error, httpx2.TransportError) else error.__cause__)
            case openai.APIError():
                return self.reported(error.body)
            case json.JSONDecodeError():
                return self.malformed(error.doc)
            case UnicodeDecodeError():
                return self.malformed(error.object.decode(errors="replace"))
            case UnicodeEncodeError():
                return ModelError("the request holds characters that cannot be sent", type="bad_request")
            case httpx2.InvalidURL():
                return ModelError(
                    f"{self.shown!r} is no address of a server", type="connection", hint="Check OPENAI_BASE_URL."
                )
        return self.malformed(str(error))

    def _unreachable(self, cause: BaseException | None) -> ModelError:
        import httpx2

        if isinstance(cause, httpx2.TimeoutException) and not isinstance(cause, httpx2.ConnectTimeout):
            return ModelError(f"{self.shown} did not answer in time", type="model_timeout", retryable=True)
        why = self.clean(str(cause or "")) or "the connection broke off"
        # Neither a wrong scheme nor a certificate that is not trusted gets better by asking again.
        lasting = isinstance(cause, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError) or "CERTIFICATE" in why
        hint = "Is the server running? Check OPENAI_BASE_URL."
        if self.is_openai or self.place == "hosted":
            hint = "Is this machine online?"
        elif self.place in ("local", "own"):
            hint = "Is the server still running?" if self.place == "local" else ""
        if "CERTIFICATE" in why:
            hint = "Name the certificates to be trusted in SSL_CERT_FILE."
        told = f"no connection to {self.shown}: {why}"
        return ModelError(told, type="connection", retryable=not lasting, hint=hint or None)

    def of_status(self, response: "httpx2.Response") -> ModelError:
        """An answer that is not 200 as an error: its type, whether another try can help, and when."""
        status = response.status_code
        said = read_said(response.text)
        type_, retryable = _STATUS.get(status, ("server_error", True) if status >= 500 else ("bad_request", False))
        told = said.message or ("" if said.code else response.reason_phrase)
        message = f"{self.shown} answered {status}: {self.clean(told)}"
        if status in _TOO_LONG_STATUS and _TOO_LONG.search(said.complaint):
            return self.too_long(message, said.complaint)
        if status in (400, 422):
            about_model = _NOT_A_MODEL.search(said.complaint) is not None
            refused: ErrorType = "model_not_found" if about_model else "bad_request"
            hint = _hint(refused, self)
            return RefusedRequestError(message, type=refused, hint=hint, complaint=said.complaint)
        if status == 404 and (_NO_MODEL.search(said.complaint) or said.code == "model_not_found"):
            type_ = "model_not_found"
        if 300 <= status < 400:
            message = f"{self.shown} sends requests on to {self.clean(response.headers.get('location', 'elsewhere'))}"
        if said.code in _NO_MONEY or said.type in _NO_MONEY:
            retryable = False
        hint = _hint(type_, self, retryable=retryable)
        after = retry_after(response.headers, datetime.now(UTC)) if retryable else None
        return ModelError(message, type=type_, retryable=retryable, retry_after=after, hint=hint)

    def too_long(self, message: str, complaint: str = "") -> ModelError:
        """The error for a request that is longer than the model can read."""
        more = "let its server keep a larger context"
        if self.place == "own":
            more = "let this one read more, as far as its memory goes (--context-size TOKENS)"
        return RefusedRequestError(
            message,
            type="context_exceeded",
            hint=f"Name a model that reads more at once, {more}, or ask for less in one step.",
            complaint=complaint,
        )

    def reported(self, body: object) -> ModelError:
        """An error that came with status 200, in a stream or instead of a completion."""
        said = _said(body)
        told = f"{self.shown} reported: {self.clean(said.message)}"
        if _TOO_LONG.search(said.complaint):
            return self.too_long(told, said.complaint)
        status = int(said.code) if said.code.isdecimal() else 500
        type_, retryable = _STATUS.get(status, ("server_error", True) if status >= 500 else ("bad_request", False))
        if "rate_limit" in said.code + said.type:
            type_ = "rate_limited"
        if said.code in _NO_MONEY or said.type in (*_NO_MONEY, "invalid_request_error"):
            type_, retryable = ("bad_request" if said.type == "invalid_request_error" else "rate_limited"), False
        return ModelError(told, type=type_, retryable=retryable, hint=_hint(type_, self, retryable=retryable))


def request_options(timeout: float) -> "RequestOptions":
    """One request's options: nothing is tried again and no redirect followed behind our back; waits in seconds."""
    from master_agent.sdk import openai

    return {"max_retries": 0, "follow_redirects": False, "timeout": openai.Timeout(timeout, connect=min(10.0, timeout))}


def usage_of(data: object) -> Usage | None:
    """What a server reported of one call, in the words of Chat Completions or of Responses; None if nothing at all."""
    if not isinstance(data, Mapping):
        return None

    def number(within: object, *names: str) -> int | None:
        values = [within.get(name) for name in names] if isinstance(within, Mapping) else []
        return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)

    read = number(data, "prompt_tokens", "input_tokens")
    written = number(data, "completion_tokens", "output_tokens")
    of_input = data.get("prompt_tokens_details") or data.get("input_tokens_details")
    of_output = data.get("completion_tokens_details") or data.get("output_tokens_details")
    return Usage(
        calls=1,
        input_tokens=read,
        cached_tokens=number(of_input, "cached_tokens"),
        cache_write_tokens=number(of_input, "cache_write_tokens"),
        output_tokens=written,
        reasoning_tokens=number(of_output, "reasoning_tokens"),
        complete=read is not None and written is not None,
    )


def sendable(text: str) -> str:
    """The text as UTF-8 can carry it: half a surrogate pair, from a file's name or a cut reply, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or Retry-After as seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        at = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def read_said(text: str) -> Said:
    """What the body of an error says: OpenAI's shape, its many imitations, or plain text."""
    try:
        body = json.loads(text)
    except ValueError:
        return Said(text[:QUOTED])
    return _said(body.get("error") or body if isinstance(body, Mapping) else body)


def _said(error: object) -> Said:
    if not isinstance(error, Mapping):
        return Said(error if isinstance(error, str) else json.dumps(error, ensure_ascii=False))
    message = error.get("message") or error.get("detail") or error.get("error")
    if isinstance(message, list):  # FastAPI lists its faults; what it quotes of the input is no part of the complaint
        message = "; ".join(_fault(item) for item in message)
    if not isinstance(message, str):
        message = json.dumps(message or dict(error), ensure_ascii=False)
    code, param, kind = (str(error.get(name) or "") for name in ("code", "param", "type"))
    return Said(message, code, param, kind)


def _fault(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    return f"{'.'.join(str(part) for part in item.get('loc') or ())}: {item.get('msg')}"


def _hint(type_: ErrorType, server: Server, *, retryable: bool = False) -> str | None:
    match type_:
        case "authentication" if server.api_key:
            return f"The server does not take this key: check {server.variable}."
        case "authentication" if server.place == "local":
            return f"It wants a key: name it by OPENAI_BASE_URL={server.shown}, with its key in OPENAI_API_KEY."
        case "authentication":
            return f"Put {server.variable}=… in .env or in the environment."
        case "permission":
            return f"This key may not do that: check what {server.variable} belongs to, or name another model."
        case "model_not_found":
            return "Name a model that this server offers: master-agent models lists them."
        case "bad_request":
            return server.hint()
        case "rate_limited" if not retryable:
            return "The account has no credit left: see the plan and the bills at the provider."
    return None


def _failures() -> tuple[type[Exception], ...]:
    """What the SDK raises: its own errors, and what it lets through of its HTTP client and of reading JSON."""
    import httpx2

    from master_agent.sdk import openai

    return (
        openai.OpenAIError,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        httpx2.StreamError,
        ValueError,
        RecursionError,
    )
