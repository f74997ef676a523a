"""A stand-in for Replicate on loopback: its HTTP calls, with a life of their own for predictions.

What it does is told by a `Script`; what it saw can be looked at. The real `replicate` package takes it for the service,
which `tests/images/test_replicate.py` proves.
"""

import io
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

TOKEN = "r8_stand_in"
BROKEN = 0
"""The status of a refusal that breaks the connection off without a word."""


@dataclass(frozen=True)
class Refusal:
    """An answer in place of the usual one; `accepts`: the prediction is made all the same, and would be billed."""

    status: int
    detail: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)
    accepts: bool = False
    delay: float = 0.0
    body: bytes | None = None


@dataclass(frozen=True)
class Script:
    """How predictions go: how many looks see one at work, how it ends, what comes out; and the first refusals.

    `end` may be any word; with "never" it stays at work. A refusal may be None: that request is served as usual.
    `create_delay` is in seconds, after the prediction is made.
    """

    polls: int = 2
    end: str = "succeeded"
    error: str | None = None
    output: Literal["list", "text", "map", "nested", "nothing", "words", "page", "data", "elsewhere"] = "list"
    create: tuple[Refusal | None, ...] = ()
    poll: tuple[Refusal | None, ...] = ()
    cancel: tuple[Refusal | None, ...] = ()
    file: tuple[Refusal | None, ...] = ()
    create_delay: float = 0.0
    elsewhere: str = ""
    urls: str | None = None


@dataclass(frozen=True)
class Request:
    """What arrived. The names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """create, poll, cancel or file."""
        if self.path.startswith("/files/"):
            return "file"
        if self.method == "GET":
            return "poll"
        return "cancel" if self.path.endswith("/cancel") else "create"


class StandIn(ThreadingHTTPServer):
    """The running stand-in."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[Request] = []
        self.predictions: dict[str, dict[str, Any]] = {}
        self.lock = threading.RLock()
        self._looks: dict[str, int] = {}
        self._refusals = {name: list(getattr(script, name)) for name in ("create", "poll", "cancel", "file")}

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def running(self) -> list[str]:
        """The ids of the predictions at work, for which somebody pays."""
        with self.lock:
            return [name for name, p in self.predictions.items() if p["status"] in ("starting", "processing")]

    def seen(self, kind: str) -> list[Request]:
        """The requests of one kind, in order."""
        with self.lock:
            return [request for request in self.requests if request.kind == kind]

    def refusal(self, kind: str) -> Refusal | None:
        """The next refusal of that kind, used up by asking."""
        with self.lock:
            return self._refusals[kind].pop(0) if self._refusals[kind] else None

    def make(self, asked: dict[str, Any], model: str) -> dict[str, Any]:
        """A new prediction, starting."""
        with self.lock:
            name = f"p{len(self.predictions)}"
            base = self.script.urls or self.url
            self._looks[name] = 0
            self.predictions[name] = {
                "id": name,
                "model": model,
                "version": asked.get("version", "hidden"),
                "input": asked["input"],
                "output": None,
                "logs": "",
                "error": None,
                "status": "starting",
                "created_at": _now(),
                "urls": {
                    "get": f"{base}/v1/predictions/{name}",
                    "cancel": f"{base}/v1/predictions/{name}/cancel",
                },
            }
            return self.predictions[name]

    def look(self, name: str, *, wait: bool = False) -> dict[str, Any]:
        """The prediction, a look older; at its end at once when somebody waits."""
        with self.lock:
            prediction = self.predictions[name]
            self._looks[name] += 1
            if prediction["status"] in ("starting", "processing"):
                prediction["status"] = "processing"
                if self.script.end != "never" and (wait or self._looks[name] > self.script.polls):
                    self._end(prediction)
            return prediction

    def _end(self, prediction: dict[str, Any]) -> None:
        prediction["status"] = self.script.end
        if self.script.end != "aborted":  # that one never began, so it was never completed
            prediction["completed_at"] = _now()
        prediction["error"] = self.script.error
        if self.script.end == "succeeded":
            prediction["metrics"] = {"predict_time": 0.5}
            prediction["output"] = self._output(prediction)

    def _output(self, prediction: dict[str, Any]) -> Any:
        count = prediction["input"].get("num_outputs", 1)
        files = [f"{self.url}/files/{prediction['id']}/{number}.png" for number in range(count)]
        outputs: dict[str, Any] = {
            "list": files,
            "text": files[0],
            "map": {"image": files[0], "seconds": 0.5},
            "nested": {"images": [{"url": url, "words": "a picture"} for url in files]},
            "nothing": None,
            "words": "I would rather not",
            "page": [f"{self.url}/files/{prediction['id']}/page.png"],
            "data": ["data:image/png;base64," + _base64(png())],
            "elsewhere": [self.script.elsewhere],
        }
        return outputs[self.script.output]


@contextmanager
def stand_in(script: Script | None = None) -> Iterator[StandIn]:
    """A stand-in that runs as long as the block."""
    with StandIn(script or Script()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def png(colour: tuple[int, int, int] = (200, 90, 40)) -> bytes:
    """A small real picture."""
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (16, 9), colour).save(content, "PNG")
    return content.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the end of a silence

    def do_GET(self) -> None:
        request = self._received()
        parts = request.path.strip("/").split("/")
        if self._refused(request):
            return
        match parts:
            case ["files", _, "page.png"]:
                self._say(200, b"<html>not here any more</html>", "image/png")
            case ["files", *_]:
                self._say(200, png(), "image/png")
            case ["v1", "account"]:
                self._json(200, {"type": "user", "username": "tester", "name": "A Tester"})
            case ["v1", "predictions"]:
                with self.server.lock:
                    newest = list(reversed(self.server.predictions.values()))
                self._json(200, {"previous": None, "next": None, "results": newest[:100]})
            case ["v1", "predictions", name] if name in self.server.predictions:
                self._json(200, self.server.look(name))
            case _:
                self._json(404, {"detail": "The requested resource could not be found.", "status": 404})

    def do_POST(self) -> None:
        request = self._received()
        parts = request.path.strip("/").split("/")
        if request.kind == "cancel":
            name = parts[2]
            if self._refused(request):
                return
            with self.server.lock:
                prediction = self.server.predictions[name]
                if name in self.server.running:
                    prediction |= {"status": "canceled", "completed_at": _now()}
            self._json(200, prediction)
        elif parts == ["v1", "predictions"] or (parts[:2] == ["v1", "models"] and parts[4:] == ["predictions"]):
            self._create(request, "/".join(parts[2:4]))
        else:
            self._json(404, {"detail": "The requested resource could not be found.", "status": 404})

    def _create(self, request: Request, model: str) -> None:
        if self._refused(request, model):
            return
        asked = request.json
        if not isinstance(asked.get("input", {}).get("prompt"), str):
            fault = {"type": "required", "field": "input.prompt", "description": "prompt is required"}
            detail = "- input: prompt is required\n"
            title = "Input validation failed"
            self._json(422, {"title": title, "detail": detail, "status": 422, "invalid_fields": [fault]})
            return
        prediction = self.server.make(asked, model)
        time.sleep(self.server.script.create_delay)
        if request.headers.get("prefer", "").startswith("wait"):
            prediction = self.server.look(prediction["id"], wait=True)
        self._json(201, prediction)

    def _refused(self, request: Request, model: str = "") -> bool:
        if request.kind != "file" and request.headers.get("authorization") != f"Bearer {TOKEN}":
            detail = "You did not pass a valid authentication token"
            self._json(401, {"title": "Unauthenticated", "detail": detail, "status": 401})
            return True
        refusal = self.server.refusal(request.kind)
        if refusal is None:
            return False
        if refusal.accepts:
            self.server.make(request.json, model)
        time.sleep(refusal.delay)
        if refusal.status == BROKEN:
            self.close_connection = True
        elif refusal.body is not None:
            self._say(refusal.status, refusal.body, "text/html", refusal.headers)
        else:
            said = {"title": "Refused", "detail": refusal.detail, "status": refusal.status}
            self._say(refusal.status, json.dumps(said).encode(), "application/problem+json", refusal.headers)
        return True

    def _received(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # whoever asked died in the middle: no service takes that for a request
            raise ConnectionResetError
        request = Request(self.command, self.path, headers, body)
        with self.server.lock:
            self.server.requests.append(request)
        return request

    def _json(self, status: int, value: object) -> None:
        with self.server.lock:
            content = json.dumps(value).encode()
        self._say(status, content, "application/json")

    def _say(self, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"content-type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def _now() -> str:
    return "2026-03-01T12:00:00.000000Z"


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()
