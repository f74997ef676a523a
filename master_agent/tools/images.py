"""The tools that make pictures from words and fetch them from addresses; every picture lands in the workspace."""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, JsonValue

from master_agent.errors import ImageError
from master_agent.images import AspectRatio, ImageRequest, Measures, Picture, Pictures, measure
from master_agent.results import Artifact, Usage
from master_agent.tools import Begun, ToolContext, ToolOutput, tool

SEEDS = 2**31
_SAME_ENDINGS = {".jpeg": ".jpg", ".jpe": ".jpg"}
_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".avif", ".bmp", ".svg", ".tif", ".tiff")


def _with_seed(arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The arguments with a seed, drawn before the call so that the journal knows it whatever becomes of the call."""
    if arguments.get("seed") is None:
        return {**arguments, "seed": secrets.randbelow(SEEDS)}
    return arguments


async def _settled(context: ToolContext, arguments: Mapping[str, JsonValue], begun: Begun) -> ToolOutput | None:
    """What became of pictures that were asked for before the program died; None when they never were."""
    request = ImageRequest(
        prompt=str(arguments["prompt"]),
        aspect_ratio=str(arguments["aspect_ratio"]),
        count=int(str(arguments["count"])),
        seed=int(str(arguments["seed"])),
    )
    made = await context.images().settle(request, begun.remote_id)
    return None if made is None else await _stored(context, made)


@tool(effects={"network", "pay", "write"}, timeout=600.0, prepare=_with_seed, settle=_settled)
async def generate_image(
    context: ToolContext,
    prompt: Annotated[str, Field(min_length=1)],
    aspect_ratio: AspectRatio = "1:1",
    count: Annotated[int, Field(ge=1, le=4)] = 1,
    seed: Annotated[int | None, Field(ge=0, lt=SEEDS)] = None,
) -> ToolOutput:
    """Makes one picture from a prompt, or `count` variations, and stores them in the workspace.

    The same `seed` with the same prompt gives the same picture if the provider takes one; leave it out for a new one.
    """
    drawn = _with_seed({"seed": seed})["seed"]
    assert isinstance(drawn, int)
    request = ImageRequest(prompt, aspect_ratio, count, drawn, context.progressed)
    return await _stored(context, await context.images().generate(request))


async def _stored(context: ToolContext, made: Pictures) -> ToolOutput:
    """The pictures in the workspace, and what is told of them."""
    if not made.pictures:
        raise ImageError(f"{made.provider} made no picture")
    # All are looked at before the first is stored: a run keeps no half of an answer.
    measures = [await asyncio.to_thread(measure, picture.content) for picture in made.pictures]
    stem = f"images/{context.step or 'image'}"
    artifacts = [
        await context.files.save_new(stem, measured.suffix, picture.content)
        for picture, measured in zip(made.pictures, measures, strict=True)
    ]
    lines = [_line(artifact, measured) for artifact, measured in zip(artifacts, measures, strict=True)]
    if made.note:
        lines.append(f"({made.note})")
    return ToolOutput(
        text="\n".join(lines),
        data=_data(made, artifacts, measures),
        artifacts=tuple(artifacts),
        usage=Usage(images=len(artifacts)) + made.usage,
    )


@tool(effects={"network", "write"}, repeatable=True)
async def download_image(
    context: ToolContext, url: str, path: str | None = None, overwrite: bool = False
) -> ToolOutput:
    """Fetches a picture from a public web address and stores it in the workspace, as `path` or under a new name.

    The ending of the name is made to fit the picture. A file that was there before this run is only replaced with
    `overwrite` set to true.
    """
    name = None if path is None else context.workspace.name(path)  # refused before anything is fetched
    got = await context.fetcher.download(url)
    try:
        measured = await asyncio.to_thread(measure, got.content)
    except ImageError as error:
        raise ImageError(f"{got.url}: {error.message}") from None
    if name is None:
        artifact = await context.files.save_new(f"images/{context.step or 'image'}", measured.suffix, got.content)
    else:
        artifact = await context.files.save(_fitting(name, measured.suffix), got.content, overwrite=overwrite)
    data: dict[str, JsonValue] = {"source_url": got.url, "width": measured.width, "height": measured.height}
    return ToolOutput(text=_line(artifact, measured), data=data, artifacts=(artifact,))


def _data(made: Pictures, artifacts: list[Artifact], measures: list[Measures]) -> dict[str, JsonValue]:
    """The first picture's data, and all of them where there are several."""
    each = [
        {"path": artifact.path, **_about(picture, measured)}
        for artifact, picture, measured in zip(artifacts, made.pictures, measures, strict=True)
    ]
    first = {name: value for name, value in each[0].items() if name != "path"}
    data: dict[str, JsonValue] = {**first, "seed": made.seed, "model": made.model, "provider": made.provider}
    if len(each) > 1:
        data["images"] = [dict(one) for one in each]
    return data


def _about(picture: Picture, measured: Measures) -> dict[str, JsonValue]:
    return {
        "source_url": picture.source_url,
        "expires_at": picture.expires_at,
        "width": measured.width,
        "height": measured.height,
    }


def _line(artifact: Artifact, measured: Measures) -> str:
    size = f"{measured.width}×{measured.height} pixels, {artifact.bytes:,} bytes"
    return f"{artifact.path} ({artifact.media_type}, {size})"


def _fitting(path: str, suffix: str) -> str:
    """The path with the ending that fits the picture; another picture's ending is replaced, any other is kept."""
    name = PurePosixPath(path)
    ending = name.suffix.lower()
    if _SAME_ENDINGS.get(ending, ending) == suffix:
        return path
    return str(name.with_suffix(suffix)) if ending in _PICTURE_ENDINGS else path + suffix
