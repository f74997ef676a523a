"""Files that are shown to a model: text as text, pictures as pictures."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from master_agent.errors import UsageError

TEXT_LIMIT = 200_000  # bytes of a text that is given to every step
PICTURE_LIMIT = 20 * 1024 * 1024  # bytes; what the servers we know take
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass(frozen=True)
class Attachment:
    """A file by its name, its media type and its bytes."""

    name: str
    media_type: str
    content: bytes

    @property
    def is_picture(self) -> bool:
        """Whether it is for a model's eyes; otherwise it is text."""
        return self.media_type.startswith("image/")

    @property
    def text(self) -> str:
        """The text of what is no picture."""
        return self.content.decode("utf-8-sig")

    @property
    def data_url(self) -> str:
        """The whole file as an address, as servers take pictures."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"

    @property
    def sha256(self) -> str:
        """The hash of its bytes."""
        return hashlib.sha256(self.content).hexdigest()

    def to_data(self) -> dict[str, JsonValue]:
        """What the journal keeps of it: everything but the bytes."""
        size = len(self.content)
        return {"name": self.name, "media_type": self.media_type, "bytes": size, "sha256": self.sha256}


def picture_type(content: bytes) -> str | None:
    """The media type of a picture that models can be shown, by its first bytes; None for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _PICTURES.items() if content.startswith(start)), None)


def read_attachment(path: Path) -> Attachment:
    """The file at a path that the user named; UsageError when it cannot be read, or is neither text nor picture."""
    try:
        with path.open("rb") as file:
            content = file.read(PICTURE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"--file: {path} cannot be read: {error.strerror}") from None
    kind = picture_type(content)
    limit = PICTURE_LIMIT if kind else TEXT_LIMIT
    if len(content) > limit:
        raise UsageError(f"--file: {path} is too large; {'a picture' if kind else 'a text'} may hold {limit:,} bytes")
    if kind is None:
        try:
            content.decode("utf-8-sig")
        except UnicodeDecodeError:
            hint = "PNG, JPEG, GIF and WebP pictures and UTF-8 texts can be given."
            raise UsageError(f"--file: {path} is neither a picture nor text", hint=hint) from None
    return Attachment(path.name, kind or "text/plain", content)
