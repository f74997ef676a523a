"""A loopback server that speaks Assistants v2: assistants, threads, messages, and runs with a life of their own.

    with AssistantsServer([says("Hello.")]) as server:
        Assistants("sk-test", server.base_url, "test-model")

What the model does in each round of a run is an Act, chosen by a brain or a list. As OpenAI did, it refuses bodies that
do not fit the SDK's own types, messages and runs while a run is active, and outputs that are not all that were asked.
The real SDK takes it for the service, which `tests/threads/test_assistants_stand_in.py` proves.
"""

import asyncio
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import TypeAdapter, ValidationError

from tests.servers.assistant_runs import ACTIVE, Act, Run, says, streamed
from tests.servers.chat import error, json_body
from tests.servers.loopback import Behaviour, Body, Exchange, Loopback, Recorded

BETA = "assistants=v2"


@dataclass(frozen=True)
class Asked:
    """What the brain sees of a round: the run's request, all messages of the thread, the outputs if there are any."""

    run: Body
    messages: Sequence[Body]
    outputs: Sequence[Body] = ()


@dataclass(frozen=True)
class Late:
    """A misbehaviour after the request has had its effect: only the answer is lost."""

    behaviour: Behaviour


@dataclass(frozen=True)
class Slow:
    """A request that has its effect at once and is answered only after some seconds."""

    seconds: float


Brain = Callable[[Asked], Act]
Fault = Behaviour | Late | Slow | None


def respond(asked: Asked) -> Act:
    """The brain of a server that is given none: says again what it was told last."""
    last = asked.messages[-1]["content"][0]["text"]["value"] if asked.messages else "nothing"
    return says(f"You said: {last}")


class AssistantsServer(Loopback):
    """The server; a list of acts is used up in order, and a round after its end fails.

    `faults` are misbehaviours for a kind of request (assistant, thread, message, run, submit, cancel, poll, runs,
    messages, steps, delete), used up in order, None for none. `poll_after_ms` goes into every answer about a run.
    Without `filters` a list of messages is always of all of them.
    """

    def __init__(
        self,
        acts: Brain | Sequence[Act] = respond,
        *,
        faults: Mapping[str, Sequence[Fault]] | None = None,
        poll_after_ms: int | None = 1,
        filters: bool = True,
        models: Sequence[str] = ("test-model",),
    ) -> None:
        super().__init__()
        self.bad_bodies: list[str] = []
        self.assistants: dict[str, Body] = {}
        self.threads: dict[str, list[Body]] = {}
        self.runs: dict[str, Run] = {}
        self._brain = acts if callable(acts) else _in_order(acts)
        self._faults = {kind: list(some) for kind, some in (faults or {}).items()}
        self._poll_after_ms = poll_after_ms
        self._filters = filters
        self._models = models
        self._made = 0

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def running(self) -> list[str]:
        """The runs that go on, or wait for somebody."""
        return [run.id for run in self.runs.values() if run.status in ACTIVE - {"cancelling"}]

    @property
    def existing(self) -> list[str]:
        """The assistants and threads that were not deleted."""
        return [*self.assistants, *self.threads]

    def asked(self, kind: str) -> list[Recorded]:
        """The requests of one kind, in order."""
        return [request for request in self.requests if _kind(request) == kind]

    def bodies(self, kind: str) -> list[Body]:
        return [request.body for request in self.asked(kind)]

    def expire(self) -> None:
        """Ten minutes go by: every run that waits for outputs expires."""
        for run in self.runs.values():
            if run.status == "requires_action":
                run.status = "expired"

    def new_id(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}_{self._made}"

    def add_message(self, thread: str, role: str, parts: Sequence[Body], run: Run | None = None) -> Body:
        """A new message at the end of the thread."""
        message: Body = {
            "id": self.new_id("msg"),
            "object": "thread.message",
            "created_at": 1,
            "thread_id": thread,
            "role": role,
            "content": list(parts),
            "assistant_id": run.assistant if run else None,
            "run_id": run.id if run else None,
            "status": "completed",
            "attachments": [],
            "metadata": {},
        }
        self.threads[thread].append(message)
        return message

    def behaviour(self, request: Recorded) -> Behaviour:
        kind = _kind(request)
        left = self._faults.get(kind)
        fault = left.pop(0) if left else None
        match fault:
            case None:
                return self._answer(request, kind)
            case Late(behaviour):
                self._answer(request, kind)
                return behaviour
            case Slow(seconds):
                answer = self._answer(request, kind)

                async def behave(exchange: Exchange) -> None:
                    await asyncio.sleep(seconds)
                    await answer(exchange)

                return behave
        return fault

    def _answer(self, request: Recorded, kind: str) -> Behaviour:
        if kind == "models":
            return json_body({"data": [{"id": name} for name in self._models]})
        if request.headers.get("openai-beta") != BETA:
            return error(400, "You must provide the 'OpenAI-Beta' header to access the Assistants API.")
        if fault := body_fault(kind, request.body):
            self.bad_bodies.append(fault)
            return error(400, fault)
        parts = urlsplit(request.path).path.split("/")[2:]
        query = dict(parse_qsl(urlsplit(request.path).query))
        match parts:
            case ["assistants"]:
                made = {"id": self.new_id("asst"), "object": "assistant", "created_at": 1, **request.body}
                self.assistants[made["id"]] = made
                return json_body(made)
            case ["assistants", assistant] if assistant in self.assistants:
                del self.assistants[assistant]
                return json_body({"id": assistant, "object": "assistant.deleted", "deleted": True})
            case ["threads"]:
                thread = self.new_id("thread")
                self.threads[thread] = []
                return json_body({"id": thread, "object": "thread", "created_at": 1, "metadata": {}})
            case ["threads", thread, *rest] if thread in self.threads:
                return self._of_thread(request, kind, thread, rest, query)
        named = f"{parts[0].removesuffix('s')} found with id '{parts[1]}'" if len(parts) > 1 else "such path"
        return error(404, f"No {named}.")

    def _of_thread(
        self, request: Recorded, kind: str, thread: str, rest: Sequence[str], query: Mapping[str, str]
    ) -> Behaviour:
        active = [run for run in self.runs.values() if run.thread == thread and run.status in ACTIVE]
        match kind, rest:
            case "delete", []:
                del self.threads[thread]
                return json_body({"id": thread, "object": "thread.deleted", "deleted": True})
            case "delete", ["messages", message]:
                self.threads[thread] = [one for one in self.threads[thread] if one["id"] != message]
                return json_body({"id": message, "object": "thread.message.deleted", "deleted": True})
            case "message", _ if active:
                return error(400, f"Can't add messages to {thread} while a run {active[0].id} is active.")
            case "message", _:
                content = {"type": "text", "text": {"value": request.body["content"], "annotations": []}}
                return json_body(self.add_message(thread, request.body["role"], [content]))
            case "messages", _:
                if not self._filters:
                    query = {name: value for name, value in query.items() if name not in ("run_id", "after")}
                run_id = query.get("run_id")
                found = [one for one in self.threads[thread] if run_id in (None, one["run_id"])]
                return json_body(listed(found, query))
            case "runs", _:
                bodies = [self._look(run) for run in self.runs.values() if run.thread == thread]
                return json_body(listed(bodies, query))
            case "run", _ if active:
                return error(400, f"Thread {thread} already has an active run {active[0].id}.")
            case "run", _:
                return self._new_run(request.body, thread)
            case _, ["runs", name, *_] if name in self.runs and self.runs[name].thread == thread:
                return self._of_run(request, kind, self.runs[name])
        return error(404, f"No {kind} found with id '{rest[-1] if rest else thread}'.")

    def _of_run(self, request: Recorded, kind: str, run: Run) -> Behaviour:
        match kind:
            case "poll":
                return self._about(self._look(run))
            case "steps":
                return json_body(listed(run.steps(), {}))
            case "cancel" if run.status not in ACTIVE - {"cancelling"}:
                return error(400, f"Cannot cancel run with status '{run.status}'.")
            case "cancel":
                run.status = "cancelling"
                return self._about(run.body())
            case "submit" if run.status != "requires_action":
                return error(400, f'Runs in status "{run.status}" do not accept tool outputs.')
        given = [output["tool_call_id"] for output in request.body["tool_outputs"]]
        wanted = [call["id"] for call in run.calls]
        if sorted(given) != sorted(wanted):
            return error(400, f"Expected tool outputs for call_ids {wanted}, got {given}")
        return self._begin(run, self._brain(Asked(run.asked, self.threads[run.thread], request.body["tool_outputs"])))

    def _new_run(self, body: Body, thread: str) -> Behaviour:
        assistant = self.assistants.get(body["assistant_id"])
        if assistant is None:
            return error(404, f"No assistant found with id '{body['assistant_id']}'.")
        run = Run(self.new_id("run"), thread, assistant, body)
        act = self._brain(Asked(body, self.threads[thread]))
        self.runs[run.id] = run
        return self._begin(run, act)

    def _begin(self, run: Run, act: Act) -> Behaviour:
        """The run sets out for the end of this round, as a stream if that was asked for."""
        calls = [{**call, "id": call["id"] or self.new_id("call")} for call in act.calls]
        run.begin(replace(act, calls=calls))

        async def behave(exchange: Exchange) -> None:
            if exchange.streaming and act.streams:
                await streamed(exchange, run, act, functools.partial(self._finish, run))
            else:
                await self._about(run.body())(exchange)

        return behave

    def _look(self, run: Run) -> Body:
        """The run, a look older."""
        if run.look():
            self._finish(run)
        return run.body()

    def _finish(self, run: Run) -> list[Body]:
        """The round ends; the messages that it left."""
        return [self.add_message(run.thread, "assistant", parts, run) for parts in run.finish()]

    def _about(self, run: Body) -> Behaviour:
        headers = {} if self._poll_after_ms is None else {"openai-poll-after-ms": str(self._poll_after_ms)}

        async def behave(exchange: Exchange) -> None:
            await exchange.send_json(200, run, headers)

        return behave


def listed(entries: Iterable[Body], query: Mapping[str, str]) -> Body:
    """A page of a list."""
    data = list(entries)
    if query.get("order", "desc") == "desc":
        data.reverse()
    if "after" in query:
        ids = [one["id"] for one in data]
        data = data[ids.index(query["after"]) + 1 :] if query["after"] in ids else data
    limit = int(query.get("limit", "20"))
    page = data[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, "has_more": len(data) > limit, **ends}


def _in_order(acts: Sequence[Act]) -> Brain:
    left = iter(acts)
    return lambda _: next(left, None) or Act(end="failed", error={"code": "other", "message": "no act is left"})


def _kind(request: Recorded) -> str:
    """What a request asks for, in a word."""
    if request.method == "DELETE":
        return "delete"
    match request.method, urlsplit(request.path).path.split("/")[2:]:
        case "GET", [*_, "messages" | "runs" | "steps" | "models" as what]:
            return what
        case "GET", [*_, "runs", _]:
            return "poll"
        case "POST", [*_, "assistants" | "threads" | "messages" | "runs" as what]:
            return what.removesuffix("s")
        case "POST", [*_, "submit_tool_outputs" | "cancel" as what]:
            return what.removesuffix("_tool_outputs")
    return "unknown"


@functools.cache
def _adapter(kind: str) -> tuple[TypeAdapter[Any], frozenset[str]] | None:
    from openai.types.beta import assistant_create_params, thread_create_params
    from openai.types.beta.threads import message_create_params, run_create_params, run_submit_tool_outputs_params

    outputs = run_submit_tool_outputs_params
    kinds: dict[str, tuple[Any, ...]] = {
        "assistant": (assistant_create_params.AssistantCreateParams,),
        "thread": (thread_create_params.ThreadCreateParams,),
        "message": (message_create_params.MessageCreateParams,),
        "run": (run_create_params.RunCreateParamsNonStreaming, run_create_params.RunCreateParamsStreaming),
        "submit": (
            outputs.RunSubmitToolOutputsParamsNonStreaming,
            outputs.RunSubmitToolOutputsParamsStreaming,
        ),
    }
    if kind not in kinds:
        return None
    names = {name for one in kinds[kind] for name in one.__annotations__}
    return TypeAdapter(functools.reduce(lambda one, other: one | other, kinds[kind])), frozenset(names)


def body_fault(kind: str, body: Body) -> str | None:
    """What is wrong with a request by the SDK's types; None if nothing."""
    found = _adapter(kind)
    if found is None:
        return f"Unrecognized request arguments supplied: {json.dumps(body)}" if body else None
    adapter, names = found
    whole = {"thread_id": "in the path", **body} if kind == "submit" else body
    if unknown := whole.keys() - names:
        return f"Unrecognized request argument supplied: {', '.join(sorted(unknown))}"
    try:
        for value in adapter.validate_python(whole).values():
            if not isinstance(value, str | Mapping) and isinstance(value, Iterable):
                list(value)  # pydantic looks into an Iterable only as it is walked through
    except ValidationError as faults:
        return str(faults)
    return None
