"""What is wanted of one run: who can work on it, what it is for, and the people who are asked and told."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from master_agent.approval import Approve
from master_agent.attachments import Attachment
from master_agent.catalogue import Agent
from master_agent.events import Event, Origin, ToolCalled
from master_agent.plan import AgentStep, Step
from master_agent.remember import Unverified
from master_agent.results import StepResult
from master_agent.secrets import Secrets
from master_agent.tools import Tool


@dataclass(frozen=True)
class Team:
    """Who can be given a step: the agents and the tools; `taken` are the tools that a setting took away."""

    agents: dict[str, Agent]
    tools: dict[str, Tool]
    taken: tuple[str, ...] = ()

    def may_use(self, step: Step) -> tuple[str, ...]:
        """The tools that a step may use: its own, or those of its agent."""
        return self.agents[step.agent].tools if isinstance(step, AgentStep) else (step.tool,)


@dataclass(frozen=True)
class Order:
    """What is wanted of a run beside its settings.

    `anew` is a step that is performed whatever was done before; `history` is what was read of a run to `resume`.
    """

    task: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    planner: bool = True
    asks_models: bool = True
    given: tuple[Attachment, ...] = ()
    resume: str | None = None
    history: Sequence[Event] = ()
    mark: str | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    earlier: Mapping[str, StepResult] = field(default_factory=dict)
    parent: str | None = None
    origin: Origin | None = None
    before: str = ""
    anew: str | None = None
    allow_unpriced: bool = False
    unsafe_exec: bool = False

    def without(self, secrets: Secrets) -> "Order":
        """The order with the task and its parameters as they may be told."""
        task = None if self.task is None else secrets.hide(self.task)
        return replace(self, task=task, params=secrets.hide_in(dict(self.params)))

    @property
    def said(self) -> dict[str, str]:
        """All that a person said with the run, by what it is."""
        params = {f"the parameter {name}": text for name, text in self.params.items()}
        files = {f"the file {file.name}": file.text for file in self.given if not file.is_picture}
        return {"the task": self.task or "", **params, **files}


@dataclass(frozen=True)
class People:
    """Who is asked and told: about the plan, about effects that nobody can look up, and of choices made."""

    approve: Approve
    unverified: Callable[[ToolCalled, str], Awaitable[Unverified]]
    say: Callable[[str], None]
    listeners: tuple[Callable[[Event], None], ...] = ()
