"""From flags, environment, .env and config file to Settings that know where each value came from.

Each setting has one name in three forms: flag `--planner-model`, variable `MASTER_AGENT_PLANNER_MODEL`, config key
`planner_model`. Order: flag, environment, `.env` of the current folder, the user's config file, for keys the system's
keyring, default. A folder's `.env` may set keys and models, but nothing that widens what a run may do: a folder can
come from a stranger.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from master_agent.errors import SettingsError
from master_agent.sandbox import ProgramLimits
from master_agent.values import nearest, quoted, suggestion

Origin = Literal["flag", "environment", ".env", "config", "keyring", "default"]
WireName = Literal["responses", "chat", "assistants", "scripted"]
ThreadStore = Literal["response", "conversation", "none"]
Reusing = Literal["off", "on", "all"]
ImageProviderName = Literal["replicate", "openai", "placeholder"]
ExecEngine = Literal["docker", "podman"]
PREFIX = "MASTER_AGENT_"
_DOTENV_LIMIT = 256 * 1024  # bytes; a stranger's could keep every command from its start
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_PROGRAM = ProgramLimits()
_OPENAI = re.compile(r"https?://([a-z0-9-]+\.)?api\.openai\.com(?=[:/]|$)", re.IGNORECASE)


def bytes_of(value: object) -> object:
    """The number of bytes that a text such as 512M or 2GiB means; anything else as it is."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError("expected a size such as 512M or 2G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


Size = Annotated[int, BeforeValidator(bytes_of), Field(gt=0)]
"""A number of bytes; K, M, G and T are powers of 1,024."""


@dataclass(frozen=True)
class About:
    """What a setting does, its variable where that is not our own; `folder` when a folder's .env may set it."""

    help: str
    variable: str | None = None
    folder: bool = False
    secret: bool = False


def _key(of: str, variable: str) -> About:
    """The key of a provider, which goes to that provider's own address and no other."""
    return About(f"key of {of}", variable=variable, folder=True, secret=True)


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, checked; `origins` says where each came from.

    `beside` are variables that were read and set nothing: the rest of a folder's .env may hold keys of other programs,
    and so may that of a workspace elsewhere.
    """

    openai_api_key: Annotated[
        str | None, About("key of the model's server", variable="OPENAI_API_KEY", folder=True, secret=True)
    ] = field(default=None, repr=False)
    openai_base_url: Annotated[
        str | None,
        About("address of any OpenAI-compatible server, with its /v1", variable="OPENAI_BASE_URL", folder=True),
    ] = None
    anthropic_api_key: Annotated[str | None, _key("Anthropic", "ANTHROPIC_API_KEY")] = field(default=None, repr=False)
    gemini_api_key: Annotated[str | None, _key("Google Gemini", "GEMINI_API_KEY")] = field(default=None, repr=False)
    openrouter_api_key: Annotated[str | None, _key("OpenRouter", "OPENROUTER_API_KEY")] = field(
        default=None, repr=False
    )
    groq_api_key: Annotated[str | None, _key("Groq", "GROQ_API_KEY")] = field(default=None, repr=False)
    mistral_api_key: Annotated[str | None, _key("Mistral", "MISTRAL_API_KEY")] = field(default=None, repr=False)
    deepseek_api_key: Annotated[str | None, _key("DeepSeek", "DEEPSEEK_API_KEY")] = field(default=None, repr=False)
    xai_api_key: Annotated[str | None, _key("xAI", "XAI_API_KEY")] = field(default=None, repr=False)
    together_api_key: Annotated[str | None, _key("Together AI", "TOGETHER_API_KEY")] = field(default=None, repr=False)
    fireworks_api_key: Annotated[str | None, _key("Fireworks AI", "FIREWORKS_API_KEY")] = field(
        default=None, repr=False
    )
    cerebras_api_key: Annotated[str | None, _key("Cerebras", "CEREBRAS_API_KEY")] = field(default=None, repr=False)
    ollama_host: Annotated[str | None, About("where Ollama listens, as Ollama has it", variable="OLLAMA_HOST")] = None
    local_server: Annotated[
        tuple[str, ...], About("address where a local server is looked for, or none; by default the usual ports")
    ] = ()
    replicate_api_token: Annotated[
        str | None, About("token for pictures by Replicate", variable="REPLICATE_API_TOKEN", folder=True, secret=True)
    ] = field(default=None, repr=False)
    replicate_base_url: Annotated[str, About("address of Replicate", variable="REPLICATE_BASE_URL", folder=True)] = (
        "https://api.replicate.com"
    )
    model: Annotated[str | None, About("model of the agents", folder=True)] = None
    planner_model: Annotated[str | None, About("model of the planner; by default that of the agents", folder=True)] = (
        None
    )
    context_size: Annotated[PositiveInt | None, About("tokens that a model reads at once, prompt and answer")] = None
    wire: Annotated[WireName | None, About("how models are spoken to")] = None
    thread_store: Annotated[ThreadStore, About("where the responses wire keeps a thread")] = "response"
    script: Annotated[Path | None, About("answer from a file of scripted replies instead of a model")] = None
    record: Annotated[Path | None, About("write every exchange with models and services to this cassette")] = None
    replay: Annotated[Path | None, About("answer from a recorded cassette, without key or network")] = None
    image_provider: Annotated[ImageProviderName | None, About("who makes pictures", folder=True)] = None
    image_model: Annotated[str | None, About("model that makes pictures", folder=True)] = None
    workspace: Annotated[Path, About("folder that agents work in")] = Path()
    state_dir: Annotated[Path | None, About("folder of the journal")] = None
    cache_dir: Annotated[Path | None, About("folder of the models that were downloaded")] = None
    hf_endpoint: Annotated[str, About("address of the hub that models are downloaded from", variable="HF_ENDPOINT")] = (
        "https://huggingface.co"
    )
    concurrency: Annotated[PositiveInt, About("steps at once")] = 4
    timeout: Annotated[PositiveFloat | None, About("seconds for the whole run")] = None
    step_timeout: Annotated[PositiveFloat, About("seconds for one step")] = 600.0
    call_timeout: Annotated[PositiveFloat, About("seconds for one request to a model")] = 300.0
    attempts: Annotated[PositiveInt, About("tries of a request that can heal")] = 4
    turns: Annotated[PositiveInt, About("requests of one step")] = 20
    max_calls: Annotated[PositiveInt | None, About("requests to models of the whole run")] = None
    max_tokens: Annotated[PositiveInt | None, About("tokens of the whole run, in and out")] = None
    max_steps: Annotated[PositiveInt | None, About("steps that the whole run may start")] = None
    max_cost: Annotated[PositiveFloat | None, About("dollars of the whole run, models and pictures")] = None
    reuse: Annotated[
        Reusing, About("take over steps that an earlier run here did just so; all: with outside effects")
    ] = "off"
    plan_repairs: Annotated[NonNegativeInt, About("times the planner is shown its faults")] = 1
    keyring: Annotated[tuple[str, ...], About("variable whose key is in the keyring of the system")] = ()
    allow_host: Annotated[tuple[str, ...], About("host that may be fetched from though its address is private")] = ()
    proxy: Annotated[str | None, About("HTTP proxy for downloads and models")] = None
    no_exec: Annotated[bool, About("take away the tools that run code")] = False
    exec_python: Annotated[
        Path | None, About("environment whose Python runs code, with its packages to read; a folder, or its python")
    ] = None
    exec_engine: Annotated[ExecEngine | None, About("container engine to run code in, where nothing better works")] = (
        None
    )
    exec_image: Annotated[str | None, About("image for the container engine, with the interpreters")] = None
    exec_seconds: Annotated[PositiveFloat, About("seconds for one program")] = _PROGRAM.seconds
    exec_cpu_seconds: Annotated[PositiveInt, About("seconds of work for one program")] = _PROGRAM.cpu_seconds
    exec_memory: Annotated[Size, About("memory of one program, all its processes together")] = _PROGRAM.memory
    exec_processes: Annotated[PositiveInt, About("processes of one program")] = _PROGRAM.processes
    exec_file_size: Annotated[Size, About("size of one file of a program")] = _PROGRAM.file_bytes
    exec_disk: Annotated[Size, About("size of all files of one program")] = _PROGRAM.disk_bytes
    exec_output: Annotated[Size, About("bytes of output of one program")] = _PROGRAM.output_bytes
    log_file: Annotated[Path | None, About("file that gets every event as a line of JSON")] = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def said(self) -> tuple[str, ...]:
        """The names of the settings that were said on the command line."""
        return tuple(name for name, origin in self.origins.items() if origin == "flag")

    @property
    def own_server(self) -> bool:
        """Whether models are asked for elsewhere than at OpenAI's own address."""
        return bool(self.openai_base_url) and not _OPENAI.match(self.openai_base_url or "")


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings."""

    name: str
    hint: Any
    default: Any
    help: str
    variable: str
    folder: bool
    secret: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def _plain(self) -> Any:
        return get_args(self.hint)[0]

    @property
    def switch(self) -> bool:
        """Whether it is on or off, so that its flag takes no value."""
        return self._plain is bool

    @property
    def size(self) -> bool:
        """Whether it is a number of bytes."""
        return any(isinstance(extra, BeforeValidator) and extra.func is bytes_of for extra in get_args(self.hint)[1:])

    @property
    def repeatable(self) -> bool:
        return get_origin(self._plain) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a closed choice."""
        for option in (self._plain, *get_args(self._plain)):
            if get_origin(option) is Literal:
                return get_args(option)
        return ()

    def read(self, value: object, source: str) -> Any:
        """The value as its type; SettingsError that names its source."""
        if self.repeatable and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        shown = "" if self.secret else f", found {quoted(value)}"
        if isinstance(value, bool) and not self.switch:  # which Python would take for 1 or 0
            raise SettingsError(f"{source}: expected {self.help}{shown}")
        try:
            read = TypeAdapter(self.hint).validate_python(value)
            return read.expanduser() if isinstance(read, Path) else read
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            near = nearest(value, self.choices) if isinstance(value, str) else None
            meant = f'; did you mean "{near}"?' if near else ""
            raise SettingsError(f"{source}: {said[:1].lower()}{said[1:]}{shown}{meant}") from None
        except RuntimeError as error:  # ~somebody, whom this machine does not know
            raise SettingsError(f"{source}: {str(error)[:1].lower()}{str(error)[1:].rstrip('.')}{shown}") from None


@cache
def table() -> Mapping[str, Setting]:
    """Every setting by name, in the order of Settings."""
    hints = get_type_hints(Settings, include_extras=True)
    rows: dict[str, Setting] = {}
    for f in fields(Settings):
        hint = hints[f.name]
        extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        about = next((extra for extra in extras if isinstance(extra, About)), None)
        if about is not None:
            variable = about.variable or PREFIX + f.name.upper()
            rows[f.name] = Setting(f.name, hint, f.default, about.help, variable, about.folder, about.secret)
    return MappingProxyType(rows)


def config_folder(environ: Mapping[str, str]) -> Path:
    """The user's config folder: MASTER_AGENT_CONFIG_DIR, else the platform's own."""
    given = environ.get(f"{PREFIX}CONFIG_DIR")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_config_path

    return user_config_path("master-agent", appauthor=False)


def state_folder(settings: Settings) -> Path:
    """The folder of the journal: the setting, else the platform's own for state."""
    if settings.state_dir is not None:
        return settings.state_dir
    from platformdirs import user_state_path

    return user_state_path("master-agent", appauthor=False)


def cache_folder(settings: Settings) -> Path:
    """The folder of what was downloaded: the setting, else the platform's own for caches."""
    if settings.cache_dir is not None:
        return settings.cache_dir
    from platformdirs import user_cache_path

    return user_cache_path("master-agent", appauthor=False)


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    folder: Path,
    keyring: Callable[[str], str | None] | None = None,
) -> Settings:
    """The settings of this process; SettingsError names the source of a value that cannot be.

    `keyring` gives the key of a variable's name; it is asked only for those that the setting of that name lists, where
    they stand nowhere else: a keyring is slow, and may ask a person to open it.
    """
    config_file = config_folder(environ) / "config.toml"
    dotenv, config = read_dotenv(folder / ".env"), _config(config_file)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    notices: list[str] = []
    for name, setting in table().items():
        sources: tuple[tuple[Origin, object, str], ...] = (
            ("flag", flags.get(name), setting.flag),
            ("environment", environ.get(setting.variable), setting.variable),
            (".env", dotenv.get(setting.variable), f"{setting.variable} in .env"),
            ("config", config.get(name), f"{name} in {config_file}"),
        )
        for origin, value, source in sources:
            if value is None or value in ((), [], ""):
                continue
            if origin == ".env" and not setting.folder:
                notices.append(
                    f"{setting.variable} in .env is not used: a folder may set keys and models, nothing else. "
                    f"Use {setting.flag}, the environment, or {config_file}."
                )
                continue
            values[name], origins[name] = setting.read(value, source), origin
            break
        else:
            origins[name] = "default"
    for name, setting in table().items():
        kept = setting.secret and origins[name] == "default" and setting.variable in values.get("keyring", ())
        if kept and keyring is not None and (key := keyring(setting.variable)):
            values[name], origins[name] = setting.read(key, f"{setting.variable} in the keyring"), "keyring"
    used = {table()[name].variable for name, origin in origins.items() if origin == ".env"}
    beside = [(variable, value) for variable, value in dotenv.items() if value and variable not in used]
    if (workspace := values.get("workspace")) is not None and _elsewhere(workspace / ".env", folder / ".env"):
        beside += _readable(workspace / ".env")
    notices += _part_keys_from_strange_servers(values, origins, dotenv)
    return Settings(**values, origins=origins, notices=tuple(notices), beside=tuple(beside))


def _part_keys_from_strange_servers(
    values: dict[str, Any], origins: dict[str, Origin], dotenv: Mapping[str, str | None]
) -> list[str]:
    """An address from a folder's .env gets only a key from the same .env; others are not sent to it."""
    notices: list[str] = []
    for address, key in (("openai_base_url", "openai_api_key"), ("replicate_base_url", "replicate_api_token")):
        if origins[address] == ".env" and origins[key] not in (".env", "default"):
            names = table()
            if own := dotenv.get(names[key].variable):
                values[key], origins[key] = own, ".env"
                continue
            values.pop(key)
            notices.append(
                f"{names[address].variable} comes from .env of this folder, so your {names[key].variable} is not sent "
                f"there. To send a key to it, put {names[key].variable} into the same .env."
            )
            origins[key] = "default"
    return notices


def read_dotenv(path: Path) -> dict[str, str | None]:
    """The variables of a .env file, nothing filled in; SettingsError names the first line that cannot be read."""
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream

    try:
        with path.open("rb") as file:
            content = file.read(_DOTENV_LIMIT + 1)
        if len(content) > _DOTENV_LIMIT:
            raise SettingsError(f"{path} holds more than {_DOTENV_LIMIT:,} bytes; it is no file of settings")
        bindings = list(parse_stream(StringIO(content.decode("utf-8-sig"), newline=None)))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    for binding in bindings:
        if binding.error:  # the line itself may hold a secret
            before = binding.original.string[: -len(binding.original.string.lstrip()) or None]
            line = binding.original.line + before.count("\n")
            raise SettingsError(
                f"line {line} of {path} cannot be read",
                hint="A line is NAME=value, with quotes that match, or a comment that begins with #.",
            )
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


def _elsewhere(path: Path, other: Path) -> bool:
    """Whether there is such a file, and it is another one."""
    try:
        return path.is_file() and not (other.exists() and path.samefile(other))
    except OSError:  # whoever opens the workspace says what is wrong with it
        return False


def _readable(path: Path) -> Iterator[tuple[str, str]]:
    """The variables of a .env file that sets nothing, as far as they can be read: no fault of it stops a run."""
    from dotenv.parser import parse_stream

    try:
        with path.open("rb") as file:
            text = file.read(_DOTENV_LIMIT).decode("utf-8-sig", "replace")
    except OSError:
        return
    for binding in parse_stream(StringIO(text, newline=None)):
        if binding.key is not None and binding.value:
            yield binding.key, binding.value
        elif binding.error:
            for line in binding.original.string.splitlines():
                name, _, value = line.strip().removeprefix("export ").partition("=")
                yield name.strip(), value.strip().strip("\"'")


def _config(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    names = table()
    for key in config:
        if key not in names:
            raise SettingsError(f'{path}: unknown key "{key}"{suggestion(key, names)}')
        if names[key].secret:
            raise SettingsError(
                f"{path}: {key} is a secret, and no config file is a place for one",
                hint=f"Put {names[key].variable} into the environment or into .env.",
            )
    return config
