"""The `assistants` wire: OpenAI's Assistants v2, for servers that still speak it; OpenAI's own does not any more.

An agent is an assistant, made once for each content; a Thread is a thread of the server's, a Run a run on it. What is
missing is made by the first `send`, within its time and under its retries; `open` asks nothing.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from master_agent.context import Boundaries
from master_agent.errors import ModelError
from master_agent.prompts import Prompts
from master_agent.threads import AgentSpec, CallOptions, Capabilities, ModelToolCall, ThreadState
from master_agent.threads._assistant_thread import ASKING, AssistantThread
from master_agent.threads._openai import Deadline, request_options, sendable
from master_agent.threads._runs import Event, id_of, status_of
from master_agent.threads._wire import OneRequestWire, schema_name

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._types import RequestOptions

T = TypeVar("T")

Retell = Callable[[Sequence[tuple[ModelToolCall, str]]], str]
"""From calls and their outputs to the message that gives them to the model after their run has expired."""

BETA = {"OpenAI-Beta": "assistants=v2"}
SWITCHED_OFF = "OpenAI switched its Assistants API off on 2026-08-26"
CLOSING = 3.0
"""Seconds in which everything is deleted at the end, or else left behind."""
AT_ONCE = 8
"""How many requests to delete something are on their way together."""

_END = object()


def as_data(answered: Sequence[tuple[ModelToolCall, str]]) -> str:
    """Calls and their outputs as JSON, without a word around it."""
    told = [{"tool": call.name, "arguments": call.arguments, "output": output} for call, output in answered]
    return json.dumps(told, ensure_ascii=False)


def in_words(prompts: Prompts, boundaries: Boundaries) -> Retell:
    """Calls and their outputs in the words of prompts/expired.md, the outputs inside the marks of data."""

    def retell(answered: Sequence[tuple[ModelToolCall, str]]) -> str:
        blocks = [boundaries.wrap(f"\n{as_data([one])}\n", tool=one[0].name) for one in answered]
        return prompts.fill("expired", outputs="\n".join(blocks)).message

    return retell


class Assistants(OneRequestWire):
    """The Assistants v2 API of one server through one client; `model` is for agents that name none.

    `sleep` waits between looks at a run; `idle_timeout` is the longest silence within a stream, in seconds. With `keep`
    nothing is deleted at the end, so that threads can be gone on with from their states. ModelError for OpenAI's own
    address, which has no such API any more.
    """

    name = "assistants"

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        model: str,
        *,
        client: "AsyncOpenAI | None" = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        retell: Retell = as_data,
        keep: bool = False,
        capabilities: Capabilities | None = None,
        idle_timeout: float = 60.0,
    ) -> None:
        able = capabilities or Capabilities(pictures=False)  # a message takes none that is not uploaded before
        super().__init__(api_key, base_url, model, capabilities=able, client=client, idle_timeout=idle_timeout)
        if self.server.is_openai:
            raise switched_off(SWITCHED_OFF)
        self.sleep = sleep
        self.retell = retell
        self.left: list[str] = []
        """What `close` could not delete, and why."""
        self._keep = keep
        self._assistants: dict[str, asyncio.Task[str]] = {}
        self._made: list[str] = []
        self._threads: list[AssistantThread] = []
        self._going: set[asyncio.Task[Any]] = set()

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> AssistantThread:
        """A thread for the agent, or the one that `state` describes; no request is made."""
        self.check(agent, state)
        thread = AssistantThread(self, agent, state or ThreadState(self.name))
        self._threads.append(thread)
        return thread

    async def assistant(self, agent: AgentSpec, deadline: Deadline) -> str:
        """The id of the assistant that is this agent; made when it is first needed, by whoever comes first."""
        body = self._assistant_body(agent)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        making = self._assistants.get(digest)
        if making is None or (making.done() and (making.cancelled() or making.exception())):
            body["metadata"] = {"master_agent": digest}
            making = self._assistants[digest] = self.start(self._make("/assistants", body))
        return await self.server.bounded(asyncio.shield(making), deadline)

    async def thread(self, agent: AgentSpec, deadline: Deadline) -> str:
        """The id of a new thread."""
        body = {"metadata": {"master_agent": sendable(agent.name)[:512]}}
        return await self.server.bounded(asyncio.shield(self.start(self._make("/threads", body))), deadline)

    def _assistant_body(self, agent: AgentSpec) -> dict[str, Any]:
        strict = {"strict": True} if self.capabilities.strict_tools else {}
        functions = [
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters), **strict}
            for tool in agent.tools
        ]
        return {
            "model": agent.model or self.model,
            "name": sendable(agent.name)[:256],
            "instructions": sendable(agent.instructions),
            "tools": [{"type": "function", "function": function} for function in functions],
        }

    async def _make(self, path: str, body: dict[str, Any]) -> str:
        """The id of what was made, which `close` deletes again."""
        deadline = Deadline.after(ASKING, f"did not answer within {ASKING:g} s")
        try:
            made = id_of(await self.request("POST", path, deadline, body=body), self.server)
        except ModelError as error:
            if status_of(error) == 404 and error.type != "model_not_found":
                told = f"{self.server.shown} answered 404: it has no Assistants API ({SWITCHED_OFF})"
                raise switched_off(told, self.server.hint()) from error
            raise
        self._made.append(f"{path}/{quote(made, safe='')}")
        return made

    def run_body(self, agent: AgentSpec, assistant: str, options: CallOptions) -> dict[str, Any]:
        """What a run is made with beside what its assistant says already."""
        accepted = self.accepted(agent.model or self.model)
        body: dict[str, Any] = {"assistant_id": assistant, **self.streamed(agent, options)}
        if agent.output is not None and accepted.capabilities.schema == "strict":
            shape = {"name": schema_name(agent), "schema": dict(agent.output), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif agent.output is not None and accepted.capabilities.schema == "object":
            body["response_format"] = {"type": "json_object"}
        wanted = {"temperature": agent.temperature, "max_completion_tokens": options.most(agent)}
        body |= {name: value for name, value in wanted.items() if value is not None and accepted.takes(name)}
        return body

    def streamed(self, agent: AgentSpec, options: CallOptions) -> dict[str, Any]:
        """`stream`, when caller and server are for it."""
        able = self.accepted(agent.model or self.model).capabilities
        return (
            {"stream": True} if options.stream and able.stream and (able.stream_with_tools or not agent.tools) else {}
        )

    def refused(self, error: ModelError, agent: AgentSpec, body: Mapping[str, Any]) -> ModelError:
        """The error to raise: retryable at once if the next request leaves out what was refused, else as it is."""
        return self.explained(error, {**body, "model": agent.model or self.model})

    async def request(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        deadline: Deadline,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Event:
        """One request and its whole answer; else ModelError."""
        import httpx2

        options: RequestOptions = {**_options(deadline), "params": dict(params or {})}
        # Not the SDK's own methods: they warn that they are deprecated, and its types do not fit every server.
        match method:
            case "GET":
                asked = self.client().get(path, cast_to=httpx2.Response, options=options)
            case "POST":
                asked = self.client().post(path, cast_to=httpx2.Response, body=body, options=options)
            case "DELETE":
                asked = self.client().delete(path, cast_to=httpx2.Response, options=options)
        return self._whole(await self.server.bounded(asked, deadline))

    async def events(self, path: str, body: Mapping[str, Any], deadline: Deadline) -> AsyncGenerator[Event, None]:
        """What comes of a request that sets a run going: the events of its stream, or the run as it is then."""
        from master_agent.sdk import openai

        if not body.get("stream"):
            yield await self.request("POST", path, deadline, body=body)
            return
        options: RequestOptions = {**_options(deadline), "synthesize_event_and_data": True}
        asked = self.client().post(
            path, cast_to=object, body=body, options=options, stream=True, stream_cls=openai.AsyncStream[object]
        )
        stream = await self.server.bounded(asked, deadline)
        try:
            kind = stream.response.headers.get("content-type", "")
            if "json" in kind or "html" in kind:  # a server that cannot stream, or something else in its place
                await self.server.bounded(stream.response.aread(), deadline)
                yield self._whole(stream.response)
                return
            bound = deadline
            while (event := await self.server.bounded(anext(stream, _END), bound)) is not _END:
                if isinstance(event, Mapping):
                    yield Event(event.get("data"), str(event.get("event") or "message"))
                silence = f"fell silent for {self._idle_timeout:g} s in the middle of its reply"
                bound = deadline.or_after(self._idle_timeout, silence)
        finally:
            await stream.close()

    def _whole(self, response: Any) -> Event:
        shown = response.text[:1000]
        try:
            data = json.loads(response.content)
        except (ValueError, RecursionError):
            raise self.server.malformed(shown) from None
        if not isinstance(data, Mapping):
            raise self.server.malformed(shown)
        if data.get("error") and "id" not in data:
            raise self.server.reported(data["error"])
        return Event(data, poll_after=_poll_after(response.headers))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that is finished even if whoever waits for it is cancelled; `close` waits for it too."""
        task = asyncio.create_task(work)
        self._going.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._going.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left to

    def keep_threads(self) -> None:
        """Leaves threads and assistants on the server at `close`."""
        self._keep = True

    async def close(self) -> None:
        """Ends the runs that wait for us and deletes what was made here, within CLOSING seconds; closes the client.

        What could not be deleted is in `left`. With `keep` everything stays as it is.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await self._let_go()
        finally:
            self.left += [f"{path}: there was no time to delete it" for path in self._made if not self._keep]
            self._made.clear()
            for task in self._going:
                task.cancel()
            await asyncio.gather(*self._going, return_exceptions=True)
            await super().close()

    async def _let_go(self) -> None:
        if self._going:
            await asyncio.wait(self._going)
        if self._keep or self._client is None:
            return
        turnstile = asyncio.Semaphore(AT_ONCE)
        deadline = Deadline.after(CLOSING, f"did not answer within {CLOSING:g} s")

        async def delete(path: str) -> None:
            async with turnstile:
                try:
                    await self.request("DELETE", path, deadline)
                except ModelError as error:
                    self.left.append(f"{path}: {error.message}")
            self._made.remove(path)

        await asyncio.gather(*(thread.cancel() for thread in self._threads))
        await asyncio.gather(*(delete(path) for path in list(self._made)))


def switched_off(message: str, hint: str | None = None) -> ModelError:
    """The error for a server that has no such API."""
    way_out = "Use --wire responses with OpenAI, --wire chat with most other servers; OPENAI_BASE_URL names the server."
    return ModelError(message, type="no_model", hint=f"{hint} {way_out}" if hint else way_out)


def _options(deadline: Deadline) -> "RequestOptions":
    seconds = max(0.01, deadline.at - asyncio.get_running_loop().time())
    return {**request_options(seconds), "headers": BETA}


def _poll_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, int(headers.get("openai-poll-after-ms", "")) / 1000)
    except ValueError:
        return None
