"""From settings and environment to the keys that this process knows, so that none of them is told to anybody."""

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from master_agent.errors import UsageError
from master_agent.secrets import NAMED, Secrets
from master_agent.settings import Settings, table

SHORTEST = 12  # characters of a variable's value that is taken for a key by its name


def known_keys(settings: Settings | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The values of keys that this process knows, each with the name of where it stands.

    They are its own, the passwords that stand in its addresses, and what the environment and the .env name so.
    """
    variables = [*(settings.beside.items() if settings is not None else ()), *environ.items()]
    known = {value: name for name, value in variables if NAMED.search(name.upper()) and len(value) >= SHORTEST}
    known |= {password: name for name, value in variables if "@" in value and (password := _password(value))}
    for name, setting in table().items():
        value = getattr(settings, name) if settings is not None else environ.get(setting.variable)
        if value and setting.secret:
            known[str(value)] = setting.variable
        elif isinstance(value, str) and "@" in value and (password := _password(value)):
            known[password] = setting.variable
    return known


def secrets_of(settings: Settings | None, environ: Mapping[str, str]) -> Secrets:
    """What cuts those keys, and whatever looks like one, out of a text."""
    return Secrets(known_keys(settings, environ))


def refuse_in(said: Mapping[str, str], settings: Settings, environ: Mapping[str, str]) -> None:
    """UsageError when what is given to a run holds one of its keys: models would be told, and the journal keep it."""
    known = known_keys(settings, environ)
    every = Secrets(known)
    for what, text in said.items():
        if every.knows(text):
            name = next(name for value, name in known.items() if Secrets([value]).knows(text))
            raise UsageError(
                f"{what} holds the value of {name}: it would be sent to a model and kept in the journal",
                hint="Leave it out; no agent needs a key.",
            )


def _password(address: str) -> str | None:
    """The password that stands in an address, if one does."""
    try:
        password = urlsplit(address).password if "://" in address else None
    except ValueError:
        return None
    return unquote(password) if password else None
