"""From a GGUF file to what it says of its model: size, architecture, context, and the memory that it needs.

Only the head is read; the format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from master_agent.errors import SettingsError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_KEYS, _LONGEST_KEY, _LONGEST_TEXT = 100_000, 65_535, 64 * 1024 * 1024
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_CACHE_BYTES = 2  # for each number that the engine keeps of a token, as f16
_WORK_BYTES = 4 * 512  # for each number of a layer and of the vocabulary, while 512 tokens are read at once

Value = str | int | float | bool


@dataclass(frozen=True)
class ModelFile:
    """A model in a GGUF file. `bytes` counts all parts of a model that is split; `said` is its metadata."""

    path: Path
    bytes: int
    said: Mapping[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the model is called: the file's name without its ending."""
        return _PART.sub("", self.path.name).removesuffix(".gguf")

    @property
    def architecture(self) -> str:
        return str(self.said.get("general.architecture", "unknown"))

    @property
    def context(self) -> int:
        """The tokens that the model was trained to read at once; 0 where it does not say."""
        return self._number("context_length")

    def cache(self, tokens: int) -> int:
        """The bytes that so many tokens take in the engine's memory; at most, for some layers may keep less."""
        heads = self._number("attention.head_count") or 1
        width = self._number("embedding_length") // heads
        each = self._number("attention.key_length", width) + self._number("attention.value_length", width)
        kept = self._number("attention.head_count_kv", heads) or heads
        return tokens * self._number("block_count") * kept * each * _CACHE_BYTES

    @property
    def work(self) -> int:
        """The bytes that reading and writing take beside weights and cache, roughly."""
        widest = max(self._number("feed_forward_length"), 4 * self._number("embedding_length"))
        return _WORK_BYTES * (widest + self._number("vocab_size", 150_000 if self.bytes > 1 << 28 else 0))

    def needs(self, tokens: int) -> int:
        """The bytes of memory to run it with room for so many tokens."""
        return self.bytes + self.cache(tokens) + self.work

    def _number(self, name: str, default: int = 0) -> int:
        value = self.said.get(f"{self.architecture}.{name}", default)
        return int(value) if isinstance(value, int | float) else default


def read_gguf(path: Path) -> ModelFile:
    """What the file says of its model; SettingsError that says why it is none."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            said = _said(file, size, path)
        parts = _parts(path)
        return ModelFile(path, size + sum(part.stat().st_size for part in parts), said)
    except IsADirectoryError:
        raise SettingsError(f"{path} is a folder, not a model", hint="Name the .gguf file in it.") from None
    except OSError as error:
        raise SettingsError(
            f"the model {path} cannot be read: {error.strerror}",
            hint="Check the path, or see which models are there: master-agent models",
        ) from None
    except (struct.error, UnicodeDecodeError):
        raise _broken(path, "its head is damaged or cut off") from None


def _said(file: IO[bytes], size: int, path: Path) -> dict[str, Value]:
    """The metadata, up to the words of the model, which come last and are many."""
    if (magic := file.read(4)) != MAGIC:
        raise SettingsError(
            f"{path} is no GGUF file: it begins with {magic!r}" if magic else f"{path} is empty",
            hint="The engine reads models in the GGUF format; get one with: master-agent models pull",
        )
    (version,) = _numbers(file, "I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
        why = "is for machines of the other byte order" if swapped in _VERSIONS else f"has the GGUF version {version}"
        raise _broken(path, f"it {why}, which is not read here")
    _, keys = _numbers(file, "QQ")
    if keys > _MOST_KEYS:
        raise _broken(path, "its head is damaged")
    said: dict[str, Value] = {}
    for _ in range(int(keys)):
        key = _text(file, _LONGEST_KEY)
        if key.startswith("tokenizer.") and f"{said.get('general.architecture')}.context_length" in said:
            break
        (kind,) = _numbers(file, "I")
        value = _value(file, int(kind), size)
        if value is not None:
            said[key] = value
    if "general.architecture" not in said:
        raise _broken(path, "it does not say what kind of model it holds")
    return said


def _value(file: IO[bytes], kind: int, size: int) -> Value | None:
    """One value; of a list its largest number, and None for a list of anything else."""
    if kind == _STRING:
        return _text(file, _LONGEST_TEXT)
    if kind in _NUMBERS:
        value: Value = _numbers(file, _NUMBERS[kind])[0]
        return value
    if kind != _ARRAY:
        raise struct.error
    inner, count = _numbers(file, "IQ")
    if inner in _NUMBERS:
        if count * struct.calcsize(_NUMBERS[int(inner)]) > size:
            raise struct.error
        return max(_numbers(file, f"{count}{_NUMBERS[int(inner)]}"), default=None)
    if inner != _STRING:
        raise struct.error
    for _ in range(int(count)):
        (length,) = _numbers(file, "Q")
        if length > size or not (length == 0 or file.seek(int(length), os.SEEK_CUR) <= size):
            raise struct.error
    return None


def _text(file: IO[bytes], longest: int) -> str:
    (length,) = _numbers(file, "Q")
    if length > longest:
        raise struct.error
    content = file.read(int(length))
    if len(content) != length:
        raise struct.error
    return content.decode()


def _numbers(file: IO[bytes], form: str) -> tuple[int | float | bool, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _parts(path: Path) -> list[Path]:
    """The other files of a model that is split; the engine finds them by their names beside the first."""
    if not (found := _PART.search(path.name)):
        return []
    number, count = map(int, found.groups())
    if number != 1:
        raise _broken(path, f"it is part {number} of {count}; name the first")
    stem = path.name[: found.start()]
    parts = [path.with_name(f"{stem}-{part:05}-of-{count:05}.gguf") for part in range(2, count + 1)]
    if missing := next((part for part in parts if not part.is_file()), None):
        raise _broken(path, f"its part {missing.name} is missing")
    return parts


def _broken(path: Path, why: str) -> SettingsError:
    return SettingsError(f"the model {path} cannot be used: {why}", hint="Get it again, or name another file.")
