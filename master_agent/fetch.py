"""The one guarded HTTP client for everything that is not a model: from an address to its bytes, or a refusal.

The address is checked when the connection is made, not when the name is read: a redirect and a name that changes its
address meanwhile come by the same check. Nothing of the surroundings counts: no cookie, no netrc, no proxy but
the one that is given. Through that one the names are looked up and the addresses are checked where it stands, not here.
"""

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import JsonValue

from master_agent import __version__
from master_agent.errors import FetchRefusedError, ToolError

if TYPE_CHECKING:
    import httpcore
    import httpx

    from master_agent.guard import Guard  # with httpcore, when something is fetched: the start must not wait for them

DOWNLOAD_LIMIT = 20 * 1024 * 1024  # bytes
ANSWER_LIMIT = 10 * 1024 * 1024  # bytes
REDIRECTS = 5


@dataclass(frozen=True)
class Download:
    """What an address holds, the media type that its server names, and where it was in the end."""

    content: bytes
    media_type: str
    url: str


@dataclass(frozen=True)
class Answer:
    """What a server answered; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Arriving:
    """An answer whose body is still on its way; the names of the headers are in lower case."""

    def __init__(self, response: "httpcore.Response", url: "httpx.URL", limit: int) -> None:
        self.status = response.status
        self.headers = _named(response)
        self._response, self._url, self._limit = response, url, limit

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; FetchRefusedError when it is larger than was asked for, or packed."""
        async for piece in _pieces(self._response, self._url, self._limit):
            yield piece


class UnreachableError(ToolError):
    """A server that could not be reached, fell silent or broke off. `sent`: it may have got the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.retryable = True
        self.sent = sent


class Fetcher:
    """Fetches from public addresses, and from the private ones that are allowed by name.

    `allowed_hosts` are those of the Guard. `timeout` is in seconds, for a connection and for a silence. `proxy` is the
    address of an HTTP proxy; loopback hosts that are allowed are connected to directly all the same.
    """

    def __init__(self, allowed_hosts: Collection[str] = (), timeout: float = 30.0, *, proxy: str | None = None) -> None:
        self._allowed = tuple(allowed_hosts)
        self._timeout = timeout
        self._proxy = proxy
        self._pools: dict[bool, httpcore.AsyncConnectionPool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes what is open; a later fetch opens anew."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    async def download(
        self,
        url: str,
        *,
        limit: int = DOWNLOAD_LIMIT,
        timeout: float = 60.0,  # noqa: ASYNC109 - one deadline over all redirects
        types: Collection[str] | None = None,
    ) -> Download:
        """What the address holds, of at most `limit` bytes and within `timeout` seconds, over at most 5 redirects.

        `types` are the media types it may have by its header, or beginnings of them such as `image/`.
        FetchRefusedError where it may not be fetched, UnreachableError where its server cannot be reached, ToolError
        (`retryable` where that may help) where its server refuses.
        """
        place = _parsed(url)
        async with _deadline(timeout, place):
            for _ in range(REDIRECTS + 1):
                async with self._opened("GET", place, {}, None) as response:
                    if not (onward := _onward(response)):
                        return await _downloaded(response, place, limit, types)
                place = _parsed(onward, base=place)
        raise _endless(url)

    @asynccontextmanager
    async def stream(
        self, url: str, *, limit: int, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Arriving]:
        """What the address answers, whatever its status, for a body that is too large for the memory.

        Of at most `limit` bytes, over at most 5 redirects, each of which gets the headers too: to another host only
        those that ask for a part. It may take as long as it likes, but not be silent for longer than `timeout`. Errors
        as those of `download`.
        """
        place, sent = _parsed(url), dict(headers or {})
        for _ in range(REDIRECTS + 1):
            async with self._opened("GET", place, sent, None) as response:
                if not (onward := _onward(response)):
                    yield Arriving(response, place, limit)
                    return
            before, place = place, _parsed(onward, base=place)
            if (before.scheme, before.host, before.port) != (place.scheme, place.host, place.port):
                sent = {name: value for name, value in sent.items() if name.lower() in ("range", "if-range", "accept")}
        raise _endless(url)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: JsonValue = None,
        timeout: float = 60.0,  # noqa: ASYNC109 - callers differ in how long an answer may take
    ) -> Answer:
        """A server's answer, whatever its status. No redirect is followed: a token goes to no other host."""
        place = _parsed(url)
        content = None if json is None else jsonlib.dumps(json).encode()
        typed = {} if content is None else {"content-type": "application/json"}
        async with (
            _deadline(timeout, place),
            self._opened(method, place, {**typed, **(headers or {})}, content) as response,
        ):
            body = b"" if method == "HEAD" else await _body(response, place, ANSWER_LIMIT)
            return Answer(status=response.status, headers=_named(response), body=body)

    @asynccontextmanager
    async def _opened(
        self, method: str, url: "httpx.URL", headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator["httpcore.Response"]:
        import httpcore

        from master_agent.guard import reason

        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        asked = {
            "user-agent": f"master-agent/{__version__}",
            "host": url.netloc.decode("ascii"),
            "accept": "*/*",
            "accept-encoding": "identity",  # so that the size limit counts what arrives
            **headers,
        }
        silence = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)
        try:
            pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in asked.items()]
            async with self._connections(url).stream(
                method, target, headers=pairs, content=content, extensions={"timeout": silence}
            ) as response:
                yield response
        except (UnicodeEncodeError, httpcore.LocalProtocolError):
            # The error's own words may quote a token.
            raise ToolError(f"the request to {url.host} cannot be sent: a header holds what no header may") from None
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.ProxyError) as error:
            way = " through the proxy" if self._through_proxy(url) else ""
            raise UnreachableError(f"{url.host} cannot be reached{way}: {reason(error)}", sent=False) from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise UnreachableError(f"{url.host} broke off or fell silent: {reason(error)}", sent=True) from None

    def _through_proxy(self, url: "httpx.URL") -> bool:
        return self._proxy is not None and not self._guard.passes_by_a_proxy(url.host)

    @cached_property
    def _guard(self) -> "Guard":
        import httpcore

        from master_agent.guard import Guard

        return Guard(self._allowed, httpcore.AnyIOBackend())

    def _connections(self, url: "httpx.URL") -> "httpcore.AsyncConnectionPool":
        import httpcore
        import httpx

        through_proxy = self._through_proxy(url)
        if through_proxy:
            self._guard.check_name(url.host, url.port or (443 if url.scheme == "https" else 80))
        if through_proxy not in self._pools:
            common: Any = {"ssl_context": httpx.create_ssl_context(), "max_connections": 20, "keepalive_expiry": 5.0}
            self._pools[through_proxy] = (
                _proxied(self._proxy or "", common)
                if through_proxy
                else httpcore.AsyncConnectionPool(network_backend=self._guard, **common)
            )
        return self._pools[through_proxy]


def _proxied(address: str, common: Any) -> "httpcore.AsyncHTTPProxy":
    """Connections through a proxy; a user name and password in its address go to it and nowhere else."""
    import httpcore
    import httpx

    url = httpx.URL(address)
    proxy = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    return httpcore.AsyncHTTPProxy(
        proxy,
        proxy_auth=(url.username.encode(), url.password.encode()) if url.userinfo else None,
        network_backend=httpcore.AnyIOBackend(),
        **common,
    )


async def _downloaded(
    response: "httpcore.Response", url: "httpx.URL", limit: int, types: Collection[str] | None
) -> Download:
    if not 200 <= response.status < 300:
        error = ToolError(f"{_shown(url)} was answered with HTTP status {response.status}")
        error.retryable = response.status == 429 or response.status >= 500
        raise error
    kind = _header(response, b"content-type").partition(";")[0].strip().lower() or "application/octet-stream"
    if types is not None and not any(
        kind == known or (known[-1:] == "/" and kind.startswith(known)) for known in types
    ):
        raise FetchRefusedError(f"{_shown(url)} is {kind}, not {_list(types)}")
    return Download(content=await _body(response, url, limit), media_type=kind, url=str(url))


async def _body(response: "httpcore.Response", url: "httpx.URL", limit: int) -> bytes:
    """The body whole; refused when it is too large or packed in a way that was not asked for."""
    content = bytearray()
    async for piece in _pieces(response, url, limit):
        content += piece
    return bytes(content)


async def _pieces(response: "httpcore.Response", url: "httpx.URL", limit: int) -> AsyncIterator[bytes]:
    encoding = _header(response, b"content-encoding").strip().lower()
    if encoding not in ("", "identity"):
        raise FetchRefusedError(f"{_shown(url)} came packed as {encoding}, which was not asked for")
    declared = _header(response, b"content-length")
    if declared.isdecimal() and int(declared) > limit:
        raise FetchRefusedError(f"{_shown(url)} holds {int(declared):,} bytes; at most {limit:,} are fetched")
    count = 0
    async for piece in response.aiter_stream():
        count += len(piece)
        if count > limit:
            raise FetchRefusedError(f"{_shown(url)} holds more than {limit:,} bytes; no more are fetched")
        yield piece


@asynccontextmanager
async def _deadline(seconds: float, url: "httpx.URL") -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise UnreachableError(f"{url.host} did not answer whole within {seconds:g} seconds", sent=True) from None


def _parsed(url: str, base: "httpx.URL | None" = None) -> "httpx.URL":
    import httpx

    try:
        parsed = httpx.URL(url) if base is None else base.join(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise FetchRefusedError(f'"{url[:120]}" is not an address: {error}') from None
    if parsed.scheme not in ("http", "https"):
        raise FetchRefusedError(f'"{url[:120]}" may not be fetched: only http and https addresses may')
    if not parsed.host:
        raise FetchRefusedError(f'"{url[:120]}" names no host')
    if parsed.userinfo:
        raise FetchRefusedError(f"{_shown(parsed)} may not be fetched: an address may not hold a user name or password")
    return parsed


def _shown(url: "httpx.URL") -> str:
    """The address for a message: without what may be secret in it."""
    plain = str(url.copy_with(query=None, fragment=None, userinfo=b""))
    return plain if len(plain) <= 120 else plain[:119] + "…"


def _header(response: "httpcore.Response", name: bytes) -> str:
    return next((value.decode("latin-1") for given, value in response.headers if given.lower() == name), "")


def _named(response: "httpcore.Response") -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _onward(response: "httpcore.Response") -> str:
    """Where a redirect leads; empty where the answer is none."""
    return _header(response, b"location") if response.status in (301, 302, 303, 307, 308) else ""


def _endless(url: str) -> FetchRefusedError:
    return FetchRefusedError(f"{_shown(_parsed(url))} leads to more than {REDIRECTS} redirects")


def _list(values: Collection[object]) -> str:
    return ", ".join(map(str, values))
