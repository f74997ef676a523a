"""Which wire is spoken, and why: as set, else Responses with OpenAI itself, else Chat Completions."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from master_agent.cli.models import choose
from master_agent.cli.wires import wire_name
from master_agent.errors import ModelError
from master_agent.providers import OPENAI
from master_agent.settings import Settings, load
from tests.conftest import Cli
from tests.servers.assistants import AssistantsServer
from tests.servers.chat import ChatServer
from tests.servers.responses import ResponsesServer

ELSEWHERE = "http://127.0.0.1:9/v1"


def settings(folder: Path, **flags: object) -> Settings:
    """Settings of these flags and of a key."""
    environ = {"OPENAI_API_KEY": "sk-of-nobody-at-all", "MASTER_AGENT_CONFIG_DIR": str(folder)}
    return load(flags, environ, folder)


@pytest.mark.parametrize("address", [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1/"])
def test_openais_own_address_is_spoken_to_over_responses(address: str | None, tmp_path: Path) -> None:
    flags = {"openai_base_url": address} if address else {}
    chosen = asyncio.run(choose(settings(tmp_path, **flags)))
    assert chosen.wire.name == "responses"
    assert "OpenAI's own address" in chosen.why
    assert (chosen.agents, chosen.planner) == (OPENAI.agents, OPENAI.planner)


@pytest.mark.parametrize("address", [ELSEWHERE, "https://api.openai.com.example.net/v1", "https://openai.example/v1"])
def test_any_other_server_is_spoken_to_over_chat(address: str, tmp_path: Path) -> None:
    name, why = wire_name(settings(tmp_path, openai_base_url=address))
    assert name == "chat"
    assert "every compatible server" in why


@pytest.mark.parametrize("wire", ["chat", "responses", "assistants"])
def test_the_wire_that_is_set_is_spoken_and_its_setting_is_the_reason(wire: str, tmp_path: Path) -> None:
    chosen = asyncio.run(choose(settings(tmp_path, openai_base_url=ELSEWHERE, wire=wire, model="m")))
    assert chosen.wire.name == wire
    assert chosen.why == f"wire {wire} (flag), at {ELSEWHERE}"


def test_the_store_of_threads_is_the_one_that_is_set(tmp_path: Path) -> None:
    chosen: Any = asyncio.run(choose(settings(tmp_path, thread_store="conversation"))).wire
    assert chosen.store == "conversation"


def test_a_script_goes_before_every_wire(tmp_path: Path) -> None:
    (tmp_path / "script.jsonl").write_text("")
    name, why = wire_name(settings(tmp_path, script=str(tmp_path / "script.jsonl"), wire="chat"))
    assert name == "scripted"
    assert "script.jsonl" in why


@pytest.mark.parametrize("address", [None, "https://api.openai.com/v1"])
def test_assistants_at_openais_own_address_are_refused_before_anything_is_asked(
    address: str | None, tmp_path: Path
) -> None:
    flags = {"openai_base_url": address} if address else {}
    with pytest.raises(ModelError) as caught:
        asyncio.run(choose(settings(tmp_path, wire="assistants", **flags)))
    assert "switched its Assistants API off on 2026-08-26" in caught.value.message
    assert "--wire responses" in (caught.value.hint or "")


def test_assistants_without_an_address_are_exit_4_with_the_way_out(cli: Cli) -> None:
    ran = cli("Greet", "--yes", "--wire", "assistants", "--json", env={"OPENAI_API_KEY": "sk-of-nobody-at-all"})
    assert (ran.code, ran.json["error"]["type"]) == (4, "no_model")
    assert "2026-08-26" in ran.json["error"]["message"]
    assert "--wire responses" in ran.json["error"]["hint"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "wire chat, which every compatible server speaks"),
        (("--wire", "responses"), "wire responses (flag)"),
        (("--wire", "assistants"), "wire assistants (flag)"),
    ],
    ids=["chosen", "responses", "assistants"],
)
def test_doctor_says_which_wire_and_why_and_contacts_it(cli: Cli, flags: tuple[str, ...], why: str) -> None:
    servers = {"responses": ResponsesServer, "assistants": AssistantsServer}
    serve: Any = servers.get(flags[-1], ChatServer) if flags else ChatServer
    with serve(models=["only-one"]) as server:
        ran = cli("doctor", "--json", "--openai-base-url", server.base_url, *flags)
    found = {finding["name"]: finding for finding in ran.json["findings"]}
    assert ran.code == 0, ran.out
    assert found["wire"]["message"].startswith(why)
    assert server.base_url in found["wire"]["message"]
    assert (found["model"]["status"], "only-one" in found["model"]["message"]) == ("found", True)


def test_doctor_names_the_wire_that_openai_does_not_speak_any_more(cli: Cli) -> None:
    ran = cli("doctor", "--json", "--wire", "assistants", env={"OPENAI_API_KEY": "sk-of-nobody-at-all"})
    found = {finding["name"]: finding for finding in ran.json["findings"]}
    assert ran.code == 4
    assert "2026-08-26" in found["model"]["message"]
    assert "--wire responses" in found["model"]["hint"]
