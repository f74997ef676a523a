"""`models pull` and `models remove`: a model comes onto the user's shelf, or goes; and what is there."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from master_agent.cli import exit_codes, local, reporting, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.embedded import INSTALL, installed
from master_agent.embedded.memory import gigabytes, least, total
from master_agent.embedded.shelf import Shelf
from master_agent.errors import MasterAgentError, UsageError
from master_agent.fetch import Fetcher
from master_agent.gguf import ModelFile
from master_agent.hub import KNOWN, Hub, Source, suggested
from master_agent.reporters.text import counted
from master_agent.settings import Settings

T = TypeVar("T")
Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="a short name, OWNER/REPOSITORY, or an address", show_default=False),
]
Model = Annotated[str, typer.Argument(metavar="NAME", help="as models lists it", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask", show_default=False)]
Sha256 = Annotated[
    str | None, typer.Option("--sha256", metavar="HEX", help="what the file has to have", show_default=False)
]

_PULL_HELP = f"""Downloads a model to run here, after asking; without a name, one that suits this machine's memory.

What was interrupted goes on where it was. The file is on the shelf when its sha256 is what the hub says, or --sha256.
Short names: {", ".join(known.name for known in KNOWN)}.

\b
Examples:
  master-agent models pull
  master-agent models pull qwen3.5-4b --yes
  master-agent models pull unsloth/Qwen3.5-4B-GGUF:Q4_K_M
"""
_REMOVE_HELP = """Takes a downloaded model away, or what an interrupted download has left of it.

\b
Examples:
  master-agent models remove qwen3.5-4b
"""
_BAR = 24  # columns, so that there is room for the ^C that a terminal writes behind it


def add_below(models: typer.Typer) -> None:
    """Registers the commands below `models`."""
    models.command("pull", help=_PULL_HELP, short_help="Downloads a model to run here.")(pull)
    models.command("remove", help=_REMOVE_HELP, short_help="Takes a downloaded model away.")(remove)


@with_options("cache_dir", "hf_endpoint", "allow_host", "proxy", output=("json", "debug"))
def pull(options: Options, name: Name = None, *, yes: Yes = False, sha256: Sha256 = None) -> int:
    settings = session.settings_of(options)
    model = fetched(settings, name, sha256, ask=not yes)
    if model is None:
        streams.say("Nothing was downloaded.")
        if options.json:
            streams.print_object("model", model=None)
        return exit_codes.DONE
    if options.json:
        streams.print_object("model", **described(model))
    else:
        streams.write(f"{local.DOWNLOADED}{model.name}  {in_words(model)}")
        streams.say(f'Use it: master-agent "TASK" --model {local.DOWNLOADED}{model.name}')
    return exit_codes.DONE


@with_options("cache_dir", output=("json",))
def remove(options: Options, name: Model, *, yes: Yes = False) -> int:
    shelf = local.shelf(session.settings_of(options))
    name = name.removeprefix(local.DOWNLOADED)
    size = shelf.size(name)
    if not yes:
        if not streams.interactive():
            raise UsageError("nothing was removed: there is no terminal to ask at", hint="Say so beforehand: --yes")
        if not typer.confirm(f"Remove {name} ({gigabytes(size)})?", err=True):
            streams.say("Nothing was removed.")
            if options.json:
                streams.print_object("removed_model", removed=None, bytes=0)
            return exit_codes.DONE
    shelf.remove(name)
    if options.json:
        streams.print_object("removed_model", removed=name, bytes=size)
    else:
        streams.say(f"Removed {name}: {gigabytes(size)} are free again.")
    return exit_codes.DONE


def fetched(settings: Settings, name: str | None, sha256: str | None = None, *, ask: bool) -> ModelFile | None:
    """A model that is on the shelf now; None when a person said no. `name` is None for the one that suits best."""
    shelf, memory = local.shelf(settings), total()
    name = name or suggested(memory).name
    source = asyncio.run(_with_fetcher(settings, lambda fetcher: Hub(fetcher, settings.hf_endpoint).find(name, sha256)))
    if (there := _there(shelf, source)) is not None:
        streams.say(f"{source.name} is there already.")
        return there
    where = f"{gigabytes(source.bytes)} from {urlsplit(source.url).netloc} into {shelf.folder}"
    streams.say(f"{source.name}: {where}")
    if shelf.path(source.name).is_file():
        streams.say("It takes the place of the file of that name which is there.")
    if source.bytes > memory:
        streams.say(f"It needs more memory than this machine has: {gigabytes(memory)}.")
    if ask and not confirmed():
        return None
    try:
        return asyncio.run(_with_fetcher(settings, lambda fetcher: _pull(fetcher, source, shelf)))
    except KeyboardInterrupt:
        streams.say("\nWhat is there is kept; the same command goes on from it.")
        raise


def confirmed() -> bool:
    """Whether a person wants the download; UsageError where nobody can be asked."""
    if not streams.interactive():
        raise UsageError("nothing was downloaded: there is no terminal to ask at", hint="Say so beforehand: --yes")
    try:
        return typer.confirm("Download it?", err=True)
    except typer.Abort:  # a run that asks this has a reporter, which knows of Ctrl-C only as what it is
        raise KeyboardInterrupt from None


async def _with_fetcher(settings: Settings, work: Callable[[Fetcher], Awaitable[T]]) -> T:
    """The work with a client that reaches the hub, be it a private one that the user named."""
    own = () if settings.origins["hf_endpoint"] == "default" else (urlsplit(settings.hf_endpoint).netloc,)
    async with Fetcher((*settings.allow_host, *own), proxy=settings.proxy) as fetcher:
        return await work(fetcher)


async def _pull(fetcher: Fetcher, source: Source, shelf: Shelf) -> ModelFile:
    from master_agent.hub.download import pull as download

    with _progress(source) as told:
        return await download(fetcher, source, shelf, told)


def _there(shelf: Shelf, source: Source) -> ModelFile | None:
    """The model, where it is on the shelf already."""
    path = shelf.path(source.name)
    return shelf.find(source.name) if path.is_file() and path.stat().st_size == source.bytes else None


@contextmanager
def _progress(source: Source) -> Iterator[Callable[[int], None]]:
    """Takes the bytes that are there: a bar in a terminal, else a line for each tenth."""
    if not sys.stderr.isatty():
        yield _Tenths(source).tell
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=_BAR), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=reporting.console(sys.stderr)) as progress:
        task = progress.add_task(source.name, total=source.bytes)
        yield lambda there: progress.update(task, completed=there)


@dataclass
class _Tenths:
    source: Source
    told: int = -1

    def tell(self, there: int) -> None:
        tenth = 10 * there // self.source.bytes
        if tenth > self.told:
            self.told = tenth
            streams.say(f"  {gigabytes(there)} of {gigabytes(self.source.bytes)}")


def described(model: ModelFile) -> dict[str, Any]:
    """A model on the shelf as data; `memory` is the least it needs."""
    return {
        "model": f"{local.DOWNLOADED}{model.name}",
        "path": str(model.path),
        "bytes": model.bytes,
        "architecture": model.architecture,
        "context": model.context,
        "memory": least(model),
    }


def in_words(model: ModelFile) -> str:
    """A model's size and needs, for a line of a list."""
    return f"{gigabytes(model.bytes)}, from {gigabytes(least(model))} of memory, up to {model.context:,} tokens"


def shelved(settings: Settings) -> list[ModelFile]:
    """The models on the shelf; a file that is none is named on stderr."""
    shelf = local.shelf(settings)
    found: list[ModelFile] = []
    for name in shelf.names():
        try:
            found.append(shelf.find(name))
        except MasterAgentError as error:
            streams.say(error.message)
    return found


def shelf_data(settings: Settings, here: Sequence[ModelFile]) -> dict[str, Any]:
    """What runs `here` and what could, as data."""
    best = suggested(total())
    more = [{"name": known.name, "bytes": known.bytes, "suggested": known is best} for known in KNOWN]
    unfinished = local.shelf(settings).unfinished()
    parts = [{"name": one.name, "bytes": one.there, "of_bytes": one.bytes, "asked": one.asked} for one in unfinished]
    models = [described(model) for model in here]
    return {"embedded": {"installed": installed(), "models": models, "unfinished": parts, "downloadable": more}}


def show_shelf(settings: Settings, here: Sequence[ModelFile]) -> None:
    """What runs `here` and what could, as lines."""
    best = suggested(total())
    engine = "the embedded engine" if installed() else f"the embedded engine, which is not installed: {INSTALL}"
    streams.write(f"{engine}: {counted(len(here), 'model')} in {local.shelf(settings).folder}", hang=2)
    for model in here:
        streams.write(f"  {local.DOWNLOADED}{model.name}  {in_words(model)}", hang=4)
    for one in local.shelf(settings).unfinished():
        there = f"{gigabytes(one.there)} of {gigabytes(one.bytes)}" if one.bytes else gigabytes(one.there)
        on = f"go on: master-agent models pull {one.asked}" if one.asked else "the same command goes on with it"
        streams.write(f"  {one.name}: {there} of a download that broke off; {on}", hang=4)
    for known in KNOWN:
        if known.name not in (model.name for model in here):
            note = "; suits this machine" if known is best else ""
            streams.write(f"  models pull {known.name}  about {gigabytes(known.bytes)}{note}", hang=4)
