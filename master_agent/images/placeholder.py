"""From a request to pictures drawn on this machine: no network, no key, no cost; the public fake of the image port."""

import asyncio
import colorsys
import hashlib
import io
from typing import TYPE_CHECKING

from master_agent.errors import ImageError
from master_agent.images import ASPECT_RATIOS, ImageRequest, Picture, Pictures

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

PIXELS = 1024 * 1024
LINES = 6
MOST_CHARACTERS = 600
SIGNATURE = "placeholder picture, drawn offline by master-agent"


class Placeholder:
    """Draws pictures that say what they stand for. The same request gives the same bytes."""

    name = "placeholder"
    paid = False

    async def settle(self, request: ImageRequest, remote_id: str | None) -> Pictures | None:  # noqa: ARG002
        return None  # drawn again, it is the same picture, and free

    async def check(self) -> str:
        return "drawn offline by master-agent"

    async def generate(self, request: ImageRequest) -> Pictures:
        """A PNG for each picture asked for, of the right shape, in colours that follow from the seed."""
        if request.aspect_ratio not in ASPECT_RATIOS:
            raise ImageError(f'no aspect ratio "{request.aspect_ratio}"; there are: {", ".join(ASPECT_RATIOS)}')
        seeds = range(request.seed, request.seed + request.count)
        drawn = [await asyncio.to_thread(_draw, request.prompt, request.aspect_ratio, seed) for seed in seeds]
        return Pictures(
            pictures=tuple(Picture(content) for content in drawn),
            provider=self.name,
            seed=request.seed,
            note="a placeholder, drawn offline; with REPLICATE_API_TOKEN set, pictures are real",
        )


def size_of(aspect_ratio: str) -> tuple[int, int]:
    """Width and height in pixels: about a megapixel, in multiples of 8, as image models give it."""
    wide, high = map(int, aspect_ratio.split(":"))
    width = (PIXELS * wide / high) ** 0.5
    return round(width / 8) * 8, round(width * high / wide / 8) * 8


def _draw(prompt: str, aspect_ratio: str, seed: int) -> bytes:
    size = size_of(aspect_ratio)
    chance = hashlib.sha256(str(seed).encode()).digest()
    picture = _background(size, chance)
    _write(picture, prompt)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _background(size: tuple[int, int], chance: bytes) -> "Image":
    """A diagonal gradient between two neighbouring colours, with two soft lights on it."""
    from PIL import Image, ImageOps

    hue = chance[0] / 256
    dark, light = _colour(hue, 0.22, 0.6), _colour(hue + 0.14 + chance[1] / 1600, 0.55, 0.65)
    glow = _colour(hue + 0.22, 0.8, 0.8)
    slope = Image.linear_gradient("L").rotate(45 if chance[2] % 2 else -45, Image.Resampling.BICUBIC)
    slope = slope.crop((64, 64, 192, 192)).resize(size, Image.Resampling.BICUBIC)
    picture = ImageOps.colorize(slope, dark, light)
    for byte in (3, 6):
        radius = int(max(size) * (0.45 + chance[byte] / 512))
        spot = ImageOps.invert(Image.radial_gradient("L")).resize((radius * 2, radius * 2), Image.Resampling.BICUBIC)
        # The corners of that gradient are not black; taken down a little, the light ends softly.
        spot = spot.point([max(0, level - 74) // 2 for level in range(256)])
        centre = (size[0] * chance[byte + 1] // 256, size[1] * chance[byte + 2] // 256)
        picture.paste(Image.new("RGB", spot.size, glow), (centre[0] - radius, centre[1] - radius), spot)
    return picture


def _write(picture: "Image", prompt: str) -> None:
    """The prompt's words in the middle, as large as they fit, and below them where the picture comes from."""
    from PIL import ImageDraw, ImageFont

    width, height = picture.size
    pen = ImageDraw.Draw(picture, "RGBA")
    words = prompt[:MOST_CHARACTERS].split() or ["picture"]
    for part in (12, 16, 20, 24):
        font = ImageFont.load_default(min(width, height) / part)
        lines = _wrapped(words, font, width * 0.8)
        if len(lines) <= LINES:
            break
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1].rstrip(",.;:") + " …"]
    step = min(width, height) / part * 1.35
    top = (height - step * len(lines)) / 2
    shade = max(1, round(min(width, height) / 500))
    for number, line in enumerate(lines):
        place = (width / 2, top + step * (number + 0.5))
        pen.text((place[0] + shade, place[1] + shade), line, fill=(0, 0, 0, 60), font=font, anchor="mm")
        pen.text(place, line, fill=(255, 255, 255, 255), font=font, anchor="mm")
    small = ImageFont.load_default(min(width, height) / 42)
    pen.text((width / 2, height - min(width, height) / 24), SIGNATURE, (255, 255, 255, 170), small, anchor="mm")


def _wrapped(words: list[str], font: "Font", room: float) -> list[str]:
    """The words in lines that fit into the room; a word that is too long for a line is broken."""
    lines = [""]
    for word in words:
        rest = word
        if lines[-1] and font.getlength(f"{lines[-1]} {rest}") <= room:
            lines[-1] += f" {rest}"
            continue
        if lines[-1]:
            lines.append("")
        while font.getlength(rest) > room:
            fits = next(n for n in range(1, len(rest)) if font.getlength(rest[: n + 1]) > room)
            lines[-1:] = [rest[:fits], ""]
            rest = rest[fits:]
        lines[-1] = rest
    return lines


def _colour(hue: float, lightness: float, saturation: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)
