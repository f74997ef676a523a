"""From a file's name and bytes to what it is: its media type, and how it is told of."""

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from master_agent.results import Artifact

if TYPE_CHECKING:
    import mimetypes

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
# Python versions differ in these, and results must not.
_OWN_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".py": "text/x-python",
    ".ts": "text/x-typescript",
}


def image_type(content: bytes) -> str | None:
    """The media type of a picture, told by its first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)


def described(name: str, content: bytes) -> Artifact:
    """The file as it is told of, by the name and the bytes that it has or is to have."""
    digest = hashlib.sha256(content).hexdigest()
    return Artifact(path=name, media_type=media_type(name, content), bytes=len(content), sha256=digest)


def media_type(path: str, content: bytes) -> str:
    """The media type: of a picture by its bytes, of everything else by its name, or else by being text or not."""
    picture = image_type(content)
    if picture:
        return picture
    guessed, encoding = _types().guess_type(path)
    # A picture was told by its bytes; what only has a picture's name is none. SVG is text and has no first bytes.
    if guessed and not encoding and (guessed == "image/svg+xml" or not guessed.startswith("image/")):
        return guessed
    try:
        return "application/octet-stream" if "\0" in content.decode() else "text/plain"
    except UnicodeDecodeError:
        return "application/octet-stream"


@cache
def _types() -> "mimetypes.MimeTypes":
    import mimetypes

    types = mimetypes.MimeTypes()  # not the module's table, into which the machine's own files are read
    for suffix, own in _OWN_TYPES.items():
        types.add_type(own, suffix)
    return types
