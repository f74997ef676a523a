"""What Replicate's models take, and what it says of a prediction, a refusal and an output: values only, no calls."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import JsonValue

from master_agent.errors import ImageError
from master_agent.fetch import Answer
from master_agent.images import ImageRequest

_RUNNING = ("starting", "processing")
_ENDED = ("succeeded", "failed", "canceled", "aborted")


@dataclass(frozen=True)
class ModelInputs:
    """What a model takes: which of our fields, what else, and the name for "so many pictures", if there is one."""

    fields: tuple[str, ...] = ("aspect_ratio", "seed")
    fixed: Mapping[str, JsonValue] | None = None
    count: str | None = None

    def of(self, request: ImageRequest) -> dict[str, JsonValue]:
        ours: dict[str, JsonValue] = {"aspect_ratio": request.aspect_ratio, "seed": request.seed}
        values: dict[str, JsonValue] = {"prompt": request.prompt, **{name: ours[name] for name in self.fields}}
        if self.count:
            values[self.count] = request.count
        return {**values, **(self.fixed or {})}


# go_fast would make the same seed give different pictures.
_FLUX = ModelInputs(fixed={"go_fast": False, "output_format": "webp"}, count="num_outputs")
_NANO_BANANA = ModelInputs(fields=("aspect_ratio",), fixed={"output_format": "png"})
KNOWN_MODELS = {
    "black-forest-labs/flux-schnell": _FLUX,
    "black-forest-labs/flux-dev": _FLUX,
    "google/nano-banana-pro": _NANO_BANANA,
    "google/nano-banana-2": _NANO_BANANA,
    "bytedance/seedream-4.5": ModelInputs(fields=("aspect_ratio",)),
}


@dataclass(frozen=True)
class Prediction:
    """What Replicate says of one piece of work."""

    id: str
    status: str
    output: JsonValue
    error: str
    completed_at: str

    @property
    def ended(self) -> bool:
        """A status that nobody knows yet is an end when the service says when it ended."""
        return self.status in _ENDED or (self.status not in _RUNNING and bool(self.completed_at))

    @property
    def failure(self) -> str:
        reason = f": {self.error}" if self.error else ""
        match self.status:
            case "failed":
                return f"failed{reason}"
            case "canceled":
                return f"was cancelled on Replicate's side{reason}"
            case "aborted":
                return f"was given up before it began{reason}"
        return f'ended as "{self.status}"{reason}'


def addresses(output: JsonValue) -> Iterator[str]:
    """Every web or data address in an output, which may be a text, a list, a map, or these in one another."""
    match output:
        case str() if urlsplit(output).scheme in ("http", "https", "data"):
            yield output
        case list():
            for item in output:
                yield from addresses(item)
        case dict():
            for item in output.values():
                yield from addresses(item)


def decoded(address: str) -> bytes:
    head, _, body = address.partition(",")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else body.encode()
    except binascii.Error:
        raise ImageError("Replicate's output is a data address that cannot be decoded") from None


def detail(answer: Answer) -> str:
    """What the service says of its refusal, in one line."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    said = found.get("detail") or found.get("title") or found.get("error") if isinstance(found, dict) else None
    words = said if isinstance(said, str) else json.dumps(said) if said else answer.body.decode("utf-8", "replace")
    return " ".join(words.split())[:300] or f"HTTP status {answer.status}"
