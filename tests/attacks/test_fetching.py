"""Addresses that a page or a model suggests: what a plain client falls for, and what the guarded one does instead."""

import asyncio
import contextlib
import gzip
import ipaddress
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from master_agent.errors import FetchRefusedError, ToolError
from master_agent.fetch import Answer, Fetcher, UnreachableError

SECRET, TOKEN = b"internal-Xe5KvR8nYd2WqL7c", "token-Mz3PbF6jSg9HtC1u"


class Site(ThreadingHTTPServer):
    """A server that attacks; `internal` is where another one holds a secret."""

    daemon_threads = True
    internal = ""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), Handler)
        self.tokens: list[str | None] = []
        self.url = f"http://{address}:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("authorization"))
        match self.path:
            case "/redirect":
                self.say(302, location=f"{self.server.internal}/secret")
            case "/bomb":
                self.say(200, gzip.compress(bytes(20_000_000)), content_encoding="gzip")
            case "/drip":
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):  # whoever has enough of it hangs up
                    for _ in range(30):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
            case _:
                self.say(200, SECRET)

    def say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site() -> Iterator[Site]:
    outside, internal = Site(), Site()
    outside.internal = internal.url
    yield outside
    outside.end()
    internal.end()


def plainly(url: str, headers: dict[str, str] | None = None) -> bytes:
    """What a client gets that thinks of nothing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=0.5) as answer:
        content: bytes = answer.read()
    return content


def guarded(url: str, allowed: str, **options: Any) -> bytes:
    async def work() -> bytes:
        async with Fetcher([allowed]) as fetcher:
            return (await fetcher.download(url, **options)).content

    return asyncio.run(work())


def test_a_redirect_leads_to_no_private_address(site: Site) -> None:
    assert plainly(f"{site.url}/redirect") == SECRET

    with pytest.raises(FetchRefusedError):
        guarded(f"{site.url}/redirect", f"127.0.0.1:{site.server_port}")


def test_a_token_goes_along_with_no_redirect() -> None:
    first, second = Site(), Site()
    first.internal = second.url
    assert plainly(f"{first.url}/redirect", {"Authorization": f"Bearer {TOKEN}"}) == SECRET
    assert second.tokens == [f"Bearer {TOKEN}"]

    async def asked() -> Answer:
        async with Fetcher(["127.0.0.1"]) as fetcher:
            return await fetcher.request("GET", f"{first.url}/redirect", headers={"authorization": f"Bearer {TOKEN}"})

    async def streamed() -> bytes:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with (
            Fetcher(["127.0.0.1"]) as fetcher,
            fetcher.stream(f"{first.url}/redirect", limit=100, headers=headers) as arriving,
        ):
            return b"".join([piece async for piece in arriving.pieces()])

    assert asyncio.run(asked()).status == 302
    assert second.tokens == [f"Bearer {TOKEN}"]
    assert asyncio.run(streamed()) == SECRET
    assert (first.tokens[-1], second.tokens[1:]) == (f"Bearer {TOKEN}", [None])
    first.end()
    second.end()


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        internal = Site(f"127.77.{os.getpid() % 250}.{1 + os.getpid() // 250 % 250}", 8080)
    except OSError:
        pytest.skip("rebinding: this system has only one loopback address")
    answers: list[str] = []

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        answers.append("93.184.215.14" if len(answers) % 2 == 0 else internal.server_address[0])  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[-1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    checked = str(socket.getaddrinfo("rebinding.example", 8080)[0][4][0])
    assert ipaddress.ip_address(checked).is_global  # who checks first and fetches then…
    assert plainly("http://rebinding.example:8080/secret") == SECRET  # …has been had

    for _ in range(4):
        with pytest.raises(ToolError):  # the public address, which no test may reach; or the private one, refused
            guarded("http://rebinding.example:8080/secret", "nowhere", timeout=5)
    assert len(internal.tokens) == 1
    assert len(answers) == 6
    internal.end()


def test_a_bomb_is_not_unpacked(site: Site) -> None:
    unpacked = httpx.get(f"{site.url}/bomb", trust_env=False).content
    assert len(unpacked) == 20_000_000

    with pytest.raises(FetchRefusedError, match="packed as gzip"):
        guarded(f"{site.url}/bomb", "127.0.0.1", limit=1_000_000)


def test_a_slow_drip_ends_at_the_deadline(site: Site) -> None:
    assert len(plainly(f"{site.url}/drip")) == 30  # each byte came within the timeout of half a second

    with pytest.raises(UnreachableError, match="did not answer whole"):
        guarded(f"{site.url}/drip", "127.0.0.1", timeout=0.5)
