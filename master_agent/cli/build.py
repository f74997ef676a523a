"""Puts the real things together: settings become wire, tools, journal, layers and the master."""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from master_agent import __version__, layers
from master_agent.catalogue import Agent, load_agents
from master_agent.context import Boundaries, draw_mark
from master_agent.errors import ImageError, ModelError, SettingsError
from master_agent.events import Event, FileChanged, RunStarted
from master_agent.fetch import Fetcher
from master_agent.images import ImageProvider
from master_agent.journal import Journal
from master_agent.limits import Limits
from master_agent.master import Approve, Master
from master_agent.planner import Planner
from master_agent.prompts import Prompts
from master_agent.results import Artifact, ErrorInfo, StepResult
from master_agent.retry import RetryPolicy
from master_agent.run_files import RunFiles
from master_agent.runner import Runner
from master_agent.settings import Settings, state_folder
from master_agent.threads import CallOptions, Wire
from master_agent.tools import Tool, ToolCall, ToolContext, checked, load_tools, running
from master_agent.workspace import Workspace

PLANNER_MODEL, AGENT_MODEL = "gpt-6-sol", "gpt-6-luna"  # OpenAI's, without a shutdown date as of 2026-11
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True)
class Team:
    """Who can be given a step: the agents and the tools."""

    agents: dict[str, Agent]
    tools: dict[str, Tool]


@dataclass(frozen=True)
class Order:
    """What is wanted of a run beside its settings."""

    task: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    planner: bool = True
    asks_models: bool = True
    earlier: Mapping[str, StepResult] = field(default_factory=dict)


def builtin(kind: str) -> Path:
    """The folder of the built-in agents or prompts: in the installed package, else beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_builtin" / kind
    return installed if installed.is_dir() else package.parent / kind


def team(folders: Iterable[Path]) -> Team:
    """The agents of the folders, later ones in place of their namesakes, and the tools of all installed packages."""
    tools = load_tools()
    return Team(load_agents(folders, tools), tools)


def new_run_id(now: Callable[[], float] = time.time) -> str:
    """Short, unique and sortable: seven characters of the time in seconds, four drawn by chance."""
    seconds, chance = int(now()), int.from_bytes(os.urandom(3), "big")
    when = "".join(_ALPHABET[seconds >> (5 * i) & 31] for i in reversed(range(7)))
    return when + "-" + "".join(_ALPHABET[chance >> (5 * i) & 31] for i in range(4))


async def make_wire(settings: Settings) -> tuple[Wire, str | None, str | None]:
    """The wire that the settings choose, the agents' model and the planner's; ModelError when there is none."""
    if settings.script is not None or settings.wire == "scripted":
        return _scripted(settings), settings.model, settings.planner_model
    if settings.openai_api_key is None and settings.openai_base_url is None:
        raise ModelError(
            "there is no model to talk to: no OPENAI_API_KEY, and no OPENAI_BASE_URL of another server",
            type="no_model",
            hint="Put OPENAI_API_KEY=… into .env (master-agent init asks for it), point OPENAI_BASE_URL at a server "
            "such as Ollama (http://localhost:11434/v1), or try without any: master-agent demo",
        )
    from master_agent.threads.chat import Chat

    model = settings.model or (None if settings.own_server else AGENT_MODEL)
    wire = Chat(settings.openai_api_key, settings.openai_base_url, model or "")
    if model is None:
        model = wire.model = _only_model(await wire.models(), settings)
    return wire, model, settings.planner_model or settings.model or (model if settings.own_server else PLANNER_MODEL)


def _scripted(settings: Settings) -> Wire:
    from master_agent.threads.scripted import Scripted, read_script

    if settings.script is None:
        raise SettingsError("the wire is scripted, but there is no script", hint="Name its file: --script FILE")
    try:
        content = settings.script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the script {settings.script} cannot be read: {error}") from None
    return Scripted(read_script(content, source=str(settings.script)))


def _nobody() -> Wire:
    """For a plan of tools alone: a script without a line, so that no key is needed for what asks no model."""
    from master_agent.threads.scripted import Script, Scripted

    return Scripted(Script([]))


def allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """Hosts with a private address that may be fetched from; one that the user gave for Replicate is among them."""
    if settings.origins["replicate_base_url"] in (".env", "default"):
        return settings.allow_host
    return (*settings.allow_host, urlsplit(settings.replicate_base_url).netloc)


def make_images(settings: Settings, fetcher: Fetcher) -> ImageProvider:
    """Who makes pictures: as set, else Replicate when there is a token, else nobody, with a clear error."""
    match settings.image_provider or ("replicate" if settings.replicate_api_token else None):
        case "placeholder":
            from master_agent.images.placeholder import Placeholder

            return Placeholder()
        case "replicate" if settings.replicate_api_token:
            from master_agent.images.replicate import Replicate

            return Replicate(
                fetcher,
                settings.replicate_api_token,
                base_url=settings.replicate_base_url,
                model=settings.image_model,
            )
    raise ImageError(
        "no picture can be made: REPLICATE_API_TOKEN is not set",
        hint="Put REPLICATE_API_TOKEN=… into .env, or draw stand-ins offline: --image-provider placeholder",
        type="missing_token",
    )


@asynccontextmanager
async def master(
    settings: Settings,
    team: Team,
    order: Order,
    *,
    approve: Approve,
    listeners: Iterable[Callable[[Event], None]],
    why_cancelled: Callable[[], ErrorInfo],
) -> AsyncIterator[Master]:
    """A master with all it needs, for one run; everything is let go at the end."""
    boundaries = Boundaries(draw_mark())
    prompts = Prompts(builtin("prompts"))
    limits = _limits(settings)
    with Workspace(settings.workspace) as workspace:
        wire, model, planner_model = await make_wire(settings) if order.asks_models else (_nobody(), None, None)
        fetcher = Fetcher(allowed_hosts(settings))
        journal = Journal(state_folder(settings) / "journal.db", new_run_id(), listeners=listeners)
        try:
            with journal:
                policy = RetryPolicy(attempts=settings.attempts)
                call = layers.retried(layers.asked(journal, wire.name, model), policy)
                context = _tool_context(settings, workspace, fetcher, boundaries, journal)
                tools = team.tools
                use = layers.written_down(
                    layers.settled(layers.in_time(running(tools, context), tools)), journal, tools
                )
                runner = Runner(wire, call, checked(tools, use), team.agents, tools, prompts, boundaries, limits)
                options = CallOptions(agent="planner", timeout=settings.call_timeout)
                planner = Planner(
                    wire,
                    call,
                    prompts,
                    team.agents,
                    tools,
                    boundaries,
                    options,
                    model=planner_model,
                    repairs=settings.plan_repairs,
                )
                yield Master(
                    planner=planner if order.planner else None,
                    perform=layers.deadline(runner.perform, settings.step_timeout),
                    approve=approve,
                    journal=journal,
                    limits=limits,
                    started=RunStarted(
                        task=order.task,
                        params=dict(order.params),
                        workspace=str(settings.workspace.resolve()),
                        mark=boundaries.mark,
                        program=f"master-agent {__version__}",
                    ),
                    why_cancelled=why_cancelled,
                    files=lambda: [(entry.path, entry.bytes) for entry in workspace.entries()],
                    earlier=order.earlier,
                )
        finally:
            await wire.close()
            await fetcher.close()


def _limits(settings: Settings) -> Limits:
    return Limits(
        seconds=settings.timeout,
        step_seconds=settings.step_timeout,
        call_seconds=settings.call_timeout,
        turns=settings.turns,
        concurrency=settings.concurrency,
    )


def _tool_context(
    settings: Settings, workspace: Workspace, fetcher: Fetcher, boundaries: Boundaries, journal: Journal
) -> Callable[[ToolCall], ToolContext]:
    async def report(artifact: Artifact, before: str | None, step: str | None) -> None:
        journal.note(FileChanged(step=step, file=artifact, before=before))

    run_files = RunFiles(workspace, report)
    made: list[ImageProvider] = []

    def images() -> ImageProvider:
        if not made:
            made.append(make_images(settings, fetcher))
        return made[0]

    def context(call: ToolCall) -> ToolContext:
        files = run_files.for_step(call.step)
        return ToolContext(call.step, call.inputs, workspace, files, fetcher, images, boundaries)

    return context


def _only_model(models: list[str], settings: Settings) -> str:
    """The one model that a server of the user's own offers; ModelError when it offers several, or none."""
    if len(models) == 1:
        return models[0]
    offered = f"it offers {', '.join(models[:12])}" if models else "it names none"
    raise ModelError(
        f"which model of {settings.openai_base_url}? {offered}",
        type="no_model",
        hint="Choose one: --model NAME, or MASTER_AGENT_MODEL=NAME in .env",
    )
