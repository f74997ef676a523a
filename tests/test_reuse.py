"""Steps that an earlier run did just so are taken over, as long as all that they left and read is still there."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.catalogue import Agent, parse_agent
from master_agent.cli import arguments
from master_agent.cli.commands import TASK
from master_agent.context import Inputs
from master_agent.identity import MOST_NAMED, Identities
from master_agent.plan import AgentStep, Step, ToolStep
from master_agent.prompts import Prompts
from master_agent.results import Artifact, StepResult, Usage
from master_agent.tools import Tool, load_tools
from master_agent.values import key_of
from tests.conftest import ROOT, Cli, Ran, calls, plans, says

NOTE = {"id": "note", "agent": "code", "prompt": "Write about ${params.what}", "needs": []}
LOOK = {"id": "look", "agent": "file", "prompt": "Look into a.txt", "needs": []}
HERO = {"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn"}, "needs": []}
PAGE = {"id": "page", "agent": "code", "prompt": "A page on ${note.text}", "needs": ["note"]}
SAVE = {"id": "save", "tool": "save_result", "with": {"step": "page", "path": "page.txt"}, "needs": ["page"]}
PLACEHOLDER = ("--image-provider", "placeholder")


def statuses(ran: Ran) -> dict[str, str]:
    assert ran.out, ran.err
    return {name: result["status"] for name, result in ran.json["results"].items()}


def page_plan(cli: Cli, *more: Mapping[str, Any]) -> str:
    return cli.plan(NOTE, PAGE, SAVE, *more, params={"what": "rain"})


def a_script(cli: Cli, name: str = "script.jsonl", note: str = "Rain.") -> str:
    looks = calls(("read_file", {"path": "a.txt"}), step="look", turn=1)
    return cli.script(
        says(note, step="note"), says("Wet.", step="page"), looks, says("It says a.", step="look"), name=name
    )


@pytest.mark.slow
def test_what_an_earlier_run_did_is_taken_over_and_costs_nothing(cli: Cli) -> None:
    cli.file("a.txt", "a")
    plan, nothing = page_plan(cli, LOOK, HERO), cli.script(name="nothing.jsonl")
    first = cli("run", plan, a_script(cli), *PLACEHOLDER, "--json")
    assert set(statuses(first).values()) == {"done"}, first.out
    run_id = first.json["run_id"]

    # The picture would be paid for elsewhere: whether it is wanted anew is for a person to say.
    again = cli("run", "--reuse", plan, nothing, *PLACEHOLDER, "--max-steps", "2", "--json")

    reused = dict.fromkeys(("note", "page", "save", "look"), "reused")
    assert statuses(again) == {**reused, "hero": "done"}, again.out
    assert {again.json["results"][name]["from_run"] for name in reused} == {run_id}
    assert {again.json["results"][name]["usage"]["calls"] for name in reused} == {0}
    assert again.json["results"]["page"]["text"] == "Wet."
    assert (again.json["usage"]["calls"], again.json["usage"]["images"]) == (0, 1)
    told = cli("explain", again.json["run_id"], "hero", "--json").json
    assert (told["reused"], told["refused"][0]["from_run"]) == (False, run_id)
    assert "used generate_image (network, pay, write), an effect outside" in told["why"]
    assert "it was reused from " + run_id in cli("explain", again.json["run_id"], "page").out

    every = cli("run", plan, "--reuse=all", nothing, *PLACEHOLDER)

    assert "note: reused from " + run_id in every.err
    assert "Done: 5 reused; " in every.out and every.out.rstrip().endswith("0 calls")


def test_what_was_touched_since_is_done_again_and_so_is_what_follows_from_a_change(cli: Cli) -> None:
    cli.file("a.txt", "a")
    plan = page_plan(cli, LOOK)
    assert cli("run", plan, a_script(cli)).code == 0
    cli.file("a.txt", "b")
    cli.file("page.txt", "by a person")
    (cli.folder / "page.txt").unlink()

    ran = cli("run", plan, "--reuse", a_script(cli, "b.jsonl"))

    assert "look: not reused from" in ran.err and "read_file (path=a.txt" in ran.err
    assert "page.txt, which it made, is no longer there" in ran.err
    assert "Done: 2 done, 2 reused; " in ran.out
    assert (cli.folder / "page.txt").read_text() == "Wet."

    # Another prompt: what follows is made anew, and a file of the run that is built on may be replaced.
    dark = {**PAGE, "prompt": "A dark page on ${note.text}"}
    script = cli.script(says("Dark.", step="page"), name="c.jsonl")
    changed = cli("run", cli.plan(NOTE, dark, SAVE, params={"what": "rain"}), "--reuse", script, "--json")

    assert statuses(changed) == {"note": "reused", "page": "done", "save": "done"}, changed.out
    note = changed.json["results"]["note"]
    assert (note["text"], note["usage"]["calls"], changed.json["usage"]["calls"]) == ("Rain.", 0, 1)
    assert note["from_run"] != changed.json["run_id"]
    assert (cli.folder / "page.txt").read_text() == "Dark."
    told = cli("explain", changed.json["run_id"], "page", "--json").json
    assert (list(told["differs"]), told["nearest"]["step"]) == (["prompt"], "page")
    (prompt,) = told["differs"]["prompt"]
    assert (prompt["then"], prompt["now"]) == ("A page on Rain.", "A dark page on Rain.")
    shown = cli("explain", changed.json["run_id"], "save").out
    assert "its inputs are not those of save of" in shown
    assert "    -Wet.\n    +Dark." in shown and "the same: arguments, tools, model" in shown
    unknown = cli("explain", changed.json["run_id"], "pgae")
    assert f'the run {changed.json["run_id"]} has no step "pgae"; did you mean "page"?' in unknown.err


@pytest.mark.slow
def test_reuse_holds_over_a_resume(cli: Cli) -> None:
    other = {"id": "other", "agent": "code", "prompt": "Else", "needs": []}
    params = {"what": "rain"}
    assert cli("run", cli.plan(NOTE, PAGE, params=params), a_script(cli)).code == 0
    fails = cli.script({"step": "other", "error": {"type": "authentication", "message": "no"}}, name="b.jsonl")
    plan = cli.plan(other, NOTE, PAGE, params=params)
    assert cli("run", plan, "--reuse", "--concurrency", "1", fails).code == 4

    ran = cli("resume", cli.script(says("Else.", step="other"), name="c.jsonl"), "--json")

    assert statuses(ran) == {"other": "done", "note": "reused", "page": "reused"}, ran.out


@pytest.mark.slow
def test_a_fork_does_its_first_step_anew_and_takes_over_what_follows_all_the_same(cli: Cli) -> None:
    plan = cli.plan(NOTE, PAGE, SAVE, params={"what": "rain"})
    run_id = cli("run", plan, a_script(cli), "--json").json["run_id"]

    ran = cli("fork", run_id, "--from", "note", "--reuse", a_script(cli, "b.jsonl"), "--json")

    assert statuses(ran) == {"note": "done", "page": "reused", "save": "reused"}, ran.out
    assert cli("resume", ran.json["run_id"]).code == 2  # it is done


@pytest.mark.slow
def test_a_task_in_words_reuses_what_its_plan_has_in_common_with_an_earlier_one(cli: Cli) -> None:
    note = {**NOTE, "prompt": "Write about rain"}
    script = cli.script(plans(note), says("Rain.", step="note"))
    cli("Rain", script, "--yes")

    ran = cli("Rain", "--reuse", cli.script(plans(note), name="b.jsonl"), "--yes", "--json")

    assert (statuses(ran), ran.json["usage"]["calls"]) == ({"note": "reused"}, 1)  # the planner's own


@pytest.mark.slow
def test_a_cassette_holds_all_of_a_run(cli: Cli) -> None:
    plan = cli.plan(NOTE, params={"what": "rain"})
    cassette = str(cli.home / "c.jsonl")
    refused = cli("run", plan, a_script(cli), "--record", cassette, "--reuse")
    assert refused.code == 2 and "--reuse does not go with --record" in refused.err
    cli("run", plan, a_script(cli))

    recorded = cli("run", plan, a_script(cli), "--record", cassette, "--json", env={"MASTER_AGENT_REUSE": "on"})
    replayed = cli("run", plan, "--replay", cassette, "--json", env={"MASTER_AGENT_REUSE": "on"})

    assert statuses(recorded) == statuses(replayed) == {"note": "done"}


@pytest.mark.slow
def test_a_purged_run_is_not_built_on_and_an_earlier_version_is_brought_up_to_date(cli: Cli) -> None:
    plan = cli.plan(NOTE, params={"what": "rain"})
    first = cli("run", plan, a_script(cli), "--json").json["run_id"]
    database = cli.home / "state" / "journal.db"
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT run_id, step FROM done_steps").fetchall() == [(first, "note")]
    connection.close()
    assert cli("purge", first, "--yes").code == 0
    assert statuses(cli("run", plan, a_script(cli), "--reuse", "--json")) == {"note": "done"}
    with sqlite3.connect(database) as connection:
        connection.executescript("DROP TABLE done_steps; PRAGMA user_version = 3;")
    connection.close()

    assert statuses(cli("run", plan, a_script(cli), "--reuse", "--json")) == {"note": "done"}
    assert statuses(cli("run", plan, a_script(cli), "--reuse", "--json")) == {"note": "reused"}


# What a step is made of.

MADE = StepResult(status="done", agent="code", text="Rain.", data={"n": 1})
WRITER = parse_agent("---\ndescription: d\ntools: [read_file]\n---\nWrite.", Path("writer.md"), ["read_file"])
STEP = AgentStep(id="page", agent="writer", prompt="On ${note.text}", needs=("note",))
USE = ToolStep.model_validate({"id": "pic", "tool": "generate_image", "with": {"prompt": "${note.text}"}})
INPUTS = Inputs({"note": MADE}, {"city": "Lisbon"})
PICTURE = Artifact(path="a.png", media_type="image/png", bytes=3, sha256="0" * 64)


def identities(agent: Agent = WRITER, given: str = "", model: str = "m", pictures: str = "p") -> Identities:
    def asked(one: Agent | None) -> dict[str, JsonValue]:
        return {"model": (one and one.model) or model}

    files = [Attachment("a.txt", "text/plain", given.encode())] if given else []
    tools: dict[str, Tool] = load_tools()
    return Identities({"writer": agent}, tools, Prompts(ROOT / "prompts"), files, asked, {"provider": pictures})


def changed(made: Identities, step: Step = STEP, inputs: Inputs = INPUTS, base: Step = STEP) -> set[str]:
    before, now = identities().parts(base, INPUTS), made.parts(step, inputs)
    assert before and now
    return {name for name in before if before[name] != now.get(name)}


@pytest.mark.parametrize(
    ("made", "inputs", "differs"),
    [
        (identities(), INPUTS, set()),
        (identities(replace(WRITER, instructions="Write well.")), INPUTS, {"agent"}),
        (identities(replace(WRITER, temperature=0.5)), INPUTS, {"agent"}),
        (identities(replace(WRITER, source=Path("elsewhere.md"))), INPUTS, set()),
        (identities(replace(WRITER, tools=())), INPUTS, {"agent", "tools"}),
        (identities(replace(WRITER, model="x")), INPUTS, {"agent", "model"}),
        (identities(model="x"), INPUTS, {"model"}),
        (identities(pictures="x"), INPUTS, set()),  # it buys none
        (identities(given="x"), INPUTS, {"inputs"}),
        (identities(), Inputs({"note": MADE}, {"city": "Porto"}), {"inputs"}),
        (identities(), Inputs({"note": MADE}, INPUTS.params, attempt=2), set()),
        (identities(), Inputs({"note": MADE.model_copy(update={"data": {}})}, INPUTS.params), {"inputs"}),
        (identities(), Inputs({"note": MADE.model_copy(update={"artifacts": (PICTURE,)})}, INPUTS.params), {"inputs"}),
        (identities(), Inputs({"note": MADE.model_copy(update={"text": "Sun."})}, INPUTS.params), {"prompt", "inputs"}),
        (
            identities(),
            Inputs(
                {"note": MADE.model_copy(update={"status": "reused", "from_run": "r", "usage": Usage(calls=9)})},
                INPUTS.params,
            ),
            set(),
        ),
    ],
)
def test_a_part_differs_where_what_the_step_is_given_does(made: Identities, inputs: Inputs, differs: set[str]) -> None:
    assert changed(made, STEP, inputs) == differs


def test_a_step_of_a_tool_is_its_arguments_and_who_is_paid() -> None:
    assert changed(identities(pictures="x"), USE, INPUTS, USE) == {"model"}
    other = USE.model_copy(update={"arguments": {"prompt": "dusk"}})
    assert changed(identities(), other, INPUTS, USE) == {"arguments"}
    assert identities().parts(USE, Inputs()) == {}  # its reference leads to nothing


def test_contents_are_given_once_and_hash_to_their_names() -> None:
    made = identities()
    parts = made.parts(STEP, INPUTS)
    contents = made.contents()
    assert set(contents) == set(parts.values())
    assert json.loads(contents[parts["inputs"]])["params"] == {"city": "Lisbon"}
    made.parts(STEP, INPUTS)
    assert made.contents() == {}
    assert key_of(parts) == key_of(dict(reversed(parts.items()))) != key_of({**parts, "model": "x"})


def test_no_key_is_kept_with_what_a_step_is_made_of() -> None:
    made = identities(replace(WRITER, instructions="Use sk-canary."))
    made.hide = lambda text: text.replace("sk-canary", "(hidden)")
    made.parts(STEP, Inputs({"note": MADE.model_copy(update={"text": "sk-canary"})}))
    contents = b"".join(made.contents().values())
    assert b"sk-canary" not in contents and contents.count(b"(hidden)") == 2


def test_the_inputs_of_a_step_with_very_many_needs_stay_small_and_are_told_apart() -> None:
    many = {"note": MADE, **{f"s{i}": MADE for i in range(MOST_NAMED)}}
    more = {**many, "last": MADE}
    other = {**many, "s7": MADE.model_copy(update={"text": "Sun."})}
    made = identities()
    parts = made.parts(STEP, Inputs(many))
    assert len(made.contents()[parts["inputs"]]) < 200

    grown = made.parts(STEP, Inputs(more))["inputs"]  # from where the one before had come to

    assert grown == identities().parts(STEP, Inputs(more))["inputs"] != parts["inputs"]
    assert made.parts(STEP, Inputs(many))["inputs"] == parts["inputs"]
    assert identities().parts(STEP, Inputs(other))["inputs"] != parts["inputs"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["run", "--reuse", "plan.json"], ["run", "--reuse=on", "plan.json"]),
        (["run", "plan.json", "--reuse", "all"], ["run", "plan.json", "--reuse=all"]),
        (["run", "--reuse=all", "on"], ["run", "--reuse=all", "on"]),
        (["Tidy up", "--reuse"], [TASK, "Tidy up", "--reuse=on"]),
        (["--", "--reuse"], [TASK, "--", "--reuse"]),
    ],
)
def test_reuse_needs_no_value_and_takes_only_its_own(given: list[str], read: list[str]) -> None:
    assert arguments.rewrite(given) == read
