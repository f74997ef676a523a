"""What is kept of a command line with a run: the flags as plain JSON, as they are good in a later process."""

from pathlib import Path

from pydantic import JsonValue

from master_agent.cli.keys import ADDRESSES
from master_agent.cli.local import lasting
from master_agent.settings import Settings


def flags_of(settings: Settings) -> dict[str, JsonValue]:
    """The settings that were said on the command line, by name."""
    return {name: _plain(getattr(settings, name)) for name in settings.said if _keepable(settings, name)}


def _keepable(settings: Settings, name: str) -> bool:
    """Whether a flag is kept for a later process; an address that may hold a password or a key is not."""
    given = getattr(settings, name) if name in ADDRESSES else ()
    addresses = [given] if isinstance(given, str) else given
    return name != "record" and not any(sign in address for address in addresses for sign in "@?#")


def _plain(value: object) -> JsonValue:
    match value:
        case tuple():
            return list(value)
        case str():
            return lasting(value)
        case int() | float():
            return value
        case Path():
            return str(value.absolute())  # not where a link leads: the python of an environment is one
    return str(value)
