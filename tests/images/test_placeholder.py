"""Pictures drawn offline, and what counts as a picture."""

import asyncio
import io
import struct
import time
import zlib

import pytest
from PIL import Image

from master_agent.errors import ImageError
from master_agent.images import ASPECT_RATIOS, ImageProvider, ImageRequest, Pictures, measure
from master_agent.images.placeholder import Placeholder


def draw(prompt: str = "A sunset over mountains", aspect_ratio: str = "1:1", count: int = 1, seed: int = 7) -> Pictures:
    return asyncio.run(Placeholder().generate(ImageRequest(prompt, aspect_ratio, count, seed)))


def content(pictures: Pictures) -> bytes:
    return pictures.pictures[0].content


@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
def test_a_placeholder_is_a_png_of_the_shape_asked_for(aspect_ratio: str) -> None:
    measures = measure(content(draw(aspect_ratio=aspect_ratio)))
    wide, high = map(int, aspect_ratio.split(":"))
    assert measures.media_type == "image/png"
    assert measures.width / measures.height == pytest.approx(wide / high, rel=0.02)
    assert measures.width * measures.height == pytest.approx(1024 * 1024, rel=0.03)


def test_the_same_request_gives_the_same_bytes() -> None:
    assert content(draw()) == content(draw())


def test_another_seed_gives_other_colours_and_another_prompt_other_words() -> None:
    corners = {Image.open(io.BytesIO(content(draw(seed=seed)))).getpixel((0, 0)) for seed in range(6)}
    assert len(corners) >= 5
    assert content(draw("one")) != content(draw("two"))


def test_as_many_pictures_come_as_were_asked_for_each_different() -> None:
    pictures = draw(count=3)
    assert len({picture.content for picture in pictures.pictures}) == 3
    assert (pictures.provider, pictures.seed, pictures.model) == ("placeholder", 7, None)
    assert pictures.note
    assert "placeholder" in pictures.note


def test_a_placeholder_costs_nothing() -> None:
    provider: ImageProvider = Placeholder()
    assert not provider.paid


def test_the_words_of_the_prompt_are_drawn() -> None:
    """The middle of the picture has white in it, which the background alone never has."""
    picture = Image.open(io.BytesIO(content(draw("Hello")))).convert("RGB")
    middle = picture.crop((200, 400, 824, 624)).getcolors(1_000_000)
    edge = picture.crop((0, 0, 1024, 200)).getcolors(1_000_000)
    assert middle
    assert edge
    assert any(colour == (255, 255, 255) for _, colour in middle)
    assert all(colour != (255, 255, 255) for _, colour in edge)


@pytest.mark.parametrize("prompt", ["", " \n", "x" * 100_000, "word " * 50_000, "日本 ⚡ \0", "a\nb"])
def test_any_prompt_can_be_drawn_quickly(prompt: str) -> None:
    started = time.monotonic()
    measure(content(draw(prompt)))
    assert time.monotonic() - started < 3


def test_nothing_but_the_picture_is_in_the_file() -> None:
    picture = Image.open(io.BytesIO(content(draw())))
    assert picture.info == {}
    assert picture.getexif() == {}


def test_an_unknown_aspect_ratio_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ImageError, match=r'"2:1"; there are: 1:1, 16:9'):
        draw(aspect_ratio="2:1")


# What counts as a picture


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif")])
def test_a_picture_is_measured_by_its_bytes(kind: str, suffix: str) -> None:
    saved = io.BytesIO()
    Image.new("RGB", (12, 8)).save(saved, kind)
    measures = measure(saved.getvalue())
    assert (measures.suffix, measures.width, measures.height) == (suffix, 12, 8)
    assert measures.media_type == f"image/{kind.lower()}"


def test_a_page_is_no_picture() -> None:
    with pytest.raises(ImageError, match=r"no picture .*<html>"):
        measure(b"<html>not found</html>")


def test_half_a_picture_is_no_picture() -> None:
    whole = content(draw())
    with pytest.raises(ImageError, match="no picture"):
        measure(whole[: len(whole) // 2])


def test_a_small_file_that_claims_to_be_a_huge_picture_is_refused() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 8_500, 8_500, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="8500×8500 pixels is too large"):
        measure(bomb)
