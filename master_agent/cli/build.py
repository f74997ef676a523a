"""Puts the real things together: settings become wire, tools, journal, layers and the master."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import JsonValue

from master_agent import __version__, layers
from master_agent.approval import Approve
from master_agent.attachments import Attachment
from master_agent.budget import Budget, pictures_reserved, reserved
from master_agent.catalogue import Agent, load_agents
from master_agent.cli import cassettes, models, spending
from master_agent.cli.models import Models, Words
from master_agent.context import Boundaries, draw_mark
from master_agent.dispatcher import Dispatcher
from master_agent.errors import ImageError
from master_agent.events import Event, FileChanged, Origin, RunResumed, RunStarted, ToolCalled, ToolProgressed
from master_agent.exchanges import Deck
from master_agent.fetch import Fetcher
from master_agent.images import ImageProvider
from master_agent.journal import Journal
from master_agent.lifetime import Lifetime
from master_agent.limits import Limits, TimeBudget
from master_agent.master import Master
from master_agent.past import pasts
from master_agent.plan import Plan
from master_agent.planner import Planner
from master_agent.prompts import Prompts
from master_agent.remember import Memory, RememberedUses, Unverified
from master_agent.results import Artifact, ErrorInfo, StepResult
from master_agent.retry import RetryPolicy
from master_agent.run_files import Before, RunFiles
from master_agent.runner import Runner
from master_agent.settings import ImageProviderName, Settings, state_folder
from master_agent.threads import Call, CallOptions
from master_agent.tools import Tool, ToolCall, ToolContext, Use, checked, load_tools, running
from master_agent.workspace import Workspace

PROGRAM = f"master-agent {__version__}"
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
    given: tuple[Attachment, ...] = ()
    resume: str | None = None
    mark: str | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    earlier: Mapping[str, StepResult] = field(default_factory=dict)
    parent: str | None = None
    origin: Origin | None = None
    before: str = ""
    allow_unpriced: bool = False


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


def allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """Hosts with a private address that may be fetched from; one that the user gave for Replicate is among them."""
    if settings.origins["replicate_base_url"] in (".env", "default"):
        return settings.allow_host
    return (*settings.allow_host, urlsplit(settings.replicate_base_url).netloc)


def image_provider(settings: Settings) -> ImageProviderName | None:
    """Who makes pictures: as set, else by the token that is there; None for nobody.

    A key for another server than OpenAI's is no reason to ask that server for pictures: many make none.
    """
    if settings.image_provider:
        return settings.image_provider
    if settings.replicate_api_token:
        return "replicate"
    return "openai" if settings.openai_api_key and not settings.own_server else None


def no_pictures(settings: Settings) -> ImageError | None:
    """What is missing for pictures to be made; None when nothing is."""
    offline = "draw stand-ins offline: --image-provider placeholder"
    match image_provider(settings):
        case "replicate" if not settings.replicate_api_token:
            missing, next_step = "REPLICATE_API_TOKEN is not set", f"Put REPLICATE_API_TOKEN=… into .env, or {offline}"
        case "openai" if not settings.openai_api_key and not settings.own_server:
            missing, next_step = "OPENAI_API_KEY is not set", f"Put OPENAI_API_KEY=… into .env, or {offline}"
        case None if settings.own_server:
            missing = "no REPLICATE_API_TOKEN, and no OPENAI_API_KEY for OpenAI: OPENAI_BASE_URL names another server"
            next_step = "Put REPLICATE_API_TOKEN=… into .env, let that server make pictures if it can: "
            next_step += f"--image-provider openai, or {offline}"
        case None:
            missing = "neither REPLICATE_API_TOKEN nor OPENAI_API_KEY is set"
            next_step = f"Put one of them into .env, or {offline}"
        case _:
            return None
    return ImageError(f"no picture can be made: {missing}", hint=next_step, type="missing_token")


def make_images(settings: Settings, fetcher: Fetcher) -> ImageProvider:
    """Who makes pictures; ImageError, of the type missing_token, when there is nobody."""
    if missing := no_pictures(settings):
        raise missing
    policy = RetryPolicy(attempts=settings.attempts)
    match image_provider(settings):
        case "replicate":
            from master_agent.images import replicate

            return replicate.Replicate(
                fetcher,
                settings.replicate_api_token or "",
                base_url=settings.replicate_base_url,
                model=settings.image_model or replicate.MODEL,
                policy=policy,
            )
        case "openai":
            from master_agent.images import openai

            key, address = settings.openai_api_key, settings.openai_base_url
            return openai.OpenAIImages(key, address, model=settings.image_model or openai.MODEL, policy=policy)
    from master_agent.images.placeholder import Placeholder

    return Placeholder()


@dataclass(frozen=True)
class People:
    """Who is asked and told: about the plan, about effects that nobody can look up, and of choices made."""

    approve: Approve
    unverified: Callable[[ToolCalled], Awaitable[Unverified]]
    say: Callable[[str], None]
    listeners: tuple[Callable[[Event], None], ...] = ()


@asynccontextmanager
async def master(
    settings: Settings, team: Team, order: Order, people: People, why_cancelled: Callable[[], ErrorInfo]
) -> AsyncIterator[Master]:
    """A master with all it needs, for one run; everything is let go at the end."""
    with Workspace(settings.workspace) as workspace:
        played = cassettes.played(settings, workspace, resumed=order.resume is not None)
        words = Prompts(builtin("prompts")), Boundaries(order.mark or (played.mark if played else draw_mark()))
        if not order.asks_models:
            chosen = models.nobody()
        else:
            chosen = played.models(settings) if played else await models.choose(settings, words)
        of_the_agents, of_the_planner = chosen.agents or "their own", chosen.planner or "its own"
        people.say(f"models: {chosen.why}; agents: {of_the_agents}, planner: {of_the_planner}")
        if order.asks_models:
            own_models = (agent.model for agent in team.agents.values())
            spending.check(settings, chosen, order.planner, own_models, order.allow_unpriced)
        fetcher = Fetcher(allowed_hosts(settings))
        try:
            with (
                _journal(settings, order, people) as journal,
                cassettes.deck(settings, chosen, played, words[1].mark, order.task) as deck,
            ):
                try:
                    yield _master(
                        settings, team, order, people, why_cancelled, journal, workspace, words, chosen, fetcher, deck
                    )
                finally:
                    if journal.state.status != "done":
                        chosen.wire.keep_threads()  # the run may be resumed
        finally:
            await chosen.wire.close()
            await fetcher.close()


def _journal(settings: Settings, order: Order, people: People) -> Journal:
    database = state_folder(settings) / "journal.db"
    run_id = order.resume or new_run_id()
    return Journal(database, run_id, listeners=people.listeners, resume=order.resume is not None)


def _master(
    settings: Settings,
    team: Team,
    order: Order,
    people: People,
    why_cancelled: Callable[[], ErrorInfo],
    journal: Journal,
    workspace: Workspace,
    words: Words,
    chosen: Models,
    fetcher: Fetcher,
    deck: Deck,
) -> Master:
    began = next((event for event in journal.history if isinstance(event, RunStarted)), None)
    prompts, boundaries = words
    limits = _limits(settings)
    wire, tools = chosen.wire, team.tools
    given = _given_before(began, journal) if began else order.given
    memory = Memory(pasts(journal.history), wire.name, journal.blob)
    run_files = _run_files(workspace, journal, order)
    context = _tool_context(settings, workspace, fetcher, boundaries, journal, run_files, deck)
    may_use = Budget(limits, journal.state.usage, journal.history)
    call = _call(settings, may_use, journal, chosen, memory, deck)
    used = layers.written_down(layers.settled(layers.in_time(running(tools, context), tools)), journal, tools)
    remembered = RememberedUses(
        layers.refusals_noted(checked(tools, _paid(used, settings, may_use, order)), journal),
        memory.pasts,
        tools,
        context=context,
        blob=journal.blob,
        decide=people.unverified,
        collected=lambda call, output: layers.note_output(journal, call, output),
    )
    runner = Runner(
        wire, call, remembered.use, team.agents, tools, prompts, boundaries, limits, run_files.for_step, given, memory
    )
    planner = Planner(
        wire,
        call,
        prompts,
        team.agents,
        tools,
        boundaries,
        CallOptions(agent="planner", timeout=settings.call_timeout),
        model=chosen.planner,
        repairs=settings.plan_repairs,
        given=given,
        memory=memory,
        before=order.before,
    )
    earlier = {name: r for name, r in journal.state.results.items() if r.usable} if began else order.earlier
    perform = layers.deadline(runner.perform, settings.step_timeout)

    budget = TimeBudget(limits.seconds)
    started = RunResumed(program=PROGRAM) if began else _run_started(settings, order, boundaries.mark)

    def dispatch(plan: Plan) -> Awaitable[object]:
        attempts, most = memory.attempts(), limits.steps
        return Dispatcher(plan, perform, journal.note, limits.concurrency, earlier, attempts, most=most).run()

    return Master(
        planner=planner if order.planner else None,
        approve=people.approve,
        dispatch=dispatch,
        journal=journal,
        lifetime=Lifetime(journal, started, why_cancelled, budget, _contents(order), deck.finish),
        budget=budget,
        files=lambda: [(entry.path, entry.bytes) for entry in workspace.entries()],
        earlier=earlier,
    )


def _contents(order: Order) -> dict[str, bytes]:
    return {file.sha256: file.content for file in order.given}


def _paid(use: Use, settings: Settings, budget: Budget, order: Order) -> Use:
    """The use of a tool, with pictures reserved by their price."""
    price = spending.price_of_picture(settings, image_provider(settings))
    return pictures_reserved(use, budget, price, allow_unpriced=order.allow_unpriced)


def _call(settings: Settings, budget: Budget, journal: Journal, chosen: Models, memory: Memory, deck: Deck) -> Call:
    """A request to a model: remembered, or tried, and each try reserved, written down and settled."""
    prices = spending.prices_of(settings)
    asked = deck.calls(layers.asked(journal, chosen.wire.name, chosen.agents, prices=prices))
    held = reserved(asked, budget, prices, chosen.agents)
    return memory.calls(layers.retried(held, RetryPolicy(attempts=settings.attempts), deck.sleep))


def _run_started(settings: Settings, order: Order, mark: str) -> RunStarted:
    return RunStarted(
        task=order.task,
        params=dict(order.params),
        workspace=str(settings.workspace.resolve()),
        folder=str(Path.cwd()),
        flags={name: _plain(getattr(settings, name)) for name in settings.said if _keepable(settings, name)},
        given=[file.to_data() for file in order.given],
        planned=not order.planner,
        mark=mark,
        program=PROGRAM,
        parent=order.parent,
        origin=order.origin,
    )


def _keepable(settings: Settings, name: str) -> bool:
    """Whether a flag is kept for a later process; an address that may hold a password or a key is not."""
    address = urlsplit(getattr(settings, name)) if name.endswith("_base_url") else None
    return name != "record" and not (address and (address.username or address.password or address.query))


def _plain(value: object) -> JsonValue:
    match value:
        case tuple():
            return list(value)
        case int() | float() | str():
            return value
        case Path():
            return str(value.resolve())
    return str(value)


def _given_before(began: RunStarted, journal: Journal) -> tuple[Attachment, ...]:
    return tuple(
        Attachment(str(kept["name"]), str(kept["media_type"]), journal.blob(str(kept["sha256"])))
        for kept in began.given
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        seconds=settings.timeout,
        step_seconds=settings.step_timeout,
        call_seconds=settings.call_timeout,
        turns=settings.turns,
        concurrency=settings.concurrency,
        cost=settings.max_cost,
        calls=settings.max_calls,
        tokens=settings.max_tokens,
        steps=settings.max_steps,
    )


def _run_files(workspace: Workspace, journal: Journal, order: Order) -> RunFiles:
    async def report(artifact: Artifact, before: Before, step: str | None) -> None:
        blobs = {} if before.content is None else {hashlib.sha256(before.content).hexdigest(): before.content}
        digest = next(iter(blobs), None)
        changed = FileChanged(step=step, file=artifact, before=digest, mode=before.mode, folders=before.folders)
        await journal.append(changed, blobs)

    changes = [event for event in journal.history if isinstance(event, FileChanged)]
    # What an earlier run made, and nobody has touched since, is this run's to replace.
    untouched = {path for path, digest in order.made.items() if workspace.digest(path) == digest}
    made = {change.file.path for change in changes} | untouched
    written = {(change.step, change.file.sha256): change.file.path for change in changes}
    return RunFiles(workspace, report, made, written)


def _tool_context(
    settings: Settings,
    workspace: Workspace,
    fetcher: Fetcher,
    boundaries: Boundaries,
    journal: Journal,
    run_files: RunFiles,
    deck: Deck,
) -> Callable[[ToolCall], ToolContext]:
    provider: list[ImageProvider] = []

    def images() -> ImageProvider:
        if not provider:
            provider.append(make_images(settings, fetcher))
        return provider[0]

    def context(call: ToolCall) -> ToolContext:
        async def progressed(remote_id: str) -> None:
            progress = ToolProgressed(step=call.step, tool=call.tool, asked=call.id, remote_id=remote_id)
            await journal.append(progress)

        files = run_files.for_step(call.step)
        pictures, outside = partial(deck.images, images, call), deck.fetcher(fetcher, call)
        return ToolContext(call.step, call.inputs, workspace, files, outside, pictures, boundaries, progressed)

    return context
