"""`models`: what each provider that is there offers, in the order in which they are chosen."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import typer

from master_agent.cli import exit_codes, failures, pulling, reach, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.cli.reach import Reached
from master_agent.cli.wires import make_wire
from master_agent.embedded.memory import gigabytes
from master_agent.errors import MasterAgentError
from master_agent.local_servers import LocalModel, described
from master_agent.reporters.text import visible
from master_agent.settings import Settings
from master_agent.threads import Capabilities
from master_agent.threads.chat import Chat

_CONTEXTS = ("context_length", "context_window", "max_context_length", "max_model_len")
"""What servers call the tokens that a model may read."""


def add_to(app: typer.Typer) -> None:
    """Registers the command and those below it."""
    models = typer.Typer(
        help=_HELP,
        rich_markup_mode=None,
        invoke_without_command=True,
        options_metavar="[OPTIONS]",
        subcommand_metavar="[COMMAND]",
    )
    models.callback()(list_models)
    pulling.add_below(models)
    app.add_typer(models, name="models")


_HELP = """Lists what each provider that is there offers: those with a key, servers on this machine, and what runs here.

A name is printed as --model takes it. The first provider is the one that is asked where you name none.

\b
Examples:
  master-agent models
  master-agent models --json
  master-agent models pull         downloads a model to run here
"""


@dataclass(frozen=True)
class Offer:
    """A provider and its models; `error` says why it lists none."""

    reached: Reached
    models: tuple[LocalModel, ...] = ()
    error: str | None = None

    def name(self, model: LocalModel) -> str:
        """The model as `--model` takes it; a server that stands in OpenAI's place has names of its own."""
        row = self.reached.provider
        return model.name if row.kind == "hosted" and row.base_url is None else f"{row.name}:{model.name}"


@with_options("openai_base_url", "local_server", "cache_dir", output=("json",))
def list_models(options: Options, context: typer.Context) -> int:
    if context.invoked_subcommand is not None:
        return exit_codes.DONE
    settings = session.settings_of(options)
    for notice in settings.notices:
        streams.say(notice)
    offers = asyncio.run(_offers(settings))
    here = pulling.shelved(settings)
    nobody = None if offers or here else failures.explain(reach.nobody([]))[0]
    if options.json:
        error, shelf = nobody and nobody.model_dump(), pulling.shelf_data(settings, here)
        streams.print_object("models", error=error, providers=[_data(offer) for offer in offers], **shelf)
    else:
        for offer in offers:
            _print(offer)
        pulling.show_shelf(settings, here)
    if nobody is not None:
        failures.say(nobody)
    return exit_codes.DONE if here or any(offer.models for offer in offers) else exit_codes.NO_MODEL


async def _offers(settings: Settings) -> list[Offer]:
    """All providers that can be asked, hosted ones first."""
    hosted, answering = await asyncio.gather(
        asyncio.gather(*(_asked(settings, reached) for reached in reach.keyed(settings))), reach.servers(settings)
    )
    found = await asyncio.gather(*(described(server) for server in answering))
    local = [reach.here(server, f"it answers at {server.origin}") for server in found]
    return [*hosted, *(Offer(reached, reached.offered) for reached in local)]


async def _asked(settings: Settings, reached: Reached) -> Offer:
    wire = make_wire("chat", settings, reached, "", None)
    assert isinstance(wire, Chat)
    try:
        return Offer(reached, tuple(map(_read, await wire.offers())))
    except MasterAgentError as error:
        return Offer(reached, error=f"{error.message}{f' ({error.hint})' if error.hint else ''}")
    finally:
        await wire.close()


def _read(entry: Mapping[str, Any]) -> LocalModel:
    """A model as a hosted provider lists it; few say more than its name."""
    contexts = (entry.get(name) for name in _CONTEXTS)
    context = next((value for value in contexts if isinstance(value, int) and value > 0), None)
    parameters, shapes = entry.get("supported_parameters"), entry.get("architecture")
    seen = shapes.get("input_modalities") if isinstance(shapes, Mapping) else None
    return LocalModel(
        str(entry["id"]).removeprefix("models/"),
        context,
        tools="tools" in parameters if isinstance(parameters, list) else None,
        pictures="image" in seen if isinstance(seen, list) else None,
    )


def _data(offer: Offer) -> dict[str, Any]:
    row, able = offer.reached.provider, offer.reached.provider.capabilities
    return {
        "provider": row.name,
        "title": row.title,
        "why": offer.reached.why,
        "address": offer.reached.server.shown,
        "error": offer.error,
        "capabilities": _listed(able) if able else None,
        "models": [{"model": offer.name(model), **asdict(model)} for model in offer.models],
    }


def _listed(able: Capabilities) -> dict[str, Any]:
    return {**asdict(able), "hosted_tools": sorted(able.hosted_tools)}


def _print(offer: Offer) -> None:
    count = f"{len(offer.models)} model{'' if len(offer.models) == 1 else 's'}"
    lacks = "; it lacks " + ", ".join(gaps) if (gaps := list(_gaps(offer.reached.provider.capabilities))) else ""
    at = "" if offer.reached.provider.kind == "local" else f"; at {offer.reached.server.shown}"
    told = offer.reached.told + at
    streams.write(visible(f"{told}: {offer.error}" if offer.error else f"{told}; {count}{lacks}"), hang=2)
    width = max((len(offer.name(model)) for model in offer.models), default=0)
    for model in sorted(offer.models, key=lambda model: not model.loaded):
        streams.write(visible(f"  {offer.name(model):<{width}}  {', '.join(_words(model))}".rstrip()), hang=4)


def _gaps(able: Capabilities | None) -> Iterable[str]:
    """What a provider lacks, in words."""
    if able is None:
        return
    if able.schema != "strict":
        yield "schemas" if able.schema == "object" else "schemas or JSON mode"
    if not able.schema_with_tools:
        yield "schema beside tools"
    if not able.stream_with_tools:
        yield "streams with tools"
    if not able.stream_with_schema:
        yield "streams with a schema"
    if not able.tool_choice:
        yield "choice of a tool"
    if not able.parallel_tools:
        yield "several calls at once"
    if not able.usage_in_stream:
        yield "usage on request in streams"


def _words(model: LocalModel) -> Iterable[str]:
    if model.loaded:
        yield "loaded"
    if model.context:
        yield f"{model.context:,} tokens"
    elif model.trained:
        yield f"up to {model.trained:,} tokens"
    if model.bytes:
        yield gigabytes(model.bytes)
    if model.tools is not None:
        yield "tools" if model.tools else "no tools"
    if model.pictures:
        yield "pictures"
    if not model.talks:
        yield "for embeddings only"
    if model.elsewhere:
        yield "runs elsewhere"
