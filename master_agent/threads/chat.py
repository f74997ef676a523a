"""The `chat` wire: a Thread is our own list of messages, a Run is Chat Completions, on any compatible server.

What one server cannot do (enforce a schema, report usage in a stream, take a temperature) is not known before it is
asked: a request that is refused for such a thing fails once, retryable at once, and is never made that way again.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from master_agent.attachments import Attachment
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
from master_agent.threads._accepted import UNSEEN
from master_agent.threads._completions import Answer
from master_agent.threads._fitting import (
    CAREFUL,
    HOPEFUL,
    OF_ANSWERS,
    SHRINK,
    LeftOut,
    characters,
    droppable,
    fitting,
    left,
    marked,
    room_after,
    room_of,
    seen,
)
from master_agent.threads._openai import RefusedRequestError, sendable
from master_agent.threads._wire import OneRequestWire, cache_key, schema_name

Message = Mapping[str, Any]


class Chat(OneRequestWire):
    """Chat Completions of one server through one client; `model` is for agents that name none.

    `idle_timeout` is the longest silence within a stream, in seconds. A `client` given is closed with the wire.
    Nothing but the arguments is looked at: no key, address, organisation or project of the environment.
    """

    name = "chat"
    path = "/chat/completions"
    left_out: LeftOut | None = None
    """What a model is told of rounds that were left out; without words for it none are."""

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> "ChatThread":
        """A thread for the agent, after the messages of `state`; no request is made."""
        self.check(agent, state)
        return ChatThread(self, agent, tuple(state.items) if state else ())

    def request(self, agent: AgentSpec, items: tuple[Message, ...], options: CallOptions) -> dict[str, Any]:
        """The body of one request; the same for the same agent and items, byte for byte."""
        model = agent.model or self.model
        accepted = self.accepted(model)
        able = accepted.capabilities
        items = seen(items, self.left_out)
        system = [{"role": "system", "content": sendable(agent.instructions)}] if agent.instructions else []
        said = items if able.pictures else tuple(map(_blind, items))
        body: dict[str, Any] = {"model": model, "messages": [*system, *said]}
        if agent.tools:
            body["tools"] = [_tool(tool.name, tool.description, tool.parameters, able) for tool in agent.tools]
            if not able.parallel_tools and accepted.takes("parallel_tool_calls"):
                body["parallel_tool_calls"] = False
        if (shape := _response_format(agent, able)) is not None:
            body["response_format"] = shape
        if agent.temperature is not None and accepted.takes("temperature"):
            body["temperature"] = agent.temperature
        first = able.length or ("max_completion_tokens" if self.server.is_openai else "max_tokens")
        names = sorted(("max_tokens", "max_completion_tokens"), key=lambda name: name != first)
        known = [name for name in names if accepted.takes(name)]
        if (most := options.most(agent)) is not None and known:
            body[known[0]] = most
        if self.server.is_openai and accepted.takes("prompt_cache_key"):  # no part of what others speak
            body["prompt_cache_key"] = cache_key(agent, model)
        if options.stream and _can_stream(body, able):
            body["stream"] = True
            if able.usage_in_stream:
                body["stream_options"] = {"include_usage": True}
        return body


class ChatThread:
    """A conversation as a list of messages. Use `contextlib.aclosing` on `send` to let go of it before its end."""

    def __init__(self, wire: Chat, agent: AgentSpec, items: tuple[Message, ...]) -> None:
        self.agent = agent
        self._wire = wire
        self._items = items
        self._room = room_of(items)
        """How many characters of a request fit, where that is known."""

    @property
    def state(self) -> ThreadState:
        """The messages after the instructions."""
        return ThreadState(self._wire.name, {}, self._items)

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One request: pieces of text if it is streamed, then the Reply. ModelError leaves the thread as it was."""
        asked, lost = self._fitted((*self._items, *_messages(turn)), options)
        answer = Answer(self._wire.server)
        body = self._wire.request(self.agent, asked, options)
        try:
            async with aclosing(self._wire.ask(body, options.timeout, answer)) as pieces:
                async for piece in pieces:
                    yield TextPiece(piece)
        except RefusedRequestError as error:
            if error.type != "context_exceeded" or not self._shortened(error, asked, characters(body), options):
                raise
            told = f"{error.message} (so from now on without the first answers and their tool calls)"
            raise ModelError(told, type=error.type, retryable=True, retry_after=0.0) from error
        earlier = {call["id"] for item in self._items for call in item.get("tool_calls", ())}
        reply, message = answer.reply(earlier)
        self._items = (*asked, message)
        self._room = room_of(asked)
        yield replace(reply, lost=(*reply.lost, *lost))

    def _fitted(self, items: tuple[Message, ...], options: CallOptions) -> tuple[tuple[Message, ...], tuple[str, ...]]:
        """The items, with a mark where rounds are newly left out, and what is said of that.

        ModelError where what must stay is too long by any reckoning.
        """
        context = self.capabilities.context
        if self._room is None and context is not None:
            reserved = min(options.most(self.agent) or int(context * OF_ANSWERS), context // 2)
            least = self._size((*items, marked(droppable(items), 0)) if droppable(items) else items, options)
            if least > (context - reserved) * HOPEFUL:
                raise self._wire.server.too_long(
                    f"the request comes to about {int(least / CAREFUL):,} tokens, "
                    f"and {self._wire.server.shown} reads {context:,} at once"
                )
            room = (context - reserved) * CAREFUL
        elif self._room is not None:
            room = self._room
        else:
            return items, ()
        done = left(self._items)
        rounds = fitting(items, room, lambda some: self._size(tuple(some), options)) if self._wire.left_out else done
        if rounds == done:
            return items, ()
        place, many = len(self._items), "1 answer" if rounds == 1 else f"{rounds} answers"
        lost = f"the first {many} with their tool calls and outputs were left out of a conversation that grew too long"
        return (*items[:place], marked(rounds, int(room)), *items[place:]), (lost,)

    def _size(self, items: tuple[Message, ...], options: CallOptions) -> float:
        return characters(self._wire.request(self.agent, items, options))

    def _shortened(
        self, error: RefusedRequestError, asked: tuple[Message, ...], size: float, options: CallOptions
    ) -> bool:
        """Whether rounds can be left out of what was too long for the server; then the next request does so."""
        done = left(asked)
        if self._wire.left_out is None or done >= droppable(asked):
            return False
        self._room = room_after(error.complaint, size)
        if fitting(asked, self._room, lambda some: self._size(tuple(some), options)) == done:
            self._room = size * SHRINK  # it should have fitted, but the server is right
        return True

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do with the agent's model, as far as it has shown."""
        return self._wire.accepted(self.agent.model or self._wire.model).capabilities

    def amend(self, text: str) -> None:
        """Puts `text` in the place of what the last Reply said."""
        self._items = (*self._items[:-1], {**self._items[-1], "content": text})

    async def cancel(self) -> None:
        """Nothing: a request ends with its connection, which closing or cancelling `send` closes."""


def _messages(turn: Turn) -> list[Message]:
    match turn:
        case UserTurn(text, ()):
            return [{"role": "user", "content": sendable(text)}]
        case UserTurn(text, pictures):
            return [{"role": "user", "content": [{"type": "text", "text": sendable(text)}, *_looks(pictures)]}]
        case ToolOutputs(outputs):
            answers: list[Message] = [
                {"role": "tool", "tool_call_id": output.call_id, "content": sendable(output.text)} for output in outputs
            ]
            # An answer to a tool call holds no picture here, so those of a round follow its answers.
            shown = [part for output in outputs for part in _looks(output.pictures)]
            return [*answers, {"role": "user", "content": shown}] if shown else answers


def _looks(pictures: Iterable[Attachment]) -> list[Message]:
    """Each picture behind its name."""
    parts: list[Message] = []
    for picture in pictures:
        parts.append({"type": "text", "text": sendable(picture.name)})
        parts.append({"type": "image_url", "image_url": {"url": picture.data_url}})
    return parts


def _blind(message: Message) -> Message:
    """The message without its pictures, for a model that refuses them; their names stay."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = [part["text"] if part["type"] == "text" else UNSEEN for part in content]
    return {**message, "content": "\n".join(texts)}


def _response_format(agent: AgentSpec, able: Capabilities) -> dict[str, Any] | None:
    """How the shape of the reply is asked for; None where that is not possible, and the prompt has to do."""
    if agent.output is None or (agent.tools and not able.schema_with_tools):
        return None
    match able.schema:
        case "strict":
            schema = {"name": schema_name(agent), "schema": dict(agent.output), "strict": True}
            return {"type": "json_schema", "json_schema": schema}
        case "object":
            return {"type": "json_object"}
    return None


def _can_stream(body: Mapping[str, Any], able: Capabilities) -> bool:
    """Whether the answer to such a request can be streamed."""
    with_tools, with_schema = "tools" in body, "response_format" in body
    return able.stream and (able.stream_with_tools or not with_tools) and (able.stream_with_schema or not with_schema)


def _tool(name: str, description: str, parameters: Mapping[str, Any], able: Capabilities) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": description, "parameters": dict(parameters)}
    if able.strict_tools:
        function["strict"] = True
    return {"type": "function", "function": function}
