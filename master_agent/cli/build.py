"""Puts the real things together: settings become wire, journal and workspace, and those a master for one run."""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from master_agent.catalogue import load_agents
from master_agent.cli import cassettes, models, spending
from master_agent.cli.order import Order, People, Team
from master_agent.cli.workshop import Workshop
from master_agent.context import Boundaries, draw_mark
from master_agent.errors import SettingsError
from master_agent.fetch import Fetcher
from master_agent.journal import Journal
from master_agent.master import Master
from master_agent.prompts import Prompts
from master_agent.quick import beside_waiting
from master_agent.results import ErrorInfo
from master_agent.settings import Settings, cache_folder, config_folder, state_folder
from master_agent.tools import load_tools
from master_agent.workspace import Workspace

SPOKEN_BY_THE_SDK = ("responses", "chat", "assistants")
JOURNAL = "journal.db"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def builtin(kind: str) -> Path:
    """The folder of the built-in agents or prompts: in the installed package, else beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_builtin" / kind
    return installed if installed.is_dir() else package.parent / kind


def team(folders: Iterable[Path], *, no_exec: bool = False) -> Team:
    """The agents of the folders, later ones in place of their namesakes, and the tools of all installed packages.

    With `no_exec` nobody has a tool that runs code.
    """
    tools = load_tools()
    agents = load_agents(folders, tools)
    taken = [name for name, tool in tools.items() if no_exec and "execute" in tool.effects]
    for name, agent in agents.items() if taken else ():
        left, finish = (tuple(t for t in names if t not in taken) for names in (agent.tools, agent.finish))
        agents[name] = replace(agent, tools=left, finish=finish)
    return Team(agents, {name: tool for name, tool in tools.items() if name not in taken}, tuple(taken))


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


def workspace_of(settings: Settings) -> Workspace:
    """The folder that agents work in, without what is the program's own; SettingsError where none of it is theirs."""
    workspace = Workspace(settings.workspace)
    for folder, what in _steering(settings).items():
        if workspace.lies_in(folder):
            workspace.close()
            raise SettingsError(
                f"the workspace {workspace.root} is no place for agents: {folder} holds {what}, and what is left "
                "there would be obeyed later",
                hint="Work in another folder, or name one: --workspace DIR",
            )
    for place in _own_places(settings):
        workspace.keep_apart(place)
    return workspace


def _steering(settings: Settings) -> dict[Path, str]:
    """The folders in which every file is obeyed, each with what it holds; any of them may be a link."""
    config, cache = config_folder(os.environ), cache_folder(settings)
    agents, models = "your config and agents", "the models that run here"
    return {config: agents, config / "agents": agents, cache: models, cache / "models": models}


def _own_places(settings: Settings) -> Iterator[Path]:
    """What steers this program and what it keeps, which no agent may touch where the workspace holds it."""
    for folder in _steering(settings):
        yield folder
        with suppress(OSError), os.scandir(folder) as items:  # settings that lie in a repository, and are linked here
            yield from [Path(item.path) for item in items if item.is_symlink()]
    yield state_folder(settings)
    journal = os.path.realpath(state_folder(settings) / JOURNAL)
    for ending in ("", "-wal", "-shm", "-journal"):  # where the state folder is the workspace itself
        yield Path(f"{journal}{ending}")
    if settings.log_file is not None:
        yield settings.log_file
    for env in (Path(".env"), settings.workspace / ".env"):
        if env.is_symlink() and not env.is_dir():  # by its own name it is refused anyway
            yield env


@asynccontextmanager
async def master(
    settings: Settings, team: Team, order: Order, people: People, why_cancelled: Callable[[], ErrorInfo]
) -> AsyncIterator[Master]:
    """A master with all it needs, for one run; everything is let go at the end."""
    with workspace_of(settings) as workspace:
        played = cassettes.played(settings, workspace, resumed=order.resume is not None)
        words = Prompts(builtin("prompts")), Boundaries(order.mark or (played.mark if played else draw_mark()))
        own_models = [agent.model for agent in team.agents.values()]
        if not order.asks_models:
            chosen = models.nobody()
        else:
            chosen = played.models(settings) if played else await models.choose(settings, words, own_models)
        fetcher = Fetcher(allowed_hosts(settings), proxy=settings.proxy)
        try:
            of_the_agents, of_the_planner = chosen.agents or "their own", chosen.planner or "its own"
            people.say(f"models: {chosen.told}; agents: {of_the_agents}, planner: {of_the_planner}")
            if order.asks_models:
                spending.check(settings, chosen, order.planner, own_models, order.allow_unpriced)
            with (
                _journal(settings, order, people) as journal,
                cassettes.deck(settings, chosen, played, words[1].mark, order.task) as deck,
            ):
                if chosen.wire.name in SPOKEN_BY_THE_SDK and played is None:
                    beside_waiting("master_agent.sdk", after=0)  # for the disk, which keeps that the run began
                workshop = Workshop(settings, team, order, people, journal, workspace, words, chosen, fetcher, deck)
                try:
                    yield workshop.master(why_cancelled)
                finally:
                    if journal.state.status != "done":
                        chosen.wire.keep_threads()  # the run may be resumed
        finally:
            await chosen.wire.close()
            await fetcher.close()


def _journal(settings: Settings, order: Order, people: People) -> Journal:
    database = state_folder(settings) / JOURNAL
    run_id = order.resume or new_run_id()
    resume = order.resume is not None
    return Journal(database, run_id, listeners=people.listeners, resume=resume, history=order.history)
