"""Tools that the server runs: how they are asked for, and what they leave in a response as files, sources and usage."""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from master_agent.attachments import Attachment, picture_type
from master_agent.errors import ModelError
from master_agent.results import Usage
from master_agent.retry import RetryPolicy, retrying
from master_agent.threads import Reply, Source
from master_agent.threads._openai import Deadline, Server, request_options

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

TOOLS: Mapping[str, Mapping[str, Any]] = {
    "code_interpreter": {"type": "code_interpreter", "container": {"type": "auto"}},
    "web_search": {"type": "web_search"},
    "image_generation": {"type": "image_generation", "output_format": "png"},
}
"""Each tool by its name in an agent's file, as a request asks for it, in the order in which they are asked for."""

OUTPUTS = "code_interpreter_call.outputs"
"""What a request includes so that what code printed can be sent back to a server that keeps nothing."""

FETCHING = 60.0
"""Seconds in which the files of one reply are fetched, all at once."""

FILE_LIMIT = 50 * 1024 * 1024
"""Bytes of one fetched file."""

_ID = re.compile(r"[\w-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Cited:
    """A file in a container of the server's, as a message cites it."""

    container: str
    id: str
    name: str = field(compare=False)


def asked_for(hosted: Collection[str]) -> list[dict[str, Any]]:
    """The tools as a request names them."""
    return [dict(tool) for name, tool in TOOLS.items() if name in hosted]


def refused(body: Mapping[str, Any], complaint: str) -> str | None:
    """The hosted tool of a request that a complaint is about, by its name or by its place; None if about none."""
    kinds = [str(tool.get("type")) for tool in body.get("tools") or ()]
    place = re.search(r"\btools[.\[](\d{1,4})", complaint)
    meant = kinds[int(place[1])] if place and int(place[1]) < len(kinds) else ""
    named = {kind for kind in TOOLS if re.search(rf"\b{kind}\b", complaint)} | {meant}
    return next((kind for kind in kinds if kind in TOOLS and kind in named), None)


async def with_left(
    reply: Reply, items: Iterable[Mapping[str, Any]], fetch: Callable[[Cited], Awaitable[Attachment]]
) -> Reply:
    """The reply with the files and sources of its items, and their pictures in its usage.

    A file that `fetch` does not get, with ModelError, is among what the reply says is lost.
    """
    items = tuple(items)

    async def had(one: Attachment | Cited | str) -> Attachment | str:
        if not isinstance(one, Cited):
            return one
        try:
            return await fetch(one)
        except ModelError as error:
            return f'the file "{one.name}" could not be fetched: {error.message}'

    async with asyncio.TaskGroup() as group:  # `had` raises nothing, so nothing comes out of it as a group
        tasks = [group.create_task(had(one)) for one in dict.fromkeys(_made(items))]
    left = [task.result() for task in tasks]
    usage, paid = reply.usage, sum(1 for item in items if _is_picture(item) and item.get("result"))
    if paid:
        usage = (usage or Usage.unknown()).model_copy(update={"images": paid})
    return replace(
        reply,
        files=tuple(one for one in left if isinstance(one, Attachment)),
        lost=tuple(one for one in left if isinstance(one, str)),
        sources=tuple({source.url: source for source in _sources(items)}.values()),
        usage=usage,
    )


async def fetched(client: "AsyncOpenAI", server: Server, file: Cited, deadline: Deadline) -> Attachment:
    """The file; ModelError when it cannot be had in time or is too large. What can heal is tried again."""

    async def attempt(_: int) -> bytes:
        return await _content(client, server, file, deadline)

    content = await server.bounded(retrying(attempt, RetryPolicy()), deadline)
    return Attachment(file.name, picture_type(content) or "application/octet-stream", content)


async def _content(client: "AsyncOpenAI", server: Server, file: Cited, deadline: Deadline) -> bytes:
    from master_agent.sdk import openai

    if not (_ID.fullmatch(file.container) and _ID.fullmatch(file.id)):
        raise ModelError(f"{server.shown} gave it an id that cannot be one", type="malformed_reply")
    path = f"/containers/{quote(file.container)}/files/{quote(file.id)}/content"
    options = request_options(FETCHING)
    options["headers"] = {"Accept": "application/binary"}
    asked = client.get(path, cast_to=object, options=options, stream=True, stream_cls=openai.AsyncStream[object])
    stream = await server.bounded(asked, deadline)
    try:
        return await server.bounded(_no_more(stream.response), deadline)
    finally:
        await stream.close()


async def _no_more(response: "httpx2.Response") -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > FILE_LIMIT:
            raise ModelError(f"it holds more than {FILE_LIMIT:,} bytes", type="malformed_reply")
    return bytes(content)


def _made(items: Iterable[Mapping[str, Any]]) -> Iterator[Attachment | Cited | str]:
    """The pictures and the files to fetch, or why one is not to be had, in the order of the items."""
    for item in items:
        if _is_picture(item):
            yield from _picture(item)
        for cited in _annotations(item, "container_file_citation"):
            container, id_, name = (str(cited.get(key) or "") for key in ("container_id", "file_id", "filename"))
            yield Cited(container, id_, name or id_)


def _is_picture(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "image_generation_call"


def _picture(item: Mapping[str, Any]) -> Iterator[Attachment | str]:
    result, error = item.get("result"), item.get("error")
    if not isinstance(result, str) or not result:
        if item.get("status") == "failed":
            said = error.get("message") if isinstance(error, Mapping) else None
            yield f"a picture could not be made: {said or 'no reason given'}"
        return
    try:
        content = base64.b64decode(result.rpartition(",")[2])  # a base64 text holds no comma, what precedes it may
    except ValueError:
        content = b""
    kind = picture_type(content)
    yield Attachment("", kind, content) if kind else "a picture came that cannot be read"


def _sources(items: Iterable[Mapping[str, Any]]) -> Iterator[Source]:
    for item in items:
        for cited in _annotations(item, "url_citation"):
            url, title = str(cited.get("url") or ""), " ".join(str(cited.get("title") or "").split())
            if url.startswith(("https://", "http://")):
                yield Source(title or url, url)


def _annotations(item: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    content = item.get("content") if item.get("type") == "message" else None
    for part in content if isinstance(content, list) else ():
        noted = part.get("annotations") if isinstance(part, Mapping) else None
        for one in noted if isinstance(noted, list) else ():
            if isinstance(one, Mapping) and one.get("type") == kind:
                yield one
