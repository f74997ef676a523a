"""From settings and environment to the keys that this process knows, so that none of them is told to anybody."""

from collections.abc import Mapping

from master_agent.errors import UsageError
from master_agent.held_keys import by_shape, in_address, in_variable, is_placeholder
from master_agent.secrets import Secrets
from master_agent.settings import Settings, table

ADDRESSES = ("openai_base_url", "ollama_host", "replicate_base_url", "hf_endpoint", "local_server", "proxy")
"""The settings that are addresses, with a scheme or without."""


def known_keys(settings: Settings | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The values of keys that this process knows, each with the name of where it stands.

    They are its own, those that stand in its addresses, and what the environment and the .env name so.
    """
    variables = [*(settings.beside if settings is not None else ()), *environ.items()]
    known = {key: name for name, value in variables for key in in_variable(name, value)}
    for name, setting in table().items():
        given = getattr(settings, name) if settings is not None else environ.get(setting.variable)
        for value in given if isinstance(given, tuple) else (given,):
            if value and setting.secret:
                known |= {} if is_placeholder(str(value)) else {str(value): setting.variable}
            elif isinstance(value, str):
                address = f"//{value}" if name in ADDRESSES and "://" not in value else value
                known |= dict.fromkeys(in_address(address), setting.variable)
    return known


def secrets_of(settings: Settings | None, environ: Mapping[str, str]) -> Secrets:
    """What cuts out of a text those keys, and what looks like one: in a .env, in an address, by a common shape."""
    keys = set(known_keys(settings, environ))
    if settings is not None:
        given = ((setting.variable, getattr(settings, name)) for name, setting in table().items())
        addresses = [(name, value) for name, value in given if isinstance(value, str) and "://" in value]
        keys.update(key for name, value in (*settings.beside, *addresses) for key in by_shape(name, value))
    return Secrets(keys)


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
