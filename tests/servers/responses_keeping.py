"""What the Responses stand-in keeps, as OpenAI lets it be listed and deleted: responses, conversations, containers."""

from dataclasses import dataclass, field

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
        match method, path.split("?")[0].removeprefix("/v1/").split("/"):
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
            case _, ["conversations", id_, "items", *item] if id_ in self.conversations:
                return self._items(id_, *item)
            case _, ["conversations", id_, "items", *_]:
                return error(404, f"Conversation with id '{id_}' not found.")
        return None

    def _items(self, conversation: str, item: str | None = None) -> Behaviour:
        held = self.conversations[conversation]
        for number, one in enumerate(held):
            one.setdefault("id", f"msg_given_{number}_{len(held)}")
        if item is None:
            page = held[:2]  # fewer than were asked for, as a server may
            return json_body({"object": "list", "data": page, "has_more": len(held) > len(page)})
        self.conversations[conversation] = [one for one in held if one["id"] != item]
        return json_body({"id": conversation, "object": "conversation", "created_at": 1, "metadata": None})

    def _deleted(self, id_: str, kind: str, known: bool) -> Behaviour:
        if not known:
            return error(404, f"{kind.capitalize()} with id '{id_}' not found.")
        name = kind if kind == "response" else f"{kind}.deleted"
        return json_body({"id": id_, "object": name, "deleted": True})
