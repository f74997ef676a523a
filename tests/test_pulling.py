"""Models on one's own machine, from the command line: pulled, listed, removed, and offered to whoever has none."""

import json
import random
import re
from pathlib import Path

import pytest

from master_agent.embedded.memory import total
from master_agent.hub import suggested
from tests.conftest import Cli
from tests.servers.hub import Hub
from tests.terminal import AtTerminal
from tests.test_embedded import LLAMA, head

MODEL = head(*LLAMA) + random.Random(3).randbytes(4_000_000)
NAME = "maker/Tiny-GGUF"


def at(hub: Hub) -> tuple[str, ...]:
    return ("--hf-endpoint", hub.origin, "--allow-host", "127.0.0.1")


def test_a_model_is_pulled_listed_and_removed(cli: Cli) -> None:
    with Hub({NAME: {"Tiny-Q4_K_M.gguf": MODEL}}) as hub:
        assert "pull [OPTIONS] [NAME]" in cli("models", "pull", "--help").out
        asked = cli("models", "pull", NAME, *at(hub))
        assert (asked.code, hub.files.requests) == (2, [])
        assert "Tiny-Q4_K_M: 4.0 MB from 127.0.0.1" in asked.err and "--yes" in asked.err

        ran = cli("models", "pull", NAME, "--yes", "--json", *at(hub))
        again = cli("models", "pull", NAME, "--yes", *at(hub))
        path = Path(ran.json["path"])
    assert (ran.code, ran.json["model"], ran.json["bytes"]) == (0, "local:Tiny-Q4_K_M", len(MODEL))
    assert path.read_bytes() == MODEL and path.is_relative_to(cli.home / "cache")
    assert ran.err.splitlines()[-1] == "  4.0 MB of 4.0 MB"
    assert "is there already" in again.err and len(hub.files.requests) == 1
    with Hub({NAME: {"Tiny-Q4_K_M.gguf": MODEL + b"newer"}}) as hub:
        newer = cli("models", "pull", NAME, *at(hub))
    assert (newer.code, path.stat().st_size) == (2, len(MODEL)) and "takes the place of the file" in newer.err

    (path.parent / "broken.gguf").write_bytes(b"?")
    listed, data = cli("models"), cli("models", "--json").json["embedded"]
    assert listed.code == 0
    assert "  local:Tiny-Q4_K_M  4.0 MB, from 0.8 GB of memory, up to 32,768 tokens" in listed.out
    assert "broken.gguf is no GGUF file" in listed.err
    assert [model["model"] for model in data["models"]] == ["local:Tiny-Q4_K_M"]
    assert [one["name"] for one in data["downloadable"] if one["suggested"]] == [suggested(total()).name]

    kept = cli("models", "remove", "Tiny-Q4_K_M")
    assert (kept.code, path.is_file()) == (2, True) and "--yes" in kept.err
    gone = cli("models", "remove", "local:tiny-q4_k_m", "--yes")
    assert (gone.code, path.is_file()) == (0, False) and "4.0 MB are free again" in gone.err
    none = cli("models", "remove", "Tiny-Q4_K_M", "--yes")
    assert none.code == 2 and 'no model "Tiny-Q4_K_M" was downloaded' in none.err


def test_a_download_shows_a_bar_and_goes_on_after_ctrl_c(cli: Cli) -> None:
    with Hub({NAME: {"Tiny-Q4_K_M.gguf": MODEL}}) as hub:
        hub.files.holds_at = 2 << 20
        terminal = AtTerminal(cli, "models", "pull", NAME, *at(hub))
        terminal.child.expect("Download it")
        terminal.child.sendintr()
        code, shown = terminal.end()
        assert code == 130 and "is kept" not in shown  # for there is nothing yet
        (cli.home / "cache" / "models").mkdir(parents=True)
        (cli.home / "cache" / "models" / "Tiny-Q4_K_M.gguf.part").touch()  # as a full disk leaves it
        assert cli("models", "--json").json["embedded"]["unfinished"] == []

        terminal = AtTerminal(cli, "models", "pull", NAME, *at(hub), columns=80)
        terminal.answer("Download it", "y\r")
        terminal.child.expect(r"[1-3]\.\d/4\.0 MB")
        terminal.child.sendintr()
        code, shown = terminal.end()
        drawn = [line for line in re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown).splitlines() if "━" in line]
        assert drawn and max(map(len, drawn)) < 78, "what the terminal writes of Ctrl-C breaks no line"
        assert code == 130 and "the same command goes on from it" in shown
        (part,) = cli("models", "--json").json["embedded"]["unfinished"]
        assert part["name"] == "Tiny-Q4_K_M" and 0 < part["bytes"] < part["of_bytes"] == len(MODEL)
        said = f"of 4.0 MB of a download that broke off; go on: master-agent models pull {part['asked']}"
        assert part["asked"] == NAME and said in cli("models").out
        note = cli.home / "cache" / "models" / "Tiny-Q4_K_M.gguf.part.json"
        noted = json.loads(note.read_text())
        note.write_text(json.dumps({key: noted[key] for key in ("sha256", "etag")}))  # of an address with a query
        assert "of a download that broke off; the same command goes on with it" in cli("models").out

        hub.files.holds_at = None
        ran = cli("models", "pull", NAME, "--yes", "--json", *at(hub))

    assert ran.code == 0 and Path(ran.json["path"]).read_bytes() == MODEL
    assert int(hub.files.requests[-1].headers["range"].strip("bytes=-")) > 0


def offered(cli: Cli, hub: Hub, task: str, *arguments: str) -> AtTerminal:
    """A first run at a terminal, with a hub that the user's config names, at the question whether to download."""
    config = cli.home / "config"
    config.mkdir(exist_ok=True)
    (config / "config.toml").write_text(f'hf_endpoint = "{hub.origin}"\nallow_host = ["127.0.0.1"]\n')
    terminal = AtTerminal(cli, task, *arguments)
    terminal.child.expect(f"{suggested(total()).name}, a download of about")
    return terminal


def test_who_takes_no_offered_model_is_told_what_else_would_help(cli: Cli) -> None:
    pytest.importorskip("xllamacpp", reason="there is no wheel of the engine for this machine")
    known = suggested(total())
    with Hub({known.repository: {known.file: MODEL}}) as hub:
        terminal = offered(cli, hub, "Write some code")
        terminal.answer("Download it", "n\r")
        code, shown = terminal.end()
        terminal = offered(cli, hub, "Write some code")
        terminal.child.expect("Download it")
        terminal.child.sendintr()
        stopped, told = terminal.end()

    assert stopped == 130 and "interrupted by Ctrl-C" in told and "Traceback" not in told
    assert code == 4 and "Any of these will do:" in " ".join(shown.split())
    assert (hub.requests, hub.files.requests) == ([], [])  # the hub is asked nothing before the answer either


@pytest.mark.slow
def test_who_has_no_model_is_offered_one_at_a_terminal_and_runs_with_it(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="there is no wheel of the engine for this machine")
    from tests.tiny_gguf import write

    write(tmp_path / "tiny.gguf")
    known = suggested(total())
    with Hub({known.repository: {known.file: (tmp_path / "tiny.gguf").read_bytes()}}) as hub:
        terminal = offered(cli, hub, "Draw an image", "--image-provider", "placeholder")
        terminal.answer("Download it", "y\r")
        terminal.answer("Run it", "y\r")
        code, shown = terminal.end()

    assert code == 0, shown
    assert list(cli.folder.rglob("*.png"))
    doctor = cli("doctor")
    assert doctor.code == 0, doctor.out
    assert f"ok       embedded engine: models in {cli.home}/cache/models: {known.name}" in doctor.out
    assert f"agents: {known.name}, planner: {known.name}; answered in" in doctor.out
