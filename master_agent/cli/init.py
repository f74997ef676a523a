"""`init`: asks for keys and models, and writes `.env` of the current folder and the user's config."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from master_agent.cli import addresses, exit_codes, saving, streams, vault
from master_agent.cli.options import Options, with_options
from master_agent.errors import SettingsError, UsageError
from master_agent.openai_server import Server
from master_agent.reporters.text import visible
from master_agent.settings import Settings, config_folder, load, read_dotenv, table

_KEYS = ("openai_api_key", "openai_base_url", "replicate_api_token")
_CHOICES = ("model", "planner_model", "image_provider")


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("init", help=_HELP)(init)


_HELP = """Asks for keys and models.

Keys go to .env of this folder, or, with the extra `keyring`, to the keyring of your system; choices to your config.

Press Enter to leave a thing as it is.

\b
Examples:
  master-agent init
"""


@with_options(output=())
def init(options: Options) -> int:  # noqa: ARG001
    if not streams.interactive():
        raise UsageError(
            "init asks questions, and there is no terminal to ask at",
            hint="Copy .env.example to .env and fill it in instead.",
        )
    env, config = Path.cwd() / ".env", config_folder(os.environ) / "config.toml"
    read_dotenv(env)  # a line of it that cannot be read is told now, not after the questions
    known = _known()
    in_keyring = vault.usable() and _wants_keyring()
    place = "the keyring of your system" if in_keyring else f"{env}, which only you can read"
    streams.say(f"Keys are written to {place}. Press Enter to leave a thing as it is.")
    given = {name: value for name in _KEYS if (value := _key(name, known))}
    own = {} if not in_keyring else {name: value for name, value in given.items() if not table()[name].secret}
    keys = {table()[name].variable: value for name, value in given.items() if name not in own}
    if keys and in_keyring:
        for variable, key in keys.items():
            vault.put(variable, key)
        streams.say(f"put {', '.join(keys)} into the keyring")
    elif keys:
        write_env(env, keys)
        streams.say(f"wrote {', '.join(keys)} to {env}")
        _warn_of_git(env)
    choices = {name: _choice(name, known) for name in _CHOICES}
    # An address beside the keys of a keyring is your own: in a folder's .env it would get none of them.
    chosen: dict[str, str | list[str]] = {**own, **{name: value for name, value in choices.items() if value}}
    if keys and in_keyring:
        chosen["keyring"] = sorted({*(known.keyring if known else ()), *keys})
    if chosen:
        write_config(config, chosen)
        streams.say(f"wrote {', '.join(chosen)} to {config}")
    streams.say("See whether all is well: master-agent doctor")
    return exit_codes.DONE


def _wants_keyring() -> bool:
    while (said := _ask("Keep keys in the keyring of your system, or in .env of this folder? (keyring, .env)")) != "":
        if said.lower() in ("keyring", ".env", "env"):
            return said.lower() == "keyring"
        streams.say(f'"{said}" is no place for keys')
    return True


def _known() -> Settings | None:
    """The settings as they are; None where one of them is wrong, which is told."""
    try:
        return load({}, os.environ, Path.cwd(), vault.lookup())
    except SettingsError as error:
        streams.say(error.message)
        return None


def _now(name: str, known: Settings | None) -> str:
    """What a setting is already and where from, in words; of a secret only that it is set."""
    if known is None or known.origins[name] == "default":
        return ""
    value = "set" if table()[name].secret else f"now {Server(str(getattr(known, name))).shown}"
    source = {"environment": "the environment", "config": "your config file", "keyring": "the keyring"}
    return f" [{value}, in {source.get(known.origins[name], known.origins[name])}]"


def _key(name: str, known: Settings | None) -> str:
    """A key, or an address that is one; asked again until it is."""
    setting = table()[name]
    if setting.secret:
        return _ask(f"{setting.variable}{_now(name, known)}", secret=True)
    while True:
        given = _ask(f"{setting.variable} (for a server other than OpenAI's){_now(name, known)}")
        wrong = addresses.fault(given) if given else None
        if wrong is None:
            return given
        streams.say(wrong)


def _choice(name: str, known: Settings | None) -> str:
    """An answer that the setting takes; asked again until it is one."""
    setting = table()[name]
    choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
    while True:
        given = _ask(f"{name}: {setting.help}{choices}{_now(name, known)}")
        try:
            if given:
                setting.read(given, name)
        except SettingsError as error:
            streams.say(error.message)
            continue
        return given


def _ask(question: str, *, secret: bool = False) -> str:
    asked = streams.wrapped(visible(question), sys.stderr)
    answer: str = typer.prompt(asked, default="", show_default=False, hide_input=secret, err=True)
    return answer.strip()


def write_env(path: Path, values: Mapping[str, str]) -> None:
    """Sets variables in a .env file and keeps its other lines; only its owner can read it."""
    from dotenv import set_key

    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
        for name, value in values.items():
            set_key(path, name, value, quote_mode="auto")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None


def write_config(path: Path, values: Mapping[str, str | list[str]]) -> None:
    """Sets keys in a TOML file and keeps its other lines and its comments."""
    import tomlkit

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
        document.update(values)
        saving.replace(path.resolve(), tomlkit.dumps(document))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be written: {error}") from None


def _warn_of_git(env: Path) -> None:
    folder = next((f for f in (env.parent, *env.parent.parents) if (f / ".git").exists()), None)
    if folder is None:
        return
    ignored = folder / ".gitignore"
    lines = ignored.read_text(encoding="utf-8", errors="replace").splitlines() if ignored.is_file() else []
    if not {".env", "/.env", "*.env", ".env*"} & {line.strip() for line in lines}:
        streams.say(f"This folder is under git and {ignored} does not name .env: add it, or your keys get committed.")
