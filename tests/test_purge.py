"""Purged runs are gone wholly, and what other runs need stays; what lies elsewhere is named."""

import signal
import sqlite3
from pathlib import Path

import pytest
from pydantic import JsonValue

from master_agent.events import Event, ModelReplied, RunFinished, RunStarted, ToolProgressed
from master_agent.history.purge import remotes
from master_agent.journal import Journal
from master_agent.rows import LONG_TEXT
from tests.conftest import Cli
from tests.servers.assistant_runs import says
from tests.servers.assistants import AssistantsServer
from tests.servers.responses import ResponsesServer, reply
from tests.terminal import AtTerminal
from tests.test_undo import run, writes


def database(cli: Cli) -> Path:
    return cli.home / "state" / "journal.db"


def rows(cli: Cli, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(database(cli))
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def make_old(cli: Cli, run_id: str) -> None:
    connection = sqlite3.connect(database(cli))
    with connection:
        connection.execute(
            "UPDATE runs SET began = '2020-01-01T00:00:00.000Z', ended = NULL WHERE run_id = ?", (run_id,)
        )
    connection.close()


def test_a_purged_run_is_gone_with_all_that_only_it_needs(cli: Cli) -> None:
    cli.file("a.txt", "SECRET-BEFORE")
    cli.file("shared.txt", "shared")
    first = run(cli, [writes("a.txt", "SECRET-AFTER" * 1000), writes("shared.txt", "x")])
    cli.file("shared.txt", "shared")
    second = run(cli, [writes("shared.txt", "y")])

    ran = cli("purge", first, "--yes", "--json")

    assert (ran.code, ran.json["purged"], ran.json["not_removed"]) == (0, [first], [])
    assert [one["run_id"] for one in cli("runs", "--json").json["runs"]] == [second]
    assert cli("show", first).code == 2
    assert rows(cli, f"SELECT count(*) FROM events WHERE run_id = '{first}'") == [(0,)]
    kept = b"".join(path.read_bytes() for path in database(cli).parent.glob("journal.db*"))
    assert b"SECRET" not in kept
    assert cli("undo", second).code == 0
    assert (cli.folder / "shared.txt").read_text() == "shared"


def test_without_a_terminal_and_yes_nothing_is_removed(cli: Cli) -> None:
    run_id = run(cli, [writes("a.txt", "a")])

    ran = cli("purge", run_id)

    assert ran.code == 2 and "--yes" in ran.err
    assert cli("show", run_id).code == 0


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_at_a_terminal_it_is_asked(cli: Cli, answer: str, left: int) -> None:
    run_id = run(cli, [writes("a.txt", "a")])
    terminal = AtTerminal(cli, "purge", run_id)

    terminal.answer("Remove 1 run from the journal", answer + "\n")

    assert terminal.end()[0] == 0
    assert len(cli("runs", "--json").json["runs"]) == left


def test_a_run_at_work_is_not_purged(cli: Cli) -> None:
    hang = cli.script({"port": "thread", "reply": {"hang": True}})
    process = cli.start("run", cli.plan({"agent": "code", "prompt": "x"}), hang, "--events")
    assert process.stdout is not None
    process.stdout.readline()

    ran = cli("purge", cli("runs", "--json").json["runs"][0]["run_id"], "--yes")

    assert ran.code == 2 and "is at work in process" in ran.err
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def test_what_lies_at_services_is_named_and_where_it_cannot_be_removed_it_is_said(cli: Cli) -> None:
    with Journal(database(cli), "r1") as journal:
        journal.note(RunStarted(task="Greet", workspace=str(cli.folder)))
        journal.note(ModelReplied(step="a", status="completed", text="x" * LONG_TEXT, ids={"conversation": "conv_1"}))
        journal.note(ToolProgressed(step="a", tool="generate_image", remote_id="p1"))
        journal.note(RunFinished(status="done"))

    ran = cli("purge", "r1", "--yes")

    assert ran.code == 3  # there is no key
    assert "conversation conv_1 (run r1): stays there: there is no OPENAI_API_KEY to ask with" in ran.err
    assert "prediction p1 (run r1): stays there: Replicate deletes no prediction by its API" in ran.err
    assert "By hand:\n  curl -X DELETE https://api.openai.com/v1/conversations/ID -H" in ran.err
    assert rows(cli, "SELECT count(*) FROM blobs") == [(0,)]


def test_what_names_a_remote_object_is_found_wherever_it_stands() -> None:
    items: list[dict[str, JsonValue]] = [{"content": [{"annotations": [{"container_id": "cntr_1"}]}]}]
    history: list[Event] = [
        ModelReplied(status="completed", ids={"conversation": "conv_1"}, remote_id="resp_1"),
        ModelReplied(status="completed", ids={"conversation": "conv_1"}, remote_id="resp_2"),
        ModelReplied(status="completed", remote_id="resp_3", items=items),  # the server was asked to keep nothing
        ModelReplied(status="completed", ids={"thread": "t", "assistant": "a", "run": "r", "message": "m"}),
        ToolProgressed(tool="generate_image", remote_id="p1"),
    ]
    assert [(one.kind, one.id) for one in remotes(history)] == [
        ("response", "resp_1"),
        ("response", "resp_2"),
        ("container", "cntr_1"),
        ("thread", "t"),
        ("prediction", "p1"),
        ("conversation", "conv_1"),
        ("assistant", "a"),
    ]


PLAN = {"id": "a", "agent": "code", "prompt": "Hi", "needs": []}
KEY = {"OPENAI_API_KEY": "sk-right"}


def at(server: ResponsesServer | AssistantsServer, wire: str, *more: str) -> tuple[str, ...]:
    return ("--wire", wire, "--openai-base-url", server.base_url, "--model", "test-model", *more)


def test_a_purged_run_takes_its_conversation_with_it_and_a_refused_key_is_told(cli: Cli) -> None:
    with ResponsesServer([reply("Hello.")] * 3, key="sk-right") as server:
        server.keeping.containers.add("cntr_1")
        flags = at(server, "responses", "--thread-store", "conversation")
        first, second = (cli("run", cli.plan(PLAN), *flags, "--json", env=KEY).json["run_id"] for _ in range(2))
        assert len(server.conversations) == len(server.kept) == 2

        ran = cli("purge", first, "--yes", "--json", env=KEY)

        assert (ran.code, ran.json["purged"], ran.json["not_removed"]) == (0, [first], []), ran.err
        assert [one["kind"] for one in ran.json["removed"]] == ["response", "conversation"]
        assert (len(server.conversations), len(server.kept), server.keeping.orphans) == (1, 1, [])

        by_hand = cli("purge", second, "--yes", "--local-only", env=KEY).err.partition("By hand:")[2].split()
        assert [word for word in by_hand if "http" in word] == [
            f"{server.base_url}/{kind}/ID" for kind in ("responses", "conversations")
        ]
        second = cli("run", cli.plan(PLAN), *flags, "--json", env=KEY).json["run_id"]
        asked = len(server.requests)
        refused = cli("clean", "--older-than", "0h", "--yes", "--json", env={"OPENAI_API_KEY": "sk-wrong"})

        assert (refused.code, refused.json["purged"]) == (3, [second])
        assert [one["kind"] for one in refused.json["not_removed"]] == ["response", "conversation"]
        assert "Incorrect API key" in refused.json["not_removed"][1]["why"]
        assert len(server.requests) == asked + 1  # for nothing else would be let in either
    assert cli("runs", "--json").json["runs"] == []


@pytest.mark.slow
def test_threads_of_a_failed_run_go_with_it_what_is_gone_is_told_and_local_only_asks_nobody(cli: Cli) -> None:
    with AssistantsServer([says("One."), says("Two.")] * 2) as server:
        fails = {"id": "c", "tool": "read_file", "with": {"path": "nowhere.txt"}, "needs": ["b"]}
        steps = (PLAN, {**PLAN, "id": "b", "needs": ["a"]}, fails)
        flags = (*at(server, "assistants"), "--attempts", "1", "--json")
        first, second = (cli("run", cli.plan(*steps), *flags, env=KEY).json["run_id"] for _ in range(2))
        assert len(server.threads) == 4 and server.assistants

        gone = next(iter(server.threads))
        del server.threads[gone]
        ran = cli("purge", first, "--yes", "--json", env=KEY)

        assert ran.code == 0 and {one["id"] for one in ran.json["gone_before"]} == {gone}
        assert len(server.threads) == 2
        asked = len(server.requests)
        local = cli("purge", second, "--yes", "--local-only", env=KEY)
        assert (local.code, len(server.requests)) == (0, asked)
        assert "stays there: --local-only was said" in local.err


def test_clean_removes_what_is_old_and_a_dry_run_nothing(cli: Cli) -> None:
    old, new = run(cli, [writes("a.txt", "a")]), run(cli, [writes("b.txt", "b")])
    make_old(cli, old)

    dry = cli("clean", "--older-than", "30d", "--dry-run", "--json").json
    assert (dry["found"], dry["purged"]) == ([old], [])
    assert cli("clean", "--older-than", "8w", "--yes").out.startswith(old)
    assert [one["run_id"] for one in cli("runs", "--json").json["runs"]] == [new]
    wrong = cli("clean", "--older-than", "soon")
    assert wrong.code == 2 and "12h, 30d or 8w" in wrong.err
