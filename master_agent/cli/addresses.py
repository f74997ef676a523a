"""Addresses of servers as settings hold them: checked before anything is asked there."""

import os
from urllib.parse import urlsplit

from master_agent.cli.reach import NO_LOOKING
from master_agent.errors import SettingsError
from master_agent.local_servers import PORTS, origin_of
from master_agent.openai_server import Server
from master_agent.providers import HOSTED, PROVIDERS, named
from master_agent.settings import Settings, config_folder, table

_FORMS = {
    "openai_base_url": "http://localhost:11434/v1",
    "replicate_base_url": "https://api.replicate.com",
    "hf_endpoint": "https://huggingface.co",
}
_PROXY = "http://proxy.example:3128"


def fault(address: str, form: str = _FORMS["openai_base_url"]) -> str | None:
    """Why it is no address of a server, without a password that stands in it; None when it is one."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if good and not any(character.isspace() for character in address.strip()):
        return None
    return f'"{Server(address).shown}" is no address of a server; one looks like {form}'


def check(settings: Settings) -> None:
    """SettingsError, naming where it came from, when the address of a server is none."""
    for name, form in {**_FORMS, "proxy": _PROXY}.items():
        address = getattr(settings, name)
        if address is not None and (wrong := fault(address, form)):
            raise SettingsError(f"{_source(settings, name)}: {wrong}")
    local = [("ollama_host", settings.ollama_host)] if settings.ollama_host else []
    for name, address in (*local, *(("local_server", given) for given in settings.local_server)):
        if address != NO_LOOKING and origin_of(address, PORTS["ollama"] if name == "ollama_host" else None) is None:
            form = "127.0.0.1:11434" if name == "ollama_host" else f"http://127.0.0.1:8080, or {NO_LOOKING}"
            shown = Server(address).shown
            raise SettingsError(
                f'{_source(settings, name)}: "{shown}" is no address of a server; one looks like {form}'
            )


def _source(settings: Settings, name: str) -> str:
    setting = table()[name]
    return {
        "flag": setting.flag,
        ".env": f"{setting.variable} in .env",
        "config": f"{name} in {config_folder(os.environ) / 'config.toml'}",
    }.get(settings.origins[name], setting.variable)


def strange(settings: Settings) -> tuple[str, ...]:
    """What to tell of who is asked: a folder's .env may name a server, which then sees all that is said."""
    if settings.script or settings.replay:
        return ()
    server = Server(settings.openai_base_url)
    named_there = [server.shown] if settings.origins["openai_base_url"] == ".env" and not server.is_here else []
    for name in ("model", "planner_model"):
        provider = named(getattr(settings, name) or "")[0]
        if settings.origins[name] == ".env" and provider and PROVIDERS[provider] in HOSTED:
            named_there.append(PROVIDERS[provider].title)
    return tuple(f"models are asked at {one}, as .env of this folder says" for one in dict.fromkeys(named_there))
