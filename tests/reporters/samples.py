"""A run to tell of: a picture, a page, a save that is refused, a check that is skipped; and consoles to tell it on."""

from collections.abc import Sequence
from io import BytesIO, StringIO, TextIOWrapper

from rich.console import Console

from master_agent.events import (
    Event,
    FileChanged,
    ModelCalled,
    ModelReplied,
    PlanMade,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TextDelta,
)
from master_agent.plan import AgentStep, Plan, ToolStep
from master_agent.results import Artifact, ErrorInfo, RunResult, StepResult, Usage

USED = Usage(calls=1, input_tokens=310, cached_tokens=100, output_tokens=42)
PICTURE = Artifact(path="images/hero.webp", media_type="image/webp", bytes=48213, sha256="0" * 64)
PAGE = "<!doctype html>\n<h1>Ember & Oak</h1>\n"
REFUSED = ErrorInfo(type="file_refused", message="index.html is there already", hint="Choose another path.")

PLAN = Plan(
    task="A page with a picture",
    plan=(
        AgentStep(id="hero", agent="image", prompt="A sunset over mountains"),
        AgentStep(id="page", agent="code", prompt="HTML that shows ${hero.path}", needs=("hero",)),
        ToolStep.model_validate(
            {
                "id": "save",
                "tool": "save_result",
                "with": {"step": "page", "path": "index.html", "overwrite": True},
                "needs": ["page"],
            }
        ),
        AgentStep(id="check", agent="file", prompt="Read the page", needs=("save",)),
    ),
)

RESULTS = {
    "hero": StepResult(
        status="done",
        agent="image",
        text="images/hero.webp",
        artifacts=(PICTURE,),
        usage=USED + Usage(images=1, calls=0),
        seconds=3.14,
    ),
    "page": StepResult(
        status="done",
        agent="code",
        text=f"Here is the **page**:\n\n```html index.html\n{PAGE}```\n",
        data={"files": [{"name": "index.html", "language": "html", "content": PAGE}]},
        usage=USED,
        seconds=4.0,
    ),
    "save": StepResult(status="failed", tool="save_result", error=REFUSED, seconds=0.2),
    "check": StepResult(status="skipped", agent="file", reason='it needs "save", which failed'),
}

RESULT = RunResult(
    run_id="r1",
    task=PLAN.task,
    status="partial",
    plan=tuple(PLAN.model_dump(mode="json", by_alias=True)["plan"]),
    results=RESULTS,
    final="The page is made.",
    usage=USED + USED + Usage(images=1, calls=0),
    seconds=9.4,
)


def planned(plan: Plan = PLAN) -> list[Event]:
    return [RunStarted(run_id="r1", task=plan.task), PlanMade(plan=plan, by="model")]


def started(step: str, agent: str = "code") -> list[Event]:
    return [StepStarted(step=step, agent=agent), called(step)]


def called(step: str | None, call: str = "call-1") -> ModelCalled:
    return ModelCalled(step=step, call=call, agent="code", wire="chat", model="gpt-5.1", turn=1, input={})


def wrote(step: str, text: str, call: str = "call-1") -> TextDelta:
    return TextDelta(step=step, call=call, text=text)


def ended(step: str) -> StepFinished:
    return StepFinished(step=step, result=RESULTS[step])


def whole_run() -> list[Event]:
    limited = ErrorInfo(type="rate_limited", message="429", retryable=True)
    return [
        *planned(),
        *started("hero", "image"),
        ModelReplied(step="hero", call="call-1", status="failed", error=limited, retry_after=2.0),
        called("hero", "call-2"),
        FileChanged(step="hero", file=PICTURE),
        ended("hero"),
        *started("page"),
        wrote("page", "<!doctype"),
        ended("page"),
        StepStarted(step="save", tool="save_result"),
        ended("save"),
        ended("check"),
        RunFinished(run_id="r1", status="partial"),
    ]


def many(count: int) -> Plan:
    return Plan(plan=tuple(AgentStep(id=f"s{i}", agent="code", prompt=f"part {i}") for i in range(count)))


def result_of(plan: Plan, results: dict[str, StepResult]) -> RunResult:
    return RunResult(status="done", plan=tuple(plan.model_dump(mode="json", by_alias=True)["plan"]), results=results)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Stream(TextIOWrapper):
    """A stream of some encoding that breaks where a character does not fit; `text` is what was written."""

    def __init__(self, encoding: str) -> None:
        super().__init__(BytesIO(), encoding=encoding, errors="strict", newline="")

    @property
    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


def terminal(width: int = 80, *, height: int = 40, stream: StringIO | Stream | None = None) -> Console:
    """A console on a terminal without colours."""
    return Console(
        file=stream or StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system=None,
        _environ={"TERM": "xterm"},
    )


def pipe(stream: StringIO | Stream | None = None) -> Console:
    return Console(file=stream or StringIO(), width=80, force_terminal=False, _environ={})


def written(console: Console) -> str:
    """What was written to a console, without the spaces at the ends of lines."""
    file = console.file
    text = file.text if isinstance(file, Stream) else file.getvalue() if isinstance(file, StringIO) else ""
    return lines(text.splitlines())


def lines(given: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in given).strip("\n")
