"""What programs are told: with --json every command prints one object, which says what it is."""

import importlib
from typing import Any

import pytest
import typer

from master_agent.cli.commands import COMMANDS, HIDDEN, TASK
from tests.conftest import Cli, Ran, plans, says
from tests.servers.hub import Hub
from tests.test_embedded import LLAMA, head

NOTE = {"id": "note", "tool": "write_file", "with": {"path": "note.txt", "content": "hello"}, "needs": []}
SAY = {"id": "say", "agent": "code", "prompt": "Greet", "needs": ["note"]}
FAILS = {"port": "thread", "step": "say", "error": {"type": "bad_request", "message": "no"}}
GREETS = [plans({"agent": "code", "prompt": "Hi"}), {**says("Hello."), "repeat": True}]

TOLD = [  # a command that takes --json, what else it is given, the kind of its object; RUN wrote note.txt and failed
    (TASK, "Greet --yes SCRIPT", "result"),
    ("plan", "Greet SCRIPT", "plan"),
    ("run", "PLAN SCRIPT", "result"),
    ("resume", "RUN SCRIPT", "result"),
    ("runs", "", "runs"),
    ("runs", "--most 0", "runs"),
    ("show", "RUN", "result"),
    ("show", "RUN --thread say", "thread"),
    ("cost", "RUN", "cost"),
    ("undo", "RUN", "undo"),
    ("why", "note.txt", "why"),
    ("explain", "RUN note", "explain"),
    ("purge", "RUN --yes", "purge"),
    ("clean", "--older-than 9w --dry-run", "purge"),
    ("fork", "RUN --from say SCRIPT", "result"),
    ("continue", "RUN Greet --yes SCRIPT", "result"),
    ("check", "PLAN", "plan"),
    ("agents", "", "agents"),
    ("agents show", "code", "agent"),
    ("agents run", "code Greet SCRIPT", "result"),
    ("tools", "", "tools"),
    ("models", "", "models"),
    ("models pull", "maker/Tiny-GGUF --yes HUB", "model"),
    ("models remove", "MODEL --yes", "removed_model"),
    ("doctor", "SCRIPT", "doctor"),
    ("demo", "--list", "demos"),
]


def taking_json() -> set[str]:
    """Every command of the table that takes --json, and every one below such a command."""
    found: set[str] = set()

    def look(name: str, command: Any) -> None:
        if any("--json" in param.opts for param in command.params):
            found.add(name)
        for below, inner in getattr(command, "commands", {}).items():
            look(f"{name} {below}", inner)

    for name, listed in {**COMMANDS, **HIDDEN}.items():
        importlib.import_module(f"master_agent.cli.{listed.module}").add_to(app := typer.Typer())
        look(name, typer.main.get_group(app).commands[name])
    return found


def test_every_command_that_takes_json_is_tried_below() -> None:
    assert {command for command, _, _ in TOLD} == taking_json()


@pytest.mark.parametrize(("command", "given", "kind"), TOLD)
def test_every_command_prints_one_object_that_says_what_it_is(cli: Cli, command: str, given: str, kind: str) -> None:
    words = ([] if command == TASK else command.split()) + given.split()
    plan, script = cli.plan(NOTE, SAY), cli.script(*GREETS)
    run_id = ""
    if {"RUN", "note.txt"} & set(words):
        began = cli("run", plan, cli.script(FAILS, name="fails.jsonl"), "--json")
        run_id = began.json["run_id"]
        assert began.json["status"] == "partial", began.out
    if "MODEL" in words:
        (shelf := cli.home / "cache" / "models").mkdir(parents=True)
        (shelf / "tiny.gguf").write_bytes(head(*LLAMA))
    meant = {"RUN": [run_id], "PLAN": [plan], "SCRIPT": [script], "MODEL": ["tiny"]}

    def told(**more: list[str]) -> Ran:
        return cli(*(word for name in words for word in {**meant, **more}.get(name, [name])), "--json")

    if "HUB" in words:
        with Hub({"maker/Tiny-GGUF": {"Tiny-Q4_K_M.gguf": head(*LLAMA)}}) as hub:
            ran = told(HUB=["--hf-endpoint", hub.origin, "--allow-host", "127.0.0.1"])
    else:
        ran = told()

    assert ran.code == (4 if command == "models" else 0), ran.out + ran.err  # 4: no model was found, and none is there
    assert (ran.json["kind"], ran.json["version"]) == (kind, 1)
