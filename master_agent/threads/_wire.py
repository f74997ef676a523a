"""What the wires share that make one request a turn: bodies go out, pieces of text come in, refusals are learnt."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from master_agent.context import MARK
from master_agent.errors import ModelError
from master_agent.threads import AgentSpec, Capabilities, ThreadState
from master_agent.threads._accepted import Accepted
from master_agent.threads._openai import Deadline, RefusedRequestError, Server, request_options

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

AFTER_THE_END = 5.0
"""Seconds to wait for the end of a stream whose reply is already whole."""

_END = object()
_GENERATORS = 24  # through which a stream is read, twice over


class Answering(Protocol):
    """What takes in an answer as it comes; `finish` says how it ended, and is empty as long as it has not."""

    @property
    def finish(self) -> str: ...

    def whole(self, body: bytes) -> None:
        """Takes in an answer that came at once; ModelError when it is none."""

    def add(self, data: object) -> str:
        """Takes in one chunk and returns the text that came with it; ModelError when it cannot be read."""


class OneRequestWire:
    """One server through one client, asked on one path; `model` is for agents that name none.

    `server` says more of it than an address and a key, and takes their place.
    """

    name: str
    path: str

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        model: str,
        *,
        capabilities: Capabilities | None = None,
        client: "AsyncOpenAI | None" = None,
        idle_timeout: float = 60.0,
        organization: str | None = None,
        project: str | None = None,
        server: Server | None = None,
    ) -> None:
        self.server = server or Server(base_url, api_key)
        self.model = model
        self._client = client
        self._idle_timeout = idle_timeout
        self._account = (organization, project)
        self._able = capabilities or Capabilities()
        self._known: Callable[[str], Capabilities | None] = lambda _model: None
        self._reads: int | None = None
        self._accepted: dict[str, Accepted] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do with the wire's own model, as far as it has shown."""
        return self.accepted(self.model).capabilities

    def accepted(self, model: str) -> Accepted:
        """What that model on this server has not refused yet."""
        if model in self._accepted:
            return self._accepted[model]
        able = self._known(model) or self._able
        return Accepted(able if self._reads is None else replace(able, context=self._reads))

    def knows(self, of: Callable[[str], Capabilities | None]) -> None:
        """Says what is known of each model here before any is asked; None where that is no more than of the server."""
        self._known = of

    def reads(self, tokens: int) -> None:
        """Says how many tokens the models here read at once, before any is asked."""
        self._reads = tokens

    def keep_threads(self) -> None:
        """Nothing that `close` takes away is needed to go on."""

    async def close(self) -> None:
        """Closes the client and its connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None
            # A stream that a server keeps open after its end is let go of half read: by each of the SDK's generators in
            # a turn of the event loop of its own, or in none when the loop ends first.
            for _ in range(_GENERATORS):
                await asyncio.sleep(0)

    async def models(self, within: float = 10.0) -> list[str]:
        """The names of the models that the server offers, in its order; ModelError when it does not tell."""
        return [str(entry["id"]) for entry in await self.offers(within)]

    async def offers(self, within: float = 10.0) -> list[Mapping[str, Any]]:
        """The models that the server offers as it describes them, each with an `id`; ModelError when it does not."""
        import httpx2

        deadline = Deadline.after(within, f"did not list its models within {within:g} s")
        options = request_options(within)
        options["headers"] = dict(self.server.listing)
        asked = self.client().get("/models", cast_to=httpx2.Response, options=options)
        response = await self.server.bounded(asked, deadline)
        try:
            entries = json.loads(response.content)["data"] or []
            return [entry for entry in entries if entry["id"]]
        except (ValueError, TypeError, KeyError):
            raise self.server.malformed(response.text[:1000], "a list of models that cannot be read") from None

    def client(self) -> "AsyncOpenAI":
        """The wire's one client, made when it is first needed."""
        if self._client is None:
            self._client = self.server.client(*self._account)
        return self._client

    def idle(self, body: dict[str, Any]) -> float:  # noqa: ARG002
        """How long the stream that answers such a request may be silent, in seconds."""
        return self._idle_timeout

    def check(self, agent: AgentSpec, state: ThreadState | None) -> None:
        """ModelError when the conversation began on another wire."""
        if state is not None and state.wire != self.name:
            raise ModelError(
                f"the conversation of the agent {agent.name!r} began on the wire {state.wire!r}, this is {self.name!r}",
                type="bad_request",
                hint="Go on with the settings that the run began with.",
            )

    async def ask(self, body: dict[str, Any], seconds: float, answer: Answering) -> AsyncGenerator[str, None]:
        """One request of so many seconds at most: its text as it comes, the rest in `answer`; else ModelError."""
        try:
            async with aclosing(self._ask(body, seconds, answer)) as pieces:
                async for piece in pieces:
                    yield piece
        except ModelError as error:
            told = self.explained(error, body)
            if told is error:
                raise
            raise told from error

    def explained(self, error: ModelError, body: dict[str, Any]) -> ModelError:
        """The error to raise: retryable at once if the next request leaves out what was refused, else as it is."""
        if not isinstance(error, RefusedRequestError):
            return error
        model = body["model"]
        left, refused = self.accepted(model).without(error.complaint, body)
        if not refused:
            return error
        self._accepted[model] = left
        message = f"{error.message} (so from now on without {' and '.join(refused)})"
        return ModelError(message, type="bad_request", retryable=True, retry_after=0.0)

    async def _ask(self, body: dict[str, Any], seconds: float, answer: Answering) -> AsyncGenerator[str, None]:
        import httpx2

        from master_agent.sdk import openai

        client = self.client()  # the first one takes a while to make, which is not the server's time
        deadline = Deadline.after(seconds, f"did not finish its reply within {seconds:g} s")
        options = request_options(seconds)
        # The SDK's `post`, because what compatible servers send does not always fit its types: `answer` reads the JSON.
        if not body.get("stream"):
            plain = client.post(self.path, cast_to=httpx2.Response, body=body, options=options)
            answer.whole((await self.server.bounded(plain, deadline)).content)
            return
        streamed = client.post(
            self.path, cast_to=object, body=body, options=options, stream=True, stream_cls=openai.AsyncStream[object]
        )
        stream = await self.server.bounded(streamed, deadline)
        try:
            kind = stream.response.headers.get("content-type", "")
            if "json" in kind or "html" in kind:  # a server that cannot stream, or something else in its place
                answer.whole(await self.server.bounded(stream.response.aread(), deadline))
                return
            idle = min(self.idle(body), seconds)
            async with aclosing(self._read(stream, deadline, idle, answer)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            await stream.close()

    async def _read(
        self, stream: "AsyncStream[object]", deadline: Deadline, idle: float, answer: Answering
    ) -> AsyncGenerator[str, None]:
        """The pieces of text of a stream; each wait has its own bound, for `asyncio.timeout` may not span a `yield`."""
        # Before the first chunk a server may load the model, and a model think, for as long as the request may take.
        bound = deadline
        while True:
            try:
                chunk = await self.server.bounded(anext(stream, _END), bound)
            except ModelError:
                if answer.finish:  # what is paid for and whole is not asked for again because of what comes after it
                    return
                raise
            if chunk is _END:
                return
            if piece := answer.add(chunk):
                yield piece
            silence = min(idle, AFTER_THE_END) if answer.finish else idle
            bound = deadline.or_after(silence, f"fell silent for {idle:g} s in the middle of its reply")


def schema_name(agent: AgentSpec) -> str:
    """The agent's name as the name of a reply's schema."""
    return re.sub(r"[^\w-]", "_", agent.name, flags=re.ASCII)[:64] or "reply"


def cache_key(agent: AgentSpec, model: str) -> str:
    """The same for all requests that begin alike, so that they meet in one cache, whatever process makes them.

    The mark of a run's data does not count: it stands behind the agent's own instructions, which are alike.
    """
    tools = [[tool.name, tool.description, dict(tool.parameters)] for tool in agent.tools]
    beginning = json.dumps([model, MARK.sub("data", agent.instructions), tools, sorted(agent.hosted)], sort_keys=True)
    return hashlib.sha256(beginning.encode()).hexdigest()[:32]
