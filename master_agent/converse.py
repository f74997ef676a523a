"""One loop of model and tools: a turn goes in, and what the agent said, made and left comes out."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from master_agent.errors import ErrorType, StepError
from master_agent.results import Artifact, ErrorInfo
from master_agent.threads import (
    Call,
    CallOptions,
    CallRequest,
    ModelToolCall,
    Output,
    Reply,
    Thread,
    ToolOutputs,
    ToolSpec,
    Turn,
    UserTurn,
)
from master_agent.tools import ToolCall, ToolOutput, Use

LAST = "last"
OF_NO_CONSEQUENCE: tuple[ErrorType, ...] = ("no_sandbox", "program_failed")
"""What a program came to is an answer, and where none can be run the words count all the same."""
QUOTED = 80  # characters of a call that cannot be read, in a message
HOPELESS: tuple[ErrorType, ...] = ("missing_token", "replay_differs")


@dataclass(frozen=True)
class Outcome:
    """The last text, the outputs of all tools that succeeded in order, and the number of the last turn.

    `artifacts` are the files that any tool left, one that failed too, such as a program that saved a report and then
    said no.
    """

    text: str
    outputs: tuple[ToolOutput, ...]
    turns: int
    artifacts: tuple[Artifact, ...] = ()


async def converse(
    thread: Thread,
    turn: UserTurn,
    *,
    call: Call,
    use: Use,
    options: CallOptions,
    make: Callable[[ModelToolCall], ToolCall],
    marked: Callable[[ModelToolCall, ToolOutput], str],
    turns: int,
    remind: Callable[[str], UserTurn],
    finish: frozenset[str] = frozenset(),
) -> Outcome:
    """Alternates model and tools until the run is over. All outputs of a round go back at once, each as `marked` tells.

    A round that wholly succeeded and holds a finish tool with `last: true` ends it without another request. A call that
    cannot be read is answered by `remind`, once. StepError when the model refuses, is cut off, cannot be understood
    even so, uses `turns` requests without coming to an end, or comes to one though its finish tools have all failed:
    words do not make a file or a picture.
    """
    outputs: list[ToolOutput] = []
    artifacts: list[Artifact] = []
    reminded = False
    finishing: list[ErrorInfo | None] = []
    said: Turn = turn
    for number in range(options.turn, options.turn + turns):
        reply = await call(
            CallRequest(thread, said, options if number == options.turn else replace(options, turn=number))
        )
        if reply.status != "requires_action":
            text = _completed(reply)
            _not_in_vain(finishing)
            return Outcome(text, tuple(outputs), number, tuple(artifacts))
        if not reply.calls:
            if reminded:
                raise _unreadable(reply)
            said, reminded = remind(reply.reason or ""), True
            continue
        reminded = False
        made = await _use_all(reply.calls, use, make, finish)
        for asked, output, _ in made:
            _not_hopeless(output)
            if asked.name in finish and not (output.error and output.error.type in OF_NO_CONSEQUENCE):
                finishing.append(output.error)
        artifacts += [artifact for _, output, _ in made for artifact in output.artifacts]
        outputs += [output for _, output, _ in made if output.error is None]
        if all(output.error is None for _, output, _ in made) and any(last for _, _, last in made):
            return Outcome("\n".join(output.text for _, output, _ in made), tuple(outputs), number, tuple(artifacts))
        said = ToolOutputs(tuple(Output(asked.id, marked(asked, output), output.pictures) for asked, output, _ in made))
    raise StepError(
        f"the agent did not come to an end within {turns} turns",
        hint="Ask for less in one step, or allow more: --turns, or limits.turns in the agent's file.",
        type="turn_limit",
    )


def with_last(spec: ToolSpec) -> ToolSpec:
    """The tool as an agent sees it that may finish with it: one more argument, a required boolean."""
    parameters = dict(spec.parameters)
    said = {"type": "boolean", "description": "True when nothing remains to do after this call."}
    parameters["properties"] = {**parameters.get("properties", {}), LAST: said}
    parameters["required"] = [*parameters.get("required", []), LAST]
    return replace(spec, parameters=parameters)


async def _use_all(
    calls: tuple[ModelToolCall, ...], use: Use, make: Callable[[ModelToolCall], ToolCall], finish: frozenset[str]
) -> list[tuple[ModelToolCall, ToolOutput, bool]]:
    async def one(asked: ModelToolCall) -> tuple[ModelToolCall, ToolOutput, bool]:
        plain, last = _without_last(asked) if asked.name in finish else (asked, False)
        return asked, await use(make(plain)), last

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(asked)) for asked in calls]
    except ExceptionGroup as broken:  # what a tool may raise is an output already: this goes on as itself
        raise broken.exceptions[0] from None
    return [task.result() for task in tasks]


def _without_last(asked: ModelToolCall) -> tuple[ModelToolCall, bool]:
    try:
        arguments = json.loads(asked.arguments)
    except (ValueError, RecursionError):
        return asked, False
    if not isinstance(arguments, dict) or LAST not in arguments:
        return asked, False
    last = arguments.pop(LAST)
    return replace(asked, arguments=json.dumps(arguments, ensure_ascii=False)), last is True


def _not_hopeless(output: ToolOutput) -> None:
    """What no model can heal, such as a missing token, ends the step before another request is paid for."""
    if output.error is not None and output.error.type in HOPELESS:
        raise StepError(output.error.message, hint=output.error.hint, type=output.error.type)


def _not_in_vain(finishing: list[ErrorInfo | None]) -> None:
    """Of the finish tools that were used, one at least must have succeeded."""
    last = finishing[-1] if finishing else None
    if last is not None and None not in finishing:
        raise StepError(last.message, hint=last.hint, type=last.type)


def _unreadable(reply: Reply) -> StepError:
    quoted = " ".join((reply.reason or "").split())[:QUOTED]
    return StepError(
        f"the model calls a tool in a way that cannot be read, though it was told how: {quoted!r}",
        hint="Try another --model, or say tool_calls: native or text in the agent's file, whichever it does not say.",
        type="malformed_reply",
    )


def _completed(reply: Reply) -> str:
    match reply.status:
        case "completed":
            return reply.text
        case "incomplete":
            raise StepError(
                f"the model's answer was cut off ({reply.reason or 'no reason given'})",
                hint="Ask for less in one step, or raise limits.output_tokens in the agent's file.",
                type="incomplete",
            )
        case "failed":
            raise StepError(f"the model did not answer: {reply.reason or 'no reason given'}", type="refused")
    raise StepError(f"the model's run ended as {reply.status}", type="refused")
