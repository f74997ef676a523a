"""The decks that record a run's exchanges with models, makers of pictures and addresses, and that replay them."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Base64Bytes, BaseModel, ConfigDict, JsonValue, ValidationError

from master_agent.cassette import Cassette, Data, Forms, Recorder
from master_agent.errors import ErrorType, ImageError, MasterAgentError, ModelError, ToolError
from master_agent.exchanges import Deck, MakeImages
from master_agent.exchanges.conversation import what_is_said, what_is_told, who_asks
from master_agent.fetch import Answer, Download, Fetcher
from master_agent.images import ImageProvider, ImageRequest, Picture, Pictures
from master_agent.results import Usage
from master_agent.threads import (
    AgentSpec,
    Call,
    CallOptions,
    CallRequest,
    Capabilities,
    Reply,
    ThreadState,
    Turn,
)
from master_agent.threads.scripted import ScriptedThread, ScriptLine
from master_agent.tools import ToolCall

Made = TypeVar("Made")
Read = TypeVar("Read", bound=BaseModel)


@dataclass(frozen=True)
class Recording(Deck):
    """Writes every exchange to a cassette. `model` is that of agents which name none."""

    recorder: Recorder
    forms: Forms
    model: str | None

    def calls(self, call: Call) -> Call:
        async def call_and_record(request: CallRequest) -> Reply:
            who = who_asks(request.options)
            asked = self.forms.asked(what_is_told(request.thread.agent, request.turn, self.model))
            try:
                reply = await call(request)
            except ModelError as error:
                self._write(who, asked, {"error": _error(error)})
                raise
            except asyncio.CancelledError:
                self._write(who, asked, {"reply": {"hang": True}})
                raise
            self._write(who, asked, {"reply": what_is_said(reply, self.coded)})
            return reply

        return call_and_record

    def images(self, make: MakeImages, call: ToolCall) -> ImageProvider:
        return _RecordedImages(self, make, call)

    def fetcher(self, fetcher: Fetcher, call: ToolCall) -> Fetcher:
        return _RecordedFetcher(self, fetcher, call)

    async def tool(self, who: Data, asked: Data, work: Awaitable[Made], told: Callable[[Made], Data]) -> Made:
        """Lets a tool's work outside be done and writes down what came of it."""
        asked = self.forms.asked(asked)
        try:
            made = await work
        except ToolError as error:
            self._write(who, asked, {"error": _error(error)})
            raise
        self._write(who, asked, {"reply": told(made)})
        return made

    def coded(self, content: bytes) -> str:
        """Bytes in Base64, without the keys that are known."""
        return base64.b64encode(self.forms.secrets.blank(content)).decode()

    def _write(self, who: Data, asked: Data, came: Data) -> None:
        self.recorder.write({**who, "request": asked, **self.forms.answered(came)})


@dataclass(frozen=True)
class Replaying(Deck):
    """Gives what a cassette holds; nothing goes out. `model` is that of agents which name none."""

    cassette: Cassette
    forms: Forms
    model: str | None

    def images(self, _make: MakeImages, call: ToolCall) -> ImageProvider:
        return _ReplayedImages(self, call)

    def fetcher(self, _fetcher: Fetcher, call: ToolCall) -> Fetcher:
        return _ReplayedFetcher(self, call)

    async def sleep(self, seconds: float) -> None:
        """Nobody is there who would have to be waited for."""

    def finish(self) -> None:
        self.cassette.finish()

    def line(self, agent: AgentSpec, turn: Turn, options: CallOptions) -> ScriptLine:
        """The line that answers a turn; ReplayError when there is none."""
        asked = self.forms.asked(what_is_told(agent, turn, self.model))
        line = self.cassette.take(who_asks(options), asked)
        return self._read(line, line, ScriptLine)

    def tool(self, who: Data, asked: Data, shape: type[Read]) -> Read:
        """What came of a tool's work outside; raises what it raised."""
        line = self.cassette.take(who, self.forms.asked(asked))
        if "error" in line:
            error = self._read(line, line["error"], _Failed)
            raise ImageError(**error.model_dump())
        return self._read(line, line.get("reply"), shape)

    def _read(self, line: Data, part: Any, shape: type[Read]) -> Read:
        try:
            return shape.model_validate(self.forms.restored({"part": part})["part"])
        except ValidationError as error:
            fault = error.errors()[0]
            raise self.cassette.unreadable(line, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


class ReplayedWire:
    """The wire of a cassette: no network, no key, no SDK. `able` is what the recorded server could do."""

    name = "replay"

    def __init__(self, deck: Replaying, able: Capabilities) -> None:
        self._deck = deck
        self.capabilities = able

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> ScriptedThread:
        return ScriptedThread(agent, state or ThreadState(self.name), _OfAgent(self._deck, agent))

    async def models(self) -> list[str]:
        return []

    def keep_threads(self) -> None:
        """A cassette keeps nothing."""

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class _OfAgent:
    deck: Replaying
    agent: AgentSpec

    def take(self, turn: Turn, options: CallOptions) -> ScriptLine:
        return self.deck.line(self.agent, turn, options)


def _error(error: MasterAgentError) -> Data:
    kept: Data = {
        "type": error.type,
        "message": error.message,
        "retryable": error.retryable,
        "retry_after": getattr(error, "retry_after", None),
        "hint": error.hint,
    }
    return {name: value for name, value in kept.items() if value is not None}


class _Kept(BaseModel):
    model_config = ConfigDict(defer_build=True)


class _Failed(_Kept):
    type: ErrorType
    message: str
    retryable: bool = False
    retry_after: float | None = None
    hint: str | None = None


# Pictures.


class _KeptPicture(_Kept):
    content: Base64Bytes
    source_url: str | None = None
    expires_at: str | None = None


class _KeptPictures(_Kept):
    pictures: tuple[_KeptPicture, ...]
    provider: str
    model: str | None = None
    seed: int | None = None
    note: str | None = None
    usage: Usage = Usage()


def _picture_asked(call: ToolCall, request: ImageRequest) -> tuple[Data, Data]:
    """Who asks for a picture, and for what. A seed that was drawn by chance is another in every run."""
    asked: Data = {
        "prompt": request.prompt,
        "aspect_ratio": request.aspect_ratio,
        "count": request.count,
        "seed": "drawn" if "seed" in call.left_out else request.seed,
    }
    return {"port": "image", "step": call.step}, asked


@dataclass(frozen=True)
class _RecordedImages:
    """Makes pictures by the real provider, which is made when it is needed: that it cannot be is recorded too."""

    deck: Recording
    make: MakeImages
    call: ToolCall

    @property
    def name(self) -> str:
        return self.make().name

    @property
    def paid(self) -> bool:
        return self.make().paid

    async def check(self) -> str:
        return await self.make().check()

    async def settle(self, request: ImageRequest, remote_id: str | None) -> Pictures | None:
        return await self.make().settle(request, remote_id)

    async def generate(self, request: ImageRequest) -> Pictures:
        async def work() -> Pictures:
            return await self.make().generate(request)

        return await self.deck.tool(*_picture_asked(self.call, request), work(), self._told)

    def _told(self, made: Pictures) -> Data:
        kept = _KeptPictures.model_construct(**{name: getattr(made, name) for name in _KeptPictures.model_fields})
        return {
            "pictures": [
                {
                    "content": self.deck.coded(picture.content),
                    "source_url": picture.source_url,
                    "expires_at": picture.expires_at,
                }
                for picture in made.pictures
            ],
            **kept.model_dump(mode="json", exclude={"pictures"}),
        }


@dataclass(frozen=True)
class _ReplayedImages:
    """Gives the pictures of a cassette."""

    deck: Replaying
    call: ToolCall
    name: str = "replay"
    paid: bool = False

    async def check(self) -> str:
        return "pictures come from a cassette"

    async def settle(self, _request: ImageRequest, _remote_id: str | None) -> Pictures | None:
        raise ImageError("a cassette does not tell what became of an earlier request")

    async def generate(self, request: ImageRequest) -> Pictures:
        kept = self.deck.tool(*_picture_asked(self.call, request), _KeptPictures)
        pictures = tuple(Picture(each.content, each.source_url, each.expires_at) for each in kept.pictures)
        return Pictures(pictures, kept.provider, kept.model, kept.seed, note=kept.note, usage=kept.usage)


# Downloads. Headers are no part of a request here: they may hold a token.


class _KeptDownload(_Kept):
    content: Base64Bytes
    media_type: str
    url: str


class _KeptAnswer(_Kept):
    status: int
    headers: dict[str, str]
    content: Base64Bytes


def _address_asked(call: ToolCall, method: str, url: str, body: JsonValue = None) -> tuple[Data, Data]:
    asked: Data = {"method": method, "url": url, **({} if body is None else {"body": body})}
    return {"port": "fetch", "step": call.step}, asked


class _RecordedFetcher(Fetcher):
    """Fetches by the real one."""

    def __init__(self, deck: Recording, inner: Fetcher, call: ToolCall) -> None:
        super().__init__()
        self._deck, self._inner, self._call = deck, inner, call

    async def download(self, url: str, **options: Any) -> Download:
        def told(got: Download) -> Data:
            return {"content": self._deck.coded(got.content), "media_type": got.media_type, "url": got.url}

        work = self._inner.download(url, **options)
        return await self._deck.tool(*_address_asked(self._call, "download", url), work, told)

    async def request(self, method: str, url: str, *, json: JsonValue = None, **options: Any) -> Answer:
        def told(answer: Answer) -> Data:
            headers: Data = dict(answer.headers)
            return {"status": answer.status, "headers": headers, "content": self._deck.coded(answer.body)}

        work = self._inner.request(method, url, json=json, **options)
        return await self._deck.tool(*_address_asked(self._call, method, url, json), work, told)


class _ReplayedFetcher(Fetcher):
    """Gives what a cassette holds."""

    def __init__(self, deck: Replaying, call: ToolCall) -> None:
        super().__init__()
        self._deck, self._call = deck, call

    async def download(self, url: str, **_options: Any) -> Download:
        kept = self._deck.tool(*_address_asked(self._call, "download", url), _KeptDownload)
        return Download(kept.content, kept.media_type, kept.url)

    async def request(self, method: str, url: str, *, json: JsonValue = None, **_options: Any) -> Answer:
        kept = self._deck.tool(*_address_asked(self._call, method, url, json), _KeptAnswer)
        return Answer(kept.status, kept.headers, kept.content)
