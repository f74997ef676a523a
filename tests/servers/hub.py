"""A hub of models on loopback, and the host that it sends to for the files, as Hugging Face's answers are documented.

    with Hub({"maker/Tiny-GGUF": {"tiny.gguf": content}}) as hub:
        cli("models", "pull", "maker/Tiny-GGUF", "--hf-endpoint", hub.origin, "--allow-host", "127.0.0.1", "--yes")

`resolve` answers 302 with `X-Linked-Size`, `X-Linked-ETag` (the sha256) and a signed address that is good for one
request; the host of the files knows Range and If-Range by a strong ETag of its own.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.servers.loopback import Behaviour, Exchange, Loopback, Recorded


class Files(Loopback):
    """The host of the files. `breaks` are bytes after which an answer breaks off, one for each request."""

    def __init__(self) -> None:
        super().__init__()
        self.signed: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.version = "1"
        self.ranges = True
        self.weak = False  # whether the mark of a version says nothing of its bytes
        self.pace = 0.0  # seconds for each piece of an answer
        self.holds_at: int | None = None  # bytes after which nothing more comes
        self.twisted = False  # whether the bytes come changed

    def behaviour(self, request: Recorded) -> Behaviour:
        signature = parse_qs(urlsplit(request.path).query).get("Signature", [""])[0]
        content = self.signed.pop(signature, None)
        return _refused if content is None else partial(self._send, content)

    async def _send(self, content: bytes, exchange: Exchange) -> None:
        etag = f'"{hashlib.md5(content + self.version.encode()).hexdigest()}"'
        asked, size, at = exchange.request.headers, len(content), 0
        found = re.fullmatch(r"bytes=(\d+)-", asked.get("range", ""))
        etag = f"W/{etag}" if self.weak else etag
        if found and self.ranges and asked.get("if-range", etag) == etag:
            at = int(found[1])
        headers = {"etag": etag, "accept-ranges": "bytes", "content-type": "application/octet-stream"}
        if at >= size:
            await exchange.head(416, {"content-range": f"bytes */{size}", "content-length": "0"})
            return
        part = {"content-range": f"bytes {at}-{size - 1}/{size}"} if at else {}
        await exchange.head(206 if at else 200, {**headers, **part, "content-length": str(size - at)})
        rest = bytes(byte ^ 1 for byte in content[at:]) if self.twisted else content[at:]
        most = self.breaks.pop(0) if self.breaks else len(rest)
        for start in range(0, min(most, len(rest)), 1 << 16):
            if self.holds_at is not None and at + start >= self.holds_at:
                await asyncio.Event().wait()  # until the client goes
            exchange.writer.write(rest[start : min(start + (1 << 16), most)])
            await exchange.writer.drain()
            await asyncio.sleep(self.pace)
        if most < len(rest):
            exchange.writer.close()
            exchange.keep = False


class Hub(Loopback):
    """The hub: its repositories with their files. A context manager, with the host of the files."""

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__()
        self.repositories = repositories
        self.files = Files()
        self.renamed: dict[str, str] = {}
        self.linked = True  # whether it says size and sha256

    def __enter__(self) -> Self:
        self.files.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.files.__exit__(*error)

    def behaviour(self, request: Recorded) -> Behaviour:
        path = unquote(urlsplit(request.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main", path):
            return partial(self._tree, found[1])
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path):
            return partial(self._resolve, found[1], found[2])
        return _missing

    async def _tree(self, repository: str, exchange: Exchange) -> None:
        files = self.repositories.get(repository)
        if files is None:
            await _missing(exchange)
            return
        listed = [
            {"type": "file", "oid": "0" * 40, "size": len(content), "path": name, "lfs": {"oid": _sha256(content)}}
            for name, content in files.items()
        ]
        await exchange.send_json(200, [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "images"}, *listed])

    async def _resolve(self, repository: str, name: str, exchange: Exchange) -> None:
        if new := self.renamed.get(repository):
            await exchange.head(307, {"location": f"/{new}/resolve/main/{quote(name)}", "content-length": "0"})
            return
        content = self.repositories.get(repository, {}).get(name)
        if content is None:
            await _missing(exchange)
            return
        signature = secrets.token_hex(8)
        self.files.signed[signature] = content
        location = f"{self.files.origin}/repos/{quote(name)}?Expires=1&Signature={signature}"
        headers = {"location": location, "x-repo-commit": "0" * 40, "content-length": "0"}
        if self.linked:
            headers |= {"x-linked-size": str(len(content)), "x-linked-etag": f'"{_sha256(content)}"'}
        await exchange.head(302, headers)


async def _missing(exchange: Exchange) -> None:
    headers = {"x-error-code": "RepoNotFound", "x-error-message": "Repository not found", "content-length": "0"}
    await exchange.head(404, headers)


async def _refused(exchange: Exchange) -> None:
    await exchange.head(403, {"content-length": "0"})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
