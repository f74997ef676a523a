"""The layer around a step that takes over what an earlier run did of the very same parts, where that still holds."""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from master_agent.catalogue import Agent
from master_agent.changes import changes_of
from master_agent.context import Inputs, Perform
from master_agent.done_steps import DoneStep, of_key
from master_agent.errors import FileRefusedError
from master_agent.events import Event, ReuseRefused, StepFinished, ToolCalled, ToolReturned
from master_agent.journal import Journal, events_of
from master_agent.plan import AgentStep, Step
from master_agent.results import Artifact, StepResult, Usage
from master_agent.tools import ToolCall, Use
from master_agent.values import key_of
from master_agent.workspace import Workspace

OUTSIDE = frozenset({"execute", "network", "pay"})
"""Effects that nobody can look up: whether they still hold is for a person to say. Files can be compared."""


@dataclass(frozen=True)
class Earlier:
    """A step of an earlier run: its place, its events, and the mark that the data of its run was drawn with."""

    done: DoneStep
    events: Sequence[Event]
    mark: str


def steps_before(journal: Journal, workspace: str) -> Callable[[str], list[Earlier]]:
    """Finds, for a step that has begun, the steps of the same parts that earlier runs in the same folder have done."""

    def find(step: str) -> list[Earlier]:
        started = journal.state.started.get(step)
        key = key_of(started.parts) if started else None
        return journal.look(lambda connection: _of_key(connection, key, workspace, journal.run_id)) if key else []

    return find


def _of_key(connection: sqlite3.Connection, key: str, workspace: str, run_id: str) -> list[Earlier]:
    mark = "SELECT json_extract(body, '$.mark') FROM events WHERE run_id = ? AND type = 'run_started'"
    return [
        Earlier(done, events_of(connection, done), str(connection.execute(mark, (done.run_id,)).fetchone()[0]))
        for done in of_key(connection, key, workspace, run_id)
    ]


@dataclass(frozen=True)
class Reuse:
    """Takes over steps. `find` gives the done steps of the same parts, the newest first; `use` uses a tool unrecorded.

    A step is taken over when it had no effect outside, or `outside` effects are said to be all right; when each file
    that it made is still there as it was; and when all that it read still reads the same. `anew` are steps that are
    performed whatever was done before. `note` takes the event that says why a step is not taken over; `adopt` is told
    the run that one comes from.
    """

    find: Callable[[str], Sequence[Earlier]]
    use: Use
    workspace: Workspace
    agents: Mapping[str, Agent]
    mark: str
    note: Callable[[Event], object]
    adopt: Callable[[str], None]
    anew: Collection[str] = frozenset()
    outside: bool = False

    def around(self, perform: Perform) -> Perform:
        """The layer."""

        async def take_over_or_perform(step: Step, inputs: Inputs) -> StepResult:
            return await self._taken_over(step, inputs) or await perform(step, inputs)

        return take_over_or_perform

    async def _taken_over(self, step: Step, inputs: Inputs) -> StepResult | None:
        refused: list[ReuseRefused] = []
        for earlier in [] if step.id in self.anew else self.find(step.id):
            reason = await self._changed(step, inputs, earlier)
            if reason is None:
                self.adopt(earlier.done.run_id)
                return _reused(earlier)
            refused.append(ReuseRefused(step=step.id, from_run=earlier.done.run_id, reason=reason))
        if refused:
            self.note(refused[0])  # of the newest: that of older ones says no more
        return None

    async def _changed(self, step: Step, inputs: Inputs, earlier: Earlier) -> str | None:
        """Why the earlier step cannot stand for this one; None when it can."""
        if not self.outside and (effect := self._outside(step, earlier.events)):
            return f"it {effect}, an effect outside that nobody can look up; --reuse=all takes such steps over too"
        for file in _files(earlier.events):
            if fault := self._file_changed(file):
                return fault
        return await self._reads_otherwise(inputs, earlier)

    def _outside(self, step: Step, events: Sequence[Event]) -> str | None:
        if isinstance(step, AgentStep) and (agent := self.agents.get(step.agent)) and agent.hosted:
            return f"could use {', '.join(agent.hosted)} at the provider"
        for event in events:
            if isinstance(event, ToolCalled) and OUTSIDE.intersection(event.effects):
                return f"used {event.tool} ({', '.join(event.effects)})"
        return None

    def _file_changed(self, file: Artifact) -> str | None:
        try:
            there = self.workspace.digest(file.path)
        except FileRefusedError as error:
            return error.message
        if there is None:
            return f"{file.path}, which it made, is no longer there"
        return None if there == file.sha256 else f"{file.path}, which it made, has changed since"

    async def _reads_otherwise(self, inputs: Inputs, earlier: Earlier) -> str | None:
        """What it read that reads otherwise now, asked of the very tools that read it."""
        outputs = {event.call: event for event in earlier.events if isinstance(event, ToolReturned)}
        for event in earlier.events:
            then = outputs.get(event.call) if isinstance(event, ToolCalled) else None
            if not isinstance(event, ToolCalled) or event.effects != ["read"] or then is None:
                continue
            call = ToolCall(event.asked or event.tool, event.tool, event.arguments, event.step, inputs)
            now = await self.use(replace(call, left_out=frozenset()))
            shown = [picture.sha256 for picture in now.pictures]
            text = now.text.replace(self.mark, earlier.mark)
            if (text, shown) != (then.text, [picture.get("sha256") for picture in then.pictures]):
                told = ", ".join(f"{name}={value}" for name, value in event.arguments.items() if value is not None)
                return f"{event.tool} ({told}) gives something else now"
        return None


def _files(events: Sequence[Event]) -> list[Artifact]:
    """The files that a step made or wrote, each as it left it."""
    files = {change.file.path: change.file for change in changes_of(events)}
    result = _finished(events).result
    return list({**files, **{file.path: file for file in result.artifacts}}.values())


def _finished(events: Sequence[Event]) -> StepFinished:
    return next(event for event in reversed(events) if isinstance(event, StepFinished))


def _reused(earlier: Earlier) -> StepResult:
    result = _finished(earlier.events).result
    return result.model_copy(update={"status": "reused", "from_run": earlier.done.run_id, "usage": Usage()})
