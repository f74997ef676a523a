"""From settings to the wire and the models that a run speaks to, with the reason for each choice."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from master_agent.cli import local, reach, streams
from master_agent.cli.reach import Reached
from master_agent.cli.wires import Words, make_wire, scripted, wire_name, with_words
from master_agent.errors import ModelError, SettingsError
from master_agent.local_servers import LocalServer, described
from master_agent.openai_server import Server
from master_agent.prices import Prices
from master_agent.providers import EMBEDDED, OPENAI, PROVIDERS, named
from master_agent.settings import Settings, table
from master_agent.threads import Wire

_RUN_HERE = frozenset(row.name for row in EMBEDDED)
_AWAY = frozenset(name for name, row in PROVIDERS.items() if row.kind == "hosted" and row is not OPENAI)


@dataclass(frozen=True)
class Models:
    """Who is asked: the wire, the model of the agents and the planner's; `why` says in a line how it was chosen.

    `provider` says who answers and why they do, `at` where; `prices` what they cost, where more is known than that.
    """

    wire: Wire
    agents: str | None
    planner: str | None
    why: str
    provider: str = ""
    prices: Prices | None = None
    at: str = ""

    @property
    def told(self) -> str:
        """Who answers, why they do, and how they are spoken to."""
        return f"{self.provider}; {self.why}" if self.provider else self.why


@dataclass(frozen=True)
class Names:
    """What the names of models say of providers. `own` are names that a server of the user's own has given itself.

    `near` are the local servers that answer, where one was found: that one first.
    """

    own: frozenset[str] = frozenset()
    near: tuple[LocalServer, ...] = ()

    def split(self, model: str) -> tuple[str | None, str]:
        """The provider that a model's name begins with, if it does, and the model's name there."""
        return (None, model) if model in self.own else named(model)

    def route(self, model: str, home: str | None) -> tuple[str | None, str | None]:
        """The way to a model, None where the run's first provider has it, and its name at the end of the way."""
        provider, bare = self.split(model)
        if provider in _RUN_HERE:  # each file has an engine of its own
            return (None, None) if model == home else (model, None)
        if (other := self.elsewhere(model)) is not None:
            return other.origin, bare
        return (None if provider in (None, home) else provider), bare

    def elsewhere(self, model: str) -> LocalServer | None:
        """The other local server that offers a model which the run's own does not."""
        provider, bare = self.split(model)
        meant = (server for server in self.near if provider in (None, server.kind))
        there = next((server for server in meant if server.offers(bare)), None)
        return None if there in self.near[:1] else there


def nobody() -> Models:
    """For a plan of tools alone: a script without a line, so that no key is needed for what asks no model."""
    from master_agent.threads.scripted import Script, Scripted

    return Models(Scripted(Script([])), None, None, "no model is asked")


async def choose(settings: Settings, words: Words | None = None, own: Iterable[str | None] = ()) -> Models:
    """The wire and the models that the settings choose; ModelError when there is no model to talk to.

    `words` are for what wires tell models themselves: of a run that had to begin anew, of tools to those that know
    none. `own` are the models that agents name themselves.
    """
    if settings.script is not None:
        why = wire_name(settings)[1]
        return Models(with_words(scripted(settings), words), settings.model, settings.planner_model, why)
    others = [model for model in (settings.planner_model, *own) if model]
    names = await _names(settings, others)
    first = settings.model or settings.planner_model
    provider = names.split(first)[0] if first else None
    if first is not None and local.is_local(first):
        home: str = first
        chosen = await embedded(settings, first, words, _to_who_waits)
    else:
        wanted = names.split(first)[1] if first else None
        if provider:
            reached: Reached | None = await reach.said(settings, provider, wanted)
        else:
            reached, near = await _found(settings, wanted)
            names = replace(names, near=near)
        if reached is None:
            home = local.suggested(settings)
            chosen = await embedded(settings, home, words, _to_who_waits)
            chosen = replace(chosen, provider="the embedded engine: there is no key, and no local server answers")
        else:
            home = reached.provider.name
            several = any(names.route(model, home)[0] for model in others)
            chosen = await _asked(settings, reached, names, words, several=several)
    if settings.planner_model:
        route, bare = names.route(settings.planner_model, home)
        its_own = chosen.agents if names.split(home)[0] in _RUN_HERE else bare  # an engine has only one model
        whole = route or (its_own and names.elsewhere(its_own))  # without its provider it would mean another's
        chosen = replace(chosen, planner=settings.planner_model if whole else its_own)
    if any(names.split(one)[0] or names.elsewhere(one) for one in others):
        return _routed(settings, chosen, names, home, words)
    return chosen


def _to_who_waits(text: str) -> None:
    if sys.stderr.isatty():
        streams.say(text)


async def embedded(
    settings: Settings, model: str, words: Words | None = None, say: Callable[[str], None] = lambda _text: None
) -> Models:
    """A model that is run here, by the name that it was asked for; `say` tells whoever waits for it."""
    if settings.origins["wire"] == "flag" and settings.wire != "chat":
        raise SettingsError(
            f"--wire {settings.wire}: the embedded engine speaks the wire chat alone", hint="Leave it out."
        )
    file = local.found(settings, model)
    wire = await local.open_wire(settings, file, say)
    context = f"{wire.capabilities.context:,} tokens for each of {wire.engine.slots} requests at once"
    free = Prices(free=True, others=reach.prices_of_others())
    why = f"the embedded engine runs {file.path}, {context}"
    return Models(with_words(wire, words), file.name, file.name, why, prices=free, at=str(file.path))


async def _names(settings: Settings, others: Iterable[str]) -> Names:
    """What the names of models say of providers.

    A server of the user's own may offer a model whose name begins like a provider's, as Ollama's `mistral:7b` does: it
    is asked, for what is meant for it goes to nobody else.
    """
    said = [model for model in (settings.model, *others) if model]
    for model in said:
        if named(model)[1] == "":
            hint = "After the colon comes the model: groq:openai/gpt-oss-120b, ollama:llama3.2:3b, gguf:PATH"
            raise SettingsError(f'"{model}" names no model', hint=hint)
    if not settings.own_server or not any(named(model)[0] in _AWAY for model in said):
        return Names()
    _keep_to_the_users_server(settings)
    wire = make_wire("chat", settings, reach.by_address(settings), "", None)
    try:
        return Names(frozenset(await wire.models()))
    finally:
        await wire.close()


def _keep_to_the_users_server(settings: Settings) -> None:
    """SettingsError where a folder would send elsewhere what the user has named a server for."""
    for name in ("model", "planner_model"):
        model, setting = getattr(settings, name), table()[name]
        of_the_folder = settings.origins[name] == ".env" != settings.origins["openai_base_url"]
        if of_the_folder and named(model)[0] in _AWAY:
            raise SettingsError(
                f'{setting.variable} in .env is "{model}", and your OPENAI_BASE_URL names another server: '
                "a folder may not send elsewhere what you send there",
                hint=f"Say it yourself: {setting.flag} {model}",
            )


async def _found(settings: Settings, model: str | None) -> tuple[Reached | None, tuple[LocalServer, ...]]:
    """Who answers where nobody said who shall, and the local servers if it is one of them, that one first.

    It is the server that offers the `model`, if one does, whatever it would offer by itself. None where only a model of
    this program answers. ModelError for nobody.
    """
    if keyed := reach.keyed(settings):
        return keyed[0], ()
    if settings.wire == "assistants":
        return reach.by_address(settings), ()  # the wire says what became of it
    answering = await reach.servers(settings)
    offering = next((server for server in answering if model and server.offers(model)), None)
    for server in [offering] if offering else answering:
        offered = await described(server)
        if offering or offered.best() is not None:
            there = f"it answers at {server.origin}"
            there += f" and offers {model}" if offering and len(answering) > 1 else ""
            others = (other for other in answering if other is not server)
            return reach.here(offered, f"{there}, and there is no key"), (offered, *others)
    if local.suggested(settings):
        return None, ()
    raise reach.nobody(answering)


async def _asked(settings: Settings, reached: Reached, names: Names, words: Words | None, *, several: bool) -> Models:
    """The wire to a provider and its models: those that are set, else its own, else the one that it offers."""
    row = reached.provider
    name, why = wire_name(settings, row, several=several)
    bare = names.split(settings.model)[1] if settings.model else None
    model = bare or row.agents
    if model is None:
        wire = make_wire(name, settings, reached, "", words)
        try:
            model = reached.best() or _only_model(await wire.models(), reached.server)
        finally:
            await wire.close()
    wire = make_wire(name, settings, reached, model, words)
    address = "" if row is OPENAI else f", at {reached.server.shown}"
    planner = bare or row.planner or model
    return Models(wire, model, planner, f"{why}{address}", reached.told, reach.prices(reached), reached.server.shown)


def _routed(settings: Settings, chosen: Models, names: Names, home: str, words: Words | None) -> Models:
    """The choice, with the way to every other provider that the planner or an agent names."""
    from master_agent.threads.routed import Routed

    async def reached(route: str) -> Wire:
        if names.split(route)[0] in _RUN_HERE:
            return (await embedded(settings, route, words)).wire
        found = next((server for server in names.near if server.origin == route), None)
        if found is not None:
            other = reach.here(await described(found), f"it answers at {found.origin}")
        else:
            other = await reach.said(settings, route)
        return make_wire(settings.wire or "chat", settings, other, "", words)

    return replace(chosen, wire=Routed(chosen.wire, lambda model: names.route(model, home), reached))


def _only_model(models: list[str], server: Server) -> str:
    """The one model that a server of the user's own offers; ModelError when it offers several, or none."""
    if len(models) == 1:
        return models[0]
    offered = f"it offers {', '.join(models[:12])}" if models else "it names none"
    raise ModelError(
        f"which model of {server.shown}? {offered}",
        type="no_model",
        hint="Choose one: --model NAME, or MASTER_AGENT_MODEL=NAME in .env",
    )
