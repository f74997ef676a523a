"""From the name of a model to its file at the hub: where it is, how large it is, and which sha256 it has.

The hub is Hugging Face's, or any that answers as it does: `resolve` leads to a signed address of another host, and
says beforehand how large the file is and what its sha256 is (`X-Linked-Size`, `X-Linked-ETag`), as described at
https://huggingface.co/docs/huggingface_hub/package_reference/file_download and as its own client reads it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, urljoin, urlsplit

from master_agent.errors import FetchRefusedError, ModelError, SettingsError, ToolError
from master_agent.fetch import Answer, Fetcher

HUB = "https://huggingface.co"
LARGEST = 1 << 40  # bytes
QUANTIZATION = "Q4_K_M"  # what is taken of a repository where nobody chooses: a quarter of the size, nearly as good
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>.+\.gguf)|:(?P<quantization>[\w.-]+))?")
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Known:
    """A model with a short name: where it lies, about how large it is, and the memory from which on it is suggested."""

    name: str
    repository: str
    file: str
    bytes: int
    memory: int


# Names, files and sizes are from descriptions of these repositories, as of 2026-11; none was downloaded by us. What a
# file holds is told by the hub at the time. From the smallest to the largest.
KNOWN = (
    Known("qwen3.5-2b", "unsloth/Qwen3.5-2B-GGUF", "Qwen3.5-2B-Q4_K_M.gguf", 1_300_000_000, 0),
    Known("qwen3.5-4b", "unsloth/Qwen3.5-4B-GGUF", "Qwen3.5-4B-Q4_K_M.gguf", 2_700_000_000, 7_000_000_000),
    Known("qwen3.5-9b", "unsloth/Qwen3.5-9B-GGUF", "Qwen3.5-9B-Q4_K_M.gguf", 5_700_000_000, 15_000_000_000),
)


def suggested(memory: int) -> Known:
    """The largest model with a short name that a machine of so much memory runs well."""
    return [known for known in KNOWN if known.memory <= memory][-1]


@dataclass(frozen=True)
class Source:
    """A file at the hub: its address, the name it gets on the shelf, its size, and its sha256 where that is known.

    `asked` is what it was asked for by; empty where that may hold more than a name, as an address with a query may.
    """

    name: str
    url: str
    bytes: int
    sha256: str
    asked: str = ""


class Hub:
    """A hub by its address, asked through the guarded client."""

    def __init__(self, fetcher: Fetcher, address: str = HUB) -> None:
        self._fetcher = fetcher
        self._address = address.rstrip("/")

    async def find(self, name: str, sha256: str | None = None) -> Source:
        """The file that a name stands for; SettingsError where there is none, ModelError where the hub fails.

        A name is one of KNOWN, `owner/repository`, the same with `:QUANTIZATION` or `/FILE.gguf`, or an address.
        `sha256` is what the file has to have, where the user knows it.
        """
        if sha256 is not None and not _SHA256.fullmatch(sha256 := sha256.lower()):
            raise SettingsError(f'"{sha256}" is no sha256: that is 64 hexadecimal digits')
        short, url = await self._address_of(name)
        answer, url = await self._head(url, name)
        size = _size(answer.headers)
        told = answer.headers.get("x-linked-etag", "").strip('W/"').lower()
        expected = sha256 or (told if _SHA256.fullmatch(told) else None)
        if expected is None:
            raise SettingsError(
                f"{name}: its server does not say what sha256 the file has, so nobody could tell whether it is whole",
                hint="Say it yourself: --sha256 HEX",
            )
        if sha256 and _SHA256.fullmatch(told) and told != sha256:
            raise SettingsError(f"{name}: the hub has the file with the sha256 {told}, not {sha256}")
        if size is None or not 0 < size <= LARGEST:
            raise failed(f"{name}: its server does not say how large the file is")
        return Source(short, url, size, expected, "" if re.search(r"[?@#]", name) else name)

    async def _address_of(self, name: str) -> tuple[str, str]:
        if name.startswith(("http://", "https://")):
            return _stem(urlsplit(name).path, name), name
        if known := next((known for known in KNOWN if known.name == name.lower()), None):
            return known.name, self._resolve(known.repository, known.file)
        if not (found := _REPOSITORY.fullmatch(name)):
            names = ", ".join(known.name for known in KNOWN)
            raise SettingsError(
                f'"{name}" is no model: expected one of {names}, or a repository of the hub as OWNER/NAME',
                hint="For a file of your own nothing is downloaded: --model gguf:PATH",
            )
        file = found["file"] or await self._choose(found["repository"], found["quantization"])
        return _stem(file, name), self._resolve(found["repository"], file)

    async def _choose(self, repository: str, quantization: str | None) -> str:
        """The file of a repository with that quantization."""
        url = f"{self._address}/api/models/{quote(repository)}/tree/main"
        answer = await self._ask("GET", url, repository)
        try:
            listed = [str(entry["path"]) for entry in json.loads(answer.body) if entry["type"] == "file"]
        except (ValueError, TypeError, KeyError):
            raise failed(f"{self._address} lists the files of {repository} in a way that cannot be read") from None
        files = [file for file in listed if file.endswith(".gguf") and "mmproj" not in file.lower()]
        wanted = quantization or QUANTIZATION
        fitting = [file for file in files if wanted.lower() in file.lower()] or (files if len(files) == 1 else [])
        if not fitting:
            there = f"; there are: {', '.join(files[:20])}" if files else ", nor any other GGUF file"
            raise SettingsError(
                f"{repository} has no file with {wanted}{there}", hint=f"Name one: {repository}/FILE.gguf"
            )
        if "-of-" in fitting[0]:
            raise SettingsError(
                f"{fitting[0]} is a part of a model; parts are not downloaded here",
                hint="Choose a smaller quantization.",
            )
        return fitting[0]

    def _resolve(self, repository: str, file: str) -> str:
        return f"{self._address}/{quote(repository)}/resolve/main/{quote(file)}"

    async def _head(self, url: str, name: str) -> tuple[Answer, str]:
        """What is said of a file before it is fetched. A repository that was renamed leads on within the hub."""
        for _ in range(5):
            answer = await self._ask("HEAD", url, name)
            onward = urljoin(url, answer.headers.get("location", ""))
            told = "x-linked-etag" in answer.headers
            if told or answer.status not in _REDIRECTS or urlsplit(onward).netloc != urlsplit(url).netloc:
                return answer, url
            url = onward
        raise failed(f"{name}: its server leads on and on")

    async def _ask(self, method: str, url: str, name: str) -> Answer:
        try:
            answer = await self._fetcher.request(method, url)
        except FetchRefusedError as error:
            raise SettingsError(error.message, hint=error.hint) from None
        except ToolError as error:
            raise failed(f"{name} cannot be looked up: {error.message}") from None
        if answer.status in (401, 403, 404):
            why = answer.headers.get("x-error-message") or "it is not there, or not for everybody"
            raise SettingsError(f"{name}: {url} answered {answer.status}: {why}", hint="Check the name at the hub.")
        if answer.status >= 400:
            raise failed(f"{name}: {url} answered {answer.status}")
        return answer


def failed(message: str, hint: str | None = None) -> ModelError:
    """That the hub, or the way to it, does not give what it should."""
    return ModelError(
        message, type="no_model", hint=hint or "Try again later, or take a file of your own: --model gguf:PATH"
    )


def _size(headers: Mapping[str, str]) -> int | None:
    told = headers.get("x-linked-size") or headers.get("content-length", "")
    return int(told) if told.isdecimal() else None


def _stem(path: str, named: str) -> str:
    """The name on the shelf of a file at the hub; `named` is how it was asked for."""
    name = re.sub(r"[^\w.+-]", "_", PurePosixPath(path).name).removesuffix(".gguf").lstrip(".")
    if not name:
        raise SettingsError(f'"{named}" names no file', hint="Give the address of the file itself: …/FILE.gguf")
    return name
