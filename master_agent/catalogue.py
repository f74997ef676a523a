"""From agents' Markdown files to Agents: who can be given a step, with which instructions, tools and limits."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from master_agent.errors import AgentFileError
from master_agent.values import suggestion

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
MAX_BYTES = 256 * 1024

HOSTED = ("code_interpreter", "web_search", "image_generation")
"""The tools that a model's server may run itself."""

OutputKind = Literal["text", "files", "data"]
ToolCallsKind = Literal["native", "text"]


@dataclass(frozen=True)
class AgentLimits:
    """What one step of this agent may take: requests to the model, seconds, tokens of one reply."""

    turns: int | None = None
    seconds: float | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Agent:
    """Instructions, model, tools and output, as one Markdown file defines them.

    `hosted` are those of HOSTED that it may use. `output` is "text", "files" (code blocks become `data.files`) or
    "data" (JSON that follows `schema`). `tool_calls` says how it calls its tools, where its file does: by the server's
    own means, or in its text. `sha256` is that of the file's bytes.
    """

    name: str
    description: str
    instructions: str
    when: str = ""
    tools: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()
    hosted: tuple[str, ...] = ()
    tool_calls: ToolCallsKind | None = None
    model: str | None = None
    temperature: float | None = None
    output: OutputKind = "text"
    schema: Mapping[str, Any] | None = None
    limits: AgentLimits = AgentLimits()
    source: Path | None = None
    sha256: str = ""


def load_agents(folders: Iterable[Path], tools: Collection[str]) -> dict[str, Agent]:
    """Every agent of the folders, by name; one of a later folder takes the place of its namesake.

    AgentFileError names every fault of the first file that has any.
    """
    agents: dict[str, Agent] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.md")) if folder.is_dir() else ():
            agent = read_agent(path, tools)
            namesake = agents.get(agent.name)
            if namesake is not None and namesake.source is not None and namesake.source.parent == path.parent:
                raise AgentFileError(f"{path} and {namesake.source} both define the agent {agent.name}")
            agents[agent.name] = agent
    return dict(sorted(agents.items()))


def read_agent(path: Path, tools: Collection[str]) -> Agent:
    """The agent that a file defines."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise AgentFileError(f"{path} is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AgentFileError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise AgentFileError(f"{path} is too large; an agent file may hold {MAX_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AgentFileError(f"{path} is not UTF-8 text (byte {error.start})") from None
    return replace(parse_agent(text, path, tools), sha256=hashlib.sha256(content).hexdigest())


def parse_agent(text: str, path: Path, tools: Collection[str]) -> Agent:
    """The agent that a text defines: YAML between two lines of `---`, then the instructions."""
    import yaml

    parts = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n?(.*)", text, re.DOTALL | re.MULTILINE)
    if parts is None:
        raise AgentFileError(
            f"{path} does not begin with settings between two lines of ---",
            hint="See one that works: master-agent agents show code",
        )
    try:
        if "*" in parts.group(1) and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(parts.group(1))):
            raise AgentFileError(
                f"{path} has a YAML alias (*name); write the value out"
            )  # nine lines can make a billion
        front = yaml.safe_load(parts.group(1))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 2}" if mark else ""
        raise AgentFileError(f"{path} has broken YAML{where}: {getattr(error, 'problem', error)}") from None
    except (ValueError, RecursionError) as error:  # a date such as 2026-99-99, brackets without end
        raise AgentFileError(f"{path} has YAML that cannot be read: {error}") from None
    if not isinstance(front, dict):
        raise AgentFileError(f"{path} has no settings between its lines of ---")
    return _Reader(path, front, tools).agent(parts.group(2).strip())


class _Reader:
    """Reads one file's settings and gathers their faults."""

    known = (
        "name",
        "description",
        "when",
        "tools",
        "finish",
        "hosted",
        "tool_calls",
        "model",
        "temperature",
        "output",
        "limits",
    )

    def __init__(self, path: Path, front: Mapping[Any, Any], tools: Collection[str]) -> None:
        self.path, self.front, self.tools = path, front, tools
        self.faults: list[str] = []

    def agent(self, instructions: str) -> Agent:
        for key in self.front:
            if key not in self.known:
                self.faults.append(f'unknown setting "{key}"{suggestion(str(key), self.known)}')
        name = (self.text("name") or self.path.stem).lower()
        if not NAME.fullmatch(name):
            self.faults.append(f'name: "{name}" is no name: small letters, digits, - and _, a letter first')
        if name == "planner":
            self.faults.append('name: "planner" is the agent that makes the plan; choose another')
        description = self.text("description")
        if not description and isinstance(self.front.get("description", ""), str | None):
            self.faults.append("description is missing: one line on what the agent does")
        if not instructions:
            self.faults.append("there are no instructions below the second ---")
        tools = self.names("tools")
        for tool in tools:
            if tool not in self.tools:
                self.faults.append(f'tools: no tool "{tool}"{suggestion(tool, self.tools)}')
        finish = self.names("finish")
        for tool in finish:
            if tool not in tools:
                self.faults.append(f'finish: "{tool}" is not among the tools of this agent')
        hosted = self.hosted()
        output, schema = self.output()
        agent = Agent(
            name=name,
            description=description or "",
            instructions=instructions,
            when=self.text("when") or "",
            tools=tools,
            finish=finish,
            hosted=hosted,
            tool_calls=self.tool_calls(),
            model=self.text("model"),
            temperature=self.number("temperature", 0, 2),
            output=output,
            schema=schema,
            limits=self.limits(),
            source=self.path,
        )
        if self.faults:
            raise AgentFileError("\n".join([f"{self.path} has faults", *(f"  {fault}" for fault in self.faults)]))
        return agent

    def text(self, key: str) -> str | None:
        value = self.front.get(key)
        if value is None or isinstance(value, str):
            return value.strip() if value else None
        self.faults.append(f"{key}: expected text, found {_shown(value)}")
        return None

    def number(self, key: str, least: float, most: float) -> float | None:
        value = self.front.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.faults.append(f"{key}: expected a number from {least:,} to {most:,}, found {_shown(value)}")
            return None
        return float(value)

    def whole(self, key: str, most: int) -> int | None:
        value = self.number(key, 1, most)
        if value is not None and value != int(value):
            self.faults.append(f"{key}: expected a whole number, found {_shown(value)}")
        return None if value is None else int(value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self.front.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            more = "; tools that are called in text are still a list, with tool_calls: text beside it"
            hint = more if (key, value) == ("tools", "text") else ""
            self.faults.append(f"{key}: expected a list of names, found {_shown(value)}{hint}")
            return ()
        return tuple(value)

    def hosted(self) -> tuple[str, ...]:
        names = self.names("hosted")
        unknown = [name for name in names if name not in HOSTED]
        self.faults += [f'hosted: no hosted tool "{name}"{suggestion(name, HOSTED)}' for name in unknown]
        return names

    def tool_calls(self) -> ToolCallsKind | None:
        match self.front.get("tool_calls"):
            case "native" | "text" | None as value:
                return value
            case value:
                self.faults.append(f'tool_calls: expected "native" or "text", found {_shown(value)}')
        return None

    def output(self) -> tuple[OutputKind, Mapping[str, Any] | None]:
        value = self.front.get("output", "text")
        match value:
            case "text" | None:
                return "text", None
            case "files":
                return "files", None
            case dict():
                return "data", self.schema(value)
        self.faults.append(f'output: expected "text", "files" or a JSON Schema, found {_shown(value)}')
        return "text", None

    def schema(self, value: dict[str, Any]) -> Mapping[str, Any] | None:
        if value.get("type") != "object":
            self.faults.append("output: a JSON Schema of an object is needed (type: object)")
        elif fault := _schema_fault(value):
            self.faults.append(f"output: no JSON Schema: {fault}")
        return value

    def limits(self) -> AgentLimits:
        value = self.front.get("limits")
        if value is None:
            return AgentLimits()
        if not isinstance(value, dict):
            self.faults.append(f"limits: expected turns, seconds or output_tokens, found {_shown(value)}")
            return AgentLimits()
        known = ("turns", "seconds", "output_tokens")
        for key in value:
            if key not in known:
                self.faults.append(f'limits: unknown limit "{key}"{suggestion(str(key), known)}')
        inner = _Reader(self.path, value, self.tools)
        turns, tokens = inner.whole("turns", 1000), inner.whole("output_tokens", 10_000_000)
        seconds = inner.number("seconds", 0.001, 86_400)
        self.faults.extend(f"limits.{fault}" for fault in inner.faults)
        return AgentLimits(turns, seconds, tokens)


def _shown(value: object) -> str:
    """The value in short: YAML's aliases can make a few lines into gigabytes."""
    import reprlib

    return reprlib.repr(value)


def _schema_fault(value: dict[str, Any]) -> str | None:
    """What keeps a value from being a JSON Schema that stands for itself."""
    import jsonschema
    import referencing.exceptions
    import referencing.jsonschema

    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
        if plain != value:
            return "YAML reads on, off, yes, no and numbers as something else than names; put them in quotes"
        validator = jsonschema.Draft202012Validator
        validator.check_schema(plain, format_checker=validator.FORMAT_CHECKER)  # patterns are looked at too
        resolver = referencing.jsonschema.EMPTY_REGISTRY.resolver_with_root(
            referencing.jsonschema.DRAFT202012.create_resource(plain)
        )
        for reference in _references(plain):
            if not reference.startswith("#"):
                return f'"{reference}" is outside the file; a reference begins with #'
            resolver.lookup(reference)
    except jsonschema.SchemaError as error:
        return error.message
    except referencing.exceptions.Unresolvable as error:
        return f'"{error.ref}" refers to nothing'
    except (TypeError, ValueError, RecursionError) as error:  # a date, infinity, a circle of aliases
        return str(error)
    return None


def _references(schema: Any) -> Iterator[str]:
    """Every text that a `$ref` of the schema holds; what such a name means elsewhere does no harm here."""
    if isinstance(schema, dict):
        yield from (schema[key] for key in ("$ref", "$dynamicRef") if isinstance(schema.get(key), str))
    inside = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for value in inside:
        yield from _references(value)
