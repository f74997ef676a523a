"""From the events of a run that ended early to what each step had come to: replies, tool outputs, and open intents."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from master_agent.events import (
    Event,
    FileChanged,
    ModelCalled,
    ModelReplied,
    StepFinished,
    StepStarted,
    ToolCalled,
    ToolProgressed,
    ToolReturned,
)


@dataclass
class Intent:
    """A use of a tool that was begun and never came to an end: what is known of its effect."""

    called: ToolCalled
    remote_id: str | None = None
    files: list[FileChanged] = field(default_factory=list)


@dataclass
class StepPast:
    """What a step, or the planner, had come to.

    `replies` are by turn, `outputs` and `intents` by the id by which the tool was asked for. What made the step fail is
    not among them, so that it is tried again; what led there is, so that nothing is done or paid for twice.
    """

    wire: str | None = None
    attempts: int = 0
    replies: dict[int, ModelReplied] = field(default_factory=dict)
    outputs: dict[str, ToolReturned] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    _turn: int = 0
    _last_round: set[str] = field(default_factory=set)

    def take(self, event: Event) -> None:
        """One event of this step."""
        match event:
            case StepStarted():
                self.attempts += 1
            case ModelCalled():
                self.wire, self._turn = event.wire, event.turn
            case ModelReplied() if event.error is None:
                # A turn that is asked again takes the place of its first answer and of all that followed.
                self.replies = {turn: reply for turn, reply in self.replies.items() if turn < self._turn}
                self.replies[self._turn] = event
                self._last_round = {str(call["id"]) for call in event.calls}
            case ToolCalled() if event.asked:
                self.intents[event.asked] = Intent(event)
            case ToolProgressed() if event.asked in self.intents:
                self.intents[event.asked].remote_id = event.remote_id
            case FileChanged():
                for intent in self.intents.values():
                    intent.files.append(event)
            case ToolReturned() if event.asked:
                if event.error is not None and event.error.type == "cancelled":
                    return  # whether it had its effect is open
                self.intents.pop(event.asked, None)
                self.outputs[event.asked] = event
            case StepFinished():
                self._forget_the_failure(event)

    @property
    def _cut_off(self) -> bool:
        return bool(self.replies) and self.replies[max(self.replies)].status == "incomplete"

    def _forget_the_failure(self, finished: StepFinished) -> None:
        if finished.result.status != "failed":
            return
        error = finished.result.error
        if error is not None and error.type == "limit" and not self._cut_off:
            return  # the next request was one too many; nothing that came before it failed
        last = self.replies[max(self.replies)] if self.replies else None
        if last is not None and not last.calls:  # an end that was none, or a call that could not be read
            del self.replies[max(self.replies)]
        failed = {asked for asked, output in self.outputs.items() if output.error is not None}
        for asked in failed & (self._last_round | {finished.step or ""}):
            del self.outputs[asked]


def pasts(history: Iterable[Event]) -> Mapping[str | None, StepPast]:
    """What each step had come to, by its id; None is the planner."""
    steps: dict[str | None, StepPast] = {}
    for event in history:
        belongs = event.step is not None or isinstance(event, ModelCalled | ModelReplied)
        if belongs:
            steps.setdefault(event.step, StepPast()).take(event)
    return steps
