"""A key that must be nowhere: looked for in every byte that a run has left, whole, in halves, in Base64 and in hex."""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Canary:
    """A value to look for."""

    value: str

    @property
    def forms(self) -> Iterator[bytes]:
        """What gives it away: itself, each half of it, and both in Base64 wherever it begins, in hex, backwards."""
        middle = len(self.value) // 2
        for part in (self.value, self.value[:middle], self.value[middle:], self.value[::-1]):
            plain = part.encode()
            yield plain
            yield plain.hex().encode()
            for shift in range(3):
                coded = base64.b64encode(b"\0" * shift + plain).rstrip(b"=")
                yield coded[-(-shift * 8 // 6) : (shift + len(plain)) * 8 // 6]

    def within(self, content: bytes) -> bool:
        """Whether the bytes give it away, also where it is broken into lines, quotes or pieces."""
        dense = re.sub(rb"\\[nrt]|[\s\"',\\\0]", b"", content)
        return any(form in content or form in dense for form in self.forms)

    def found(self, outputs: Mapping[str, str | bytes], *folders: Path, but: tuple[Path, ...] = ()) -> list[str]:
        """The names of the outputs and files that give it away; `but` are the files that it was put into."""
        every = {name: text.encode() if isinstance(text, str) else text for name, text in outputs.items()}
        for folder in folders:
            every |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path not in but}
            every |= {f"the name {path}": str(path).encode() for path in folder.rglob("*") if path not in but}
        return [name for name, content in every.items() if self.within(content)]
