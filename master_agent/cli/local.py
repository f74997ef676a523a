"""Models that run on this machine: which file `gguf:PATH` and `local:NAME` name, and a wire to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from master_agent.embedded import installed, missing
from master_agent.embedded.shelf import Shelf
from master_agent.errors import ModelError, SettingsError
from master_agent.gguf import ModelFile, read_gguf
from master_agent.settings import Settings, cache_folder, table

if TYPE_CHECKING:
    from master_agent.threads.embedded import Embedded

_PATIENCE = 3.0  # seconds that nobody asks about
FILE, DOWNLOADED = "gguf:", "local:"


def is_local(model: str | None) -> bool:
    """Whether a name is that of a model to be run here."""
    return model is not None and model.lower().startswith((FILE, DOWNLOADED))


def lasting(model: str) -> str:
    """The name of a model as it is good in every folder."""
    if not model.lower().startswith(FILE):
        return model
    return FILE + str(Path(model[len(FILE) :]).expanduser().resolve())


def shelf(settings: Settings) -> Shelf:
    """The models that were downloaded."""
    return Shelf(cache_folder(settings) / "models")


def suggested(settings: Settings) -> str:
    """The model to run here where nobody names one: the one that was downloaded. Empty where none can be."""
    names = shelf(settings).names() if installed() else []
    if len(names) > 1:
        raise ModelError(
            f"which of the models that were downloaded? There are {', '.join(names)}",
            type="no_model",
            hint=f"Choose one: --model {DOWNLOADED}{names[0]}",
        )
    return f"{DOWNLOADED}{names[0]}" if names else ""


def found(settings: Settings, model: str) -> ModelFile:
    """The file that a name stands for; SettingsError where there is none or it is no model."""
    kind, _, name = model.partition(":")
    if not name:
        raise SettingsError(
            f'"{model}" names no model',
            hint="A file: gguf:PATH. One that was downloaded: local:NAME (master-agent models)",
        )
    if kind.lower() + ":" == DOWNLOADED:
        return shelf(settings).find(name)
    said = [setting for setting in ("model", "planner_model") if getattr(settings, setting) == model]
    if not said:
        raise SettingsError(
            f'an agent names the file "{name}": an agent\'s file may not choose a file that is run',
            hint=f"Say it yourself: --model {model}. Or let the agent name one that was downloaded: {DOWNLOADED}NAME",
        )
    if all(settings.origins[setting] == ".env" for setting in said):
        raise SettingsError(
            f'{table()[said[0]].variable} in .env names the file "{name}": a folder may not choose a file that is run',
            hint=f"Say it yourself: {table()[said[0]].flag} {model}",
        )
    return read_gguf(Path(name).expanduser())


async def open_wire(
    settings: Settings, model: ModelFile, say: Callable[[str], None] = lambda _text: None
) -> "Embedded":
    """The engine with the model loaded, and the wire to it, which ends it when it is closed; else ModelError.

    `say` gets a word for whoever waits, when that takes a while.
    """
    from master_agent import embedded
    from master_agent.embedded.memory import fit, gigabytes
    from master_agent.threads.embedded import Embedded

    if not installed():
        raise missing()
    fitting = fit(model, settings.concurrency, most=settings.context_size)
    loading = f"loading {model.name} ({gigabytes(model.bytes)}) into the embedded engine"
    waiting = asyncio.get_running_loop().call_later(_PATIENCE, say, loading)
    try:
        return Embedded(await embedded.start(model, fitting))
    finally:
        waiting.cancel()
