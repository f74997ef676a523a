"""From prompts/*.md to what a model is told: the words are in the files, the values come in by $names."""

from dataclasses import dataclass, field
from pathlib import Path
from string import Template

SEPARATOR = "\n<!-- message -->\n"


@dataclass(frozen=True)
class Prompt:
    """What is said once, as instructions, and what is said as the first message."""

    instructions: str
    message: str


@dataclass(frozen=True)
class Prompts:
    """The prompt files of a folder."""

    folder: Path
    _templates: dict[str, tuple[Template, Template]] = field(default_factory=dict, repr=False, compare=False)

    def fill(self, name: str, **values: str) -> Prompt:
        """The prompt with its names filled in; KeyError when the file names a value that is not given."""
        instructions, message = self._read(name)
        return Prompt(instructions.substitute(values).strip(), message.substitute(values).strip())

    def _read(self, name: str) -> tuple[Template, Template]:
        """The file's two parts, read once."""
        if name not in self._templates:
            text = (self.folder / f"{name}.md").read_text(encoding="utf-8")
            instructions, found, message = text.partition(SEPARATOR)
            parts = (instructions, message) if found else ("", text)
            self._templates[name] = (Template(parts[0]), Template(parts[1]))
        return self._templates[name]
