"""From prompts/*.md to what a model is told: the words are in the files, the values come in by $names."""

from dataclasses import dataclass
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

    def fill(self, name: str, **values: str) -> Prompt:
        """The prompt with its names filled in; KeyError when the file names a value that is not given."""
        text = (self.folder / f"{name}.md").read_text(encoding="utf-8")
        instructions, found, message = text.partition(SEPARATOR)
        if not found:
            instructions, message = "", text
        return Prompt(Template(instructions).substitute(values).strip(), Template(message).substitute(values).strip())
