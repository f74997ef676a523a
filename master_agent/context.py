"""What a step is told of earlier ones: their results as data inside marks, and the values of its references."""

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.errors import StepError
from master_agent.plan import Step
from master_agent.references import Reference, fill, fill_text
from master_agent.results import StepResult

TEXT_LIMIT = 20_000  # characters of one earlier result
TOTAL_LIMIT = 60_000  # characters of all earlier results together
MOST_RESULTS = 100
MOST_FILES = 50  # of one earlier result


@dataclass(frozen=True)
class Inputs:
    """What a step is given: the results it may build on, in plan order, and the task's parameters."""

    results: dict[str, StepResult] | MappingProxyType[str, StepResult] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1


Perform = Callable[[Step, Inputs], Awaitable[StepResult]]


MARK = re.compile(r"\bdata-[0-9a-f]{12}\b")
"""Every mark, whichever run's."""


def draw_mark() -> str:
    """A mark for the data of one run, which nothing written before the run can contain."""
    return f"data-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class Boundaries:
    """Puts text from outside between marks that the text itself cannot close."""

    mark: str

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.mark), re.IGNORECASE)

    def wrap(self, text: str, **attributes: str) -> str:
        """The text between marks, with attributes such as its step and agent."""
        named = "".join(f' {name}="{self._without_mark(_attribute(value))}"' for name, value in attributes.items())
        return f"<{self.mark}{named}>{self._without_mark(text)}</{self.mark}>"

    def _without_mark(self, text: str) -> str:
        # What takes its place begins and ends with a sign that no mark has: else its rest could make a new one.
        return self._marks.sub("(mark)", text)


def tell_files(files: Sequence[Attachment], boundaries: Boundaries) -> str:
    """The files that the user gave: texts in marked blocks, pictures by name, since they are shown as pictures."""
    blocks = []
    for file in files:
        body = "(this picture is shown to you)" if file.is_picture else f"\n{file.text}\n"
        blocks.append(boundaries.wrap(body, given=file.name))
    return "\n".join(blocks)


def tell(inputs: Inputs, boundaries: Boundaries, reads: int | None = None) -> str:
    """The earlier results, one marked block for each; long ones cut, with a note of where the whole is.

    `reads` is how many tokens the model reads at once, if that is known: of these a third or so is for results.
    """
    blocks: list[str] = []
    room = TOTAL_LIMIT if reads is None else min(TOTAL_LIMIT, reads)  # a token is about three characters
    for step_id in reversed(inputs.results):
        if len(blocks) == MOST_RESULTS:
            blocks.append(f"({len(inputs.results) - MOST_RESULTS} earlier results are not shown)")
            break
        result = inputs.results[step_id]
        limit = min(TEXT_LIMIT, room)
        body = _body(step_id, result, limit)
        room = max(room - len(body), 200)
        attributes = {"step": step_id, "agent" if result.agent else "tool": result.agent or result.tool or ""}
        blocks.append(boundaries.wrap(f"\n{body}\n", **attributes))
    return "\n".join(reversed(blocks))


def _body(step_id: str, result: StepResult, limit: int) -> str:
    lines = [f"file: {a.path} ({a.media_type}, {a.bytes} bytes)" for a in result.artifacts]
    files = result.data.get("files")
    if isinstance(files, list):
        names = [str(item.get("name")) for item in files if isinstance(item, dict)]
        lines += [f"code, not yet saved: {name}" for name in names]
    if len(lines) > MOST_FILES:
        lines[MOST_FILES:] = [f"({len(lines) - MOST_FILES} more files)"]
    text = result.text
    if len(text) > limit:
        kept = text[:limit]
        text = f'{kept}\n[cut: {limit} of {len(text)} characters; save_result with step "{step_id}" saves the whole]'
    return "\n".join([*lines, text]) if text else "\n".join(lines) or "(nothing)"


def fill_prompt(prompt: str, inputs: Inputs, boundaries: Boundaries) -> str:
    """The prompt with its references filled in, each value inside the data marks. StepError where one is empty."""
    return fill_text(prompt, lambda reference: boundaries.wrap(_show(_resolve(reference, inputs))))


def fill_arguments(arguments: Mapping[str, JsonValue], inputs: Inputs) -> dict[str, JsonValue]:
    """The arguments of a tool's step with their references filled in. StepError where one is empty."""
    filled = fill(dict(arguments), lambda reference: _resolve(reference, inputs), _show)
    assert isinstance(filled, dict)
    return filled


def _resolve(reference: Reference, inputs: Inputs) -> JsonValue:
    if reference.source == "params":
        value: JsonValue = inputs.params.get(reference.path[0])
    else:
        result = inputs.results.get(reference.source)
        value = None if result is None else _look_up(result, reference.path)
    if reference.source == "params" and not value:
        raise StepError(f"{reference} is empty", hint=f"Give it: --param {reference.path[0]}=VALUE", type="reference")
    if value is None or value == "":
        have = "nothing" if reference.source not in inputs.results else _summary(inputs.results[reference.source])
        raise StepError(
            f"{reference} is empty: {reference.source} left {have}",
            hint="Refer to something that the step leaves, or change what the step does.",
            type="reference",
        )
    return value


def _look_up(result: StepResult, path: tuple[str, ...]) -> JsonValue:
    match path:
        case ("text",):
            return result.text
        case ("path",):
            return result.artifacts[0].path if result.artifacts else None
        case ("data", *rest):
            value: JsonValue = result.data
            for part in rest:
                if isinstance(value, dict):
                    value = value.get(part)
                elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                    value = value[int(part)]
                else:
                    return None
            return value
    return None


def _summary(result: StepResult) -> str:
    left = [f"data.{name}" for name in result.data]
    left += ["text"] if result.text else []
    left += ["path"] if result.artifacts else []
    return ", ".join(left) or "nothing"


def _show(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _attribute(value: str) -> str:
    return value.replace('"', "'").replace("<", "(").replace(">", ")")
