"""Who answers where several could: what the user said, a key, a local server; no key goes to another's host."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from master_agent.cli.addresses import strange
from master_agent.cli.models import Models, choose
from master_agent.embedded import installed
from master_agent.errors import ModelError, SettingsError
from master_agent.openai_server import Server
from master_agent.providers import HOSTED, LOCAL, PROVIDERS
from master_agent.settings import Settings, load
from master_agent.threads import Wire
from master_agent.threads.routed import Routed
from tests.conftest import Cli, says
from tests.servers.chat import ChatServer, call, error, reply
from tests.servers.local import LocalStandIn, llama_server, lm_studio, ollama, vllm
from tests.servers.loopback import Behaviour, Body

MODEL_L = {"id": "l", "type": "llm", "state": "loaded", "loaded_context_length": 5000}
NOBODY = "http://127.0.0.1:9/v1"
KEYS = {f"{name.upper()}_API_KEY": f"key-of-{name}-0123456789" for name in ("openai", *(row.name for row in HOSTED))}
COMMANDS_THAT_HELP = ("OPENAI_API_KEY=", "ollama pull", "master-agent models pull", "master-agent demo")
PLAN = json.dumps({"plan": [{"id": "note", "agent": "code", "prompt": "Do step note."}]})


def settings(folder: Path, environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    variables = {"MASTER_AGENT_CONFIG_DIR": str(folder), "MASTER_AGENT_LOCAL_SERVER": "none", **(environ or {})}
    return load(flags, variables, folder)


def chosen(
    folder: Path, environ: Mapping[str, str] | None = None, own: tuple[str, ...] = (), **flags: object
) -> Models:
    return asyncio.run(choose(settings(folder, environ, **flags), own=own))


def server_of(wire: Any) -> Server:
    found: Server = wire.server
    return found


async def listed(wire: Wire) -> None:
    """Asks for the models, as `doctor` does."""
    try:
        await wire.models()
    finally:
        await wire.close()


def refused(folder: Path, environ: Mapping[str, str] | None = None, **flags: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        chosen(folder, environ, **flags)
    assert caught.value.type == "no_model"
    return caught.value


@pytest.mark.parametrize("row", HOSTED, ids=lambda row: row.name)
def test_a_providers_key_alone_chooses_it_with_its_address_its_wire_and_its_models(tmp_path: Path, row: Any) -> None:
    made = chosen(tmp_path, {row.key: "its-own-key"})
    server = server_of(made.wire)
    assert (server.address, server.api_key) == (row.base_url, "its-own-key")
    assert (made.wire.name, made.agents, made.planner, made.at) == ("chat", row.agents, row.planner, row.base_url)
    assert made.provider == f"{row.title}: by {row.key} (environment)"
    assert (made.wire.capabilities.schema, made.wire.capabilities.stream_with_tools) == (
        *((row.capabilities.schema, row.capabilities.stream_with_tools) if row.capabilities else ("strict", True)),
    )


def test_keys_are_looked_for_in_the_order_of_the_table_openais_first(tmp_path: Path) -> None:
    environ, order = dict(KEYS), []
    while environ:
        made = chosen(tmp_path, environ)
        order.append(made.provider.partition(":")[0])
        del environ[made.provider.rpartition("by ")[2].split()[0]]
    assert order == ["OpenAI", *(row.title for row in HOSTED)]


@pytest.mark.parametrize(
    ("flags", "who", "models"),
    [
        ({"model": "groq:openai/gpt-oss-120b"}, "groq", ("openai/gpt-oss-120b", "openai/gpt-oss-120b")),
        ({"model": "GROQ:x:y"}, "groq", ("x:y", "x:y")),
        ({"model": "groq:x", "planner_model": "y"}, "groq", ("x", "y")),
        ({"model": "groq:x", "planner_model": "groq:y"}, "groq", ("x", "y")),
        ({"planner_model": "anthropic:y"}, "anthropic", (PROVIDERS["anthropic"].agents, "y")),
        ({"model": "x"}, "openai", ("x", "x")),
        ({"model": "x:1b"}, "openai", ("x:1b", "x:1b")),
        ({"model": "x", "planner_model": "anthropic:y"}, "openai", ("x", "anthropic:y")),
        ({"model": "openai:x"}, "openai", ("x", "x")),
        ({"model": "openai:x", "openai_base_url": NOBODY}, "own", ("x", "x")),
        ({"model": "x", "openai_base_url": NOBODY}, "own", ("x", "x")),
        ({"model": "x", "planner_model": "openai:y", "openai_base_url": NOBODY}, "own", ("x", "y")),
    ],
    ids=str,
)
def test_what_the_user_says_goes_before_every_key(
    tmp_path: Path, flags: dict[str, Any], who: str, models: tuple[str, str]
) -> None:
    made = chosen(tmp_path, KEYS, **flags)
    assert (made.agents, made.planner) == models
    wire: Any = asyncio.run(made.wire.at(None))[0] if isinstance(made.wire, Routed) else made.wire
    address = {"own": NOBODY, "openai": "https://api.openai.com/v1"}.get(who) or PROVIDERS[who].base_url
    assert server_of(wire).address == address
    assert server_of(wire).api_key == KEYS[f"{'OPENAI' if who == 'own' else who.upper()}_API_KEY"]


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize("row", HOSTED, ids=lambda row: row.name)
def test_a_key_goes_to_its_own_providers_address_and_to_no_other(tmp_path: Path, row: Any, where: str) -> None:
    """Whatever else is set: another server's address, from the user or from a folder, and everybody's keys."""
    folder_says = f"OPENAI_BASE_URL={NOBODY}\n" if where == ".env" else ""
    (tmp_path / ".env").write_text(folder_says)
    environ = KEYS if where == ".env" else {**KEYS, "OPENAI_BASE_URL": NOBODY}
    with pytest.raises(ModelError):  # the server that is named is asked first whether the name is its own, and is gone
        chosen(tmp_path, environ, model=f"{row.name}:x")
    (tmp_path / ".env").write_text(f"{row.key}=of-the-folder\n{folder_says}")
    with ChatServer(models=["test-model"]) as server:
        made = chosen(tmp_path, {**KEYS, "OPENAI_BASE_URL": server.base_url}, model=f"{row.name}:x")
        assert server_of(made.wire).address == row.base_url
        assert server_of(made.wire).api_key == KEYS[str(row.key)]
        sent = {request.headers.get("authorization") for request in server.requests}
        assert sent == {f"Bearer {KEYS['OPENAI_API_KEY']}"}
        alone = chosen(tmp_path, {"OPENAI_BASE_URL": server.base_url}, model=f"{row.name}:x")
        assert (server_of(alone.wire).address, server_of(alone.wire).api_key) == (row.base_url, "of-the-folder")


def test_a_folders_address_gets_no_key_however_a_model_is_named(tmp_path: Path) -> None:
    with ChatServer(models=["m", "mistral:7b"]) as server:
        (tmp_path / ".env").write_text(f"OPENAI_BASE_URL={server.base_url}\nMASTER_AGENT_MODEL=mistral:7b\n")
        said: list[dict[str, Any]] = [{}, {"model": "openai:m"}, {"model": "m"}, {"planner_model": "openai:m"}]
        for flags in said:
            made = chosen(tmp_path, KEYS, **flags)
            wire = asyncio.run(made.wire.at(made.planner))[0] if isinstance(made.wire, Routed) else made.wire
            assert (server_of(wire).address, server_of(wire).api_key) == (server.base_url, None)
            asyncio.run(listed(wire))
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer no-key"}


def test_a_folder_does_not_send_elsewhere_what_the_user_has_named_a_server_for(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MASTER_AGENT_MODEL=groq:x\nGROQ_API_KEY=of-a-stranger\n")
    with ChatServer() as server:
        with pytest.raises(SettingsError, match="a folder may not send elsewhere") as caught:
            chosen(tmp_path, {"OPENAI_BASE_URL": server.base_url})
        assert caught.value.hint == "Say it yourself: --model groq:x"
        mine = chosen(tmp_path, {"OPENAI_BASE_URL": server.base_url}, model="groq:x")
        assert server_of(mine.wire).address == PROVIDERS["groq"].base_url
    assert server_of(chosen(tmp_path).wire).api_key == "of-a-stranger", "a folder may set keys and models"
    assert strange(settings(tmp_path)) == ("models are asked at Groq, as .env of this folder says",)
    assert strange(settings(tmp_path, model="groq:y")) == (), "the user has said so"


@pytest.mark.parametrize(
    ("model", "wants"),
    [("groq:x", "reach the network and spend money"), ("gguf:x.gguf", "run programs"), ("ollama:x", ""), ("x:1b", "")],
)
def test_an_agent_of_the_folder_that_names_a_provider_itself_must_be_trusted(cli: Cli, model: str, wants: str) -> None:
    cli.file(".master-agent/agents/other.md", f"---\ndescription: x\nmodel: {model}\n---\nYou write.")
    ran = cli("run", cli.plan({"agent": "other", "prompt": "x"}), cli.script(says("Hello.", repeat=True)))
    assert (ran.code == 0, wants in ran.err) == (not wants, True), ran.err


def test_a_name_that_the_users_own_server_offers_is_that_servers(tmp_path: Path) -> None:
    """Ollama's mistral:7b is no reason to tell Mistral anything, whoever's key is there."""
    with ChatServer(models=["mistral:7b"]) as server:
        made = chosen(tmp_path, {**KEYS, "OPENAI_BASE_URL": server.base_url}, model="mistral:7b", own=("mistral:7b",))
    assert (made.agents, server_of(made.wire).address) == ("mistral:7b", server.base_url)


def test_an_unset_key_is_told_with_its_name_and_with_the_other_thing_that_may_be_meant(tmp_path: Path) -> None:
    told = refused(tmp_path, {"OPENAI_API_KEY": "sk-1"}, model="mistral:7b")
    assert told.message == "Mistral was asked for, and there is no MISTRAL_API_KEY"
    assert "ollama:mistral:…" in (told.hint or "")
    assert "OPENAI_API_KEY" in refused(tmp_path, model="openai:x").message
    with pytest.raises(SettingsError, match='"groq:" names no model'):
        chosen(tmp_path, KEYS, planner_model="groq:")
    looking = refused(tmp_path, KEYS, model="ollama:x")
    assert "MASTER_AGENT_LOCAL_SERVER is none" in looking.message
    asked = {name: refused(tmp_path, KEYS, model=f"{name}:x").hint or "" for name in ("ollama", "vllm")}
    assert {name: "OLLAMA_HOST=…" in hint for name, hint in asked.items()} == {"ollama": True, "vllm": False}


def test_local_servers_are_chosen_in_order_and_only_where_there_is_no_key(tmp_path: Path) -> None:
    answers = {
        "vllm": vllm("v"),
        "llama-server": llama_server("g"),
        "lmstudio": lm_studio(MODEL_L),
        "ollama": ollama("o:1b", "o:2b", running=["o:2b"]),
    }
    with ExitStack() as running:
        up = {kind: running.enter_context(LocalStandIn(told)) for kind, told in answers.items()}
        where = {"MASTER_AGENT_LOCAL_SERVER": ",".join(server.origin for server in up.values())}
        for kind, server in up.items():
            made = chosen(tmp_path, {**KEYS, **where}, model=f"{kind}:m")
            assert (server_of(made.wire).address, server_of(made.wire).api_key) == (server.base_url, None)
            assert made.prices is not None and made.prices.costs_nothing("m")
        asked = sum(len(server.requests) for server in up.values())
        assert "OpenAI" in chosen(tmp_path, {**KEYS, **where}).provider
        assert "a server of your own" in chosen(tmp_path, {**where, "OPENAI_BASE_URL": NOBODY}, model="m").provider
        assert sum(len(server.requests) for server in up.values()) == asked, "nobody looks where a key or an address is"
        for row, model, context in zip(LOCAL, ("o:2b", "l", "g", "v"), (4096, 5000, 4096, 8192), strict=True):
            made = chosen(tmp_path, where)
            assert made.provider.startswith(row.title)
            assert f"it answers at {up[row.name].origin}, and there is no key" in made.provider
            assert (made.agents, made.planner, made.wire.capabilities.context) == (model, model, context)
            where = {"MASTER_AGENT_LOCAL_SERVER": where["MASTER_AGENT_LOCAL_SERVER"].replace(up[row.name].origin, "")}
            where["MASTER_AGENT_LOCAL_SERVER"] = where["MASTER_AGENT_LOCAL_SERVER"].strip(",") or "none"
        assert "no server on this machine" in refused(tmp_path, where).message


@pytest.mark.parametrize(
    ("flags", "agents", "planner"),
    [
        ({"model": "a:1b"}, "ollama", "ollama"),
        ({"model": "v"}, "vllm", "vllm"),
        ({"model": "w"}, "other vllm", "other vllm"),
        ({"model": "vllm:w"}, "other vllm", "other vllm"),
        ({"model": "both"}, "ollama", "ollama"),  # in the order of kinds
        ({"model": "c-cloud"}, "ollama", "ollama"),  # what nobody is asked for by itself
        ({"model": "nobodys"}, "ollama", "ollama"),
        ({"planner_model": "v"}, "vllm", "vllm"),
        ({"model": "a:1b", "planner_model": "w"}, "ollama", "other vllm"),
        ({"model": "w", "planner_model": "both"}, "other vllm", "ollama"),
        ({"model": "v", "planner_model": "vllm:w"}, "vllm", "other vllm"),
        ({"model": "a:1b", "planner_model": "ollama:v"}, "ollama", "ollama"),
        ({"model": "a:1b", "planner_model": "nobodys"}, "ollama", "ollama"),
    ],
    ids=str,
)
def test_a_name_goes_to_the_local_server_that_offers_it(
    tmp_path: Path, flags: dict[str, Any], agents: str, planner: str
) -> None:
    told = ollama("a:1b", "both:latest", "c-cloud", running=["both:latest"])
    with ExitStack() as running:
        answers = {
            "vllm": vllm("v"),
            "other vllm": vllm("w"),
            "lmstudio": lm_studio(MODEL_L, {**MODEL_L, "id": "both"}),
        }
        up = {name: running.enter_context(LocalStandIn(said)) for name, said in {**answers, "ollama": told}.items()}
        made = chosen(tmp_path, {"MASTER_AGENT_LOCAL_SERVER": ",".join(one.origin for one in up.values())}, **flags)
        asked: list[str] = []
        for model in (made.agents, made.planner):
            wire: Any = asyncio.run(made.wire.at(model))[0] if isinstance(made.wire, Routed) else made.wire
            asked.append(server_of(wire).address)
            known = wire.accepted(model).capabilities.context
            assert model != "both" or known == 4096, "what is known of a model is known by each of its names"
    assert asked == [up[agents].base_url, up[planner].base_url]


def test_a_server_without_a_model_is_passed_over_and_told(tmp_path: Path) -> None:
    with LocalStandIn(ollama()) as empty, LocalStandIn(vllm("v")) as other:
        where = {"OLLAMA_HOST": urlsplit(empty.origin).netloc, "MASTER_AGENT_LOCAL_SERVER": other.origin}
        assert chosen(tmp_path, where).agents == "v"
        told = refused(tmp_path, {"MASTER_AGENT_LOCAL_SERVER": empty.origin})
        assert f"Ollama answers at {empty.origin}, but offers no model" in told.message
        asked = refused(tmp_path, {"MASTER_AGENT_LOCAL_SERVER": empty.origin}, planner_model="ollama:x")
        assert "ollama pull" in (asked.hint or "")


# Whole runs.


def test_what_one_server_has_done_is_not_taken_over_for_another(cli: Cli) -> None:
    with LocalStandIn(vllm("m"), brain("One.")) as one, LocalStandIn(vllm("m"), brain("Two.")) as two:
        plan = cli.plan({"id": "note", "agent": "code", "prompt": "Do step note."})
        ran = [
            cli("run", plan, "--reuse=on", "--json", "--local-server", server.origin).json["final"]
            for server in (one, one, two)
        ]
    assert (ran, one.count) == (["One.", "One.", "Two."], 1)


def brain(text: str) -> Any:
    def answer(body: Body) -> Behaviour:
        planning = "Do step note." not in json.dumps(body["messages"])
        return reply(PLAN if planning else text)

    return answer


def test_without_a_key_a_run_works_on_the_server_that_is_there_and_costs_nothing(cli: Cli) -> None:
    with LocalStandIn(ollama("gpt-5"), brain("Hello from here.")) as server:
        environ = {"OLLAMA_HOST": urlsplit(server.origin).netloc, "MASTER_AGENT_LOCAL_SERVER": "http://127.0.0.1:9"}
        ran = cli("Greet", "--yes", "--json", "--verbose", "--max-cost=0.01", env=environ)
        doctor = cli("doctor", env=environ)
    assert (ran.code, ran.json["final"]) == (0, "Hello from here."), ran.err
    assert (ran.json["usage"]["cost_usd"], ran.json["usage"]["cost_complete"]) == (0.0, True)
    why = f"Ollama 0.12.6: it answers at {server.origin}, and there is no key"
    assert f"{why}; wire chat, which every compatible server speaks, at {server.base_url}" in ran.err
    assert why in " ".join(doctor.out.split())
    assert "agents: gpt-5, planner: gpt-5" in " ".join(doctor.out.split())
    assert {request.headers.get("authorization") for request in server.requests} == {None, "Bearer no-key"}


def test_a_run_asks_several_providers_each_with_its_own_key_and_tells_them_apart(cli: Cli) -> None:
    agent = "---\ndescription: Writes.\nmodel: ollama:o:1b\n---\nYou write."
    cli.file(".master-agent/agents/code.md", agent)
    with (
        LocalStandIn(ollama("o:1b"), brain("From Ollama.")) as near,
        ChatServer(brain("No."), key="sk-own-key-1234", models=["gpt-5"]) as own,
    ):
        environ = {
            **KEYS,
            "OPENAI_API_KEY": "sk-own-key-1234",
            "OPENAI_BASE_URL": own.base_url,
            "MASTER_AGENT_LOCAL_SERVER": near.origin,
        }
        ran = cli("Greet", "--yes", "--json", "--model", "openai:gpt-5", env=environ)
        assert (ran.code, ran.json["final"]) == (0, "From Ollama."), ran.err
        cost = cli("cost", "--json").json
        doctor = cli("doctor", "--model", "openai:gpt-5", "--planner-model", "ollama:o:1b", env=environ)
        wrong = cli("doctor", "--model", "openai:gpt-5", "--planner-model", "ollama:o:7b", env=environ)
    told = " ".join(doctor.out.split())
    assert doctor.code == 0
    for model, server, offered in (("agents: gpt-5", own, "gpt-5"), ("planner: ollama:o:1b", near, "o:1b")):
        assert re.search(rf"{model}.*, at {server.base_url}; answered in \d+ ms; it offers {offered} ", told), told
    assert "wire chat, which all providers of this run speak" in told
    assert (wrong.code, "does not offer ollama:o:7b" in " ".join(wrong.out.split())) == (4, True)
    assert [body["model"] for body in own.bodies] == ["gpt-5"]
    assert [body["model"] for body in near.bodies] == ["o:1b"]
    (planner, step) = (part["calls"][0] for part in cost["steps"])
    assert (planner["name"], planner["usage"]["cost_usd"] > 0) == ("gpt-5", True)
    assert (step["name"], step["usage"]["cost_usd"]) == ("ollama:o:1b", 0.0)
    said = [value for request in near.requests for value in request.headers.values()]
    assert not any(key in value for value in said for key in (*KEYS.values(), "sk-own-key-1234"))


def test_doctor_says_of_every_model_that_is_asked_for_whether_it_can_be_had(cli: Cli) -> None:
    for name, model in (("near", "ollama:o:1b"), ("gone", "ollama:o:7b"), ("keyless", "groq:x"), ("file", "local:x")):
        text = f"---\nname: {name}\ndescription: x\nmodel: {model}\n---\nYou write."
        (cli.home / "config" / "agents").mkdir(parents=True, exist_ok=True)
        (cli.home / "config" / "agents" / f"{name}.md").write_text(text)
    with LocalStandIn(ollama("o:1b")) as near, LocalStandIn(vllm("v")) as other:
        at = {"MASTER_AGENT_LOCAL_SERVER": f"{near.origin},{other.origin}"}
        well = cli("doctor", "--json", "--model", "v", env=at)
        wrong = cli("doctor", "--json", "--model", "v", "--planner-model", "w", env=at)
    found = {one["name"]: (one["status"], one["message"]) for one in well.json["findings"]}
    assert (well.code, wrong.code) == (0, 4)
    assert found["model"][0] == "found" and f"agents: v, planner: v, at {other.base_url}" in found["model"][1]
    assert found["agent near"][0] == "found" and f"ollama:o:1b, at {near.base_url}" in found["agent near"][1]
    assert (found["agent gone"][0], "does not offer ollama:o:7b" in found["agent gone"][1]) == ("wrong", True)
    assert found["agent keyless"] == ("missing", "Groq was asked for, and there is no GROQ_API_KEY")
    assert (found["agent file"][0], 'no model "x"' in found["agent file"][1]) == ("wrong", True)
    told = [one["message"] for one in wrong.json["findings"] if one["name"] == "model"]
    assert told[0] == f"{other.base_url} answers, but does not offer w; it offers v" and "agents: v" in told[1]


def test_an_agent_asks_the_local_server_that_offers_its_model(cli: Cli) -> None:
    cli.file(".master-agent/agents/code.md", "---\ndescription: Writes.\nmodel: v\n---\nYou write.")
    with LocalStandIn(ollama("o:1b"), brain("No.")) as one, LocalStandIn(vllm("v"), brain("From vLLM.")) as other:
        environ = {"MASTER_AGENT_LOCAL_SERVER": f"{one.origin},{other.origin}"}
        ran = cli("Greet", "--yes", "--json", env=environ)
        doctor = cli("doctor", "--model", "v", env=environ)
    assert (ran.code, ran.json["final"]) == (0, "From vLLM."), ran.err
    assert ([body["model"] for body in one.bodies], [body["model"] for body in other.bodies]) == (["o:1b"], ["v"])
    assert ran.json["usage"]["cost_usd"] == 0.0
    why = f"vLLM: it answers at {other.origin} and offers v, and there is no key"
    assert why in " ".join(doctor.out.split())


def test_a_conversation_goes_on_at_the_provider_where_it_was_and_a_recording_comes_out_the_same(cli: Cli) -> None:
    cli.file(
        ".master-agent/agents/other.md", "---\ndescription: x\ntools: [list_files]\nmodel: ollama:o:1b\n---\nLook."
    )
    said: list[Behaviour] = [
        reply(calls=[call("list_files", {})]),
        error(400, "out of memory"),
        reply("Nothing is there."),
        *(reply(calls=[call("list_files", {})]), reply("Nothing is there.")),
    ]
    with LocalStandIn(ollama("o:1b"), said) as near, ChatServer(lambda _: reply("Hi.")) as own:
        flags = ("--model", "openai:m", "--openai-base-url", own.base_url, "--local-server", near.origin)
        plan = cli.plan({"agent": "code", "prompt": "Say hi."}, {"agent": "other", "prompt": "What is there?"})
        first = cli("run", plan, *flags, "--json")
        assert first.code == 3, first.out
        went_on = cli("resume", "--json")
        roles = [message["role"] for message in near.bodies[-1]["messages"]]
        recorded = cli("run", plan, *flags, "--record", str(cli.home / "c.jsonl"), "--json")
    replayed = [
        cli("run", plan, *named, "--replay", str(cli.home / "c.jsonl"), "--json").json["final"]
        for named in ((), ("--model", "openai:m"))
    ]
    assert (went_on.code, went_on.json["final"]) == (0, "Nothing is there."), went_on.err
    assert roles == ["system", "user", "assistant", "tool"], "the call was not made again"
    assert (recorded.json["final"], own.count) == ("Nothing is there.", 2)
    assert replayed == ["Nothing is there."] * 2


def test_a_provider_that_an_agent_names_is_missed_only_when_the_agent_is_used(cli: Cli) -> None:
    cli.file(".master-agent/agents/other.md", "---\ndescription: x\nmodel: groq:x\n---\nYou write.")
    with ChatServer(brain("Hello.")) as own:
        flags = ("--openai-base-url", own.base_url, "--model", "m")
        assert cli("Greet", "--yes", *flags).code == 0
        ran = cli("run", cli.plan({"agent": "other", "prompt": "x"}), "--json", "--trust-project", *flags)
    assert ran.code == 4
    (result,) = ran.json["results"].values()
    assert result["error"]["message"] == "Groq was asked for, and there is no GROQ_API_KEY"


def test_a_key_that_is_not_taken_is_told_by_its_own_name(cli: Cli) -> None:
    with ChatServer(lambda _: error(401, "no"), models=["m"]) as own:
        ran = cli("Greet", "--yes", env={"OPENAI_BASE_URL": own.base_url, "OPENAI_API_KEY": "sk-wrong-0123456789"})
    assert ran.code != 0
    assert "check OPENAI_API_KEY" in ran.err
    told = Server("https://api.groq.com/openai/v1", "k", "GROQ_API_KEY", "hosted")
    assert "GROQ_API_KEY" in (told.of_status(_answer(401)).hint or "")
    assert "GROQ_API_KEY" in (told.of_status(_answer(403)).hint or "")
    assert told.hint() is None
    found = Server("http://127.0.0.1:8000/v1", None, place="local")
    assert "OPENAI_BASE_URL=http://127.0.0.1:8000/v1" in (found.of_status(_answer(401)).hint or "")


def _answer(status: int) -> Any:
    import httpx2

    return httpx2.Response(status, json={"error": {"message": "no"}})


def test_models_lists_what_each_provider_offers_as_it_is_named(cli: Cli) -> None:
    lm = lm_studio({"id": "qwen\x1b[31m", "type": "vlm", "state": "not-loaded", "max_context_length": 32_768})
    with (
        LocalStandIn(ollama("o:1b", "n-embed", running=["o:1b"])) as near,
        LocalStandIn(lm) as studio,
        ChatServer(models=["m1", "m2"], key="sk-own-key-1234") as own,
    ):
        environ = {"OPENAI_BASE_URL": own.base_url, "OPENAI_API_KEY": "sk-own-key-1234"}
        environ["MASTER_AGENT_LOCAL_SERVER"] = f"{near.origin},{studio.origin}"
        listed = cli("models", env=environ)
        data = cli("models", "--json", env=environ).json
        wrong = cli("models", "--json", env={**environ, "OPENAI_API_KEY": "sk-wrong-0123456789"}).json
    lines = listed.out.splitlines()
    assert listed.code == 0, listed.err
    assert lines[0] == f"a server of your own: by OPENAI_BASE_URL (environment); at {own.base_url}; 2 models"
    assert [line.split()[0] for line in lines[1:3]] == ["m1", "m2"]
    assert lines[3].startswith(f"Ollama 0.12.6: it answers at {near.origin}") and "streams with tools" in listed.out
    assert "ollama:o:1b" in listed.out and "loaded, 4,096 tokens, 3.4 GB, tools" in listed.out
    assert "\x1b" not in listed.out and "up to 32,768 tokens, pictures" in listed.out
    assert [part["provider"] for part in data["providers"]] == ["openai", "ollama", "lmstudio"]
    first = data["providers"][1]["models"][0]
    assert (first["model"], first["context"], first["trained"], first["tools"]) == ("ollama:o:1b", 4096, 40_960, True)
    assert data["providers"][1]["capabilities"]["stream_with_tools"] is False
    assert "check OPENAI_API_KEY" in wrong["providers"][0]["error"] and wrong["providers"][0]["models"] == []


def test_with_nobody_to_talk_to_a_short_list_says_what_would_help(cli: Cli) -> None:
    hint = cli("Greet", "--yes", "--json").json["error"]["hint"]
    _, *ways = hint.splitlines()
    for way, command in zip((w for w in ways if w.startswith("- ")), COMMANDS_THAT_HELP, strict=True):
        assert command in way or way.endswith("'master-agent[local]'")
    for arguments, indent in ((["Greet", "--yes"], 2), (["models"], 2), (["doctor"], 9)):
        ran = cli(*arguments)
        shown = [" " * indent + line for line in hint.splitlines()]
        assert (ran.code, "\n".join(shown) in ran.out + ran.err) == (4, True), arguments
        assert max(map(len, shown)) <= 80
    assert ("pip install 'master-agent[local]'" in hint) is not installed(), "only who has no engine needs one"


def test_who_has_ollama_is_not_told_to_install_it(cli: Cli) -> None:
    with LocalStandIn(ollama()) as empty:
        hint = cli("Greet", "--yes", "--json", "--local-server", empty.origin).json["error"]["hint"]
    assert ("install Ollama" in hint, "- a local server: ollama pull" in hint) == (False, True)


def test_tools_with_streams_are_asked_for_whole_where_the_server_loses_them(cli: Cli) -> None:
    """The gap of a found server is its record's: no request is refused, and none is made twice."""

    def answer(body: Body) -> Behaviour:
        if "tools" in body and body.get("stream"):
            return reply("I lost the call.")
        if body["messages"][-1]["role"] == "tool":
            return reply("Written.")
        return reply(calls=[call("write_file", {"path": "a.txt", "content": "A"})])

    with LocalStandIn(ollama("o:1b"), answer) as server:
        plan = cli.plan({"id": "note", "agent": "file", "prompt": "Write a.txt"})
        ran = cli("run", plan, env={"MASTER_AGENT_LOCAL_SERVER": server.origin})
    assert (ran.code, (cli.folder / "a.txt").read_text()) == (0, "A"), ran.err
    assert not any(body.get("stream") for body in server.bodies)


@pytest.mark.parametrize("address", ["ftp://x", "gpu box"])
@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "MASTER_AGENT_LOCAL_SERVER"])
def test_an_address_that_is_none_is_told_by_its_variable(cli: Cli, variable: str, address: str) -> None:
    ran = cli("models", env={variable: address})
    assert (ran.code, variable in ran.err, address in ran.err) == (2, True, True)
