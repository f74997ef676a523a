"""From what a run has left at services to what became of each: deleted there, gone before, or left with the reason."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from master_agent.cli.history import settings_of_then
from master_agent.cli.options import Options
from master_agent.errors import SettingsError
from master_agent.events import Event, RunStarted
from master_agent.held_keys import open_part
from master_agent.history.purge import Remote
from master_agent.settings import Settings

if TYPE_CHECKING:
    from master_agent.threads.removal import Gone

OF_REPLICATE = (
    "Replicate deletes no prediction by its API; what went in and came out of it is gone there after an hour, "
    "the rest can be deleted at https://replicate.com/p/{id}"
)
BY_HAND = 'curl -X DELETE {address}{path}/ID -H "Authorization: Bearer $OPENAI_API_KEY"'


def delete(
    options: Options, history: Sequence[Event], things: Sequence[Remote], still_ours: Callable[[], None]
) -> "list[Gone]":
    """Deletes what a run has left, with the address that the run was begun with and the key of now."""
    from master_agent.threads import removal

    predictions = [one for one in things if one.kind == "prediction"]
    stay = [removal.Gone(one.kind, one.id, "left", OF_REPLICATE.format(id=one.id)) for one in predictions]
    others = [(one.kind, one.id) for one in things if one.kind != "prediction"]
    if not others:
        return stay
    why, settings = _reach(options, history)
    if why is not None or settings is None:
        return [*(removal.Gone(kind, id_, "left", why or "") for kind, id_ in others), *stay]
    from master_agent.openai_server import Server

    server = Server(settings.openai_base_url, settings.openai_api_key, proxy=settings.proxy)
    return [*removal.run(others, server, still_ours), *stay]


def by_hand(options: Options, left: Iterable[tuple[Sequence[Event], str]]) -> list[str]:
    """How a person removes things of these kinds, each kind once for each server where runs of theirs have left one."""
    from master_agent.openai_server import Server
    from master_agent.threads.removal import PATHS

    places: dict[tuple[str, str], None] = {}
    for history, kind in left:
        with suppress(SettingsError):  # then nobody can say where it is
            settings = _settings(options, history)
            address = open_part(Server(settings.openai_base_url if settings else None).address)
            places[(address.rstrip("/"), PATHS[kind])] = None
    return [BY_HAND.format(address=address, path=path) for address, path in places]


def _reach(options: Options, history: Sequence[Event]) -> tuple[str | None, Settings | None]:
    """The settings to reach the service with, or why it cannot be reached."""
    try:
        settings = _settings(options, history)
    except SettingsError as error:
        return error.message, None
    if settings is None:
        return "the run never began", None
    if settings.openai_api_key is None and not settings.own_server:
        return "there is no OPENAI_API_KEY to ask with", None
    return None, settings


def _settings(options: Options, history: Sequence[Event]) -> Settings | None:
    began = next((event for event in history if isinstance(event, RunStarted)), None)
    return None if began is None else settings_of_then(options, began)
