"""The models in the user's cache folder: what is there, by which name, and what of it is to be taken away."""

from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SettingsError
from master_agent.gguf import ModelFile, read_gguf
from master_agent.values import suggestion

PART = ".part"


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

    def unfinished(self) -> list[tuple[str, int]]:
        """What downloads that broke off have left: names, and the bytes that are there."""
        parts = [(path, path.stat().st_size) for path in self.folder.glob(f"*.gguf{PART}")]
        return sorted((path.name.removesuffix(f".gguf{PART}"), size) for path, size in parts if size)

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
