"""A loopback HTTP server in a thread of its own: each request gets a Behaviour, and what clients do is on record.

Tests, their event loops and processes of the command line can all talk to it. The wires' servers are made from it.
"""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Body = dict[str, Any]
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Recorded:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    body: Body = field(default_factory=dict)


@dataclass
class Exchange:
    """One request and the means to answer it; `number` counts the requests from 1."""

    request: Recorded
    writer: asyncio.StreamWriter
    number: int
    keep: bool = True

    @property
    def streaming(self) -> bool:
        return bool(self.request.body.get("stream"))

    async def send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer."""
        await self.head(status, {"content-type": kind, "content-length": str(len(body)), **(headers or {})})
        self.writer.write(body)
        await self.writer.drain()

    async def send_json(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        await self.send(status, json.dumps(body).encode(), "application/json", headers)

    async def head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", *(f"{n}: {v}" for n, v in headers.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()

    async def start_stream(self) -> None:
        await self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    async def event(self, data: str, name: str | None = None) -> None:
        """One server-sent event."""
        payload = (f"event: {name}\n" if name else "") + f"data: {data}\n\n"
        self.writer.write(f"{len(payload.encode()):x}\r\n{payload}\r\n".encode())
        await self.writer.drain()

    async def end_stream(self, *, done: bool = True) -> None:
        if done:
            await self.event("[DONE]")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


Behaviour = Callable[[Exchange], Awaitable[None]]


class Loopback:
    """The server; a context manager. A subclass says in `behaviour` what a request gets, and runs in the thread."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.open_requests = 0
        self.most_open = 0
        self.connections = 0
        self.closed_by_client = 0
        self._port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def behaviour(self, request: Recorded) -> Behaviour:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def wait_for(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Whether the condition came true in time; in an event loop use it through `asyncio.to_thread`."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.005)
        return condition()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            self.connections += 1
            try:
                while await self._one_request(reader, writer):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client or the test has gone
            finally:
                connections.discard(task)
                writer.close()
                if self._stop is not None and self._stop.is_set():
                    writer.transport.abort()  # nobody takes what has not gone out yet

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await _turns()  # for those whom it has just let in
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await _turns()  # for the sockets to be closed

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Takes one request and answers it; whether the connection goes on."""
        request = await _read(reader)
        self.requests.append(request)
        exchange = Exchange(request, writer, len(self.requests))
        self.open_requests += 1
        self.most_open = max(self.most_open, self.open_requests)
        behaving = asyncio.ensure_future(self.behaviour(request)(exchange))
        leaving = asyncio.ensure_future(_gone(reader))
        try:
            await asyncio.wait({behaving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if behaving.done() and not isinstance(behaving.exception(), ConnectionError):
                behaving.result()
                return exchange.keep
            self.closed_by_client += 1
            return False
        finally:
            self.open_requests -= 1
            behaving.cancel()
            leaving.cancel()
            await asyncio.gather(behaving, leaving, return_exceptions=True)


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader) -> Recorded:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Recorded(method, path, headers, raw, json.loads(raw) if raw else {})


async def _gone(reader: asyncio.StreamReader) -> None:
    """Returns when the client has closed; looks instead of reading, for the next request must stay where it is."""
    while True:
        if reader.at_eof() or reader.exception() is not None:
            return
        await asyncio.sleep(0.005)
