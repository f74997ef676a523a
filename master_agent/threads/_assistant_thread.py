"""A thread of the Assistants wire: turns become messages and runs, runs are followed to their Reply, none is left over.

A turn that comes to nothing leaves the conversation as it was: its run is cancelled, and its message is used by the
next attempt with the same turn, or taken back.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from master_agent.errors import ModelError
from master_agent.results import Usage
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    ModelToolCall,
    Output,
    Reply,
    TextPiece,
    ThreadState,
    ToolOutputs,
    Turn,
    UserTurn,
)
from master_agent.threads._accepted import UNSEEN
from master_agent.threads._openai import Deadline, RefusedRequestError, sendable
from master_agent.threads._runs import ACTIVE, Event, Round, id_of, is_message, read_calls, status_of

if TYPE_CHECKING:
    from master_agent.threads.assistants import Assistants

ASKING = 30.0
"""Seconds that a request may take which lets no model speak."""
LETTING_GO = 2.0
"""Seconds to cancel a run in when nobody waits for it any more."""
LOOKS = (0.0, 0.3, 0.6)
"""Seconds before each look for a run whose making was given up while its request was on its way."""
FIRST_PACE, LONGEST_PACE, LEAST_PACE, GROWTH = 0.5, 2.0, 0.05, 1.5
"""Seconds between two looks at a run where the server names none; the least whatever it names; their growth."""
MOST_MESSAGES = 100
"""How many messages a server lists at once."""
PATIENCE = 3
"""How many looks at a run may fail one after the other."""

_BUSY = re.compile(r"active run|run \S+ is active", re.IGNORECASE)


class AssistantThread:
    """A conversation that the server keeps. Use `contextlib.aclosing` on `send` to let go of it before its end."""

    def __init__(self, wire: "Assistants", agent: AgentSpec, state: ThreadState) -> None:
        self.agent = agent
        self.state = state
        self._wire = wire
        self._thread = state.ids.get("thread")
        self._assistant = state.ids.get("assistant")
        self._run = state.ids.get("run")
        """The run that may be active."""
        self._unsure = False
        """Whether a run was asked for of which we do not know the id."""
        self._ending = False
        """Whether a run may still be ending that we cancelled."""
        self._waiting = False
        """Whether the run waits for outputs that it has not taken."""
        self._calls: tuple[ModelToolCall, ...] = ()
        self._told: Usage | None = None
        self._said: Turn | None = None
        """The turn whose message is on the thread, but whose Reply has not come."""
        self._message = ""
        self._doubtful = self._thread is not None
        """Whether the last message on the thread may be one that we do not know of."""

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One turn: pieces of text if it is streamed, then the Reply; ModelError when none can be had in time."""
        self._wire.client()  # the first one takes a while to make, which is not the server's time
        deadline = Deadline.after(options.timeout, f"did not finish its reply within {options.timeout:g} s")
        seen = Round(self._wire.server)
        try:
            async with aclosing(self._go(turn, options, deadline, seen)) as pieces:
                async for piece in pieces:
                    yield TextPiece(piece)
            reply, last = await self._reply(seen, deadline)
        except BaseException as error:  # a cancellation too ends the run
            self._forget(seen)
            if not (isinstance(error, ModelError) and self._waiting and not _passed(deadline)):
                answered = isinstance(error, ModelError) and error.type not in ("connection", "model_timeout")
                await self._end(LOOKS[:1] if answered else LOOKS)
            raise
        waits = reply.status == "requires_action"
        self._run, self._calls, self._said = (seen.id if waits else None), reply.calls, None
        self._told = _sum(self._told, reply.usage) if waits else None
        ids = {"thread": self._thread, "assistant": self._assistant, "run": seen.id, "message": last}
        self.state = ThreadState(self._wire.name, {name: id_ for name, id_ in ids.items() if id_})
        yield reply

    async def cancel(self) -> None:
        """Cancels what runs on the server, in LETTING_GO seconds at most, even if the caller is cancelled meanwhile."""
        await self._end(LOOKS)

    async def _end(self, looks: Sequence[float]) -> None:
        if self._thread and (self._run or self._unsure):
            await asyncio.shield(self._wire.start(self._let_go(looks)))

    # A turn

    async def _go(self, turn: Turn, options: CallOptions, deadline: Deadline, seen: Round) -> AsyncGenerator[str, None]:
        """The pieces of text of the turn's run; in the end `seen` is settled."""
        if isinstance(turn, ToolOutputs) and self._run and self._said is None:
            async with aclosing(self._submit(turn, options, deadline, seen)) as pieces:
                async for piece in pieces:
                    yield piece
            if not seen.lost:
                return
            self._forget(seen)
        if self._thread is None:
            self._thread = await self._wire.thread(self.agent, deadline)
        await self._say(turn, deadline)
        async with aclosing(self._start(options, deadline, seen)) as pieces:
            async for piece in pieces:
                yield piece

    async def _say(self, turn: Turn, deadline: Deadline) -> None:
        """Puts the turn on the thread as a message, unless an earlier attempt has."""
        await self._free(deadline)
        if self._said == turn:
            return
        if self._said is not None:
            with suppress(ModelError):  # a server that cannot take a message back
                await self._ask("DELETE", f"messages/{quote(self._message)}", deadline)
            self._said = None
        text = sendable(await self._words(turn, deadline))
        if not (self._doubtful and await self._is_last(text, deadline)):
            self._doubtful = True
            made = await self._ask("POST", "messages", deadline, body={"role": "user", "content": text})
            self._message = id_of(made, self._wire.server)
        self._said, self._doubtful = turn, False

    async def _start(self, options: CallOptions, deadline: Deadline, seen: Round) -> AsyncGenerator[str, None]:
        """Makes a run and follows it."""
        self._assistant = self._assistant or await self._wire.assistant(self.agent, deadline)
        body = self._wire.run_body(self.agent, self._assistant, options)
        self._run, self._told, self._unsure, self._waiting = None, None, True, False
        try:
            async with aclosing(self._follow("runs", body, deadline, seen)) as pieces:
                async for piece in pieces:
                    yield piece
        except ModelError as error:
            self._unsure = self._unsure and (status_of(error) or 500) >= 500
            raise self._wire.refused(error, self.agent, body) from error.__cause__

    async def _submit(
        self, turn: ToolOutputs, options: CallOptions, deadline: Deadline, seen: Round
    ) -> AsyncGenerator[str, None]:
        """Gives all outputs to the run at once and follows it; `seen.lost` when the run was over by then."""
        outputs = [{"tool_call_id": output.call_id, "output": sendable(_seen(output))} for output in turn.outputs]
        body = {"tool_outputs": outputs, **self._wire.streamed(self.agent, options)}
        run = quote(self._run or "")
        self._waiting = True
        try:
            async with aclosing(self._follow(f"runs/{run}/submit_tool_outputs", body, deadline, seen)) as pieces:
                async for piece in pieces:
                    yield piece
            seen.lost = seen.status == "expired"
            return
        except ModelError as error:
            if not self._waiting or status_of(error) not in (400, 409, 422):
                raise
            refusal = error
        seen.add(await self._wire.request("GET", self._path(f"runs/{run}"), _soon(deadline)))
        if seen.status == "requires_action" and {c.id for c in seen.calls} & {o.call_id for o in turn.outputs}:
            raise self._wire.refused(refusal, self.agent, body)
        # Either an earlier attempt had brought the outputs and its answer was lost, or the run is over.
        self._waiting = False
        await self._poll(seen, deadline)
        seen.lost = seen.status in ("expired", "cancelled", "failed", "incomplete")

    async def _follow(
        self, path: str, body: Mapping[str, Any], deadline: Deadline, seen: Round
    ) -> AsyncGenerator[str, None]:
        """The text of a run as it comes; then looks at it until it is settled, for a stream may end before its run."""
        try:
            async with aclosing(self._wire.events(self._path(path), body, deadline)) as events:
                async for event in events:
                    piece = seen.add(event)
                    if seen.id:
                        self._run, self._unsure, self._waiting = seen.id, False, False
                    if piece:
                        yield piece
                    if seen.settled:
                        return
        except ModelError as error:
            if not seen.id or _passed(deadline):
                raise self._explained(error) from error.__cause__
        if not seen.id:
            raise self._wire.server.malformed("", "a stream that ended before a run began")
        await self._poll(seen, deadline)

    async def _poll(self, seen: Round, deadline: Deadline) -> None:
        """Looks at the run until it is settled, no faster than the server says."""
        pace = FIRST_PACE
        while not seen.settled:
            wait = pace if seen.poll_after is None else max(seen.poll_after, LEAST_PACE)
            await self._wire.server.bounded(self._wire.sleep(wait), deadline)
            await self._look(f"runs/{quote(seen.id or '')}", {}, deadline, seen.add)
            pace = min(pace * GROWTH, LONGEST_PACE)

    async def _look(
        self, path: str, params: Mapping[str, str], deadline: Deadline, read: Callable[[Event], object] = bool
    ) -> Event:
        """What the server shows; a look costs nothing, so that one that fails is repeated, as late as it is told."""
        failed, wait = 0, FIRST_PACE
        while True:
            try:
                event = await self._wire.request("GET", self._path(path), _soon(deadline), params=params)
                read(event)
                return event
            except ModelError as error:
                failed += 1
                if not error.retryable or failed >= PATIENCE or _passed(deadline):
                    raise self._explained(error) from error.__cause__
                wait = wait if error.retry_after is None else max(error.retry_after, LEAST_PACE)
            await self._wire.server.bounded(self._wire.sleep(wait), deadline)
            wait = min(wait * GROWTH, LONGEST_PACE)

    async def _reply(self, seen: Round, deadline: Deadline) -> tuple[Reply, str | None]:
        """The Reply, and the id of the last message in it."""
        if seen.status not in ("requires_action", "completed", "incomplete"):
            return seen.reply((), self._told), self.state.ids.get("message")
        messages = await self._messages(seen, deadline)
        last = messages[-1].get("id") if messages else self.state.ids.get("message")
        return seen.reply(messages, self._told), last

    async def _messages(self, seen: Round, deadline: Deadline) -> list[Mapping[str, Any]]:
        """What the run has said since the last Reply, the oldest first."""
        params = {"order": "asc", "limit": str(MOST_MESSAGES), "run_id": seen.id or ""}
        if "message" in self.state.ids:
            params["after"] = self.state.ids["message"]
        found: list[Mapping[str, Any]] = []
        while True:
            page = _page(await self._look("messages", params, deadline))
            ids = [one.get("id") for one in page]
            if params.get("after") in ids:  # a server that does not know `after`
                page = page[ids.index(params["after"]) + 1 :]
            found += [one for one in page if one.get("run_id") in (seen.id, None) and one.get("role") == "assistant"]
            if len(page) < MOST_MESSAGES:
                return found
            params["after"] = str(page[-1].get("id"))

    # What must not be left over

    async def _free(self, deadline: Deadline) -> None:
        """Waits until no run is active on the thread; one that still is, is cancelled."""
        while self._run or self._unsure or self._ending:
            active = await self._active(deadline)
            if not active:
                self._run, self._unsure, self._ending = None, False, False
                return
            for run in active:
                if run.get("status") != "cancelling":
                    await self._cancel_run(str(run.get("id")), deadline)
            await self._wire.server.bounded(self._wire.sleep(FIRST_PACE), deadline)

    async def _active(self, deadline: Deadline) -> list[Mapping[str, Any]]:
        runs = _page(await self._look("runs", {"order": "desc", "limit": "20"}, deadline))
        return [run for run in runs if run.get("status") in ACTIVE]

    async def _cancel_run(self, run: str, deadline: Deadline) -> None:
        with suppress(RefusedRequestError):  # it has just come to its end
            await self._ask("POST", f"runs/{quote(run)}/cancel", deadline)

    async def _let_go(self, looks: Sequence[float]) -> None:
        deadline = Deadline.after(LETTING_GO, f"did not cancel a run within {LETTING_GO:g} s")
        with suppress(ModelError):  # nobody waits for it any more, and the next message will look for it
            for pause in looks:
                await self._wire.server.bounded(asyncio.sleep(pause), deadline)
                runs = [self._run] if self._run else [str(run.get("id")) for run in await self._active(deadline)]
                for run in runs:
                    await self._cancel_run(run, deadline)
                if runs:
                    break
            self._run, self._unsure = None, False
        self._ending = True

    def _forget(self, seen: Round) -> None:
        """Takes note of a run that is over, so that nobody cancels it."""
        if seen.settled and seen.status != "requires_action":
            self._run, self._told = None, None
        seen.run, seen.lost = {}, False

    # Requests

    async def _words(self, turn: Turn, deadline: Deadline) -> str:
        """The turn as a message: outputs come in one only with a new run, and their calls may be another process's."""
        if isinstance(turn, UserTurn):
            return _seen(turn)
        calls = {call.id: call for call in self._calls}
        if not calls and "run" in self.state.ids:
            steps = _page(await self._look(f"runs/{quote(self.state.ids['run'])}/steps", {"limit": "100"}, deadline))
            details = [step.get("step_details") for step in steps]
            listed = [read_calls(one.get("tool_calls")) for one in details if isinstance(one, Mapping)]
            calls = {call.id: call for some in listed for call in some}
        unknown = ModelToolCall("", "", "")
        return self._wire.retell([(calls.get(output.call_id, unknown), _seen(output)) for output in turn.outputs])

    async def _is_last(self, text: str, deadline: Deadline) -> bool:
        """Whether the thread ends with this message, which an attempt put there whose answer was lost."""
        page = _page(await self._look("messages", {"order": "desc", "limit": "1"}, deadline))
        if not page or not is_message(page[0], text):
            return False
        self._message = str(page[0].get("id"))
        return True

    async def _ask(self, method: Any, path: str, deadline: Deadline, **rest: Any) -> Event:
        try:
            return await self._wire.request(method, self._path(path), _soon(deadline), **rest)
        except ModelError as error:
            raise self._explained(error) from error.__cause__

    def _path(self, path: str) -> str:
        return f"/threads/{quote(self._thread or '', safe='')}/{path}"

    def _explained(self, error: ModelError) -> ModelError:
        """In other words where the server's say nothing: a thread that is gone, a thread that is busy."""
        if status_of(error) == 404 and error.type != "model_not_found":
            return ModelError(
                f"{error.message} (the conversation of the agent {self.agent.name!r} is gone: {self._thread})",
                type="bad_request",
                hint="It was deleted, or belongs to another server or key: let the step begin anew.",
            )
        if isinstance(error, RefusedRequestError) and _BUSY.search(error.complaint):
            self._ending = True
            return ModelError(error.message, type="server_error", retryable=True)
        return error


def _seen(said: UserTurn | Output) -> str:
    """The text, with a line for each picture that cannot be shown."""
    return "\n".join([said.text, *(f"{picture.name} {UNSEEN}" for picture in said.pictures)])


def _page(event: Event) -> list[Mapping[str, Any]]:
    data = event.data.get("data") if isinstance(event.data, Mapping) else None
    return [one for one in data if isinstance(one, Mapping)] if isinstance(data, list) else []


def _soon(deadline: Deadline) -> Deadline:
    return deadline.or_after(ASKING, f"did not answer within {ASKING:g} s")


def _passed(deadline: Deadline) -> bool:
    return asyncio.get_running_loop().time() >= deadline.at


def _sum(told: Usage | None, usage: Usage | None) -> Usage | None:
    return told if usage is None else usage if told is None else told + usage
