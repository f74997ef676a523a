"""What programs are told: with --json every command prints one object, which says what it is."""

import importlib
import json
from typing import Any

import jsonschema
import pytest
import typer

from master_agent.cli.commands import COMMANDS, HIDDEN, TASK
from tests.conftest import Cli, Ran, plans, says
from tests.servers.hub import Hub
from tests.terminal import AtTerminal
from tests.test_embedded import LLAMA, head
from tests.test_running_code import run_code

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


@pytest.mark.parametrize(
    ("command", "kind", "told"), [("pull", "model", "model"), ("remove", "removed_model", "removed")]
)
def test_a_no_is_told_as_an_object_too(cli: Cli, command: str, kind: str, told: str) -> None:
    (shelf := cli.home / "cache" / "models").mkdir(parents=True)
    (shelf / "tiny.gguf").write_bytes(head(*LLAMA))
    out = cli.home / "out.json"
    with Hub({"maker/Tiny-GGUF": {"tiny-2.gguf": head(*LLAMA)}}) as hub:
        given = ["maker/Tiny-GGUF", "--hf-endpoint", hub.origin, "--allow-host", "127.0.0.1"]
        terminal = AtTerminal(cli, "models", command, *(given if command == "pull" else ["tiny"]), "--json", to=out)
        terminal.answer("Download it|Remove tiny", "n\n")
        assert terminal.end()[0] == 0

    printed = json.loads(out.read_text())
    assert (printed["kind"], printed["version"], printed[told]) == (kind, 1, None)
    assert (shelf / "tiny.gguf").is_file()


def test_what_a_plan_may_do_is_told_to_programs_as_to_people_and_run_takes_the_plan_all_the_same(cli: Cli) -> None:
    hero = {"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn"}, "needs": []}
    plan = cli.plan(NOTE, hero)

    people, program = cli("check", plan), cli("check", plan, "--json")
    may = program.json["may"]
    assert [line.removeprefix("  * ") for line in people.out.splitlines()[1:]] == may
    assert may[0].startswith("1 step may make pictures, but no picture can be made")
    assert may[1] == f"1 step may write files beneath {cli.folder}: note"
    jsonschema.validate(program.json, cli("schema", "plan").json)

    offline = cli("check", "-", "--image-provider", "placeholder", "--json", stdin=program.out).json
    assert offline["may"][0] == "1 step may make pictures, drawn offline as a placeholder, free: hero"
    lies = json.dumps({**program.json, "may": ["1 step may do no harm"]})
    ran = cli("run", "-", "--image-provider", "placeholder", stdin=lies)
    said = " ".join(ran.err.split())
    assert ran.code == 0 and offline["may"][0] in said and "no harm" not in said, ran.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--unsafe-exec",), "1 step may run code WITHOUT A SANDBOX"),
        (("--exec-engine", "podman", "--exec-image", "x"), "1 step may run code"),
        (("--script", "replies.jsonl"), "1 step may run code"),
        (("--replay", "cassette.jsonl"), "1 step may make pictures, taken from the cassette, free: hero"),
        (
            ("--image-provider", "openai", "--openai-base-url", "http://127.0.0.1:9/v1"),
            "1 step may make pictures, paid for, if it asks for pay, at http://127.0.0.1:9/v1: hero",
        ),
    ],
)
def test_check_takes_the_flags_that_change_what_a_run_may_do(cli: Cli, flags: tuple[str, ...], said: str) -> None:
    hero = {"id": "hero", "agent": "image", "prompt": "dawn", "needs": []}
    paid = cli.home / "config" / "agents" / "clerk.md"
    paid.parent.mkdir(parents=True)
    paid.write_text("---\ndescription: Writes.\nmodel: anthropic:claude-x\n---\nWrite.\n")
    clerk = {"id": "page", "agent": "clerk", "prompt": "x", "needs": []}
    plan = cli.plan(run_code("sum", language="python", code="1"), hero, clerk)

    told = cli("check", plan, *flags, "--json")

    assert any(line.startswith(said) for line in told.json["may"]), told.out + told.err
    elsewhere = any("a model of Anthropic" in line for line in told.json["may"])
    assert elsewhere is not any(flag in flags for flag in ("--script", "--replay"))
