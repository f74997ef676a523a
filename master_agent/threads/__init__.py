"""The port to models: an agent's conversation is a Thread, one go at it is a Run; each wire is one file beside this.

A Run goes queued → in_progress → requires_action → completed, failed, cancelled, expired or incomplete, and lasts
across its tool rounds. `send` is one request of it: a turn goes in, pieces of text come out, then the Reply, last.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.results import Usage

RunStatus = Literal["requires_action", "completed", "failed", "cancelled", "expired", "incomplete"]
SchemaSupport = Literal["strict", "object", "none"]
LengthName = Literal["max_tokens", "max_completion_tokens"]
ToolCalls = Literal["native", "either", "text"]


@dataclass(frozen=True)
class Capabilities:
    """What a wire and the server behind it can do.

    `pictures`: whether the model can be shown any. `hosted_tools`: the tools that the server itself runs.
    `schema`: whether a reply's shape can be asked for (a JSON schema, any JSON object, or not at all); never trusted.
    `grammar`: whether its engine holds the model to all that a JSON schema can say. `schema_with_tools`,
    `stream_with_schema`: whether it can be asked for beside those. `length` is what Chat Completions call the most
    tokens of a reply; None where the address tells. `parallel_tools`: several calls in one reply. `tool_choice`:
    nothing here ever forces a tool, so that a server can do without.
    `context`: the tokens that one request and its answer may hold together, where that is known.
    `tool_calls`: how tools are called: by the server's own means ("native"); by those, but what a model writes of calls
    into its text counts too ("either"); or in its text alone ("text"), because it knows of no tools.
    """

    schema: SchemaSupport = "strict"
    grammar: bool = False
    schema_with_tools: bool = True
    strict_tools: bool = False
    tool_choice: bool = True
    parallel_tools: bool = True
    length: LengthName | None = None
    stream: bool = True
    stream_with_schema: bool = True
    stream_with_tools: bool = True
    usage_in_stream: bool = True
    pictures: bool = True
    hosted_tools: frozenset[str] = frozenset()
    can_continue: bool = True
    context: int | None = None
    tool_calls: ToolCalls = "native"


@dataclass(frozen=True)
class ToolSpec:
    """A tool as a model is told of it; `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class AgentSpec:
    """What is fixed when a thread opens.

    `output` is the JSON Schema that the last reply shall follow, if any; `hosted` names tools that the server runs.
    `tool_calls` goes before what the server is known to be able to.
    """

    name: str
    instructions: str
    model: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    output: Mapping[str, Any] | None = None
    hosted: tuple[str, ...] = ()
    tool_calls: ToolCalls | None = None


@dataclass(frozen=True)
class ThreadState:
    """A thread as plain JSON: enough to go on with it in another process, where the wire can."""

    wire: str
    ids: Mapping[str, str] = field(default_factory=dict)
    items: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class UserTurn:
    """What a person, a plan or a planner says, with pictures to look at."""

    text: str
    pictures: tuple[Attachment, ...] = ()

    def to_data(self) -> dict[str, JsonValue]:
        return {"role": "user", "text": self.text, **_shown(self.pictures)}


@dataclass(frozen=True)
class Output:
    """The answer to one tool call, matched by the call's id."""

    call_id: str
    text: str
    pictures: tuple[Attachment, ...] = ()

    def to_data(self) -> dict[str, JsonValue]:
        return {"call_id": self.call_id, "text": self.text, **_shown(self.pictures)}


@dataclass(frozen=True)
class ToolOutputs:
    """All outputs of one round, sent back at once."""

    outputs: tuple[Output, ...]

    def to_data(self) -> dict[str, JsonValue]:
        return {"role": "tool", "outputs": [output.to_data() for output in self.outputs]}


def _shown(pictures: tuple[Attachment, ...]) -> dict[str, JsonValue]:
    return {"pictures": [picture.to_data() for picture in pictures]} if pictures else {}


Turn = UserTurn | ToolOutputs


@dataclass(frozen=True)
class CallOptions:
    """One request: who asks, for which step, attempt and turn (from 1), and how many seconds it may take.

    `output_tokens` holds this one answer to fewer tokens than its agent's may have, or to some where it says nothing.
    """

    agent: str
    step: str | None = None
    attempt: int = 1
    turn: int = 1
    timeout: float = 600.0
    stream: bool = True
    output_tokens: int | None = None

    def most(self, agent: AgentSpec) -> int | None:
        """The tokens that the answer may have; None where nobody says."""
        return agent.max_output_tokens if self.output_tokens is None else self.output_tokens


@dataclass(frozen=True)
class ModelToolCall:
    """A tool that a model wants used; `arguments` is the text it wrote, JSON or not."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Source:
    """A page of the web that an answer cites."""

    title: str
    url: str

    def to_data(self) -> dict[str, JsonValue]:
        return {"title": self.title, "url": self.url}


@dataclass(frozen=True)
class Reply:
    """The answer to one turn. `reason` says why a run is incomplete, failed or was refused.

    One that requires action but holds no calls has a call in its text that cannot be read: `reason` quotes it.
    `files` are what tools that the server ran have made, in order; a picture that was generated has the name "", for
    nobody gave it one. `lost` says of each file that could not be had why, and of answers that
    had to be left out of the conversation. `sources` are cited pages, each once.
    """

    status: RunStatus
    text: str = ""
    calls: tuple[ModelToolCall, ...] = ()
    usage: Usage | None = None
    remote_id: str | None = None
    reason: str | None = None
    files: tuple[Attachment, ...] = ()
    lost: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class TextPiece:
    """A piece of text as it is written."""

    text: str


class Thread(Protocol):
    """A conversation with one agent. `state` changes only when a Reply has come."""

    @property
    def state(self) -> ThreadState: ...

    @property
    def agent(self) -> AgentSpec: ...

    def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One request; ModelError when no Reply can be had. After an error the thread is as it was before."""

    async def cancel(self) -> None:
        """Stops what runs on the server's side, if anything does."""


class OwnThread(Thread, Protocol):
    """A conversation that is kept on this side, where what was said last can still be shortened."""

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do with the agent's model, as far as it has shown."""

    def amend(self, text: str) -> None:
        """Puts `text` in the place of what the last Reply said."""


class Wire(Protocol):
    """A way to speak to models."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> Thread:
        """A thread for the agent: a new one, or the one that `state` describes."""

    async def models(self) -> list[str]:
        """The names of the models that the server offers; ModelError when it does not say."""

    def keep_threads(self) -> None:
        """Asks `close` to leave on the server what a later process needs to go on."""

    async def close(self) -> None:
        """Lets go of connections and of what was made on the server only for this process."""


@dataclass(frozen=True)
class CallRequest:
    """One request on a thread, as the layers around it see it."""

    thread: Thread
    turn: Turn
    options: CallOptions


Call = Callable[[CallRequest], Awaitable[Reply]]
