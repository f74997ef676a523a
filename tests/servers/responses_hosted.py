"""What a server's own tools leave: items for its responses, and the files of its containers.

with HostedServer([drawn(png())], {("cntr_1", "cfile_1"): b"a,b"}) as server:
    Responses("sk-test", server.base_url, "test-model")
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from tests.servers.chat import error
from tests.servers.loopback import Behaviour, Body, Exchange, Recorded
from tests.servers.responses import USAGE, Answer, Brain, ResponsesServer, Said, message, respond

CONTAINER = "cntr_1"


def picture(content: bytes | str | None, **more: Any) -> Body:
    """A picture that was generated: its bytes, or what stands in the place of their base64."""
    result = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    return {"type": "image_generation_call", "status": "completed", "result": result, **more}


def ran(code: str, logs: str = "") -> Body:
    """Code that was run, with what it printed for those who ask for it."""
    outputs = [{"type": "logs", "logs": logs}]
    return {
        "type": "code_interpreter_call", "status": "completed", "container_id": CONTAINER, "code": code,
        "outputs": outputs,
    }  # fmt: skip


def searched(query: str) -> Body:
    """A search of the web."""
    return {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": query}}


def file(name: str, id: str = "cfile_1", container: str = CONTAINER) -> Body:  # noqa: A002
    """The citation of a file in a container."""
    where = {"start_index": 0, "end_index": 1}
    return {"type": "container_file_citation", "container_id": container, "file_id": id, "filename": name, **where}


def page(url: str, title: str = "") -> Body:
    """The citation of a page of the web."""
    return {"type": "url_citation", "url": url, "title": title, "start_index": 0, "end_index": 1}


def cites(text: str, *cited: Body) -> Body:
    """A message that cites files and pages."""
    return message({"type": "output_text", "text": text, "annotations": list(cited), "logprobs": []})


def says(*items: Body, status: str = "completed", usage: Body | None = USAGE, **more: Any) -> Said:
    """A response of these items."""
    return Said(items, status, usage=usage, **more)


class HostedServer(ResponsesServer):
    """A responses server with files in containers: bytes by container and file, or how it behaves when asked for one.

    What stands several times in a list of behaviours is used up in order, the last one for ever.
    """

    def __init__(
        self,
        answers: Brain | Sequence[Answer] = respond,
        files: Mapping[tuple[str, str], bytes | Sequence[Behaviour]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(answers, **more)
        self._files = {
            where: [content(one)] if isinstance(one, bytes) else list(one) for where, one in (files or {}).items()
        }

    @property
    def fetched(self) -> list[str]:
        """The files that were asked for, as container/file."""
        parts = [one.path.split("/") for one in self.requests if one.path.startswith("/v1/containers/")]
        return [f"{part[3]}/{part[5]}" for part in parts]

    def behaviour(self, request: Recorded) -> Behaviour:
        answered = super().behaviour(request)
        match request.method, request.path.split("/")[1:]:
            case "GET", ["v1", "containers", container, "files", name, "content"]:
                left = self._files.get((container, name))
                if left is None:
                    return error(404, f"No file {name} in the container {container}")
                return left.pop(0) if len(left) > 1 else left[0]
        return answered


def content(whole: bytes) -> Behaviour:
    """A file as it is; only to those who do not insist on JSON."""

    async def behave(exchange: Exchange) -> None:
        if "json" in exchange.request.headers.get("accept", ""):
            await exchange.send_json(406, {"error": {"message": "This is no JSON"}})
            return
        await exchange.send(200, whole, "application/octet-stream")

    return behave


def endless(piece: bytes) -> Behaviour:
    """A file without an end, as fast as it is read."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "application/octet-stream", "transfer-encoding": "chunked"})
        while True:
            exchange.writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await exchange.writer.drain()

    return behave
