"""From settings to the provider of models that is asked, where it is, with which key, and why it and no other.

In order: what the user said; an OpenAI key; another provider's key; a local server that answers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from master_agent.embedded import INSTALL, installed
from master_agent.errors import ModelError
from master_agent.local_servers import HERE, PORTS, SAID, SECONDS, LocalModel, LocalServer, described, find, origin_of
from master_agent.openai_server import Server
from master_agent.prices import Prices
from master_agent.providers import HOSTED, LOCAL, OPENAI, OTHER, PROVIDERS, Provider
from master_agent.settings import Settings
from master_agent.threads import Capabilities

NO_LOOKING = "none"


@dataclass(frozen=True)
class Reached:
    """A provider as this process can ask it; `why` says in words how it came to be chosen."""

    provider: Provider
    server: Server
    why: str
    version: str | None = None
    offered: tuple[LocalModel, ...] = ()

    @property
    def told(self) -> str:
        """Who it is, and why."""
        return f"{self.provider.title}{f' {self.version}' if self.version else ''}: {self.why}"

    @property
    def _local(self) -> LocalServer:
        return LocalServer(self.provider.name, "", None, self.offered)

    def best(self) -> str | None:
        """The model that a local server is asked for where nobody names one; None of any other."""
        if self.provider.kind != "local":
            return None
        if (best := self._local.best()) is not None:
            return best.name
        raise ModelError(
            f"{self.provider.title} at {self.server.shown} offers no model",
            type="no_model",
            hint="Get one: ollama pull qwen3.5:4b" if self.provider.name == "ollama" else "Load one there first.",
        )

    def capabilities(self, model: str | None) -> Capabilities | None:
        """What is known that the provider can do with a model; None where nothing is."""
        row = self.provider.capabilities
        told = self._local.model(model) if model else None
        if told is None:
            return row
        able = replace(row or Capabilities(), context=told.context)
        if told.tools is False:
            able = replace(able, tool_calls="text")
        return able if told.pictures is None else replace(able, pictures=told.pictures)


def by_address(settings: Settings) -> Reached:
    """OpenAI, or the server that OPENAI_BASE_URL puts in its place."""
    server = Server(settings.openai_base_url, settings.openai_api_key, proxy=settings.proxy)
    if settings.own_server:
        return Reached(OTHER, server, f"by OPENAI_BASE_URL ({settings.origins['openai_base_url']})")
    return Reached(OPENAI, server, f"by OPENAI_API_KEY ({settings.origins['openai_api_key']})")


def by_key(settings: Settings, row: Provider, why: str | None = None) -> Reached:
    """A hosted provider, with its own key at its own address; ModelError where there is no key."""
    name = f"{row.name}_api_key"
    key = getattr(settings, name)
    if not key:
        raise ModelError(
            f"{row.title} was asked for, and there is no {row.key}",
            type="no_model",
            hint=f"Put {row.key}=… into .env or the environment. A local server's model whose own name begins with "
            f'"{row.name}:" is named with the server before it: ollama:{row.name}:…',
        )
    listing = {header: value.format(key=key) for header, value in row.listing.items()}
    server = Server(row.base_url, key, row.key or "", "hosted", listing, settings.proxy)
    return Reached(row, server, why or f"by {row.key} ({settings.origins[name]})")


def keyed(settings: Settings) -> list[Reached]:
    """The providers whose keys are there, OpenAI first; the server of OPENAI_BASE_URL stands for OpenAI."""
    first = [by_address(settings)] if settings.openai_api_key or settings.own_server else []
    return first + [by_key(settings, row) for row in HOSTED if getattr(settings, f"{row.name}_api_key")]


async def said(settings: Settings, name: str, model: str | None = None) -> Reached:
    """The provider of that name, which the user asked for; ModelError when it cannot be asked.

    Of several local servers of one kind it is the one that offers the model, else the first.
    """
    row = PROVIDERS[name]
    if row is OPENAI:
        if not settings.openai_api_key and not settings.own_server:
            raise ModelError(
                "OpenAI was asked for, and there is no OPENAI_API_KEY",
                type="no_model",
                hint="Put OPENAI_API_KEY=… into .env or the environment.",
            )
        # Whoever says so of a server in its place says that its models are OpenAI's, and their prices.
        reached = by_address(settings)
        return replace(reached, provider=replace(reached.provider, prices=row.prices), why='said by "openai:"')
    if row in HOSTED:
        return by_key(settings, row, f'said by "{row.name}:"')

    def offers(server: LocalServer) -> bool:
        return server.kind == name and (not model or server.offers(model))

    answering = [server for server in await servers(settings, offers) if server.kind == name]
    if answering:
        return here(await described(next(filter(offers, answering), answering[0])), f'said by "{name}:"')
    looked = ", ".join(places(settings)) or f"no address, for MASTER_AGENT_LOCAL_SERVER is {NO_LOOKING}"
    raise ModelError(
        f"{row.title} was asked for, and does not answer; looked at: {looked}",
        type="no_model",
        hint=f"Start it, or say where it is: {'OLLAMA_HOST=… or ' if name == 'ollama' else ''}"
        "MASTER_AGENT_LOCAL_SERVER=…. One that wants a key is named by OPENAI_BASE_URL, with its key in "
        "OPENAI_API_KEY.",
    )


async def servers(settings: Settings, wanted: Callable[[LocalServer], bool] | None = None) -> list[LocalServer]:
    """The local servers that answer, in the order in which they are chosen; no more are waited for than the `wanted`.

    Where somebody wants one, there is more time to look.
    """
    order = [row.name for row in LOCAL]
    within = SAID if wanted or settings.local_server or settings.ollama_host else SECONDS
    return sorted(await find(places(settings), within, wanted), key=lambda server: order.index(server.kind))


def here(server: LocalServer, why: str) -> Reached:
    """A local server that answered."""
    at = Server(server.base_url, None, place="local")
    return Reached(PROVIDERS[server.kind], at, why, server.version, server.models)


def places(settings: Settings) -> list[str]:
    """Where local servers are looked for, each address once."""
    if settings.local_server == (NO_LOOKING,):
        return []
    given = [origin_of(text) for text in settings.local_server]
    ollama = [origin_of(settings.ollama_host, PORTS["ollama"])] if settings.ollama_host else []
    if not given:
        ports = [port for kind, port in PORTS.items() if not (ollama and kind == "ollama")]
        given = [origin_of(HERE, port) for port in ports]
    return list(dict.fromkeys(place for place in (*ollama, *given) if place is not None))


def prices(reached: Reached) -> Prices:
    """What the provider's models cost, and those of others that a run may name beside it."""
    others = prices_of_others()
    if reached.provider.prices is None and reached.provider.kind == "hosted":
        return Prices(reached.server.address, others=others)
    return _prices(reached.provider, others)


def prices_of_others() -> dict[str, Prices]:
    """What models cost whose names begin with a provider's."""
    return {row.name: _prices(row) for row in PROVIDERS.values()}


def _prices(row: Provider, others: Mapping[str, Prices] | None = None) -> Prices:
    return Prices(provider=row.prices, free=row.kind == "local", others=others)


class NobodyError(ModelError):
    """There is no model to talk to at all."""


def nobody(empty: Iterable[LocalServer]) -> NobodyError:
    """That there is no model to talk to, and what would help; `empty` are servers that answered and offer none."""
    found = list(empty)
    idle = "".join(f"; {PROVIDERS[one.kind].title} answers at {one.origin}, but offers no model" for one in found)
    ollama = "" if any(one.kind == "ollama" for one in found) else "install Ollama, then: "
    engine = "" if installed() else f"{INSTALL}\n  and then: "
    return NobodyError(
        "there is no model to talk to: no provider's key, no OPENAI_BASE_URL, and no server on this machine that "
        f"answers{idle}",
        type="no_model",
        hint="Any of these will do:\n"
        "- a key: OPENAI_API_KEY=… in .env (master-agent init asks for it)\n"
        f"- a local server: {ollama}ollama pull qwen3.5:4b\n"
        f"- a model run by this program: {engine}master-agent models pull\n"
        "- none, to look around: master-agent demo",
    )
