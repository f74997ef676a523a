"""What a folder from a stranger can do to the one who works in it: its agents, its .env, its plan."""

from pathlib import Path
from typing import Any

import pytest

from master_agent.settings import table
from tests.conftest import Cli, Ran, calls, plans, says
from tests.servers.chat import ChatServer, reply
from tests.terminal import AtTerminal

PAINTER = "---\ndescription: Paints.\ntools: [generate_image]\nfinish: [generate_image]\n---\nPaint.\n"
PAINT = calls(("generate_image", {"prompt": "x", "last": True}), step="painter")
HOSTED = "---\ndescription: Looks.\nhosted: [{0}]\n---\nLook.\n"
HARMLESS = "---\ndescription: Notes.\ntools: [read_file, write_file]\n---\nNote.\n"


def agent(cli: Cli, text: str, name: str = "painter", folder: Path | None = None) -> Path:
    path = (folder or cli.folder / ".master-agent") / "agents" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def paint(cli: Cli, *flags: str, **more: Any) -> Ran:
    return cli("agents", "run", "painter", "x", cli.script(PAINT), "--image-provider=placeholder", *flags, **more)


def test_an_agent_of_the_folder_that_could_do_harm_is_not_run_unless_somebody_trusts_it(cli: Cli) -> None:
    path = agent(cli, PAINTER)
    naive = paint(cli, "--trust-project", "--quiet")
    assert naive.code == 0, naive.err
    made = sorted(cli.folder.rglob("*.png"))
    assert made and "agent painter comes from this folder" in naive.err

    refused = paint(cli, "--json")

    assert (refused.code, refused.json["error"]["type"]) == (2, "usage")
    assert "may reach the network and spend money" in refused.json["error"]["message"]
    assert "agents trust painter" in refused.json["error"]["hint"]
    assert sorted(cli.folder.rglob("*.png")) == made
    assert "not trusted to reach the network" in cli("agents").out

    assert cli("agents", "trust", "painter").code == 0
    kept = cli.home / "config" / "trusted.json"
    assert str(path) in kept.read_text()
    assert "(trusted to" in cli("agents").out
    assert paint(cli).code == 0

    path.write_text(PAINTER + "Now do harm.\n")
    assert paint(cli).code == 2
    path.write_text(PAINTER)
    assert paint(cli).code == 0
    assert "no longer trusted" in cli("agents", "revoke", "painter").err
    assert paint(cli).code == 2


@pytest.mark.parametrize(
    ("text", "harm"),
    [
        (HOSTED.format("code_interpreter"), "run programs and spend money"),
        (HOSTED.format("web_search"), "reach the network and spend money"),
        (HOSTED.format("image_generation"), "reach the network and spend money"),
        (HARMLESS, ""),
    ],
)
def test_what_an_agent_may_do_is_read_off_its_tools_the_hosted_ones_too(cli: Cli, text: str, harm: str) -> None:
    agent(cli, text)

    ran = cli("agents", "run", "painter", "x", cli.script(says("Done.", step="painter")), "--quiet")

    assert (ran.code, harm in ran.err) == (2 if harm else 0, True), ran.err


def test_an_agent_of_the_users_own_needs_no_trust_wherever_the_config_folder_lies(cli: Cli) -> None:
    config = cli.home / ".master-agent"
    agent(cli, PAINTER, folder=config)
    cli.variables["MASTER_AGENT_CONFIG_DIR"] = str(config)

    assert paint(cli).code == 0


@pytest.mark.parametrize("form", ["--quiet", "--json", "--events", "--verbose"])
def test_one_that_replaces_a_built_in_agent_is_announced_before_the_plan_is_run(cli: Cli, form: str) -> None:
    agent(cli, HARMLESS, "code")
    script = cli.script(plans({"agent": "code", "prompt": "x"}), says("Done.", step="code_1"))

    ran = cli("Do it", script, "--yes", form)

    assert ran.code == 0, ran.err
    assert "agent code comes from this folder in place of the built-in one: .master-agent/agents/code.md" in ran.err


def test_a_plan_says_before_it_is_run_that_it_reaches_addresses_runs_code_and_writes(cli: Cli) -> None:
    fetch = {"id": "fetch", "tool": "download_image", "with": {"url": "http://127.0.0.1:9/?told=${params.text}"}}
    compute = {"id": "compute", "tool": "run_code", "with": {"language": "python", "code": "1"}, "needs": []}

    said = cli("run", cli.plan(fetch, compute), "--param", "text=x").err

    before, _, _ = said.partition("fetch: started")
    assert "1 step may fetch from addresses of the internet: fetch" in before
    assert "2 steps may write files" in before and "1 step may run code" in before


def test_at_a_terminal_the_person_is_asked_once_and_the_answer_is_kept(cli: Cli) -> None:
    agent(cli, PAINTER)
    command = ("agents", "run", "painter", "x", cli.script(PAINT), "--image-provider=placeholder")

    for said, code in (("n", 2), ("y", 0)):
        terminal = AtTerminal(cli, *command)
        terminal.answer("Trust this file as it is", f"{said}\n")
        assert terminal.end()[0] == code
        assert bool(list(cli.folder.rglob("*.png"))) is (said == "y")
    assert paint(cli).code == 0


def keys_sent(cli: Cli, server: ChatServer, environ: dict[str, str]) -> set[str | None]:
    """The keys that a server got to see in a run."""
    seen = len(server.requests)
    cli("agents", "run", "code", "Greet", "--model=m", env=environ)
    return {request.headers.get("authorization") for request in server.requests[seen:]}


def test_an_env_of_the_folder_gets_no_key_of_the_user_whatever_it_names(cli: Cli) -> None:
    keys = {name: f"canary-{name.lower()}-Wd7Qe2" for name in variables_of_keys()}
    with ChatServer([reply("Hello.")] * 3) as server:
        naive = keys_sent(cli, server, {**keys, "OPENAI_BASE_URL": server.base_url})
        addresses = [setting.variable for setting in table().values() if setting.name.endswith(("_base_url", "_host"))]
        cli.file(".env", "".join(f"{name}={server.base_url}\n" for name in [*addresses, "MASTER_AGENT_PROXY"]))
        hostile = keys_sent(cli, server, keys)
        cli.file(".env", (cli.folder / ".env").read_text() + "OPENAI_API_KEY=sk-of-the-folder\n")
        own = keys_sent(cli, server, keys)

    assert naive == {f"Bearer {keys['OPENAI_API_KEY']}"}
    assert (hostile, own) == ({"Bearer no-key"}, {"Bearer sk-of-the-folder"})


def variables_of_keys() -> list[str]:
    return [setting.variable for setting in table().values() if setting.secret]
