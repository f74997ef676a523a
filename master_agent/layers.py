"""The layers around a request to a model, a use of a tool and a step; each takes a function and returns one like it."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace

from pydantic import ValidationError

from master_agent.context import Inputs, Perform
from master_agent.errors import MasterAgentError, ModelError, ToolError
from master_agent.events import ModelCalled, ModelReplied, TextDelta, ToolCalled, ToolReturned, Where
from master_agent.journal import Journal
from master_agent.plan import AgentStep, Step
from master_agent.prices import Prices, with_pictures
from master_agent.results import ErrorInfo, StepResult, Usage
from master_agent.retry import RetryPolicy, retrying
from master_agent.secrets import Secrets
from master_agent.threads import Call, CallRequest, Reply, TextPiece, Thread, ThreadState
from master_agent.tools import Tool, ToolCall, ToolOutput, Use
from master_agent.values import bounded

Sleep = Callable[[float], Awaitable[None]]
CANCELLED = ErrorInfo(type="cancelled", message="cancelled while it ran")


def retried(call: Call, policy: RetryPolicy, sleep: Sleep = asyncio.sleep) -> Call:
    """Tries a request again where that can help."""

    async def call_again(request: CallRequest) -> Reply:
        async def attempt(number: int) -> Reply:
            if number == request.options.attempt:
                return await call(request)
            return await call(replace(request, options=replace(request.options, attempt=number)))

        return await retrying(attempt, policy, sleep=sleep)

    return call_again


def asked(
    journal: Journal,
    wire: str,
    default_model: str | None,
    clock: Callable[[], float] = time.monotonic,
    prices: Prices | None = None,
) -> Call:
    """The innermost layer around a model: sends the request, and writes down that it goes out and what comes back.

    With `prices`, what it has used is written down with its cost, where that is known.
    """
    numbers = _numbers(journal, ModelCalled)

    async def call(request: CallRequest) -> Reply:
        options, thread = request.options, request.thread
        call_id = f"m{next(numbers)}"
        who = Where(step=options.step, attempt=options.attempt, call=call_id)
        known, began = len(thread.state.items), clock()
        called = ModelCalled(
            **who,
            agent=options.agent,
            wire=wire,
            model=thread.agent.model or default_model,
            turn=options.turn,
            input=request.turn.to_data(),
        )
        await journal.append(called)
        if prices is not None:
            prices.prepare(called.model)

        def failed(error: ErrorInfo, retry_after: float | None = None) -> None:
            spent, seconds = Usage.unknown(), clock() - began
            journal.note(
                ModelReplied(**who, status="failed", usage=spent, error=error, retry_after=retry_after, seconds=seconds)
            )

        reply: Reply | None = None
        try:
            async with aclosing(thread.send(request.turn, options)) as parts:
                async for part in parts:
                    if isinstance(part, TextPiece):
                        journal.tell(TextDelta(**who, text=part.text))
                    else:
                        reply = part
            if reply is None:
                raise ModelError("the model's answer has no end", type="malformed_reply", retryable=True)
        except MasterAgentError as error:
            failed(ErrorInfo.of(error), getattr(error, "retry_after", None))
            raise
        except asyncio.CancelledError:
            failed(CANCELLED)
            raise
        usage = _used(reply, called.model, thread, prices)
        replied = _replied(who, reply, thread.state, known, usage, clock() - began)
        journal.note(replied, {file.sha256: file.content for file in reply.files})
        return reply

    return call


def _numbers(journal: Journal, kind: type[ModelCalled | ToolCalled]) -> Iterator[int]:
    """Numbers for calls of a kind, in order, that none of the run's earlier processes has used."""
    used = (event.call for event in journal.history if isinstance(event, kind))
    return itertools.count(1 + max((int(call[1:]) for call in used if call), default=0))


def _replied(who: Where, reply: Reply, state: ThreadState, known: int, usage: Usage, seconds: float) -> ModelReplied:
    """The reply as an event, with what the thread gained by it."""
    return ModelReplied(
        **who,
        status=reply.status,
        text=reply.text,
        calls=[{"id": c.id, "name": c.name, "arguments": c.arguments} for c in reply.calls],
        remote_id=reply.remote_id,
        reason=reply.reason,
        ids=dict(state.ids),
        items=[dict(item) for item in state.items[known:]],
        files=[file.to_data() for file in reply.files],
        lost=list(reply.lost),
        sources=[source.to_data() for source in reply.sources],
        usage=usage,
        seconds=seconds,
    )


def _used(reply: Reply, model: str | None, thread: Thread, prices: Prices | None) -> Usage:
    """What the reply has used, with its cost; what the server's own tools cost beside the tokens is not known here."""
    if prices is None or reply.usage is None:
        return reply.usage or Usage.unknown()
    return prices.settled(model, reply.usage, more=bool(thread.agent.hosted))


def written_down(
    use: Use, journal: Journal, tools: dict[str, Tool], clock: Callable[[], float] = time.monotonic
) -> Use:
    """Writes the intent to use a tool before its effect, and what came of it after."""
    numbers = _numbers(journal, ToolCalled)

    async def use_and_write(call: ToolCall) -> ToolOutput:
        who = Where(step=call.step, attempt=call.inputs.attempt, call=f"t{next(numbers)}")
        effects, began = sorted(tools[call.tool].effects), clock()
        intent = ToolCalled(
            **who, tool=call.tool, asked=call.id, arguments=call.values, effects=[str(effect) for effect in effects]
        )
        if effects in ([], ["read"]):
            journal.note(intent)
        else:
            await journal.append(intent)
        try:
            output = await use(call)
        except asyncio.CancelledError:
            spent, seconds = Usage(cost_complete="pay" not in effects), clock() - began
            journal.note(
                ToolReturned(**who, tool=call.tool, asked=call.id, usage=spent, error=CANCELLED, seconds=seconds)
            )
            raise
        note_output(journal, tools, call, output, who, clock() - began)
        return output

    return use_and_write


def note_output(
    journal: Journal,
    tools: Mapping[str, Tool],
    call: ToolCall,
    output: ToolOutput,
    who: Where | None = None,
    seconds: float = 0.0,
) -> None:
    """Writes down what came of a tool, with what it cost; pictures that it shows are kept with it."""
    who = who or Where(step=call.step, attempt=call.inputs.attempt, call=call.id)
    used = with_pictures(output.usage, output.data.get("provider"), output.data.get("model"))
    pays = call.tool in tools and "pay" in tools[call.tool].effects
    if pays and output.error is None and used.cost_usd is None:
        used = used.model_copy(update={"cost_complete": False})  # it did what it asks money for, and said no sum
    event = ToolReturned(
        **who,
        tool=call.tool,
        asked=call.id,
        text=output.text,
        data=output.data,
        artifacts=output.artifacts,
        pictures=[picture.to_data() for picture in output.pictures],
        usage=used,
        error=output.error,
        seconds=seconds,
    )
    journal.note(event, {picture.sha256: picture.content for picture in output.pictures})


def refusals_noted(use: Use, journal: Journal, tools: Mapping[str, Tool]) -> Use:
    """Writes down uses that were refused for their arguments, and so never came to be."""

    async def use_and_note(call: ToolCall) -> ToolOutput:
        output = await use(call)
        if output.error is not None and output.error.type == "wrong_arguments":
            note_output(journal, tools, call, output)
        return output

    return use_and_note


def settled(use: Use) -> Use:
    """Whatever a tool raises becomes an output that says so."""

    async def use_settled(call: ToolCall) -> ToolOutput:
        try:
            return _sound(call.tool, await use(call))
        except MasterAgentError as error:
            return ToolOutput.failed(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling() > 0:
                raise
            return _broke(call.tool, error)  # something inside the tool was cancelled, not the tool
        except (Exception, SystemExit) as error:  # a stranger's tool may raise anything; the model is told
            return _broke(call.tool, error)

    return use_settled


def hidden(use: Use, secrets: Secrets) -> Use:
    """Cuts secrets out of what a tool gives back, so that model, journal and a resumed run see the same text."""

    async def use_and_hide(call: ToolCall) -> ToolOutput:
        return without_secrets(await use(call), secrets)

    return use_and_hide


def without_secrets(output: ToolOutput, secrets: Secrets) -> ToolOutput:
    """The output without secrets in what is told of it; the files that it made stay as they are."""
    error = output.error
    if error is not None:
        hint = secrets.hide(error.hint) if error.hint else error.hint
        error = error.model_copy(update={"message": secrets.hide(error.message), "hint": hint})
    return replace(output, text=secrets.hide(output.text), data=secrets.hide_in(output.data), error=error)


def shortened(use: Use, tools: dict[str, Tool]) -> Use:
    """Cuts a text that is longer than its tool may give. Behind what hides secrets: half a key is found by nobody."""

    async def use_and_cut(call: ToolCall) -> ToolOutput:
        output, most = await use(call), tools[call.tool].output_limit
        if len(output.text) <= most:
            return output
        return replace(output, text=f"{output.text[:most]}\n[cut: {most} of {len(output.text)} characters]")

    return use_and_cut


def _broke(tool: str, error: BaseException) -> ToolOutput:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ToolOutput.failed(ToolError(f"the tool {tool} broke: {said}"))


def _sound(tool: str, output: ToolOutput) -> ToolOutput:
    """The output, when it is of values that can be kept; ToolError otherwise."""
    try:
        bounded(output.data)
        ToolReturned.model_validate(
            {
                "tool": tool,
                "text": output.text,
                "data": output.data,
                "artifacts": output.artifacts,
                "usage": output.usage,
                "error": output.error,
            }
        )
    except RecursionError as error:
        raise ToolError(f"the tool {tool} left what cannot be kept: data: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"][:2])
        raise ToolError(f"the tool {tool} left what cannot be kept: {where}: {fault['msg']}") from None
    return output


def in_time(use: Use, tools: dict[str, Tool]) -> Use:
    """Holds each tool to its own seconds."""

    async def use_in_time(call: ToolCall) -> ToolOutput:
        seconds = tools[call.tool].timeout
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                return await use(call)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ToolError(f"the tool {call.tool} took longer than {seconds:g} seconds") from None

    return use_in_time


def in_turn(use: Use, tools: dict[str, Tool], most: int) -> Use:
    """Lets so many tools run code at once, and the others wait: each may take all the memory that a program may."""
    room = asyncio.Semaphore(most)

    async def use_in_turn(call: ToolCall) -> ToolOutput:
        if "execute" not in tools[call.tool].effects:
            return await use(call)
        async with room:
            return await use(call)

    return use_in_turn


def deadline(perform: Perform, seconds: float) -> Perform:
    """Holds each step to its seconds; one that takes longer is cancelled and has failed."""

    async def perform_in_time(step: Step, inputs: Inputs) -> StepResult:
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                return await perform(step, inputs)
        except TimeoutError:
            if not timeout.expired():
                raise
        error = ErrorInfo(
            type="step_timeout",
            message=f"the step took longer than {seconds:g} seconds",
            hint="Give it more time with --step-timeout SECONDS.",
        )
        agent = step.agent if isinstance(step, AgentStep) else None
        tool = None if isinstance(step, AgentStep) else step.tool
        return StepResult(status="failed", reason=error.message, agent=agent, tool=tool, error=error)

    return perform_in_time
