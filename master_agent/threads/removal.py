"""Deletes what a run has left on a model's server: responses, conversations with their items, threads, containers.

The wires keep all that a run may be gone on with; here it goes, when the run does.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from master_agent.errors import ErrorType, ModelError
from master_agent.threads._openai import Deadline, Server, read_said, request_options
from master_agent.threads.assistants import BETA

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Kind = Literal["response", "conversation", "container", "thread", "assistant"]
PATHS: dict[str, str] = {
    "response": "/responses",
    "conversation": "/conversations",
    "container": "/containers",
    "thread": "/threads",
    "assistant": "/assistants",
}
"""What can be deleted, by kind, and where it lies."""

SECONDS = 10.0  # for one request
MOST_ITEMS = 10_000  # of one conversation
_FOR_ALL: tuple[ErrorType, ...] = ("authentication", "permission", "connection", "model_timeout", "no_model")


@dataclass(frozen=True)
class Gone:
    """What became of one object: deleted now, gone before, or left, with the reason."""

    kind: str
    id: str
    how: Literal["deleted", "gone_before", "left"]
    why: str = ""


async def delete_all(
    server: Server, things: Iterable[tuple[str, str]], still_ours: Callable[[], None] = lambda: None
) -> list[Gone]:
    """Deletes things one after the other, by kind and id. Nothing is raised for what the server refuses.

    Where the key is refused or nobody answers, the rest is left with the same reason. `still_ours` is called between
    them, and raises when they are to be left alone.
    """
    ended: list[Gone] = []
    refused: ModelError | None = None
    client: AsyncOpenAI | None = None
    try:
        for kind, id_ in things:
            still_ours()
            try:
                if refused is not None:
                    raise refused
                client = client or server.client()
                ended.append(Gone(kind, id_, await _delete(client, server, kind, id_)))
            except ModelError as error:
                refused = error if error.type in _FOR_ALL else None
                ended.append(Gone(kind, id_, "left", error.message))
    finally:
        if client is not None:
            await client.close()
    return ended


async def _delete(client: "AsyncOpenAI", server: Server, kind: str, id_: str) -> Literal["deleted", "gone_before"]:
    place = f"{PATHS[kind]}/{quote(id_, safe='')}"
    try:
        if kind == "conversation":  # its items stay when it goes, says OpenAI's reference
            for _ in range(MOST_ITEMS // 100):
                page = await _ask(client, server, "GET", f"{place}/items", limit="100")
                items = [str(item["id"]) for item in page.get("data") or () if isinstance(item, dict) and "id" in item]
                for item in items:
                    await _ask(client, server, "DELETE", f"{place}/items/{quote(item, safe='')}")
                if not items:
                    break
        await _ask(client, server, "DELETE", place)
    except ModelError as error:
        if _knows_nothing_of(id_, error):
            return "gone_before"
        raise
    return "deleted"


async def _ask(
    client: "AsyncOpenAI", server: Server, method: Literal["GET", "DELETE"], path: str, **params: str
) -> dict[str, Any]:
    """The answer as an object; an empty one where there is none to read."""
    import httpx2

    options = request_options(SECONDS)
    options["headers"] = BETA if path.startswith(("/threads", "/assistants")) else {}
    deadline = Deadline.after(SECONDS, f"did not answer within {SECONDS:g} s")
    if method == "GET":
        asked = client.get(path, cast_to=httpx2.Response, options={**options, "params": params})
    else:
        asked = client.delete(path, cast_to=httpx2.Response, options=options)
    response = await server.bounded(asked, deadline)
    try:
        answer = json.loads(response.content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _knows_nothing_of(id_: str, error: ModelError) -> bool:
    """Whether the server says that there is no such object; a server without such a route says something else."""
    response = getattr(error.__cause__, "response", None)
    if response is None or response.status_code != 404:
        return False
    said = read_said(response.text).message
    return id_ in said and "invalid url" not in said.lower()


def run(things: Iterable[tuple[str, str]], server: Server, still_ours: Callable[[], None]) -> list[Gone]:
    """`delete_all`, from outside a loop."""
    return asyncio.run(delete_all(server, things, still_ours))
