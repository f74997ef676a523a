"""Looking back: the conversation of a step, and why a file is as it is."""

import shutil

import pytest

from master_agent.events import Event, FileChanged, RunFinished, RunResumed, RunStarted, StepFinished, StepStarted
from master_agent.journal import Journal
from master_agent.media import described
from master_agent.results import StepResult
from tests.conftest import Cli, Ran, calls, plans, says

NOTE = {"id": "note", "agent": "file", "prompt": "Write a note", "needs": []}
PAGE = {"id": "page", "agent": "code", "prompt": "A page about ${note.text}", "needs": ["note"]}
SAVE = {"id": "save", "tool": "save_result", "with": [{"name": "step", "value": "page"}], "needs": ["page"]}


@pytest.fixture
def ran(cli: Cli) -> Ran:
    """A run that wrote note.txt, by an agent's tool, and index.html, by a tool's step."""
    write = ("write_file", {"path": "note.txt", "content": "hello", "overwrite": True, "last": False})
    save = {**SAVE, "with": [*SAVE["with"], {"name": "path", "value": "index.html"}]}
    script = cli.script(
        plans(NOTE, PAGE, save),
        {"port": "thread", "step": "note", "turn": 1, "reply": {"text": "Writing.", **calls(write)["reply"]}},
        says("The note is written.", step="note", turn=2),
        says("```html index.html\n<p>hello</p>\n```", step="page"),
    )
    given = cli.file("brief.txt", "be brief")
    done = cli("Make a page", script, "--model", "m-1", "--yes", "--json", "--file", str(given))
    assert done.code == 0, done.out + done.err
    return done


def test_the_conversation_of_a_step_is_shown_with_its_turns_tools_and_replies(cli: Cli, ran: Ran) -> None:
    shown = cli("show", ran.json["run_id"], "--thread", "note").out

    lines = shown.splitlines()
    assert lines[0] == "started: agent file, attempt 1"
    assert "turn 1, to m-1:" in lines and "Write a note" in shown
    order = ["Writing.", "uses write_file", "tool write_file:", "makes note.txt (5 bytes)", "output of write_file"]
    order += ["turn 2: 1 output given back", "The note is written.", "ended: done"]
    places = [shown.index(part) for part in order]
    assert places == sorted(places)


def test_the_conversation_as_json_and_that_of_the_planner(cli: Cli, ran: Ran) -> None:
    told = cli("show", "--thread", "note", "--json").json
    roles = [entry["role"] for entry in told["thread"]]

    assert (told["run_id"], told["step"]) == (ran.json["run_id"], "note")
    assert roles == ["start", "user", "model", "tool", "file", "output", "tools", "model", "end"]
    assert told["thread"][2]["calls"][0]["name"] == "write_file"
    assert "Make a page" in cli("show", "--thread", "planner").out


def test_a_step_that_is_not_there_is_told_with_the_nearest_one(cli: Cli, ran: Ran) -> None:
    refused = cli("show", "--thread", "pgae")

    assert refused.code == 2 and 'no step "pgae"; did you mean "page"' in refused.err


def test_why_tells_who_made_a_file_and_from_what(cli: Cli, ran: Ran) -> None:
    told = cli("why", "note.txt", "--json").json

    (made,) = told["made_by"]
    assert told["status"] == "as_made"
    assert (made["run_id"], made["task"], made["step"]) == (ran.json["run_id"], "Make a page", "note")
    assert (made["agent"], made["model"], made["tool"]) == ("file", "m-1", "write_file")
    assert (made["prompt"], made["given"], made["from"]) == ("Write a note", ["brief.txt"], [])

    (page,) = cli("why", "index.html", "--json").json["made_by"]
    assert (page["agent"], page["tool"], page["model"]) == (None, "save_result", None)
    assert page["from"][0]["step"] == "page" and "<p>hello</p>" in page["from"][0]["text"]
    assert page["arguments"]["path"] == "index.html"
    text = cli("why", "index.html").out
    assert "is as a run made it" in text and "from    page: " in text


def test_why_says_when_a_file_has_changed_was_copied_is_gone_or_is_nobodys(cli: Cli, ran: Ran) -> None:
    shutil.copy(cli.folder / "note.txt", cli.folder / "copy.txt")
    cli.file("index.html", "by a person")
    cli.file("mine.txt", "mine")

    assert "its bytes are those of another file" in cli("why", "copy.txt").out
    assert "has changed since" in cli("why", "index.html").out
    (cli.folder / "note.txt").unlink()
    assert "not there any more" in cli("why", "note.txt").out
    unknown = cli("why", "mine.txt")
    assert (unknown.code, unknown.out[:11]) == (1, "No run made")


def test_a_file_that_an_undone_undo_put_back_is_told_of_with_both(cli: Cli, ran: Ran) -> None:
    undo = cli("undo", ran.json["run_id"], "--json").json["run_id"]
    assert "not there any more" in cli("why", "note.txt").out
    redo = cli("undo", undo, "--json").json["run_id"]

    told = cli("why", "note.txt", "--json").json

    assert told["status"] == "as_made"
    assert [one["run_id"] for one in told["made_by"]] == [redo, ran.json["run_id"]]
    assert [one["relation"] for one in told["made_by"]] == ["made_it", "made_the_same_before"]
    assert "The same bytes were written here before:" in cli("why", "note.txt").out


def written(name: str, content: str) -> dict[str, object]:
    return {"id": name[0], "tool": "write_file", "with": {"path": name, "content": content}, "needs": []}


def test_of_files_with_the_same_bytes_why_says_what_each_has_to_do_with_the_one_asked_for(cli: Cli) -> None:
    assert cli("run", cli.plan(written("a.txt", "same"), written("b.txt", "same"))).code == 0
    assert cli("run", cli.plan({**written("a.txt", "other"), "with": {**WITH, "content": "other"}})).code == 0

    assert "Before" not in cli("why", "b.txt").out
    other = cli("why", "b.txt").out
    assert (
        other.index("is as a run made it")
        < other.index("b.txt\n")
        < other.index("The same bytes were written into other files too:")
        < other.index("a.txt\n")
    )
    cli.file("a.txt", "a person's")
    changed = cli("why", "a.txt", "--json").json
    assert [one["relation"] for one in changed["made_by"]] == ["wrote_it_last", "wrote_it_before"]
    assert "Before that, it was written by:" in cli("why", "a.txt").out


WITH = {"path": "a.txt", "overwrite": True}


def test_a_write_that_failed_made_nothing_for_why_undo_and_the_conversation(cli: Cli) -> None:
    cli.file("folder", "a file where a folder would have to be")
    failed = cli("run", cli.plan(written("folder/a.txt", "a")), "--events")
    assert failed.code == 1 and "file_change_failed" in [event["type"] for event in failed.events]

    told = cli("why", "folder/a.txt")
    assert told.code == 1 and "No run made folder/a.txt: one that meant to write it could not." in told.out
    assert 'but     not written: "folder/a.txt" lies in something that is not a folder' in told.out
    assert "folder/a.txt stays as it was, file_refused" in cli("show", "--thread", "f").out
    (cli.folder / "folder").unlink()
    cli.file("folder/a.txt", "a person's")

    assert "No run made folder/a.txt" in cli("why", "folder/a.txt").out
    undone = cli("undo", failed.events[0]["run_id"])
    assert (undone.code, "Nothing to undo" in undone.err) == (0, True), undone.err
    assert (cli.folder / "folder" / "a.txt").read_text() == "a person's"


@pytest.mark.parametrize(
    ("after", "status"),
    [
        ((), "not_known"),
        ((RunResumed(), RunFinished(status="failed")), "not_known"),
        ((StepFinished(step="b", result=StepResult(status="done")),), "not_known"),
        ((StepFinished(step="a", result=StepResult(status="done")),), "missing"),
        ((RunFinished(status="failed"),), "missing"),
    ],
)
def test_a_change_that_a_process_died_in_is_not_said_to_have_been_made(
    cli: Cli, after: tuple[Event, ...], status: str
) -> None:
    with Journal(cli.home / "state" / "journal.db", "r1") as journal:
        for event in (
            RunStarted(workspace=str(cli.folder)),
            StepStarted(step="a", attempt=1, tool="write_file"),
            FileChanged(step="a", file=described("a.txt", b"a")),
            *after,
        ):
            journal.note(event)

    told = cli("why", "a.txt", "--json")
    assert (told.code, told.json["status"]) == (int(status == "not_known"), status)
    cli.file("a.txt", "a")
    assert cli("why", "a.txt", "--json").json["status"] == "as_made"  # the bytes that are there tell


def test_a_yes_out_of_habit_harms_nothing_where_nothing_is_asked(cli: Cli) -> None:
    script = cli.script({"port": "thread", "repeat": True, "reply": {"text": "Hi."}})
    plan = cli.plan({"id": "a", "agent": "code", "prompt": "Hi"})
    ran = cli("run", plan, script, "--yes", "--json")
    commands = (
        ("fork", ran.json["run_id"], "--from", "a"),
        ("agents", "run", "code", "Hi"),
        ("undo", ran.json["run_id"]),
    )

    assert ran.code == 0
    for command in commands:
        done = cli(*command, "-y", *([] if command[0] == "undo" else [script]))
        assert done.code == 0, done.err
    assert cli("demo", "--list", "--yes").code == 0


def test_a_run_of_a_plan_without_a_task_is_listed_by_its_steps(cli: Cli, ran: Ran) -> None:
    steps = [{"id": name, "tool": "list_files", "needs": []} for name in "abcdefg"]
    assert [cli("run", cli.plan(*steps[:count])).code for count in (1, 7)] == [0, 0]

    many, one, task = cli("runs").out.splitlines()

    assert many.endswith("(plan: a, b, c, d, e and 2 more)") and one.endswith("(plan: a)")
    assert task.endswith("Make a page")


def test_the_list_of_runs_says_how_many_it_leaves_out(cli: Cli, ran: Ran) -> None:
    cli("undo", ran.json["run_id"])

    assert cli("runs").err == ""
    assert (cli("runs", "--most", "1").err, len(cli("runs", "--most", "1").out.splitlines())) == (
        "1 of 2 runs; --most 2 lists all\n",
        1,
    )
    none = cli("runs", "--most", "0")
    assert (none.code, none.out, none.err) == (0, "", "0 of 2 runs; --most 2 lists all\n")
    assert cli("runs", "--most", "-1").code == 2


@pytest.mark.parametrize("command", ["undo", "purge --yes", "show", "cost", "resume", "why"])
def test_an_empty_name_is_no_name_even_where_there_is_one_run_only(cli: Cli, ran: Ran, command: str) -> None:
    name, *flags = command.split()

    refused = cli(name, "", *flags)

    assert refused.code == 2 and "is empty" in refused.err
    assert cli("show", ran.json["run_id"]).code == 0
