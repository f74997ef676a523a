"""The port to what makes pictures: a request in, the bytes of pictures out; one file a provider beside this."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from master_agent.errors import ImageError
from master_agent.results import Usage

AspectRatio = Literal["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"]
ASPECT_RATIOS: tuple[str, ...] = get_args(AspectRatio)

MOST_PIXELS = 64_000_000  # a small file can claim to be a picture that fills the memory
_SUFFIXES = {
    "PNG": (".png", "image/png"),
    "JPEG": (".jpg", "image/jpeg"),
    "WEBP": (".webp", "image/webp"),
    "GIF": (".gif", "image/gif"),
    "AVIF": (".avif", "image/avif"),
}


@dataclass(frozen=True)
class ImageRequest:
    """A picture to make, or `count` of them. `seed` is always drawn before the request goes out.

    `began` is told the name that the work has elsewhere, as soon as it has one.
    """

    prompt: str
    aspect_ratio: str = "1:1"
    count: int = 1
    seed: int = 0
    began: Callable[[str], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Picture:
    """One picture: its bytes, and where and how long a copy of it can be had elsewhere (ISO time), if it can."""

    content: bytes
    source_url: str | None = None
    expires_at: str | None = None


@dataclass(frozen=True)
class Pictures:
    """What a provider made. `seed` is null where the provider does not take one; `note` is said to the user.

    `usage` holds the tokens of a provider that counts in them, null where it did not report them.
    """

    pictures: tuple[Picture, ...]
    provider: str
    model: str | None = None
    seed: int | None = None
    remote_id: str | None = None
    note: str | None = None
    usage: Usage = field(default_factory=Usage)


class ImageProvider(Protocol):
    """Makes pictures."""

    @property
    def name(self) -> str: ...

    @property
    def paid(self) -> bool:
        """Whether a picture costs money."""

    async def check(self) -> str:
        """Contacts the provider without cost and says what it found; ImageError when it cannot be used."""

    async def settle(self, request: ImageRequest, remote_id: str | None) -> Pictures | None:
        """What became of a request of an earlier process: its pictures, or None when it certainly was never accepted.

        ImageError when that cannot be told. Waits for what is still at work; buys nothing.
        """

    async def generate(self, request: ImageRequest) -> Pictures:
        """The pictures; ImageError when there are none. Cancelling it cancels what runs on the provider's side."""


@dataclass(frozen=True)
class Measures:
    """What a picture is by its bytes: the ending that fits it, its media type, its size in pixels."""

    suffix: str
    media_type: str
    width: int
    height: int


def measure(content: bytes) -> Measures:
    """What the picture is; ImageError when the bytes are no whole picture, whatever a name or a header says."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=tuple(_SUFFIXES)) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise ImageError(f"a picture of {width}×{height} pixels is too large to be taken")
            picture.load()
            suffix, media_type = _SUFFIXES[picture.format or ""]
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything at bytes that somebody else chose
        begin = content[:40].decode("latin-1")
        raise ImageError(f"what came is no picture ({len(content):,} bytes, beginning with {begin!r})") from error
    return Measures(suffix=suffix, media_type=media_type, width=width, height=height)
