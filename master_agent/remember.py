"""The layers that make a resumed run go on: what was answered or done before comes from the journal, not again."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.errors import MasterAgentError, StepError, ToolError
from master_agent.events import FileChanged, ModelReplied, ToolCalled, ToolReturned, Where
from master_agent.past import Intent, StepPast
from master_agent.results import Usage
from master_agent.threads import Call, CallRequest, ModelToolCall, Reply, RunStatus, Source, ThreadState
from master_agent.tools import Begun, Tool, ToolCall, ToolContext, ToolOutput, Use
from master_agent.workspace import Workspace

Unverified = Literal["retry", "skip", "later"]
"""What a person says of an effect that nobody can look up: do it again, leave it, or leave it open."""


@dataclass(frozen=True)
class Memory:
    """What each step had come to before, as conversations go on with it; empty in a run that is new."""

    pasts: Mapping[str | None, StepPast]
    wire: str
    blob: Callable[[str], bytes] = lambda _: b""

    def thread(self, step: str | None) -> ThreadState | None:
        """The thread of a step, or of the planner, after the last turn that is remembered; None where it begins."""
        replies = self._replies(step)
        if not replies:
            return None
        return ThreadState(self.wire, replies[-1].ids, tuple(item for reply in replies for item in reply.items))

    def turns(self, step: str | None) -> int:
        """How many turns are remembered."""
        return len(self._replies(step))

    def attempts(self) -> dict[str, int]:
        """How often each step was started before."""
        return {step: past.attempts for step, past in self.pasts.items() if step is not None and past.attempts}

    def calls(self, call: Call) -> Call:
        """The layer by which a turn that was answered before is answered so again, without a request."""

        async def call_or_remember(request: CallRequest) -> Reply:
            known = self._replies(request.options.step)
            turn = request.options.turn
            return _reply(known[turn - 1], self.blob) if turn <= len(known) else await call(request)

        return call_or_remember

    def _replies(self, step: str | None) -> list[ModelReplied]:
        past = self.pasts.get(step)
        if past is None or past.wire != self.wire:
            return []  # another wire knows nothing of that conversation: it begins anew
        return [past.replies[turn] for turn in sorted(past.replies)]


@dataclass(frozen=True)
class RememberedUses:
    """A tool that came to its end before is not used again; one that began and did not is settled by its effect.

    Settled means: what happened is collected, what did not is done now. Where nobody can tell, `decide` is asked, with
    what is known of the reason.
    `collected` is told of an output that was looked up, as `hidden` leaves it (without secrets), and where it belongs:
    to the use that was begun. The layer itself is `use`.
    """

    inner: Use
    pasts: Mapping[str | None, StepPast]
    tools: Mapping[str, Tool]
    context: Callable[[ToolCall], ToolContext]
    blob: Callable[[str], bytes]
    decide: Callable[[ToolCalled, str], Awaitable[Unverified]]
    collected: Callable[[ToolCall, ToolOutput, Where], None]
    hidden: Callable[[ToolOutput], ToolOutput] = lambda output: output

    async def use(self, call: ToolCall) -> ToolOutput:
        """The output of the tool: the one of then, what is looked up now, or a new one."""
        past = self.pasts.get(call.step)
        if past is not None and (known := past.outputs.get(call.id)) is not None:
            return _output(known, self.blob)
        intent = past.intents.pop(call.id, None) if past is not None else None
        if intent is None:
            return await self.inner(call)
        # The arguments of the intent, with what was drawn by chance for it.
        begun = replace(call, tool=intent.called.tool, arguments=intent.called.arguments, found=self._found(intent))
        output = await self._settle(begun, intent)
        if output is None:
            return await self.inner(begun)
        output = self.hidden(output)
        self.collected(begun, output, _where(intent.called))
        return output

    def _found(self, intent: Intent) -> dict[str, bytes | None]:
        """What a tool that will simply do its work again had found, of the files that it had begun to change."""
        tool = self.tools.get(intent.called.tool)
        if tool is None or not tool.repeatable:
            return {}
        befores = {change.file.path: change.before for change in reversed(intent.files)}
        return {path: None if before is None else self.blob(before) for path, before in befores.items()}

    async def _settle(self, call: ToolCall, intent: Intent) -> ToolOutput | None:
        """What the use left; None when it shall be done now."""
        tool = self.tools.get(call.tool)
        effects = set(intent.called.effects)
        where, doubt = self.context(call), ""
        if _files_are_ours(where.workspace, intent.files):
            if effects <= {"read", "write"} or (tool is not None and tool.repeatable and "pay" not in effects):
                return None
            if tool is not None and tool.settle is not None:
                try:
                    return await tool.settle(where, call.values, Begun(intent.remote_id))
                except MasterAgentError as error:
                    doubt = f": {error.message}"  # whoever could have told did not: a person has to decide
        if intent.remote_id:
            doubt += f" (it was begun there as {intent.remote_id})"
        return await self._decided(call, intent, doubt)

    async def _decided(self, call: ToolCall, intent: Intent, doubt: str) -> ToolOutput | None:
        match await self.decide(intent.called, doubt):
            case "retry":
                return None
            case "skip":
                message = f"it is not known whether {call.tool} had its effect; it was not used again"
                used = Usage(cost_complete="pay" not in intent.called.effects)
                return replace(ToolOutput.failed(ToolError(message)), usage=used)  # decided: it waits for nobody
        raise StepError(
            f"{call.tool} was begun and the program died, and nobody can tell whether it had its effect{doubt}",
            hint="Look, then resume with --retry-unverified to do it again or --skip-unverified to leave it.",
            type="effect_unverified",
        )


def _where(called: ToolCalled) -> Where:
    return Where(step=called.step, attempt=called.attempt or 1, call=called.call or "")


def _files_are_ours(workspace: Workspace, changes: list[FileChanged]) -> bool:
    """Whether each file is as it was before the change or as it was to be after it, and nobody else's work is lost."""
    return all(workspace.digest(change.file.path) in (change.before, change.file.sha256) for change in changes)


def _reply(event: ModelReplied, blob: Callable[[str], bytes]) -> Reply:
    status: RunStatus = event.status  # type: ignore[assignment]
    calls = tuple(ModelToolCall(str(call["id"]), str(call["name"]), str(call["arguments"])) for call in event.calls)
    sources = tuple(Source(str(source["title"]), str(source["url"])) for source in event.sources)
    files, lost = _files(event.files, blob), tuple(event.lost)
    return Reply(status, event.text, calls, event.usage, event.remote_id, event.reason, files, lost, sources)


def _output(event: ToolReturned, blob: Callable[[str], bytes]) -> ToolOutput:
    pictures = _files(event.pictures, blob)
    return ToolOutput(event.text, event.data, event.artifacts, event.usage, pictures, event.error)


def _files(kept: Iterable[Mapping[str, JsonValue]], blob: Callable[[str], bytes]) -> tuple[Attachment, ...]:
    return tuple(Attachment(str(one["name"]), str(one["media_type"]), blob(str(one["sha256"]))) for one in kept)
