"""The `responses` wire: a Thread is a chain of responses, a Conversation or our own list; a Run is one response a turn.

A server carries over what was said, but neither instructions nor tools, so both go out with every request. As on the
`chat` wire, what a server refuses of a request is learnt and not asked for again.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

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
    ToolSpec,
    Turn,
    UserTurn,
)
from master_agent.threads import _conversations as conversations
from master_agent.threads import _hosted as hosted
from master_agent.threads._accepted import UNSEEN
from master_agent.threads._openai import (
    Deadline,
    RefusedRequestError,
    Said,
    Server,
    sendable,
)
from master_agent.threads._responses import Answer, Item
from master_agent.threads._wire import OneRequestWire, cache_key, schema_name

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Store = Literal["response", "conversation", "none"]

LAST = "item"
"""What a thread's state calls the id of the last item that is known of a Conversation."""

_HELD = {"response": "previous_response_id", "conversation": "conversation"}
"""What a thread's state calls the id that it goes on from, and what a request calls it."""


class Responses(OneRequestWire):
    """The Responses API of one server through one client; `model` is for agents that name none.

    `store` says where a thread is kept. "response": each response names the one before it, and the server keeps them
    (OpenAI for 30 days). "conversation": in a Conversation, made at the first turn, that the server keeps until it is
    deleted; this wire never does that, for the run may be gone on with. A reply that got lost on its way may stand in
    it all the same, with its turn: both are deleted there before the turn is sent again. "none": on this side, and the
    server is asked to keep nothing.

    `idle_timeout` is the longest silence within a stream, in seconds, of an agent without hosted tools; those may take
    all the time there is without a word. A `client` given is closed with the wire.
    Nothing but the arguments is looked at: no key, address, organisation or project of the environment.
    """

    name = "responses"
    path = "/responses"

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        model: str,
        *,
        store: Store = "response",
        capabilities: Capabilities | None = None,
        client: "AsyncOpenAI | None" = None,
        idle_timeout: float = 60.0,
        organization: str | None = None,
        project: str | None = None,
        server: Server | None = None,
    ) -> None:
        super().__init__(
            api_key,
            base_url,
            model,
            capabilities=capabilities or Capabilities(hosted_tools=frozenset(hosted.TOOLS)),
            client=client,
            idle_timeout=idle_timeout,
            organization=organization,
            project=project,
            server=server,
        )
        self.store: Store = store

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> "ResponsesThread":
        """A thread for the agent, going on where `state` ends; no request is made."""
        self.check(agent, state)
        state = state or ThreadState(self.name)
        held = next((kind for kind in _HELD if kind in state.ids), "none" if state.items else self.store)
        if held != self.store:
            raise ModelError(
                f"the conversation of the agent {agent.name!r} began with --thread-store {held}, this is {self.store}",
                type="bad_request",
                hint=f"Go on as the run began: --thread-store {held}",
            )
        return ResponsesThread(self, agent, state)

    def request(
        self, agent: AgentSpec, held: str | None, items: tuple[Item, ...], options: CallOptions
    ) -> dict[str, Any]:
        """The body of one request, byte for byte the same for the same agent, id and items."""
        model = agent.model or self.model
        accepted = self.accepted(model)
        able = accepted.capabilities
        said = items if able.pictures else tuple(map(_blind, items))
        body: dict[str, Any] = {"model": model, "input": list(said), "store": self.store != "none"}
        if held is not None:
            body[_HELD[self.store]] = held
        if agent.instructions:
            body["instructions"] = sendable(agent.instructions)
        if tools := [*(_tool(tool, able) for tool in agent.tools), *hosted.asked_for(agent.hosted)]:
            body["tools"] = tools
        if agent.output is not None and able.schema != "none":
            body["text"] = {"format": _format(agent, able)}
        if agent.temperature is not None and accepted.takes("temperature"):
            body["temperature"] = agent.temperature
        if (most := options.most(agent)) is not None and accepted.takes("max_output_tokens"):
            body["max_output_tokens"] = most
        if accepted.takes("prompt_cache_key"):
            body["prompt_cache_key"] = cache_key(agent, model)
        if self.store == "none" and accepted.takes("include"):
            outputs = [hosted.OUTPUTS] if "code_interpreter" in agent.hosted else []
            body["include"] = ["reasoning.encrypted_content", *outputs]
        if options.stream and able.stream and (able.stream_with_tools or not tools):
            body["stream"] = True
        return body

    def idle(self, body: dict[str, Any]) -> float:
        """As long as the request may take where the server runs tools, for it says nothing meanwhile."""
        runs = any(tool["type"] in hosted.TOOLS for tool in body.get("tools", ()))
        return math.inf if runs else super().idle(body)

    async def with_left(self, reply: Reply, answer: Answer, seconds: float) -> Reply:
        """The reply with what the server's tools have left; their files are fetched within so many seconds."""
        seconds = min(seconds, hosted.FETCHING)
        deadline = Deadline.after(seconds, f"did not give it within {seconds:g} s")
        return await hosted.with_left(
            reply, answer.items, lambda file: hosted.fetched(self.client(), self.server, file, deadline)
        )

    def explained(self, error: ModelError, body: dict[str, Any]) -> ModelError:
        """The error with what is particular to this wire: a server without it, or one that has forgotten the thread."""
        status, said = conversations.answered(error)
        if (locked := conversations.busy(error)) is not None:
            return locked
        held = body.get("previous_response_id") or body.get("conversation")
        if held and status in (400, 404) and _forgotten(held, said):
            return ModelError(
                f"{self.server.shown} no longer knows {held}, from which the conversation goes on",
                type="bad_request",
                hint="Run the step anew; with --thread-store none, conversations are kept on this side.",
            )
        about_route = status in conversations.NO_ROUTE and error.type != "model_not_found" and not said.param
        if about_route and not self.server.is_openai:
            hint = "This server does not seem to speak Responses: try --wire chat."
            return ModelError(
                error.message, type="bad_request", hint=" ".join(part for part in (self.server.hint(), hint) if part)
            )
        if isinstance(error, RefusedRequestError) and (tool := hosted.refused(body, error.complaint)):
            hint = f"This server or model does not run {tool}: name another model, or take it out of `hosted`."
            return ModelError(error.message, type="bad_request", hint=hint)
        told = super().explained(error, body)
        if told is error and isinstance(error, RefusedRequestError) and _about_keeping(error.complaint):
            hint = "This server or account does not keep what was said: try --thread-store none."
            return ModelError(error.message, type="bad_request", hint=hint)
        return told


class ResponsesThread:
    """A conversation by the id of what the server holds of it, or by its items.

    A response that failed, was cancelled, or was cut off within a call cannot be gone on from: the next turn follows
    the last response that can. Use `contextlib.aclosing` on `send` to let go of it before its end.
    """

    def __init__(self, wire: Responses, agent: AgentSpec, state: ThreadState) -> None:
        self.agent = agent
        self.state = state
        self._wire = wire
        self._held = state.ids.get(wire.store)
        self._sound = wire.store != "conversation"
        """Whether the server is known to hold no more than the state says."""
        self._begun = False
        """Whether the Conversation was begun here, and nothing in it is known yet."""

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One request: pieces of text if it is streamed, then the Reply. ModelError leaves the state as it was.

        Where a Conversation has to be begun or taken back before, all these requests share the options' seconds.
        """
        wire, seconds = self._wire, options.timeout
        if not self._sound:
            clock = asyncio.get_running_loop().time
            began = clock()
            await self._prepare(turn, seconds)
            seconds = max(0.001, seconds - (clock() - began))
        self._sound = wire.store != "conversation"
        asked = (*self.state.items, *_items(turn))
        answer = Answer(wire.server)
        body = wire.request(self.agent, self._held, asked, options)
        async with aclosing(wire.ask(body, seconds, answer)) as pieces:
            async for piece in pieces:
                yield TextPiece(piece)
        taken = {item["call_id"] for item in self.state.items if item.get("type") == "function_call"}
        reply, made = answer.reply(taken if wire.store == "none" else None)
        if self.agent.hosted:
            reply = await wire.with_left(reply, answer, options.timeout)
        self._remember(asked, made, answer, reply)
        yield reply

    async def cancel(self) -> None:
        """Nothing: a request ends with its connection, which closing or cancelling `send` closes."""

    async def _prepare(self, turn: Turn, seconds: float) -> None:
        """Begins the Conversation, or takes it back to what the state knows of it."""
        client, server = self._wire.client(), self._wire.server
        if self._held is None:
            self._held, self._begun = await conversations.begin(client, server, seconds), True
            return
        last = self.state.ids.get(LAST)
        calls = {output.call_id for output in turn.outputs} if isinstance(turn, ToolOutputs) else set()

        def known(item: Item) -> bool:
            return item["id"] == last or (item.get("type") == "function_call" and item.get("call_id") in calls)

        await conversations.take_back(client, server, self._held, None if self._begun else known, seconds)

    def _remember(self, asked: tuple[Item, ...], made: tuple[Item, ...] | None, answer: Answer, reply: Reply) -> None:
        name = self._wire.name
        match self._wire.store:
            case "none" if made is not None:
                self.state = ThreadState(name, {}, (*asked, *made))
            case "conversation" if self._held is not None:
                last = self.state.ids.get(LAST)
                if made is not None and (reply.calls or not answer.calls_something):
                    self._sound, self._begun, last = True, False, answer.last
                self.state = ThreadState(name, {"conversation": self._held, **({LAST: last} if last else {})})
            case "response" if made is not None:
                self._check_chain(answer)
                if reply.calls or not answer.calls_something:
                    self._held = answer.id
                    self.state = ThreadState(name, {"response": answer.id or ""})

    def _check_chain(self, answer: Answer) -> None:
        """ModelError when the server does not keep the chain: a model that has forgotten all must not go on."""
        server = self._wire.server
        hint = "This server does not keep responses: use --thread-store none."
        if answer.id is None:
            raise ModelError(f"{server.shown} gave a response without an id", type="malformed_reply", hint=hint)
        if self._held is not None and answer.response.get("previous_response_id", self._held) != self._held:
            message = f"{server.shown} answered without what was said before"
            raise ModelError(message, type="malformed_reply", hint=hint)


def _items(turn: Turn) -> list[Item]:
    match turn:
        case UserTurn(text, pictures):
            return [{"type": "message", "role": "user", "content": _parts(text, pictures)}]
        case ToolOutputs(outputs):
            return [
                {
                    "type": "function_call_output",
                    "call_id": output.call_id,
                    "output": _parts(output.text, output.pictures),
                }
                for output in outputs
            ]


def _parts(text: str, pictures: Iterable[Attachment]) -> str | list[Item]:
    """The text, and each picture behind its name."""
    shown: list[Item] = []
    for picture in pictures:
        shown.append({"type": "input_text", "text": sendable(picture.name)})
        shown.append({"type": "input_image", "image_url": picture.data_url, "detail": "auto"})
    return [{"type": "input_text", "text": sendable(text)}, *shown] if shown else sendable(text)


def _blind(item: Item) -> Item:
    """The item without its pictures, for a model that refuses them; their names stay."""
    name = "output" if item.get("type") == "function_call_output" else "content"
    parts = item.get(name)
    if not isinstance(parts, list) or not any(part.get("type") == "input_image" for part in parts):
        return item
    unseen = {"type": "input_text", "text": UNSEEN}
    return {**item, name: [unseen if part.get("type") == "input_image" else part for part in parts]}


def _tool(tool: ToolSpec, able: Capabilities) -> dict[str, Any]:
    named = {"type": "function", "name": tool.name, "description": tool.description}
    return {**named, "parameters": dict(tool.parameters), "strict": able.strict_tools}


def _format(agent: AgentSpec, able: Capabilities) -> Mapping[str, Any]:
    if able.schema == "object":
        return {"type": "json_object"}
    return {"type": "json_schema", "name": schema_name(agent), "schema": dict(agent.output or {}), "strict": True}


def _forgotten(held: str, said: Said) -> bool:
    complaint = said.complaint.lower()
    named = held.lower() in complaint or any(name in complaint for name in ("previous_response", "previous response"))
    return named and any(word in complaint for word in ("not found", "not_found", "does not exist", "expired"))


def _about_keeping(complaint: str) -> bool:
    return any(word in complaint.lower() for word in ("previous_response", "previous response", "'store'", "retention"))
