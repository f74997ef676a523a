"""A Tool is a typed Python function that a model may call, with the effects it may have; a Toolbox is a table of them.

```python
@tool(effects={"write"})
async def save_note(context: ToolContext, text: str) -> str:
    "Saves a note."
    await context.files.save("note.txt", text.encode(), overwrite=True)
    return "saved"
```

Its parameters become a JSON Schema, its docstring is what a model is told of it. A package offers its tools by entry
points of the group `master_agent.tools`; the built-in ones come in by the same door.
"""

import inspect
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model

from master_agent.attachments import Attachment
from master_agent.context import Inputs
from master_agent.errors import MasterAgentError, SettingsError, ToolError
from master_agent.references import find
from master_agent.results import Artifact, ErrorInfo, Usage
from master_agent.values import bounded, suggestion

if TYPE_CHECKING:
    from master_agent.fetch import Fetcher
    from master_agent.images import ImageProvider
    from master_agent.sandbox import ProgramLimits, Sandbox
    from master_agent.workspace import Workspace

Effect = Literal["read", "write", "execute", "network", "pay"]
ENTRY_POINTS = "master_agent.tools"
STEP_FORMAT = "step-id"

StepName = Annotated[str, Field(json_schema_extra={"format": STEP_FORMAT})]
"""A parameter that names an earlier step of the plan."""


@dataclass(frozen=True)
class ToolOutput:
    """What a tool gives back: text and pictures for the model, data and files for later steps, or what went wrong.

    `usage` says what it took. A tool that spends money (`pay`) says how much: `Usage(cost_usd=0.15)`; of one that does
    not, nobody knows what it cost, and `cost` says so.
    """

    text: str
    data: dict[str, JsonValue] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    usage: Usage = field(default_factory=Usage)
    pictures: tuple[Attachment, ...] = ()
    error: ErrorInfo | None = None

    @classmethod
    def failed(cls, error: MasterAgentError) -> "ToolOutput":
        hint = f" {error.hint}" if error.hint else ""
        return cls(text=f"error: {error.message}.{hint}", error=ErrorInfo.of(error))


@dataclass(frozen=True)
class ToolCall:
    """One use of a tool for a step: by a model, or as the step itself.

    `arguments` is the text that a model wrote, or values; the first layer makes values of it, checked and complete.
    `left_out` names those that nobody gave; `found` is as in ToolContext.
    """

    id: str
    tool: str
    arguments: str | Mapping[str, JsonValue]
    step: str | None = None
    inputs: Inputs = field(default_factory=Inputs)
    left_out: frozenset[str] = frozenset()
    found: Mapping[str, bytes | None] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, JsonValue]:
        """The arguments as values; only after they were checked."""
        assert not isinstance(self.arguments, str), "the arguments were not checked yet"
        return dict(self.arguments)


Use = Callable[[ToolCall], Awaitable[ToolOutput]]


class Files(Protocol):
    """Writing beneath the workspace, so that the run knows of each file."""

    async def save(self, path: str, content: bytes, *, overwrite: bool) -> Artifact:
        """Writes the file whole or not at all. A file that this run did not make needs `overwrite`."""

    async def save_new(self, stem: str, suffix: str, content: bytes) -> Artifact:
        """Writes the file under the first free name: stem.suffix, stem-2.suffix, …"""


@dataclass(frozen=True)
class Begun:
    """What is known of a use that died: the name under which its work was begun elsewhere, if it got one."""

    remote_id: str | None = None


@dataclass(frozen=True)
class Programs:
    """How programs are run: in which sandbox, with which limits, and by the Python of which environment.

    `sandbox` looks for one when it is first asked; SandboxError when there is none, or none may be used.
    """

    sandbox: Callable[[], Awaitable["Sandbox"]]
    limits: "ProgramLimits"
    python: Path | None = None


@dataclass(frozen=True)
class ToolContext:
    """What a tool may work with. `progressed` keeps the name of work that has begun elsewhere.

    Secrets are cut out of all that a tool gives back. One that gives a part of a text cuts them before with `hide`, for
    half a key is found by nobody.

    `found` is for a use that died half-way and is done again: the files that it had begun to change, as it had found
    them; None where there was none.
    """

    step: str | None
    inputs: Inputs
    workspace: "Workspace"
    files: Files
    fetcher: "Fetcher"
    images: Callable[[], "ImageProvider"]
    progressed: Callable[[str], Awaitable[None]] | None = None
    hide: Callable[[str], str] = str
    programs: Programs | None = None
    found: Mapping[str, bytes | None] = field(default_factory=dict)


Settle = Callable[[ToolContext, Mapping[str, JsonValue], Begun], Awaitable[ToolOutput | None]]
"""Looks up what became of a use that died: its output, or None when it certainly had no effect; raises to say that
nobody can tell."""


@dataclass(frozen=True)
class Tool:
    """A function with its effects, its limits and its schema.

    `repeatable`: doing it twice does no harm. `settle` tells, after a crash, whether a use had its effect.
    """

    name: str
    description: str
    function: Callable[..., Awaitable[ToolOutput | str]]
    effects: frozenset[Effect]
    timeout: float = 120.0
    output_limit: int = 50_000
    prepare: Callable[[dict[str, JsonValue]], dict[str, JsonValue]] | None = None
    repeatable: bool = False
    settle: Settle | None = None

    @cached_property
    def _model(self) -> type[BaseModel]:
        hints = get_type_hints(self.function, include_extras=True)
        fields: dict[str, Any] = {}
        for parameter in self._parameters:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, str), default)
        return create_model(self.name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        return [p for p in inspect.signature(self.function).parameters.values() if p.name != "context"]

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the arguments, without the noise of titles."""
        schema: dict[str, Any] = _without_titles(self._model.model_json_schema())
        schema.setdefault("properties", {})
        schema["additionalProperties"] = False
        return schema

    @cached_property
    def step_parameters(self) -> Collection[str]:
        properties = self.parameters["properties"]
        return tuple(name for name, shape in properties.items() if shape.get("format") == STEP_FORMAT)

    def faults(self, arguments: Mapping[str, JsonValue]) -> Iterable[tuple[str, str]]:
        """The faults of a tool step's arguments, before its references are filled in."""
        try:
            self._model.model_validate(dict(arguments))
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False):
                name = str(fault["loc"][0]) if fault["loc"] else ""
                if not any(find(arguments.get(name))):
                    yield name, self._say(fault["type"], name, fault["msg"], arguments)

    def checked(self, arguments: str | Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The arguments as values, complete and prepared; ToolError names every fault."""
        values: Any = arguments
        if isinstance(arguments, str):
            try:
                values = bounded(json.loads(arguments or "{}"))
            except (ValueError, RecursionError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else "numbers or brackets without end"
                raise ToolError(f"the arguments are not JSON ({why})", type="wrong_arguments") from None
        if not isinstance(values, Mapping):
            raise ToolError("the arguments are not a JSON object", type="wrong_arguments")
        try:
            valid = self._model.model_validate(dict(values))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False)
            said = [self._say(f["type"], str(f["loc"][0]) if f["loc"] else "", f["msg"], values) for f in faults]
            raise ToolError(f"wrong arguments for {self.name}: {'; '.join(said)}", type="wrong_arguments") from None
        complete = valid.model_dump(mode="json")
        return self.prepare(complete) if self.prepare else complete

    async def run(self, context: ToolContext, values: Mapping[str, JsonValue]) -> ToolOutput:
        """Uses the tool; ToolError when it could not do its work."""
        valid = self._model.model_validate(dict(values))
        arguments = {name: getattr(valid, name) for name in type(valid).model_fields}
        if "context" in inspect.signature(self.function).parameters:
            arguments["context"] = context
        output = await self.function(**arguments)
        return output if isinstance(output, ToolOutput) else ToolOutput(text=str(output))

    def _say(self, kind: str, name: str, message: str, arguments: Mapping[str, JsonValue]) -> str:
        if kind == "missing":
            return f'"{name}" is missing'
        if kind == "extra_forbidden":
            return f'unknown argument "{name}"{suggestion(name, self.parameters["properties"])}'
        shown = json.dumps(arguments.get(name), ensure_ascii=False, default=str)
        return f'"{name}": {message[:1].lower()}{message[1:]}, found {shown if len(shown) <= 60 else shown[:57] + "…"}'


@overload
def tool(function: Callable[..., Awaitable[ToolOutput | str]], /) -> Tool: ...
@overload
def tool(
    *,
    effects: Collection[Effect] = ...,
    timeout: float = ...,
    output_limit: int = ...,
    prepare: Callable[[dict[str, JsonValue]], dict[str, JsonValue]] | None = ...,
    repeatable: bool = ...,
    settle: Settle | None = ...,
) -> Callable[[Callable[..., Awaitable[ToolOutput | str]]], Tool]: ...


def tool(
    function: Callable[..., Awaitable[ToolOutput | str]] | None = None,
    /,
    *,
    effects: Collection[Effect] = (),
    timeout: float = 120.0,
    output_limit: int = 50_000,
    prepare: Callable[[dict[str, JsonValue]], dict[str, JsonValue]] | None = None,
    repeatable: bool = False,
    settle: Settle | None = None,
) -> Any:
    """Makes a Tool of an async function.

    `timeout` is in seconds, `output_limit` in characters of text. `prepare` completes the checked arguments before they
    are journaled, so that what is drawn by chance (a seed) is known before the effect. `repeatable` and `settle` say
    what a resumed run does with a use that died half-way; without either, a person is asked.
    """

    def make(function: Callable[..., Awaitable[ToolOutput | str]]) -> Tool:
        return Tool(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or ""),
            function=function,
            effects=frozenset(effects),
            timeout=timeout,
            output_limit=output_limit,
            prepare=prepare,
            repeatable=repeatable,
            settle=settle,
        )

    return make(function) if function is not None else make


def load_tools() -> dict[str, Tool]:
    """Every tool that an installed package offers, by name; SettingsError when one cannot be loaded or stands twice."""
    from importlib.metadata import EntryPoint, entry_points

    def package(entry: EntryPoint) -> str:  # its metadata is read for what goes wrong only
        return entry.dist.name if entry.dist else "an unknown package"

    tools: dict[str, Tool] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            found = entry.load()
        except Exception as error:  # a stranger's module may raise anything while it is imported
            raise SettingsError(
                f"the tool {entry.name} of {package(entry)} cannot be loaded: {type(error).__name__}: {error}",
                hint=f"Repair or uninstall {package(entry)}.",
            ) from error
        if not isinstance(found, Tool) or found.name != entry.name:
            raise SettingsError(f"the entry point {entry.name} of {package(entry)} is not a tool of that name")
        if entry.name in tools:
            raise SettingsError(
                f"two packages offer a tool {entry.name}", hint=f"Uninstall one; {package(entry)} is one."
            )
        tools[entry.name] = found
    return tools


def checked(tools: Mapping[str, Tool], use: Use) -> Use:
    """The first layer around a tool: arguments become checked values; what is wrong with them is said at once."""

    async def use_checked(call: ToolCall) -> ToolOutput:
        found = tools.get(call.tool)
        try:
            if found is None:
                raise ToolError(f'no tool "{call.tool}"{suggestion(call.tool, tools)}', type="wrong_arguments")
            values = found.checked(call.arguments)
            given = json.loads(call.arguments or "{}") if isinstance(call.arguments, str) else call.arguments
            left_out = frozenset(name for name in values if given.get(name) is None)
            return await use(replace(call, arguments=values, left_out=left_out))
        except ToolError as error:
            return ToolOutput.failed(error)

    return use_checked


def running(tools: Mapping[str, Tool], context: Callable[[ToolCall], ToolContext]) -> Use:
    """The innermost layer: the tool's function, with what it may work with."""

    async def use(call: ToolCall) -> ToolOutput:
        return await tools[call.tool].run(context(call), call.values)

    return use


def _without_titles(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {n: _without_titles(v) for n, v in schema.items() if not (n == "title" and isinstance(v, str))}
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema
