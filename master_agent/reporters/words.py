"""The facts of a plan and of a result in words, the same for every reporter that a person reads."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from master_agent.plan import AgentStep, Plan, Step
from master_agent.reporters.text import counted, seconds, tokens
from master_agent.results import Artifact, ErrorInfo, RunResult, ShownStatus, StepResult, StepStatus, Usage

STEP_WORDS: dict[StepStatus, str] = {
    "done": "done",
    "failed": "failed",
    "skipped": "skipped",
    "cancelled": "cancelled",
    "waiting": "waiting for you",
    "not_started": "not started",
    "reused": "reused",
    "running": "at work",
    "died": "died",
}
RUN_WORDS: dict[ShownStatus, str] = {
    "done": "Done",
    "partial": "Partly done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "limited": "Stopped at a limit",
    "waiting": "Waiting for you",
    "running": "At work",
    "died": "Died",
}
MOST_NAMED = 8  # steps, in one line
_TROUBLES = {
    "rate_limited": "rate limited",
    "server_error": "the server failed",
    "connection": "no connection",
    "model_timeout": "no answer in time",
    "malformed_reply": "an answer that cannot be read",
    "wrong_output": "an answer of the wrong form",
}


@dataclass(frozen=True)
class CodeFile:
    """A file that a step wrote into its answer."""

    name: str
    language: str
    content: str


def doer(step: Step) -> str:
    """The agent or tool of a step."""
    return step.agent if isinstance(step, AgentStep) else step.tool


def step_names(steps: Sequence[Step]) -> str:
    """The ids of steps; of many the first, and how many more there are."""
    shown = ", ".join(step.id for step in steps[:MOST_NAMED])
    return shown + (f" and {len(steps) - MOST_NAMED} more" if len(steps) > MOST_NAMED else "")


def overwrites(step: Step) -> bool:
    """Whether the step may replace a file that is there."""
    return not isinstance(step, AgentStep) and step.arguments.get("overwrite") is True


def plan_title(plan: Plan) -> str:
    """How many steps, in which order, and whether the model's answer had to be repaired."""
    order = ", one after the other" if plan.order == "sequence" and len(plan.plan) > 1 else ""
    return f"Plan: {counted(len(plan.plan), 'step')}{order}"


REPAIRED = "The model's first answer was no good plan; it was mended or asked for again: look twice."


def few(names: Sequence[str], most: int = 4) -> str:
    """The names, or the first of them and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1:,} more"


def trouble(error: ErrorInfo, retry_after: float | None) -> str:
    """What went wrong with one attempt: "rate limited, told to wait 20.0 s"."""
    what = _TROUBLES.get(error.type, error.message)
    return f"{what}, told to wait {seconds(retry_after)}" if retry_after else what


def status_of(result: StepResult) -> str:
    """How a step ended: "done", "reused from 1ng0h5z-za4b"."""
    word = STEP_WORDS[result.status]
    return f"{word} from {result.from_run}" if result.status == "reused" and result.from_run else word


def why(result: StepResult) -> str:
    """Why a step did not come to its end, in one piece of text; empty where it did."""
    told = (result.error.message if result.error else None) or result.reason
    return told or ("the run ended before it began" if result.status == "not_started" else "")


def ordered(result: RunResult) -> list[tuple[str, StepResult]]:
    """The results in the plan's order; a step that has none yet was not started."""
    found: list[tuple[str, StepResult]] = []
    for entry in result.plan:
        step_id = str(entry.get("id"))
        made = result.results.get(step_id)
        agent, tool = entry.get("agent"), entry.get("tool")
        found.append((
            step_id,
            made
            or StepResult(
                status="not_started",
                agent=agent if isinstance(agent, str) else None,
                tool=tool if isinstance(tool, str) else None,
            ),
        ))  # fmt: skip
    known = {step_id for step_id, _ in found}
    return found + [(step_id, made) for step_id, made in result.results.items() if step_id not in known]


def most_telling(result: RunResult, most: int) -> list[tuple[str, StepResult]]:
    """At most so many results in the plan's order: the first that failed, and the last that no other step needs."""
    every = ordered(result)
    if len(every) <= most:
        return every
    needed = {str(name) for entry in result.plan for name in _list(entry.get("needs"))}
    failed = [step_id for step_id, made in every if made.status == "failed"][: most // 2]
    ends = [step_id for step_id, made in every if step_id not in needed and made.usable]
    room = most - len(failed)
    chosen = {*failed, *ends[-room:]}
    return [(step_id, made) for step_id, made in every if step_id in chosen]


def files_made(results: Iterable[tuple[str, StepResult]]) -> list[tuple[Artifact, str]]:
    """Every file once, with the step that wrote it last."""
    found: dict[str, tuple[Artifact, str]] = {}
    for step_id, made in results:
        for artifact in made.artifacts:
            found[artifact.path] = (artifact, step_id)
    return list(found.values())


def conflicts(result: RunResult) -> list[str]:
    """Each file that several steps wanted to write at the same time, with who wrote it and who was kept from it."""
    return [
        f"{conflict.path} was written by {few(conflict.written_by)}; "
        f"{few(conflict.refused)} wanted to write it at the same time, and could not"
        for conflict in result.conflicts
    ]


def executions(result: RunResult) -> list[str]:
    """What must be known of how code was run: not at all, by something weak, or without any sandbox."""
    lines = []
    for way in result.executions:
        where = few(way.steps)
        if way.error is not None:
            lines.append(f"no code was run in {where}: {way.error.message}. {way.error.hint or ''}".rstrip())
        elif way.mechanism == "unsafe":
            lines.append(f"code was run WITHOUT A SANDBOX (--unsafe-exec) in {where}")
        elif way.weaker:
            lines.append(f"code was run by {way.mechanism} in {where}, which does not stop: {'; '.join(way.gaps)}")
    if result.unsafe_exec and not any(way.mechanism == "unsafe" for way in result.executions):
        lines.append("code was allowed to run without a sandbox (--unsafe-exec); none did")
    return lines


def code(result: StepResult) -> list[CodeFile]:
    """The files in a step's answer, as `data.files` has them."""
    found: list[CodeFile] = []
    for entry in _list(result.data.get("files")):
        if isinstance(entry, dict) and isinstance(entry.get("content"), str):
            name, language = entry.get("name"), entry.get("language")
            found.append(CodeFile(str(name or "code"), str(language or "text"), str(entry["content"])))
    return found


def prose(result: StepResult) -> str:
    """The text of a result without the blocks that `code` gives."""
    text = result.text.replace("\r\n", "\n")
    for file in code(result):
        body = file.content.strip("\n")
        if not body:
            continue
        block = re.compile(
            rf"^[ ]{{0,3}}(`{{3,}}|~{{3,}})[^\n]*\n+{re.escape(body)}\n*(?:[ ]{{0,3}}\1[`~]*[ \t]*$|\Z)", re.M
        )
        text, removed = block.subn("", text, count=1)
        if not removed and text.strip() == body.strip():
            text = ""
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def totals(result: RunResult) -> list[str]:
    """The run in numbers: steps, seconds, tokens, pictures, calls, and the cost where it is known."""
    numbers = Counter(made.status for _, made in ordered(result))
    steps = ", ".join(f"{numbers[status]:,} {word}" for status, word in STEP_WORDS.items() if numbers[status])
    return [*([steps] if steps else []), seconds(result.seconds), *consumption(result.usage)]


def consumption(usage: Usage) -> list[str]:
    """What was used, each number in words; one that the server did not report is unknown."""
    parts: list[str] = []
    if usage.calls:
        parts.append(_tokens(usage))
    if usage.images:
        parts.append(counted(usage.images, "picture"))
    parts.append(counted(usage.calls, "call"))
    if usage.cost_usd:
        least = "" if usage.cost_complete else "at least "
        parts.append(f"{least}{money(usage.cost_usd)}")
    return parts


def money(dollars: float) -> str:
    """Dollars, to the hundredth of a cent where they are few."""
    return f"${dollars:,.{2 if dollars >= 1 else 4}f}"


def _tokens(usage: Usage) -> str:
    if usage.tokens is None:
        return "tokens unknown"
    least = "" if usage.complete else "at least "
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return f"{least}{tokens(usage.input_tokens)} tokens in{cached}, {tokens(usage.output_tokens)} out"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
