"""The mock of the wire: Chat Completions and pictures in a process of its own, each answer after its latency.

`python -m benchmarks.mock SECONDS` prints its address and serves until its standard input closes. `GET /counted` tells
what was asked since the last time, and forgets it: requests, their size, and when the first one came.
"""

import asyncio
import base64
import json
import re
import struct
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

from benchmarks.shapes import SHAPES

PAGE = "Here.\n\n```html index.html\n<!doctype html>\n<img src=images/hero.png>\n```\n"
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "generate_image": {"prompt": "A sunset", "last": True},
    "list_files": {},
    "write_file": {"path": "index.html", "content": "<!doctype html>"},
}
_TASK, _PART = re.compile(r"Plan the ([\w-]+) work\."), re.compile(r"Do part (\w+) of the work\.")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Counted:
    """What was asked."""

    calls: int = 0
    tokens: int = 0
    connections: int = 0
    first: float | None = None
    shape: str = ""


@dataclass
class Mock:
    """The answers; `latency` is the usual one in seconds."""

    latency: float
    counted: Counted = field(default_factory=Counted)

    def answer(self, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """How long a completion takes, and its message."""
        messages = body["messages"]
        said = [_text(message) for message in messages if message["role"] == "user"]
        for text in reversed(said):
            if task := _TASK.search(text):
                self.counted.shape = task[1]
                return self.latency, {"content": json.dumps({"plan": SHAPES[task[1]].plan})}
            if part := _PART.search(text):
                factor = SHAPES[self.counted.shape].factors.get(part[1], 1.0) if self.counted.shape else 1.0
                return self.latency * factor, _work(part[1], body)
        return self.latency, {"content": "Done."}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive as long as the client keeps it."""
        self.counted.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                raw = await reader.readexactly(int(length[1])) if length else b""
                await self._one(head.split(b" ", 2)[1].decode(), raw, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _one(self, path: str, raw: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/counted":
            told, self.counted = self.counted, Counted()
            return await _send(writer, vars(told))
        if path.endswith("/models"):
            return await _send(writer, {"object": "list", "data": [{"id": "mock", "object": "model"}]})
        if path.endswith("/images/generations"):
            return await _send(writer, {"created": 1, "data": [{"b64_json": _PICTURE}]})
        self.counted.first = self.counted.first or time.time()
        self.counted.calls += 1
        self.counted.tokens += len(raw) // 4
        body = json.loads(raw)
        seconds, message = self.answer(body)
        await asyncio.sleep(seconds)
        if body.get("stream"):
            return await _stream(writer, message, body)
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
        return await _send(writer, {**_envelope("chat.completion"), "choices": [choice], "usage": USAGE})


def _work(part: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a model that knows its job says next: a tool that it has and has not used yet, then words."""
    used = {call["function"]["name"] for m in body["messages"] for call in m.get("tool_calls") or ()}
    for tool in body.get("tools") or ():
        name = tool["function"]["name"]
        if name in ARGUMENTS and name not in used:
            known = tool["function"]["parameters"].get("properties", {})
            arguments = {key: value for key, value in ARGUMENTS[name].items() if key in known}
            call = {"id": f"call_{name}", "type": "function"}
            return {"tool_calls": [{**call, "function": {"name": name, "arguments": json.dumps(arguments)}}]}
    return {"content": PAGE if part == "page" else "Done."}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)


def _envelope(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "mock"}


async def _send(writer: asyncio.StreamWriter, value: Any) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _stream(writer: asyncio.StreamWriter, message: dict[str, Any], body: dict[str, Any]) -> None:
    delta = {"role": "assistant", **message}
    if calls := message.get("tool_calls"):
        delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
    ends = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}
    parts: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    parts.append({"choices": [ends]})
    if (body.get("stream_options") or {}).get("include_usage"):
        parts.append({"choices": [], "usage": USAGE})
    events = [json.dumps({**_envelope("chat.completion.chunk"), **part}) for part in parts]
    payload = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head + f"{len(payload):x}\r\n".encode() + payload + b"\r\n0\r\n\r\n")
    await writer.drain()


def _picture(side: int = 64) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xe0\x80\x40" * side for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


_PICTURE = _picture()


async def main(latency: float) -> None:
    """Serves until nobody needs it any more."""
    server = await asyncio.start_server(Mock(latency).serve, "127.0.0.1", 0, backlog=1000)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
