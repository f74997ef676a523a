"""What the Responses stand-in keeps, as OpenAI lets it be listed and deleted: responses, conversations, containers."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.servers.chat import error, json_body
from tests.servers.loopback import Behaviour, Body


@dataclass
class Keeping:
    """Deletes as the API does. `orphans` are items whose conversation went before them: at OpenAI they stay."""

    responses: dict[str, list[Body]]
    conversations: dict[str, list[Body]]
    containers: set[str] = field(default_factory=set)
    orphans: list[Body] = field(default_factory=list)

    def answer(self, method: str, path: str) -> Behaviour | None:
        """What a request for something that is kept gets; None where it is about something else."""
        place, _, query = path.partition("?")
        match method, place.removeprefix("/v1/").split("/"):
            case "DELETE", ["responses", id_]:
                return self._deleted(id_, "response", self.responses.pop(id_, None) is not None)
            case "DELETE", ["containers", id_]:
                known = id_ in self.containers
                self.containers.discard(id_)
                return self._deleted(id_, "container", known)
            case "DELETE", ["conversations", id_]:
                known = id_ in self.conversations
                self.orphans += self.conversations.pop(id_, [])
                return self._deleted(id_, "conversation", known)
            case "GET", ["conversations", id_, "items"] if id_ in self.conversations:
                return self._items(method, id_, "", query)
            case "DELETE", ["conversations", id_, "items", item] if id_ in self.conversations:
                return self._items(method, id_, item, query)
            case _, ["conversations", id_, "items", *_]:
                return error(404, f"Conversation with id '{id_}' not found.")
        return None

    def _items(self, method: str, conversation: str, item: str, query: str) -> Behaviour:
        held = self.conversations[conversation]
        for number, one in enumerate(held):
            one.setdefault("id", f"msg_given_{number}_{len(held)}")
        if method == "DELETE":
            if not any(one["id"] == item for one in held):
                return error(404, f"Item with id '{item}' not found.")
            self.conversations[conversation] = [one for one in held if one["id"] != item]
            return json_body({"id": conversation, "object": "conversation", "created_at": 1, "metadata": None})
        asked = dict(parse_qsl(query))
        ordered = held if asked.get("order") == "asc" else held[::-1]
        ids = [one["id"] for one in ordered]
        if (after := asked.get("after")) is not None and after not in ids:
            return error(404, f"Item with id '{after}' not found.")
        start = ids.index(after) + 1 if after is not None else 0
        end = start + min(int(asked.get("limit", 20)), 2)  # fewer than were asked for, as a server may
        return self._page(ordered[start:end], more=end < len(held))

    def _page(self, items: list[Body], *, more: bool) -> Behaviour:
        ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
        return json_body({"object": "list", "data": items, "has_more": more, **ends})

    def _deleted(self, id_: str, kind: str, known: bool) -> Behaviour:
        if not known:
            return error(404, f"{kind.capitalize()} with id '{id_}' not found.")
        name = kind if kind == "response" else f"{kind}.deleted"
        return json_body({"id": id_, "object": name, "deleted": True})
