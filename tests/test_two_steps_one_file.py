"""Two steps that run at the same time and write one file: the first one's content stays, and everybody is told."""

import json

import jsonschema
import pytest

from master_agent.checker import check
from tests.conftest import Cli, calls, says

FIRST = {"id": "first", "tool": "write_file", "with": {"path": "notes.txt", "content": "one"}, "needs": []}
AGENT = {"id": "agent", "agent": "file", "prompt": "Write notes.txt", "needs": []}
TOOL = {"id": "tool", "tool": "save_result", "with": {"step": "words", "path": "./notes.txt", "overwrite": True}}
WORDS = {"id": "words", "agent": "code", "prompt": "Words", "needs": []}
AFTER = {
    "id": "after",
    "tool": "write_file",
    "with": {"path": "notes.txt", "content": "one and more"},
    "needs": ["first"],
}
SCRIPT = (
    says("two", step="words"),
    calls(
        ("write_file", {"path": "notes.txt", "content": "me", "overwrite": True, "last": True}), step="agent", turn=1
    ),
    calls(
        ("write_file", {"path": "mine.txt", "content": "me", "last": True}),
        step="agent",
        turn=2,
        when='by the step "first", which runs at the same time',
    ),
)


def test_the_second_of_two_steps_is_told_and_the_result_lists_the_conflict(cli: Cli) -> None:
    steps = (FIRST, AGENT, WORDS, {**TOOL, "needs": ["words"]}, AFTER)
    ran = cli("run", cli.plan(*steps), cli.script(*SCRIPT), "--concurrency=1", "--json")

    assert ran.code == 3, ran.out + ran.err
    assert {name: result["status"] for name, result in ran.json["results"].items()} == {
        "first": "done", "agent": "done", "words": "done", "tool": "failed", "after": "done",
    }  # fmt: skip
    assert (cli.folder / "notes.txt").read_text() == "one and more"  # a step that needs the writer may go on with it
    assert (cli.folder / "mine.txt").read_text() == "me"  # the model read why, and took another name
    refused = ran.json["results"]["tool"]["error"]
    assert (refused["type"], '"notes.txt" was written by the step' in refused["message"]) == ("file_refused", True)
    assert ran.json["conflicts"] == [
        {"path": "notes.txt", "written_by": ["first", "after"], "refused": ["agent", "tool"]}
    ]
    jsonschema.validate(ran.json, cli("schema", "result").json)

    again = cli("resume", cli.script(*SCRIPT, name="again.jsonl"), "--json")  # the writer's process has gone

    assert (again.code, again.json["results"]["tool"]["status"]) == (3, "failed")
    assert again.json["conflicts"] == ran.json["conflicts"]
    assert (cli.folder / "notes.txt").read_text() == "one and more"
    shown = cli("show").out
    assert "conflict: notes.txt was written by first, after; agent, tool wanted to write it at the same time" in shown


def test_a_part_that_is_run_anew_does_not_lose_the_file_of_a_step_beside_it(cli: Cli) -> None:
    other = {"id": "other", "tool": "write_file", "with": {"path": "notes.txt", "content": "two"}, "needs": []}
    plan = cli.plan(FIRST, other)
    ran = cli("run", plan, "--concurrency=1", "--json")
    assert ran.json["conflicts"] == [{"path": "notes.txt", "written_by": ["first"], "refused": ["other"]}]
    result = cli.file("result.json", json.dumps(ran.json))

    again = cli("run", plan, "--from", "other", "--context", str(result), "--json")

    assert (again.code, again.json["conflicts"]) == (3, ran.json["conflicts"])
    assert (cli.folder / "notes.txt").read_text() == "one"


@pytest.mark.parametrize(
    ("one", "other", "at_once"),
    [("a", "b", False), ("a", "c", False), ("c", "a", False), ("b", "d", True), ("a", "d", True), ("a", "x", False)],
)
def test_steps_run_at_once_when_neither_follows_from_the_other(one: str, other: str, at_once: bool) -> None:
    needs = {"a": [], "b": ["a"], "c": ["b"], "d": []}
    raw = {"plan": [{"id": name, "agent": "code", "prompt": "x", "needs": given} for name, given in needs.items()]}
    assert check(raw, ["code"], {}).at_once(one, other) is at_once
