"""A proxy that the user named: downloads and models go through it, its password goes to it and nowhere else."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from master_agent.errors import FetchRefusedError
from master_agent.fetch import Fetcher, UnreachableError
from tests.attacks.canary import Canary
from tests.conftest import Cli

PASSWORD = Canary("canary-Lb3WyE9pOz5TnI0d")


class Proxy(ThreadingHTTPServer):
    """A proxy that answers by itself, whoever was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://me:{PASSWORD.value}@127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, self.headers.get("proxy-authorization")))
        message = {"role": "assistant", "content": "Hello."}
        body = json.dumps({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(403 if self.command == "CONNECT" else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_CONNECT = do_GET  # noqa: N815  the names are the library's

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def download(url: str, proxy: str, *allowed: str) -> bytes:
    async def work() -> bytes:
        async with Fetcher(allowed, proxy=proxy) as fetcher:
            return (await fetcher.download(url, timeout=10)).content

    return asyncio.run(work())


def test_a_name_is_looked_up_by_the_proxy_and_not_here(proxy: Proxy) -> None:
    assert b"Hello." in download("http://nowhere.invalid/a", proxy.address)

    secret = base64.b64encode(f"me:{PASSWORD.value}".encode()).decode()
    assert proxy.asked == [("GET", "http://nowhere.invalid/a", f"Basic {secret}")]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]", "a.localhost", "x:22"],
)
def test_what_can_be_seen_here_is_refused_before_the_proxy_is_asked(proxy: Proxy, host: str) -> None:
    with pytest.raises(FetchRefusedError):
        download(f"http://{host}/a", proxy.address)
    assert proxy.asked == []


def test_a_server_of_this_machine_that_is_allowed_is_spoken_to_directly(proxy: Proxy) -> None:
    with Proxy() as own:
        thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        download(f"http://127.0.0.1:{own.server_port}/a", proxy.address, "127.0.0.1")
        own.shutdown()
        thread.join()
        assert own.asked == [("GET", "/a", None)]
    assert proxy.asked == []


def test_what_the_proxy_refuses_is_told_without_its_password(proxy: Proxy) -> None:
    with pytest.raises(UnreachableError, match=r"nowhere\.invalid cannot be reached through the proxy") as caught:
        download("https://nowhere.invalid/a", proxy.address)
    assert proxy.asked[0][:2] == ("CONNECT", "nowhere.invalid:443")
    assert not PASSWORD.within(str(caught.value).encode())


def test_models_are_asked_through_it_too_and_nothing_keeps_its_password(cli: Cli, proxy: Proxy) -> None:
    flags = ("--openai-base-url=http://models.invalid/v1", "--model=m", f"--proxy={proxy.address}")
    ran = cli("agents", "run", "code", "Greet", *flags, "--verbose", "--debug")
    doctor = cli("doctor", *flags[:2], env={"MASTER_AGENT_PROXY": proxy.address})

    assert (ran.code, "Hello." in ran.out) == (0, True), ran.err
    assert proxy.asked[0][:2] == ("POST", "http://models.invalid/v1/chat/completions")
    assert f"go through http://127.0.0.1:{proxy.server_port} (environment)" in doctor.out
    outputs = {"out": ran.out, "err": ran.err, "doctor": doctor.out + doctor.err, "show": cli("show", "--events").out}
    assert PASSWORD.found(outputs, cli.home, cli.folder) == []


def test_an_address_that_is_no_proxy_is_told_without_its_password(cli: Cli) -> None:
    ran = cli("agents", "run", "code", "Greet", f"--proxy=socks5://me:{PASSWORD.value}@host:1")

    assert (ran.code, "--proxy: " in ran.err) == (2, True)
    assert PASSWORD.found({"out": ran.out, "err": ran.err}, cli.home) == []


def test_a_folders_env_names_a_server_and_that_is_said(cli: Cli, proxy: Proxy) -> None:
    cli.file(".env", "OPENAI_BASE_URL=http://models.invalid/v1\n")
    told = "models are asked at http://models.invalid/v1, as .env of this folder says"

    ran = cli("agents", "run", "code", "Greet", "--model=m", f"--proxy={proxy.address}")
    own = cli(
        "agents",
        "run",
        "code",
        "Greet",
        "--model=m",
        f"--proxy={proxy.address}",
        *("--openai-base-url", "http://models.invalid/v1"),
    )

    assert (ran.code, own.code, told in ran.err, told in own.err) == (0, 0, True, False), ran.err
