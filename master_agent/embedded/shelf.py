"""The models in the user's cache folder: what is there, by which name, and what of it is to be taken away."""

import json
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SettingsError
from master_agent.gguf import ModelFile, read_gguf
from master_agent.values import suggestion

PART = ".part"


@dataclass(frozen=True)
class Unfinished:
    """What a download that broke off has left: so many bytes are there, of how many, and what it was asked for by."""

    name: str
    there: int
    bytes: int | None
    asked: str | None


@dataclass(frozen=True)
class Shelf:
    """A folder of downloaded models; a model's name is its file's without `.gguf`."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where a model of that name has its file, be it there or not."""
        return self.folder / f"{name}.gguf"

    def names(self) -> list[str]:
        """The models that are there whole."""
        return sorted(path.stem for path in self.folder.glob("*.gguf") if path.is_file())

    def unfinished(self) -> list[Unfinished]:
        """What downloads that broke off have left."""
        parts = sorted(self.folder.glob(f"*.gguf{PART}"))
        left = [(path.name.removesuffix(f".gguf{PART}"), path.stat().st_size, *_noted(path)) for path in parts]
        return [one for one in (Unfinished(*each) for each in left) if one.there]

    def find(self, name: str) -> ModelFile:
        """The model of that name; SettingsError where there is none."""
        known = {each.lower(): each for each in self.names()}
        if name.lower() not in known:
            there = f"; there are: {', '.join(known.values())}" if known else ""
            raise SettingsError(
                f'no model "{name}" was downloaded{suggestion(name, known.values()) or there}',
                hint="Get one with: master-agent models pull",
            )
        return read_gguf(self.path(known[name.lower()]))

    def size(self, name: str) -> int:
        """The bytes of a model, or of what a broken download left of it; SettingsError where there is neither."""
        return sum(path.stat().st_size for path in self._files(name))

    def remove(self, name: str) -> None:
        """Takes a model away, and what a broken download left of it."""
        for path in self._files(name):
            path.unlink()

    def _files(self, name: str) -> list[Path]:
        own = f"{name}.gguf".lower()
        files = [path for path in self.folder.glob("*") if path.name.lower().split(PART)[0] == own]
        if not files:
            self.find(name)
        return files


def _noted(part: Path) -> tuple[int | None, str | None]:
    """What the download has noted of the whole file, and how it was asked for."""
    try:
        noted = json.loads(part.with_name(f"{part.name}.json").read_text(encoding="utf-8"))
        return int(noted["bytes"]), str(noted["asked"]) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
