"""Settings: the order of their sources, where each value came from, and what a folder's .env may not do."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from master_agent.errors import SettingsError
from master_agent.providers import HOSTED, LOCAL, OPENAI
from master_agent.settings import Origin, Settings, config_folder, load, state_folder, table

KEYS = {f"{row.name}_api_key" for row in HOSTED}

# For every setting four values as texts, of which each source gives another, and what they become.
SAMPLES: dict[str, tuple[list[str], list[Any]]] = {
    "openai_api_key": (["sk-a", "sk-b", "sk-c", "sk-d"], ["sk-a", "sk-b", "sk-c", "sk-d"]),
    "openai_base_url": (["http://a/v1", "http://b/v1", "http://c/v1", "http://d/v1"], []),
    **{name: (["k-a", "k-b", "k-c", "k-d"], ["k-a", "k-b", "k-c", "k-d"]) for name in sorted(KEYS)},
    "ollama_host": (["a", "b:1", "http://c", "d"], []),
    "local_server": (
        ["http://a, http://b", "none", "http://c", "d"],
        [("http://a", "http://b"), ("none",), ("http://c",), ("d",)],
    ),
    "replicate_api_token": (["r8-a", "r8-b", "r8-c", "r8-d"], []),
    "replicate_base_url": (["http://a", "http://b", "http://c", "http://d"], []),
    "model": (["a", "b", "c", "d"], []),
    "planner_model": (["a", "b", "c", "d"], []),
    "context_size": (["1024", "2048", "3", "5"], [1024, 2048, 3, 5]),
    "wire": (["chat", "scripted", "responses", "assistants"], []),
    "thread_store": (["none", "conversation", "response", "none"], []),
    "script": (["a", "b", "c", "~/d"], [Path("a"), Path("b"), Path("c"), Path.home() / "d"]),
    "record": (["a", "b", "c", "d"], [Path("a"), Path("b"), Path("c"), Path("d")]),
    "replay": (["a", "b", "c", "d"], [Path("a"), Path("b"), Path("c"), Path("d")]),
    "image_provider": (["replicate", "placeholder", "openai", "replicate"], []),
    "image_model": (["a", "b", "c", "d"], []),
    "workspace": (["a", "b", "c", "d"], [Path("a"), Path("b"), Path("c"), Path("d")]),
    "state_dir": (["a", "b", "c", "d"], [Path("a"), Path("b"), Path("c"), Path("d")]),
    "cache_dir": (["a", "b", "c", "d"], [Path("a"), Path("b"), Path("c"), Path("d")]),
    "hf_endpoint": (["http://a", "http://b", "http://c", "http://d"], []),
    "concurrency": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "timeout": (["1", "2.5", "3", "5"], [1.0, 2.5, 3.0, 5.0]),
    "step_timeout": (["1", "2.5", "3", "5"], [1.0, 2.5, 3.0, 5.0]),
    "call_timeout": (["1", "2.5", "3", "5"], [1.0, 2.5, 3.0, 5.0]),
    "attempts": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "turns": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "max_calls": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "max_tokens": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "max_cost": (["1", "2.5", "3", "5"], [1.0, 2.5, 3.0, 5.0]),
    "max_steps": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "reuse": (["on", "all", "off", "on"], []),
    "plan_repairs": (["0", "2", "3", "5"], [0, 2, 3, 5]),
    "keyring": (["A, B", "C", "D", "E,"], [("A", "B"), ("C",), ("D",), ("E",)]),
    "allow_host": (["a, b", "c", "d", "e,"], [("a", "b"), ("c",), ("d",), ("e",)]),
    "proxy": (["http://a:1", "http://b:1", "http://c:1", "http://d:1"], []),
    "no_exec": (["true", "false", "1", "no"], [True, False, True, False]),
    "exec_python": (["a", "b", "c", "~/d"], [Path("a"), Path("b"), Path("c"), Path.home() / "d"]),
    "exec_engine": (["docker", "podman", "docker", "podman"], []),
    "exec_image": (["a", "b", "c", "d"], []),
    "exec_seconds": (["1", "2.5", "3", "5"], [1.0, 2.5, 3.0, 5.0]),
    "exec_cpu_seconds": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "exec_memory": (["1", "2K", "3m", "1.5GiB"], [1, 2048, 3 * 1024**2, 1536 * 1024**2]),
    "exec_processes": (["1", "2", "3", "5"], [1, 2, 3, 5]),
    "exec_file_size": (["1", "2 KB", "3M", "4T"], [1, 2048, 3 * 1024**2, 4 * 1024**4]),
    "exec_disk": (["1", "2k", "3MB", "4G"], [1, 2048, 3 * 1024**2, 4 * 1024**3]),
    "exec_output": (["1", "2K", "3M", "4G"], [1, 2048, 3 * 1024**2, 4 * 1024**3]),
    "log_file": (["a", "b", "c", "d"], [Path("a"), Path("b"), Path("c"), Path("d")]),
}
# What a folder's .env may set: keys, their addresses and models. Whoever adds to it says so here.
OF_A_FOLDER = KEYS | {
    "openai_api_key",
    "openai_base_url",
    "replicate_api_token",
    "replicate_base_url",
    "model",
    "planner_model",
    "image_provider",
    "image_model",
}
SECRET = KEYS | {"openai_api_key", "replicate_api_token"}
NAMES = sorted(table())


class Machine:
    """A home and a folder, with the sources of settings in them."""

    def __init__(self, root: Path) -> None:
        self.home, self.folder = root / "home", root / "folder"
        self.home.mkdir()
        self.folder.mkdir()
        self.environ = {"MASTER_AGENT_CONFIG_DIR": str(self.home)}

    def config(self, content: str | bytes) -> None:
        (self.home / "config.toml").write_bytes(content.encode() if isinstance(content, str) else content)

    def dotenv(self, content: str | bytes) -> None:
        (self.folder / ".env").write_bytes(content.encode() if isinstance(content, str) else content)

    def load(self, environ: Mapping[str, str] | None = None, /, **flags: object) -> Settings:
        return load(flags, {**self.environ, **(environ or {})}, self.folder)

    def fault(self, environ: Mapping[str, str] | None = None, /, **flags: object) -> str:
        with pytest.raises(SettingsError) as caught:
            self.load(environ, **flags)
        return f"{caught.value.message} {caught.value.hint or ''}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_setting_has_samples_here() -> None:
    assert sorted(SAMPLES) == NAMES
    assert {name for name, setting in table().items() if setting.folder} == OF_A_FOLDER
    assert {name for name, setting in table().items() if setting.secret} == SECRET


def test_the_key_of_every_provider_is_a_setting_under_the_providers_own_name() -> None:
    variables = {name: setting.variable for name, setting in table().items()}
    assert all(variables[f"{row.name}_api_key"] == row.key for row in (OPENAI, *HOSTED))
    assert [row.key for row in LOCAL] == [None] * len(LOCAL)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_has_one_name_in_three_forms_and_a_help(name: str) -> None:
    setting = table()[name]
    assert setting.flag == "--" + name.replace("_", "-")
    assert setting.variable in (f"MASTER_AGENT_{name.upper()}", name.upper())
    assert setting.help


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_takes_the_first_of_flag_environment_dotenv_config_and_default(machine: Machine, name: str) -> None:
    texts, became = SAMPLES[name]
    values = dict(zip(texts, became or texts, strict=True))
    flag, variable, dotenv, config = texts
    setting = table()[name]
    found: list[tuple[Any, Origin]] = []

    def look(environ: Mapping[str, str] | None = None, **flags: object) -> None:
        settings = machine.load(environ, **flags)
        found.append((getattr(settings, name), settings.origins[name]))

    look()
    if name not in SECRET:
        machine.config(f'{name} = "{config}"')
        look()
    machine.dotenv(f"{setting.variable}={dotenv}")
    look()
    look({setting.variable: variable})
    look({setting.variable: variable}, **{name: flag})
    look({setting.variable: ""}, **{name: None})

    below: list[tuple[Any, Origin]] = [(setting.default, "default")]
    if name not in SECRET:
        below.append((values[config], "config"))
    of_dotenv: tuple[Any, Origin] = (values[dotenv], ".env") if name in OF_A_FOLDER else below[-1]
    assert found == [*below, of_dotenv, (values[variable], "environment"), (values[flag], "flag"), of_dotenv]


@pytest.mark.parametrize("name", sorted(set(NAMES) - OF_A_FOLDER))
def test_a_folder_cannot_widen_what_a_run_may_do_and_the_user_is_told(machine: Machine, name: str) -> None:
    setting = table()[name]
    machine.dotenv(f"{setting.variable}={SAMPLES[name][0][0]}")
    settings = machine.load()
    assert (getattr(settings, name), settings.origins[name]) == (setting.default, "default")
    (notice,) = settings.notices
    assert notice.startswith(f"{setting.variable} in .env is not used")
    assert setting.flag in notice
    assert machine.load(**{name: SAMPLES[name][0][0]}).notices == (), "nobody asks for what is set anyway"


def test_a_dotenv_is_read_without_touching_the_environment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    machine.dotenv("\ufeffOPENAI_API_KEY='sk-x' # mine\nexport MASTER_AGENT_MODEL=\"m${HOME}\"\nOTHER=1\n")
    settings = machine.load()
    assert (settings.openai_api_key, settings.model) == ("sk-x", "m${HOME}")
    assert "OPENAI_API_KEY" not in os.environ


@dataclass(frozen=True)
class Server:
    """A server's address and key, as variables and as settings."""

    address: str
    key: str

    def address_in(self, settings: Settings) -> object:
        return getattr(settings, self.address.lower())

    def key_in(self, settings: Settings) -> tuple[object, Origin]:
        return getattr(settings, self.key.lower()), settings.origins[self.key.lower()]


SERVERS = [Server("OPENAI_BASE_URL", "OPENAI_API_KEY"), Server("REPLICATE_BASE_URL", "REPLICATE_API_TOKEN")]
each_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.address)


@each_server
def test_a_folders_address_never_gets_the_users_key(machine: Machine, server: Server) -> None:
    machine.dotenv(f"{server.address}=http://stranger.example")
    for settings in (machine.load({server.key: "mine"}), machine.load(**{server.key.lower(): "mine"})):
        assert server.address_in(settings) == "http://stranger.example"
        assert server.key_in(settings) == (None, "default")
        (notice,) = settings.notices
        assert f"{server.address} comes from .env of this folder, so your {server.key} is not sent there" in notice
        assert "mine" not in notice


@each_server
def test_a_folders_address_gets_the_folders_own_key_whatever_else_there_is(machine: Machine, server: Server) -> None:
    machine.dotenv(f"{server.address}=http://stranger.example\n{server.key}=theirs")
    for settings in (
        machine.load(),
        machine.load({server.key: "mine"}),
        machine.load(**{server.key.lower(): "mine"}),
    ):
        assert server.key_in(settings) == ("theirs", ".env")
        assert settings.notices == ()


@each_server
def test_the_users_own_address_gets_the_users_key(machine: Machine, server: Server) -> None:
    machine.dotenv(f"{server.address}=http://stranger.example")
    settings = machine.load({server.address: "http://mine.example", server.key: "mine"})
    assert (server.address_in(settings), server.key_in(settings)) == ("http://mine.example", ("mine", "environment"))
    machine.dotenv("")
    machine.config(f'{server.address.lower()} = "http://mine.example"')
    assert server.key_in(machine.load({server.key: "mine"})) == ("mine", "environment")


@each_server
def test_a_folders_address_of_one_server_is_no_matter_of_the_others(machine: Machine, server: Server) -> None:
    machine.dotenv(f"{server.address}=http://stranger.example")
    (other,) = (one for one in SERVERS if one != server)
    assert other.key_in(machine.load({other.key: "mine"})) == ("mine", "environment")


@pytest.mark.parametrize(
    ("url", "own"),
    [
        (None, False),
        ("https://api.openai.com/v1", False),
        ("https://API.openai.com", False),
        ("http://localhost:11434/v1", True),
        ("https://api.openai.com.example/v1", True),
        ("https://example/?//api.openai.com", True),
    ],
)
def test_a_server_of_ones_own_is_any_but_openais(url: str | None, own: bool) -> None:
    assert Settings(openai_base_url=url).own_server is own


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('modell = "x"', 'unknown key "modell"; did you mean "model"?'),
        ("[planner]\nmodel = 1", 'unknown key "planner"; did you mean "planner_model"?'),
        ("concurrency = 0", "concurrency in "),
        ("concurrency = 0", "input should be greater than 0, found 0"),
        ("concurrency = true", "expected steps at once, found true"),
        ("timeout = true", "expected seconds for the whole run, found true"),
        ("concurrency = 2.5", "found 2.5"),
        ('exec_memory = "much"', 'expected a size such as 512M or 2G, found "much"'),
        ("exec_memory = 0", "input should be greater than 0, found 0"),
        ("exec_disk = true", "expected size of all files of one program, found true"),
        ('no_exec = "perhaps"', 'found "perhaps"'),
        ('timeout = "soon"', 'found "soon"'),
        ("timeout = -1", "input should be greater than 0, found -1"),
        ("timeout = nan", "input should be greater than 0"),
        ("plan_repairs = -1", "input should be greater than or equal to 0, found -1"),
        ('wire = "chatt"', "'chat'"),
        ('wire = "chatt"', 'found "chatt"; did you mean "chat"?'),
        ('image_provider = "painter"', 'found "painter"'),
        ("model = 5", "input should be a valid string, found 5"),
        ("allow_host = [1]", "input should be a valid string"),
        ("workspace = []", ""),
        ("workspace = 5", "found 5"),
        ('workspace = "~nobody-of-this-name/x"', "could not determine home directory"),
        ("model = ", "cannot be read"),
        (b"\xff", "cannot be read"),
        ("concurrency = " + "9" * 5000, "cannot be read"),
        ("x = " + "[" * 2000 + "]" * 2000, "cannot be read"),
    ],
)
def test_a_wrong_config_is_told_with_its_file_and_what_is_right(
    machine: Machine, config: str | bytes, said: str
) -> None:
    machine.config(config)
    if not said:
        assert machine.load().workspace == Path()
        return
    told = machine.fault()
    assert said in told
    assert str(machine.home / "config.toml") in told


def test_a_wrong_flag_or_variable_is_told_by_its_name(machine: Machine) -> None:
    assert machine.fault(concurrency="many").startswith("--concurrency: ")
    assert machine.fault({"MASTER_AGENT_TURNS": "0"}).startswith("MASTER_AGENT_TURNS: ")
    machine.dotenv("MASTER_AGENT_IMAGE_PROVIDER=me")
    assert machine.fault().startswith("MASTER_AGENT_IMAGE_PROVIDER in .env: ")


def test_sources_that_cannot_be_read_are_told(machine: Machine) -> None:
    machine.dotenv(b"OPENAI_API_KEY=\xff")
    assert ".env cannot be read" in machine.fault()
    machine.dotenv(b"NAME=value\n" * 24_000)
    assert ".env holds more than 262,144 bytes" in machine.fault()
    machine.dotenv("")
    (machine.home / "config.toml").mkdir()
    assert "config.toml cannot be read" in machine.fault()


@pytest.mark.parametrize("name", sorted(SECRET))
def test_a_secret_is_shown_nowhere(machine: Machine, name: str) -> None:
    setting = table()[name]
    machine.config(f'{name} = "hush-hush"')
    told = machine.fault()
    assert "no config file is a place for one" in told
    assert setting.variable in told
    machine.config("")
    settings = machine.load({setting.variable: "hush-hush"})
    with pytest.raises(SettingsError) as caught:
        setting.read(["hush-hush"], "somewhere")
    for shown in (told, str(caught.value), repr(settings), *settings.notices):
        assert "hush" not in shown
    assert getattr(settings, name) == "hush-hush"


def test_an_empty_value_is_no_value(machine: Machine) -> None:
    machine.config('model = ""\nallow_host = []')
    machine.dotenv("MASTER_AGENT_PLANNER_MODEL=\nOPENAI_API_KEY")
    settings = machine.load({"MASTER_AGENT_TIMEOUT": ""}, image_model="", allow_host=())
    assert settings == Settings(origins=dict.fromkeys(table(), "default"))


def test_a_flag_that_is_given_several_times_is_a_list(machine: Machine) -> None:
    assert machine.load(allow_host=("a", "b")).allow_host == ("a", "b")
    machine.config('allow_host = ["c", "d"]')
    assert machine.load().allow_host == ("c", "d")


def test_the_folders_of_the_user_can_be_named(tmp_path: Path) -> None:
    assert config_folder({"MASTER_AGENT_CONFIG_DIR": "~/x"}) == Path.home() / "x"
    assert config_folder({}).name == "master-agent"
    assert state_folder(Settings(state_dir=tmp_path)) == tmp_path
    assert state_folder(Settings()).name == "master-agent"
