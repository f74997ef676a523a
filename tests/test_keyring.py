"""Keys in the keyring of the system: found where they stand nowhere else, and put there by `init`."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.servers.chat import ChatServer, reply
from tests.terminal import AtTerminal

KEY = "canary-Vn8BxS6hRj1PqM4t"
BACKEND = """import json, os, pathlib
import keyring.backend
class Keyring(keyring.backend.KeyringBackend):
    priority = 1
    file = pathlib.Path(os.environ["HOME"], "keyring.json")
    def get_password(self, service, name):
        return json.loads(self.file.read_text()).get(f"{service} {name}")
    def set_password(self, service, name, key):
        kept = json.loads(self.file.read_text())
        self.file.write_text(json.dumps({**kept, f"{service} {name}": key}))
"""


@pytest.fixture
def ring(cli: Cli) -> Path:
    """A keyring in a file, as a backend of the package `keyring`."""
    (cli.home / "site").mkdir()
    (cli.home / "site" / "kept_in_a_file.py").write_text(BACKEND)
    kept = cli.home / "keyring.json"
    kept.write_text(json.dumps({"master-agent OPENAI_API_KEY": KEY}))
    cli.variables["PYTHONPATH"] = f"{cli.home / 'site'}{os.pathsep}{cli.environ['PYTHONPATH']}"
    cli.variables["PYTHON_KEYRING_BACKEND"] = "kept_in_a_file.Keyring"
    cli.variables["MASTER_AGENT_KEYRING"] = "OPENAI_API_KEY"
    return kept


def sent(cli: Cli, *flags: str) -> tuple[int, set[str | None]]:
    """How a run ended, and the keys that the model's server was sent."""
    with ChatServer([reply("Hello.")] * 2) as server:
        if "--of-the-folder" in flags:
            cli.file(".env", f"OPENAI_BASE_URL={server.base_url}\n")
        where = () if "--of-the-folder" in flags else ("--openai-base-url", server.base_url)
        ran = cli("agents", "run", "code", "Greet", "--model=m", *where)
    return ran.code, {request.headers.get("authorization") for request in server.requests}


def test_a_key_that_stands_nowhere_else_is_taken_from_the_keyring(cli: Cli, ring: Path) -> None:
    assert sent(cli) == (0, {f"Bearer {KEY}"})
    cli.variables["OPENAI_API_KEY"] = "sk-of-the-environment"
    assert sent(cli) == (0, {"Bearer sk-of-the-environment"})


def test_what_is_not_said_to_be_there_is_not_asked_for(cli: Cli, ring: Path) -> None:
    cli.variables["MASTER_AGENT_KEYRING"] = "REPLICATE_API_TOKEN"
    assert sent(cli) == (0, {"Bearer no-key"})


def test_it_is_never_sent_to_a_server_that_a_folder_names(cli: Cli, ring: Path) -> None:
    assert sent(cli, "--of-the-folder") == (0, {"Bearer no-key"})


def test_a_keyring_that_breaks_holds_nothing(cli: Cli, ring: Path) -> None:
    ring.write_text("no JSON")
    assert sent(cli) == (0, {"Bearer no-key"})


def test_init_puts_keys_there_and_an_address_beside_them(cli: Cli, ring: Path) -> None:
    cli.variables["MASTER_AGENT_KEYRING"] = ""
    terminal = AtTerminal(cli, "init")
    for question, said in (
        ("Keep keys", "keyring"),
        ("OPENAI_API_KEY", "sk-typed-by-hand"),
        ("OPENAI_BASE", "http://h/v1"),
    ):
        terminal.answer(question, f"{said}\n")
    for question in ("REPLICATE_API_TOKEN", "model", "planner_model", "image_provider"):
        terminal.answer(question, "\n")
    code, shown = terminal.end()

    assert (code, "sk-typed" in shown, (cli.folder / ".env").exists()) == (0, False, False)
    assert json.loads(ring.read_text())["master-agent OPENAI_API_KEY"] == "sk-typed-by-hand"
    written = (cli.home / "config" / "config.toml").read_text()
    assert written == 'openai_base_url = "http://h/v1"\nkeyring = ["OPENAI_API_KEY"]\n'
