"""The port to what makes pictures: a request in, the bytes of pictures out; one file a provider beside this."""

from dataclasses import dataclass
from typing import Protocol

ASPECT_RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")


@dataclass(frozen=True)
class ImageRequest:
    """A picture to make, or `count` of them. `seed` is always drawn before the request goes out."""

    prompt: str
    aspect_ratio: str = "1:1"
    count: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Picture:
    """One picture: its bytes, and where and how long a copy of it can be had elsewhere (ISO time), if it can."""

    content: bytes
    source_url: str | None = None
    expires_at: str | None = None


@dataclass(frozen=True)
class Pictures:
    """What a provider made. `seed` is null where the provider does not take one; `note` is said to the user."""

    pictures: tuple[Picture, ...]
    provider: str
    model: str | None = None
    seed: int | None = None
    remote_id: str | None = None
    note: str | None = None


class ImageProvider(Protocol):
    """Makes pictures."""

    @property
    def name(self) -> str: ...

    @property
    def paid(self) -> bool:
        """Whether a picture costs money."""

    async def generate(self, request: ImageRequest) -> Pictures:
        """The pictures; ImageError when there are none. Cancelling it cancels what runs on the provider's side."""
