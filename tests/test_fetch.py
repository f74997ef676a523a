"""The guarded HTTP client: which addresses it connects to, and what it takes from them."""

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore
import pytest

from master_agent.errors import FetchRefusedError, ToolError
from master_agent.fetch import Answer, Download, Fetcher, UnreachableError
from master_agent.guard import Guard, is_public

PUBLIC = "93.184.215.14"


class Server(ThreadingHTTPServer):
    """A loopback server; each path has its own behaviour."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the end of a silence

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path, headers, body))
        name, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        behaviour: Callable[[str], None] = getattr(self, f"answer_{name}")
        behaviour(rest)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def answer_page(self, _: str) -> None:
        self.say(200, b"hello", content_type="text/html; charset=utf-8", set_cookie="a=b")

    def answer_status(self, status: str) -> None:
        self.say(int(status), b"no", x_reason="busy")

    def answer_to(self, where: str) -> None:
        self.say(302, location=where)

    def answer_hops(self, left: str) -> None:
        self.say(302, location=f"/hops/{int(left) - 1}") if int(left) else self.say(200, b"there")

    def answer_declared(self, size: str) -> None:
        self.say(200, content_length=size)

    def answer_endless(self, _: str) -> None:
        self.chunks(b"x" * 65536, 0.0)

    def answer_drip(self, _: str) -> None:
        self.chunks(b"x", 0.02)

    def chunks(self, content: bytes, pause: float) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(2_000):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
                time.sleep(pause)
        except OSError:
            self.close_connection = True

    def answer_packed(self, _: str) -> None:
        self.say(200, gzip.compress(b"0" * 10_000_000), content_encoding="gzip")

    def answer_silence(self, _: str) -> None:
        time.sleep(1.0)
        self.close_connection = True

    def answer_break(self, _: str) -> None:
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(
    url: str, allowed: tuple[str, ...] = ("127.0.0.1",), timeout: float = 60.0, silence: float = 30.0, **options: Any
) -> Download:
    async def work() -> Download:
        async with Fetcher(allowed, timeout=silence) as fetcher:
            return await fetcher.download(url, timeout=timeout, **options)

    return asyncio.run(work())


def ask(url: str, method: str = "GET", **options: Any) -> Answer:
    async def work() -> Answer:
        async with Fetcher(["127.0.0.1"]) as fetcher:
            return await fetcher.request(method, url, **options)

    return asyncio.run(work())


class Recorder(httpcore.AsyncNetworkBackend):
    """Notes where a connection would go, and makes none."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.connected: list[tuple[str, int]] = []
        self.broken = broken

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if host in self.broken:
            raise httpcore.ConnectError("refused")
        return httpcore.AsyncMockStream([])


def names(monkeypatch: pytest.MonkeyPatch, table: dict[str, list[list[str]]]) -> list[str]:
    """Stands in for the machine's resolver; each look-up of a name takes its next list of addresses."""
    asked: list[str] = []

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answers = table[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_of_the_open_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_an_address_of_the_open_internet_is_public_however_it_is_wrapped(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1"]
)
def test_a_server_on_this_machine_is_not_asked_whatever_it_is_called(server: Server, host: str) -> None:
    with pytest.raises(ToolError):  # "cannot be reached" where the machine does not know such a spelling
        fetch(f"http://{host}:8080/page", allowed=())
    with pytest.raises(ToolError):
        fetch(f"http://{host}:{server.server_port}/page", allowed=())
    assert server.requests == []


def test_a_refusal_names_the_host_and_the_reason() -> None:
    with pytest.raises(FetchRefusedError, match=r"127\.0\.0\.1 may not be fetched from: it is not a public address"):
        fetch("http://127.0.0.1:8080/page", allowed=())


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"both": [[PUBLIC, "10.0.0.1"]]})
    recorder = Recorder()
    with pytest.raises(FetchRefusedError, match=r"both \(10\.0\.0\.1\)"):
        asyncio.run(Guard((), recorder).connect_tcp("both", 80))
    assert recorder.connected == []


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, {"rebinding": [[PUBLIC], ["127.0.0.1"]]})
    recorder = Recorder()

    async def work() -> None:
        guard = Guard((), recorder)
        await guard.connect_tcp("rebinding", 443)
        assert asked == ["rebinding"]
        with pytest.raises(FetchRefusedError):
            await guard.connect_tcp("rebinding", 443)

    asyncio.run(work())
    assert recorder.connected == [(PUBLIC, 443)]


def test_the_next_address_is_tried_when_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"two": [[PUBLIC, "8.8.8.8"]]})
    recorder = Recorder(broken=(PUBLIC,))
    asyncio.run(Guard((), recorder).connect_tcp("two", 443))
    assert recorder.connected == [(PUBLIC, 443), ("8.8.8.8", 443)]


def test_a_slow_resolver_is_not_waited_for_longer_than_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.5))
    started = time.monotonic()

    async def work() -> None:
        with pytest.raises(httpcore.ConnectTimeout):
            await Guard((), Recorder()).connect_tcp("slow", 443, timeout=0.05)
        assert time.monotonic() - started < 0.4

    asyncio.run(work())


@pytest.mark.parametrize("port", [22, 25, 6379, 8081])
def test_only_the_ports_of_the_web_are_connected_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    names(monkeypatch, {"name": [[PUBLIC]]})
    recorder = Recorder()
    with pytest.raises(FetchRefusedError, match=f"name:{port}"):
        asyncio.run(Guard((), recorder).connect_tcp("name", port))
    for good in (80, 443, 8080, 8443):
        asyncio.run(Guard((), recorder).connect_tcp("name", good))
    assert [connected for _, connected in recorder.connected] == [80, 443, 8080, 8443]


@pytest.mark.parametrize(
    ("entry", "host", "port", "reached"),
    [
        ("intranet", "intranet", 443, True),
        ("Intranet", "intranet", 443, True),
        ("intranet", "intranet.", 443, True),
        ("intranet", "intranet", 9000, False),
        ("intranet:9000", "intranet", 9000, True),
        ("intranet:9000", "intranet", 443, False),
        ("intranet", "other", 443, False),
        ("other", "intranet", 443, False),
        ("10.0.0.1", "intranet", 443, False),
        ("127.0.0.1", "127.0.0.1", 4510, True),
        ("127.0.0.1:4510", "127.0.0.1", 4510, True),
        ("127.0.0.1:4510", "127.0.0.1", 4511, False),
        ("127.0.0.1:4510", "127.0.0.1", 8080, False),
        ("localhost", "localhost", 4510, True),
        ("[::1]:4510", "::1", 4510, True),
        ("::1", "::1", 4510, True),
    ],
)
def test_what_is_allowed_by_name_is_reached_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, entry: str, host: str, port: int, reached: bool
) -> None:
    private = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}
    names(monkeypatch, {host: [[private.get(host, "10.0.0.1")]]})
    recorder = Recorder()

    async def work() -> None:
        await Guard([entry], recorder).connect_tcp(host, port)

    if reached:
        asyncio.run(work())
    else:
        with pytest.raises(FetchRefusedError):
            asyncio.run(work())
    assert bool(recorder.connected) is reached


def test_unix_sockets_are_never_connected_to() -> None:
    with pytest.raises(FetchRefusedError):
        asyncio.run(Guard((), Recorder()).connect_unix_socket("/run/docker.sock"))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "//a/b", "page", "", "http://", "data:,x", "gopher://a"]
)
def test_only_web_addresses_are_fetched(url: str) -> None:
    with pytest.raises(FetchRefusedError):
        fetch(url)


def test_an_address_with_a_password_is_refused_and_the_password_not_repeated() -> None:
    with pytest.raises(FetchRefusedError) as caught:
        fetch("http://user:hunter2@127.0.0.1/")
    assert "hunter2" not in caught.value.message


# Downloads


def test_a_download_gives_the_bytes_and_the_type(server: Server) -> None:
    assert fetch(f"{server.url}/page") == Download(b"hello", "text/html", f"{server.url}/page")
    (_, _, headers, _), *more = server.requests
    assert not more
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == f"127.0.0.1:{server.server_port}"
    assert headers["user-agent"].startswith("master-agent/")


def test_proxies_and_passwords_of_the_surroundings_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert fetch(f"{server.url}/page").content == b"hello"
    assert "authorization" not in server.requests[0][2]


def test_cookies_are_not_kept(server: Server) -> None:
    async def work() -> None:
        async with Fetcher(["127.0.0.1"]) as fetcher:
            await fetcher.download(f"{server.url}/page")
            await fetcher.download(f"{server.url}/page")

    asyncio.run(work())
    assert all("cookie" not in headers for _, _, headers, _ in server.requests)


def test_redirects_are_followed_up_to_five(server: Server) -> None:
    got = fetch(f"{server.url}/hops/5")
    assert (got.content, got.url) == (b"there", f"{server.url}/hops/0")
    with pytest.raises(FetchRefusedError, match="more than 5 redirects"):
        fetch(f"{server.url}/hops/6")


@pytest.mark.parametrize("target", ["http://10.0.0.1/secret", "http://[::1]:8080/", "http://169.254.169.254/latest"])
def test_a_redirect_to_a_private_address_is_refused(server: Server, target: str) -> None:
    with pytest.raises(FetchRefusedError, match="not a public address"):
        fetch(f"{server.url}/to/{target}")


def test_a_redirect_to_a_file_is_refused(server: Server) -> None:
    with pytest.raises(FetchRefusedError, match="only http and https"):
        fetch(f"{server.url}/to/file:///etc/passwd")


def test_a_body_that_is_declared_too_large_is_not_read(server: Server) -> None:
    with pytest.raises(FetchRefusedError, match="1,000,000 bytes; at most 1,000"):
        fetch(f"{server.url}/declared/1000000", limit=1_000)


def test_a_body_that_turns_out_too_large_is_cut_off(server: Server) -> None:
    with pytest.raises(FetchRefusedError, match="more than 100,000 bytes"):
        fetch(f"{server.url}/endless", limit=100_000)


def test_a_body_that_drips_ends_at_the_deadline(server: Server) -> None:
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"within 0\.2 seconds"):
        fetch(f"{server.url}/drip", timeout=0.2)
    assert time.monotonic() - started < 2


def test_a_server_that_says_nothing_is_left(server: Server) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 broke off or fell silent") as caught:
        fetch(f"{server.url}/silence", silence=0.1)
    assert caught.value.sent


def test_a_packed_body_that_was_not_asked_for_is_refused(server: Server) -> None:
    with pytest.raises(FetchRefusedError, match="gzip"):
        fetch(f"{server.url}/packed")


def test_only_the_types_that_were_asked_for_are_taken(server: Server) -> None:
    assert fetch(f"{server.url}/page", types=("image/", "text/html")).content == b"hello"
    with pytest.raises(FetchRefusedError, match="text/html, not image/"):
        fetch(f"{server.url}/page", types=("image/",))


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (429, True), (503, True)])
def test_a_refusing_server_is_quoted(server: Server, status: int, retryable: bool) -> None:
    with pytest.raises(ToolError, match=f"status {status}") as caught:
        fetch(f"{server.url}/status/{status}?signature=hunter2")
    assert caught.value.retryable is retryable
    assert "hunter2" not in caught.value.message


def test_a_server_that_is_not_there_is_named_with_the_reason() -> None:
    with socket.socket() as held:  # bound, but not listening
        held.bind(("127.0.0.1", 0))
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 cannot be reached: .*refused") as caught:
            fetch(f"http://127.0.0.1:{held.getsockname()[1]}/")
    assert not caught.value.sent
    assert caught.value.retryable


def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError, match="nowhere cannot be reached: its name is not known"):
        fetch("http://nowhere/")


# Requests


def test_a_request_sends_json_and_gives_the_answer_whatever_its_status(server: Server) -> None:
    answer = ask(f"{server.url}/status/422", "POST", headers={"authorization": "Bearer x"}, json={"a": [1]})
    assert (answer.status, answer.body, answer.headers["x-reason"]) == (422, b"no", "busy")
    method, _, headers, body = server.requests[0]
    assert (method, json.loads(body), headers["authorization"]) == ("POST", {"a": [1]}, "Bearer x")
    assert headers["content-type"] == "application/json"


def test_a_request_follows_no_redirect(server: Server) -> None:
    answer = ask(f"{server.url}/to/{server.url}/page", headers={"authorization": "Bearer x"})
    assert answer.status == 302
    assert len(server.requests) == 1


def test_a_request_that_was_broken_off_may_have_arrived(server: Server) -> None:
    with pytest.raises(UnreachableError) as caught:
        ask(f"{server.url}/break", "POST", json={})
    assert caught.value.sent


def test_an_answer_without_end_is_cut_off(server: Server) -> None:
    with pytest.raises(FetchRefusedError, match="more than 10,485,760 bytes"):
        ask(f"{server.url}/endless")


@pytest.mark.parametrize("token", ["hunter2\nx: y", "hünter2", "hunter2\0"])
def test_a_token_that_no_header_may_hold_is_not_repeated(server: Server, token: str) -> None:
    with pytest.raises(ToolError, match="a header") as caught:
        ask(f"{server.url}/page", headers={"authorization": f"Bearer {token}"})
    assert "nter2" not in caught.value.message
    assert server.requests == []


def test_a_closed_fetcher_can_be_used_again_and_leaves_nothing_open(server: Server) -> None:
    async def work() -> None:
        fetcher = Fetcher(["127.0.0.1"])
        for _ in range(2):
            await fetcher.download(f"{server.url}/page")
            await fetcher.close()
        await fetcher.close()

    asyncio.run(work())
    assert len(server.requests) == 2


def test_importing_the_client_does_not_load_the_http_libraries() -> None:
    code = "import sys, master_agent.fetch; print([n for n in ('httpx', 'httpcore', 'anyio') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
