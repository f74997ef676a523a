"""The `chat` wire: a Thread is our own list of messages, a Run is Chat Completions, on any compatible server.

What one server cannot do (enforce a schema, report usage in a stream, take a temperature) is not known before it is
asked: a request that is refused for such a thing fails once, retryable at once, and is never made that way again.
"""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from master_agent.errors import ModelError
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    Capabilities,
    Reply,
    TextPiece,
    ThreadState,
    ToolOutputs,
    Turn,
    UserTurn,
)
from master_agent.threads._completions import Answer
from master_agent.threads._openai import Deadline, RefusedRequestError, Server, request_options, sendable

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

Message = Mapping[str, Any]

PATH = "/chat/completions"
AFTER_THE_END = 5.0
"""Seconds to wait for the usage of a reply that is already whole."""

_END = object()
_UNSUPPORTED = re.compile(
    r"not (be )?support|unsupported|doesn't support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed"
    r"|extra inputs|only the default|unavailable|deprecated|verified",
    re.IGNORECASE,
)
_ABOUT_FORMAT = re.compile(r"response_format|json_schema|json_object|structured output", re.IGNORECASE)
_ABOUT_STRICT = re.compile(r"\bstrict\b|schema for function", re.IGNORECASE)


@dataclass(frozen=True)
class Accepted:
    """What a model on this server has not refused yet; `max_tokens` are the names of that parameter, the best first."""

    capabilities: Capabilities
    temperature: bool = True
    max_tokens: tuple[str, ...] = ("max_tokens", "max_completion_tokens")

    def without(self, complaint: str, body: Mapping[str, Any]) -> tuple["Accepted", list[str]]:
        """What is left after the server's complaint about `body`, and the names of what it refused, if anything."""
        able, refused = self.capabilities, []
        unsupported = _UNSUPPORTED.search(complaint) is not None
        asked_format = body.get("response_format", {}).get("type")
        if asked_format and _ABOUT_FORMAT.search(complaint):
            weaker = "object" if asked_format == "json_schema" and able.schema == "strict" else able.schema
            able = replace(able, schema=weaker if asked_format == "json_schema" else "none")
            refused.append(f"response_format {asked_format}")
        elif _ABOUT_STRICT.search(complaint) and any("strict" in tool["function"] for tool in body.get("tools", ())):
            able = replace(able, strict_tools=False)
            refused.append("strict")
        if "stream_options" in body and "stream_options" in complaint:
            able = replace(able, usage_in_stream=False)
            refused.append("stream_options")
        elif "stream" in body and unsupported and re.search(r"\bstream(ing)?\b", complaint, re.IGNORECASE):
            able = replace(able, stream_with_tools=False) if "tools" in body else replace(able, stream=False)
            refused.append("stream")
        left = replace(self, capabilities=able)
        if "temperature" in body and unsupported and re.search(r"\btemperature\b", complaint):
            left = replace(left, temperature=False)
            refused.append("temperature")
        for name in ("max_tokens", "max_completion_tokens"):
            if name in body and unsupported and re.search(rf"\b{name}\b", complaint):
                left = replace(left, max_tokens=tuple(other for other in left.max_tokens if other != name))
                refused.append(name)
        return left, refused


class Chat:
    """Chat Completions of one server through one client; `model` is for agents that name none.

    `idle_timeout` is the longest silence within a stream, in seconds. A `client` given is closed with the wire.
    Nothing but the arguments is looked at: no key, address, organisation or project of the environment.
    """

    name = "chat"

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
    ) -> None:
        self.server = Server(base_url, api_key)
        self.model = model
        self._client = client
        self._idle_timeout = idle_timeout
        self._account = (organization, project)
        names = ("max_completion_tokens", "max_tokens")
        self._at_first = Accepted(
            capabilities or Capabilities(), max_tokens=names if self.server.is_openai else names[::-1]
        )
        self._accepted: dict[str, Accepted] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do with the wire's own model, as far as it has shown."""
        return self.accepted(self.model).capabilities

    def accepted(self, model: str) -> Accepted:
        """What that model on this server has not refused yet."""
        return self._accepted.get(model, self._at_first)

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> "ChatThread":
        """A thread for the agent, after the messages of `state`; no request is made."""
        if state is not None and state.wire != self.name:
            raise ModelError(
                f"the conversation of the agent {agent.name!r} began on the wire {state.wire!r}, this is {self.name!r}",
                type="bad_request",
                hint="Go on with the settings that the run began with.",
            )
        return ChatThread(self, agent, tuple(state.items) if state else ())

    async def close(self) -> None:
        """Closes the client and its connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def models(self, within: float = 10.0) -> list[str]:
        """The names of the models that the server offers, in its order; ModelError when it does not tell."""
        import httpx2

        deadline = Deadline.after(within, f"did not list its models within {within:g} s")
        asked = self.client().get("/models", cast_to=httpx2.Response, options=request_options(within))
        response = await self.server.bounded(asked, deadline)
        try:
            return [str(entry["id"]) for entry in json.loads(response.content)["data"]]
        except (ValueError, TypeError, KeyError):
            raise self.server.malformed(response.text[:1000], "a list of models that cannot be read") from None

    def client(self) -> "AsyncOpenAI":
        """The wire's one client, made when it is first needed."""
        if self._client is None:
            self._client = self.server.client(*self._account)
        return self._client

    def request(self, agent: AgentSpec, items: tuple[Message, ...], options: CallOptions) -> dict[str, Any]:
        """The body of one request; the same for the same agent and items, byte for byte."""
        model = agent.model or self.model
        accepted = self.accepted(model)
        able = accepted.capabilities
        system = [{"role": "system", "content": sendable(agent.instructions)}] if agent.instructions else []
        body: dict[str, Any] = {"model": model, "messages": [*system, *items]}
        if agent.tools:
            body["tools"] = [_tool(tool.name, tool.description, tool.parameters, able) for tool in agent.tools]
        if agent.output is not None and able.schema == "strict":
            shape = {"name": re.sub(r"[^\w-]", "_", agent.name, flags=re.ASCII)[:64] or "reply"}
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {**shape, "schema": dict(agent.output), "strict": True},
            }
        elif agent.output is not None and able.schema == "object":
            body["response_format"] = {"type": "json_object"}
        if agent.temperature is not None and accepted.temperature:
            body["temperature"] = agent.temperature
        if agent.max_output_tokens is not None and accepted.max_tokens:
            body[accepted.max_tokens[0]] = agent.max_output_tokens
        if options.stream and able.stream and (able.stream_with_tools or not agent.tools):
            body["stream"] = True
            if able.usage_in_stream:
                body["stream_options"] = {"include_usage": True}
        return body

    async def ask(self, body: dict[str, Any], seconds: float, answer: Answer) -> AsyncGenerator[str, None]:
        """One request of so many seconds at most: its text as it comes, the rest in `answer`; else ModelError."""
        try:
            async with aclosing(self._ask(body, seconds, answer)) as pieces:
                async for piece in pieces:
                    yield piece
        except RefusedRequestError as error:
            raise self._lowered(error, body) from error

    async def _ask(self, body: dict[str, Any], seconds: float, answer: Answer) -> AsyncGenerator[str, None]:
        import httpx2
        from openai import AsyncStream

        deadline = Deadline.after(seconds, f"did not finish its reply within {seconds:g} s")
        options = request_options(seconds)
        # The SDK's `post`, because what compatible servers send does not always fit its types: Answer reads the JSON.
        if not body.get("stream"):
            plain = self.client().post(PATH, cast_to=httpx2.Response, body=body, options=options)
            answer.whole((await self.server.bounded(plain, deadline)).content)
            return
        streamed = self.client().post(
            PATH, cast_to=object, body=body, options=options, stream=True, stream_cls=AsyncStream[object]
        )
        stream = await self.server.bounded(streamed, deadline)
        try:
            kind = stream.response.headers.get("content-type", "")
            if "json" in kind or "html" in kind:  # a server that cannot stream, or something else in its place
                answer.whole(await self.server.bounded(stream.response.aread(), deadline))
                return
            idle = min(self._idle_timeout, seconds)
            async with aclosing(self._read(stream, deadline, idle, answer)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            await stream.close()

    async def _read(
        self, stream: "AsyncStream[object]", deadline: Deadline, idle: float, answer: Answer
    ) -> AsyncGenerator[str, None]:
        """The pieces of text of a stream; each wait has its own bound, for `asyncio.timeout` may not span a `yield`."""
        # Before the first chunk a server may load the model, and a model think, for as long as the request may take.
        bound = deadline
        while True:
            try:
                chunk = await self.server.bounded(anext(stream, _END), bound)
            except ModelError:
                if answer.finish:  # what is paid for and whole is not asked for again because its usage is missing
                    return
                raise
            if chunk is _END:
                return
            if piece := answer.add(chunk):
                yield piece
            silence = min(idle, AFTER_THE_END) if answer.finish else idle
            bound = deadline.or_after(silence, f"fell silent for {idle:g} s in the middle of its reply")

    def _lowered(self, error: RefusedRequestError, body: dict[str, Any]) -> ModelError:
        """The error to raise: retryable at once if the next request leaves out what was refused, else as it is."""
        model = body["model"]
        left, refused = self.accepted(model).without(error.complaint, body)
        if not refused:
            return error
        self._accepted[model] = left
        message = f"{error.message} (so from now on without {' and '.join(refused)})"
        return ModelError(message, type="bad_request", retryable=True, retry_after=0.0)


class ChatThread:
    """A conversation as a list of messages. Use `contextlib.aclosing` on `send` to let go of it before its end."""

    def __init__(self, wire: Chat, agent: AgentSpec, items: tuple[Message, ...]) -> None:
        self.agent = agent
        self._wire = wire
        self._items = items

    @property
    def state(self) -> ThreadState:
        """The messages after the instructions."""
        return ThreadState(self._wire.name, {}, self._items)

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One request: pieces of text if it is streamed, then the Reply. ModelError leaves the thread as it was."""
        asked = (*self._items, *_messages(turn))
        answer = Answer(self._wire.server)
        body = self._wire.request(self.agent, asked, options)
        async with aclosing(self._wire.ask(body, options.timeout, answer)) as pieces:
            async for piece in pieces:
                yield TextPiece(piece)
        earlier = {call["id"] for item in self._items for call in item.get("tool_calls", ())}
        reply, message = answer.reply(earlier)
        self._items = (*asked, message)
        yield reply

    async def cancel(self) -> None:
        """Nothing: a request ends with its connection, which closing or cancelling `send` closes."""


def _messages(turn: Turn) -> list[Message]:
    match turn:
        case UserTurn(text):
            return [{"role": "user", "content": sendable(text)}]
        case ToolOutputs(outputs):
            return [
                {"role": "tool", "tool_call_id": output.call_id, "content": sendable(output.text)} for output in outputs
            ]


def _tool(name: str, description: str, parameters: Mapping[str, Any], able: Capabilities) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": description, "parameters": dict(parameters)}
    if able.strict_tools:
        function["strict"] = True
    return {"type": "function", "function": function}
