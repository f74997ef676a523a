"""New runs out of earlier ones: a part run anew, and a new task on what was made."""

from typing import Any

from tests.conftest import Cli, calls, plans, says
from tests.servers.chat import ChatServer, reply
from tests.servers.loopback import Behaviour, Body

FIRST = {"id": "first", "agent": "code", "prompt": "One", "needs": []}
SECOND = {"id": "second", "agent": "file", "prompt": "Two: ${first.text}", "needs": ["first"]}


def write(content: str, *, overwrite: bool = False) -> dict[str, Any]:
    use = ("write_file", {"path": "page.html", "content": content, "overwrite": overwrite, "last": True})
    return calls(use, step="second")


def first_run(cli: Cli) -> str:
    ran = cli(
        "run", cli.plan(FIRST, SECOND, task="A page"), cli.script(says("ONE", step="first"), write("light")), "--json"
    )
    assert ran.code == 0, ran.out + ran.err
    return str(ran.json["run_id"])


def test_a_fork_runs_a_step_anew_on_the_results_of_the_first_run(cli: Cli) -> None:
    run_id = first_run(cli)

    ran = cli("fork", run_id, "--from", "second", cli.script(write("dark"), name="b.jsonl"), "--json")

    assert ran.code == 0, ran.out + ran.err
    first = ran.json["results"]["first"]
    assert (first["status"], first["from_run"], first["text"]) == ("reused", run_id, "ONE")
    assert (cli.folder / "page.html").read_text() == "dark"  # a file of the first run's own may be replaced
    listed = {one["run_id"]: one for one in cli("runs", "--json").json["runs"]}
    new = listed[ran.json["run_id"]]
    assert (new["parent"], new["origin"], new["task"]) == (run_id, "fork", "A page")
    assert listed[run_id]["status"] == "done"
    assert ran.json["parent"] == cli("show", "--json").json["parent"] == run_id
    assert f"fork of {run_id}" in cli("show").err


def test_a_fork_may_ask_another_model(cli: Cli) -> None:
    def brain(body: Body) -> Behaviour:
        return reply(f"by {body['model']}")

    with ChatServer(brain) as server:
        flags = ("--openai-base-url", server.base_url)
        first = cli("run", cli.plan(FIRST), *flags, "--model", "small", "--json")
        ran = cli("fork", first.json["run_id"], "--from", "first", "--model", "large", "--json")

    assert (first.json["final"], ran.json["final"]) == ("by small", "by large"), ran.err


def test_a_fork_from_a_step_that_is_not_there_or_of_an_undone_run_is_refused(cli: Cli) -> None:
    run_id = first_run(cli)
    wrong = cli("fork", run_id, "--from", "secnd")
    assert wrong.code == 2 and 'did you mean "second"' in wrong.err

    cli("undo", run_id)

    assert "was undone by" in cli("fork", run_id, "--from", "second").err


def test_a_continued_run_plans_on_what_the_first_one_made_and_may_replace_it(cli: Cli) -> None:
    run_id = first_run(cli)
    darker = {"id": "second", "agent": "file", "prompt": "Make page.html darker", "needs": []}
    script = cli.script(plans(darker), write("darker"), name="b.jsonl")

    ran = cli("continue", run_id, "Make the page darker", script, "--yes", "--json")

    assert ran.code == 0, ran.out + ran.err
    assert (cli.folder / "page.html").read_text() == "darker"
    new = {one["run_id"]: one for one in cli("runs", "--json").json["runs"]}[ran.json["run_id"]]
    assert (new["parent"], new["origin"], new["task"]) == (run_id, "continue", "Make the page darker")
    asked = cli("show", ran.json["run_id"], "--thread", "planner", "--json").json["thread"][0]["text"]
    assert "goes on from an earlier run" in asked
    told = asked[asked.index("task: A page") :]
    assert "step first, agent code: One" in told and "ONE" in told and "file: page.html" in told


def test_a_continued_run_leaves_what_a_person_has_changed_since(cli: Cli) -> None:
    run_id = first_run(cli)
    cli.file("page.html", "by a person")
    darker = {"id": "second", "agent": "file", "prompt": "Make page.html darker", "needs": []}
    script = cli.script(plans(darker), write("darker"), says("It is kept.", step="second"), name="b.jsonl")

    cli("continue", run_id, "Make the page darker", script, "--yes")

    assert (cli.folder / "page.html").read_text() == "by a person"


def test_a_continued_run_that_waits_is_resumed_with_what_it_was_told(cli: Cli) -> None:
    run_id = first_run(cli)
    darker = {"id": "second", "agent": "file", "prompt": "Make page.html darker", "needs": []}
    assert cli("continue", run_id, "Darker", cli.script(plans(darker), name="b.jsonl")).code == 75

    ran = cli("resume", "--yes", cli.script(write("darker"), name="c.jsonl"))

    assert ran.code == 0, ran.err
    assert (cli.folder / "page.html").read_text() == "darker"
