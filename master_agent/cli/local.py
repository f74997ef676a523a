"""Models that run on this machine: which file `gguf:PATH` and `local:NAME` name, and a wire to it."""

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

FILE, DOWNLOADED = "gguf:", "local:"


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
    for setting in ("model", "planner_model"):
        if getattr(settings, setting) == model and settings.origins[setting] == ".env":
            variable = table()[setting].variable
            raise SettingsError(
                f'{variable} in .env names the file "{name}": a folder may not choose a file that is run',
                hint=f"Say it yourself: --{setting.replace('_', '-')} {model}",
            )
    return read_gguf(Path(name).expanduser())


async def open_wire(
    settings: Settings, model: ModelFile, say: Callable[[str], None] = lambda _text: None
) -> "Embedded":
    """The engine with the model loaded, and the wire to it, which ends it when it is closed; else ModelError."""
    from master_agent import embedded
    from master_agent.embedded.memory import fit, gigabytes
    from master_agent.threads.embedded import Embedded

    if not installed():
        raise missing()
    fitting = fit(model, settings.concurrency, most=settings.context_size)
    say(f"loading {model.name} ({gigabytes(model.bytes)}) into the embedded engine")
    return Embedded(await embedded.start(model, fitting))
