"""A Conversation at a server that keeps it: begun, and taken back to what is known of it after an answer got lost.

Written against OpenAI's reference (developers.openai.com/api/reference, Conversations and their items), as of 2026-11:
items are listed by pages and deleted one by one; no server of OpenAI's was asked.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from master_agent.errors import ModelError
from master_agent.threads._openai import Deadline, Said, Server, read_said, request_options

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Item = Mapping[str, Any]

CONVERSATIONS = "/conversations"
NOT_THERE = 404
NO_ROUTE = (NOT_THERE, 405, 501)
LOCKED = "conversation_locked"
_PAGE, _PAGES = 100, 100  # items that are asked for at once, and how often


async def begin(client: "AsyncOpenAI", server: Server, seconds: float) -> str:
    """The id of a new, empty Conversation; ModelError when the server makes none."""
    deadline = Deadline.after(seconds, f"did not begin a conversation within {seconds:g} s")
    try:
        made = await _ask(client, server, "POST", CONVERSATIONS, deadline)
    except ModelError as error:
        if answered(error)[0] not in NO_ROUTE:
            raise
        raise ModelError(
            error.message,
            type="bad_request",
            hint="This server keeps no conversations: use --thread-store response, or none.",
        ) from error
    if not isinstance(made.get("id"), str):
        raise server.malformed(json.dumps(made)[:1000], "a conversation that cannot be read")
    return str(made["id"])


async def take_back(
    client: "AsyncOpenAI", server: Server, id_: str, known: Callable[[Item], bool] | None, seconds: float
) -> None:
    """Deletes what stands behind the newest `known` item, the newest first; all there is where `known` is None.

    A Conversation in which no item is known is left as it is, and so is one of a server that lists or deletes none: the
    next request then shows whether it can be gone on with. ModelError when the server does not tell.
    """
    deadline = Deadline.after(seconds, f"did not tell what the conversation holds within {seconds:g} s")
    place = f"{CONVERSATIONS}/{quote(id_, safe='')}/items"
    deleted = 0
    try:
        for item in await _behind(client, server, place, known, deadline):
            deleted += await _delete(client, server, f"{place}/{quote(item, safe='')}", deadline)
    except ModelError as error:
        if (locked := busy(error)) is not None:
            raise locked from error
        if deleted or answered(error)[0] not in NO_ROUTE:
            raise


async def _delete(client: "AsyncOpenAI", server: Server, path: str, deadline: Deadline) -> bool:
    """Whether the item was deleted: one that is not there needs no more, gone or kept by a server that deletes none."""
    try:
        await _ask(client, server, "DELETE", path, deadline)
    except ModelError as error:
        if answered(error)[0] != NOT_THERE:
            raise
        return False
    return True


async def _behind(
    client: "AsyncOpenAI", server: Server, place: str, known: Callable[[Item], bool] | None, deadline: Deadline
) -> list[str]:
    """The ids of the items behind the newest known one, the newest first; none where no item is known."""
    newer: list[str] = []
    for _ in range(_PAGES):
        after = {"after": newer[-1]} if newer else {}
        page = await _ask(client, server, "GET", place, deadline, order="desc", limit=str(_PAGE), **after)
        items = [item for item in page.get("data") or () if isinstance(item, Mapping) and item.get("id")]
        for item in items:
            if known is not None and known(item):
                return newer
            newer.append(str(item["id"]))
        if not items or not page.get("has_more"):
            break
    return newer if known is None else []


def busy(error: ModelError) -> ModelError | None:
    """The error to raise where an earlier request is still at work on the Conversation; None where it is another."""
    if answered(error)[1].code != LOCKED:
        return None
    return ModelError(error.message, type="server_error", retryable=True)


def answered(error: ModelError) -> tuple[int, Said]:
    """The status that the error was made from, and what the server said with it; 0 and nothing if it did not answer."""
    response = getattr(error.__cause__, "response", None)
    return (0, Said("")) if response is None else (response.status_code, read_said(response.text))


async def _ask(
    client: "AsyncOpenAI",
    server: Server,
    method: Literal["GET", "POST", "DELETE"],
    path: str,
    deadline: Deadline,
    **params: str,
) -> dict[str, Any]:
    """The answer as an object; ModelError where it is none."""
    import httpx2

    options = request_options(max(0.001, deadline.at - asyncio.get_running_loop().time()))
    match method:
        case "GET":
            asked = client.get(path, cast_to=httpx2.Response, options={**options, "params": params})
        case "POST":
            asked = client.post(path, cast_to=httpx2.Response, body={}, options=options)
        case "DELETE":
            asked = client.delete(path, cast_to=httpx2.Response, options=options)
    response = await server.bounded(asked, deadline)
    try:
        answer = json.loads(response.content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise server.malformed(response.text[:1000], "a conversation that cannot be read")
    return answer
