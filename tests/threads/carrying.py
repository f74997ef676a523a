"""Plans carried out in this process on any wire: the real dispatcher, runner, layers and journal."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from master_agent.aggregator import conclude, project
from master_agent.attachments import Attachment
from master_agent.catalogue import Agent
from master_agent.context import Boundaries
from master_agent.dispatcher import Dispatcher
from master_agent.errors import ToolError
from master_agent.events import (
    Event,
    ModelCalled,
    ModelReplied,
    PlanMade,
    RunFinished,
    RunResumed,
    RunStarted,
    ToolCalled,
    Where,
)
from master_agent.fetch import Fetcher
from master_agent.images import ImageProvider
from master_agent.journal import Journal, read
from master_agent.layers import asked, deadline, in_time, retried, settled, written_down
from master_agent.limits import Limits
from master_agent.past import pasts
from master_agent.plan import AgentStep, Plan
from master_agent.prompts import Prompts
from master_agent.remember import Memory, RememberedUses, Unverified
from master_agent.results import Artifact, RunResult
from master_agent.retry import RetryPolicy
from master_agent.run_files import Before, RunFiles
from master_agent.runner import Runner
from master_agent.state import fold
from master_agent.threads import Wire
from master_agent.tools import Tool, ToolCall, ToolContext, ToolOutput, checked, running, tool
from master_agent.workspace import Workspace
from tests.conftest import ROOT
from tests.test_given_files import png

MARK = "data-contract"
PICTURE = Attachment("cat.png", "image/png", png())


@tool
async def add(context: ToolContext, a: int, b: int) -> str:
    """Adds."""
    return f"{context.step}: {a + b}"


@tool
async def look(context: ToolContext) -> ToolOutput:
    """Shows a picture."""
    return ToolOutput("here it is", pictures=(Attachment(f"{context.step}.png", "image/png", png()),))


@tool
async def divide(context: ToolContext, a: int, b: int) -> str:
    """Divides."""
    if b == 0:
        raise ToolError("there is no dividing by zero", hint="Take another number.")
    return str(a // b)


TOOLS: dict[str, Tool] = {one.name: one for one in (add, look, divide)}
WORKER = Agent("worker", "Works.", "You work.", tools=tuple(TOOLS))


@dataclass(frozen=True)
class Carried:
    """A run's result, and all that its journal holds."""

    result: RunResult
    events: list[Event]

    def of(self, kind: type[Any], step: str | None = None) -> list[Any]:
        """The events of a kind, in order; of one step, if it is named."""
        return [one for one in self.events if isinstance(one, kind) and (step is None or one.step == step)]

    @property
    def said_of_models(self) -> list[tuple[str, str | None]]:
        """What the journal says of requests: called, then how it ended and with which error."""
        told: list[tuple[str, str | None]] = []
        for event in self.events:
            if isinstance(event, ModelCalled):
                told.append(("called", None))
            elif isinstance(event, ModelReplied):
                told.append((event.status, event.error.type if event.error else None))
        return told


def plan_of(steps: Sequence[str]) -> Plan:
    """Steps that begin at once."""
    made = tuple(AgentStep(id=step, agent="worker", prompt=f"Do step {step}.") for step in steps)
    return Plan(order="graph", plan=made)


async def carry_out(
    wire: Wire,
    steps: Sequence[str],
    folder: Path,
    *,
    resume: bool = False,
    given: tuple[Attachment, ...] = (),
    stream: bool = True,
    seconds: float = 20.0,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    until: Callable[[], bool] | None = None,
    listeners: Sequence[Callable[[Event], None]] = (),
) -> Carried:
    """The run of these steps; as soon as `until` is true it is interrupted."""
    database = folder / "journal.db"
    limits = Limits(call_seconds=seconds)
    policy = policy or RetryPolicy(first_wait=0.01)
    with Workspace(folder) as workspace, Journal(database, "run-1", listeners=listeners, resume=resume) as journal:
        memory = Memory(pasts(journal.history), wire.name)
        call = memory.calls(retried(asked(journal, wire.name, "test-model"), policy, sleep))
        context = _context(workspace)
        written = written_down(settled(in_time(running(TOOLS, context), TOOLS)), journal, TOOLS)
        remembered = RememberedUses(
            checked(TOOLS, written), memory.pasts, TOOLS, context, journal.blob, _nobody_knows, _nobody_looks
        )
        prompts, files = Prompts(ROOT / "prompts"), context(ToolCall("", "", {})).files
        agents = {"worker": WORKER}
        runner = Runner(
            *(
                wire,
                call,
                remembered.use,
                agents,
                TOOLS,
                prompts,
                Boundaries(MARK),
                limits,
                lambda _: files,
                given,
                memory,
                stream,
            )
        )
        earlier = {name: one for name, one in journal.state.results.items() if one.usable}
        plan = journal.state.plan or plan_of(steps)
        perform = deadline(runner.perform, 60)
        dispatcher = Dispatcher(plan, perform, journal.note, 8, earlier, memory.attempts())
        await journal.append(RunResumed() if resume else RunStarted(planned=True, mark=MARK))
        if not resume:
            journal.note(PlanMade(plan=plan, by="user"))
        try:
            done = await _finished(dispatcher, until)
            status = conclude(journal.state) if done else "cancelled"
            await journal.append(RunFinished(status=status))
            if status != "done":
                wire.keep_threads()
        finally:
            await wire.close()
    events = read(database, "run-1")
    assert fold(events) == journal.state
    return Carried(project(journal.state), events)


async def _finished(dispatcher: Dispatcher, until: Callable[[], bool] | None) -> bool:
    """Whether all steps came to an end before they were interrupted."""
    work = asyncio.ensure_future(dispatcher.run())
    while until is not None and not work.done():
        if until():
            await asyncio.sleep(0.05)
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            return False
        await asyncio.sleep(0.005)
    await work
    return True


async def _nobody_knows(called: ToolCalled, _doubt: str) -> Unverified:
    raise AssertionError(f"{called.tool} has no effect, so nobody needs to be asked")


def _nobody_looks(call: ToolCall, output: ToolOutput, _where: Where) -> None:
    raise AssertionError(f"what became of {call.tool} was looked up: {output}")


def _context(workspace: Workspace) -> Callable[[ToolCall], ToolContext]:
    async def report(artifact: Artifact, before: Before, step: str | None) -> None:
        raise AssertionError("nothing is there to be saved")

    def images() -> ImageProvider:
        raise AssertionError("nobody is there to draw")

    run_files = RunFiles(workspace, report)

    def context(call: ToolCall) -> ToolContext:
        files = run_files.for_step(call.step)
        return ToolContext(call.step, call.inputs, workspace, files, Fetcher(), images)

    return context
