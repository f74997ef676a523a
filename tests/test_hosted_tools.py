"""Hosted tools through the command line: an agent's file asks for them, and what they leave lands in the workspace."""

import base64
import json
from typing import Any

import pytest

from master_agent.catalogue import HOSTED
from tests.conftest import Cli, Ran
from tests.conftest import says as scripted
from tests.servers.chat import ChatServer, error
from tests.servers.loopback import Body
from tests.servers.responses import Answer, call, failed_response, reply
from tests.servers.responses_hosted import HostedServer, cites, file, page, picture, ran, says, searched
from tests.test_given_files import png
from tests.test_readme import README

PNG = png()
ALL = "hosted: [code_interpreter, web_search, image_generation]"


def analyst(cli: Cli, *settings: str) -> Cli:
    """The command line with an agent of the user's own that has every hosted tool, and these settings."""
    front = "\n".join(["name: analyst", "description: Analyses.", ALL, *settings])
    path = cli.home / "config" / "agents" / "analyst.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\n{front}\n---\nYou analyse.\n")
    return cli


def asked(cli: Cli, server: HostedServer, *arguments: str) -> Ran:
    """What the analyst, or the program with these arguments, makes of a responses server."""
    what = arguments or ("agents", "run", "analyst", "Do it", "--json")
    return cli(*what, "--openai-base-url", server.base_url, "--wire", "responses", "--model", "test-model")


def step(done: Ran, name: str = "analyst") -> dict[str, Any]:
    found: dict[str, Any] = done.json["results"][name]
    return found


def saved(cli: Cli, result: dict[str, Any]) -> dict[str, bytes]:
    """The files of a result, by path, as they stand in the workspace."""
    return {artifact["path"]: (cli.folder / artifact["path"]).read_bytes() for artifact in result["artifacts"]}


def test_what_hosted_tools_leave_is_in_the_workspace_and_in_the_result(cli: Cli) -> None:
    whole = says(
        ran("plot()"), searched("tea"), picture(PNG),
        cites("Tea grows.", file("table.csv"), page("https://tea.example/", "Tea")),
    )  # fmt: skip
    with HostedServer([whole], {("cntr_1", "cfile_1"): b"a,b\n"}) as server:
        done = asked(analyst(cli), server)
        assert [tool["type"] for tool in server.bodies[0]["tools"]] == list(HOSTED)

    assert (done.code, done.json["final"]) == (0, "Tea grows."), done.out
    result = step(done)
    assert saved(cli, result) == {"images/analyst.png": PNG, "table.csv": b"a,b\n"}
    assert [artifact["media_type"] for artifact in result["artifacts"]] == ["image/png", "text/csv"]
    assert result["data"] == {"sources": [{"title": "Tea", "url": "https://tea.example/"}]}
    assert (result["usage"]["images"], result["usage"]["input_tokens"]) == (1, 11)


def test_a_later_step_gets_the_path_of_the_picture(cli: Cli) -> None:
    plan = cli.plan(
        {"id": "chart", "agent": "analyst", "prompt": "Draw it", "needs": []},
        {"id": "page", "agent": "code", "prompt": "Show ${chart.path}", "needs": ["chart"]},
    )
    with HostedServer([says(picture(PNG)), reply("<img>")]) as server:
        done = asked(analyst(cli), server, "run", plan, "--json")
        assert "images/chart.png" in json.dumps(server.bodies[1]["input"])

    assert done.code == 0, done.out
    assert step(done, "chart")["text"] == "images/chart.png", "a model that said nothing left a file all the same"


def test_nothing_that_is_there_is_replaced(cli: Cli) -> None:
    cli.file("table.csv", "mine")
    cli.file("images/analyst.png", "mine")
    cli.file("Makefile", "mine")
    cited = [file("table.csv", "cfile_1"), file("Makefile", "cfile_2")]
    files = {("cntr_1", "cfile_1"): b"theirs", ("cntr_1", "cfile_2"): b"all:"}
    with HostedServer([says(picture(PNG), cites("Here.", *cited))], files) as server:
        done = asked(analyst(cli), server)

    assert saved(cli, step(done)) == {"images/analyst-2.png": PNG, "table-2.csv": b"theirs", "Makefile-2": b"all:"}
    assert {(cli.folder / name).read_text() for name in ("table.csv", "images/analyst.png", "Makefile")} == {"mine"}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../evil.txt", "evil.txt"),
        ("/etc/evil.txt", "evil.txt"),
        ("C:\\evil\\evil.txt", "evil.txt"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("a\nb\u202ec.txt", "a_b_c.txt"),
        ("tableau été.csv", "tableau été.csv"),
        ("archive.tar.gz", "archive.tar.gz"),
        ("Dockerfile", "Dockerfile"),
        ("..", "analyst.bin"),
        ("", "cfile_1"),
    ],
)
def test_a_name_leads_nowhere_but_into_the_workspace(cli: Cli, name: str, path: str) -> None:
    analyst(cli)
    before = {found for found in cli.folder.parent.rglob("*") if not found.is_relative_to(cli.folder)}
    with HostedServer([says(cites("Here.", file(name)))], {("cntr_1", "cfile_1"): b"content"}) as server:
        done = asked(cli, server)

    assert saved(cli, step(done)) == {path: b"content"}
    assert step(done)["text"] == "Here."
    after = {found for found in cli.folder.parent.rglob("*") if not found.is_relative_to(cli.folder)}
    assert {found.relative_to(cli.home).parts[0] for found in after - before} <= {"state"}


@pytest.mark.parametrize("name", ["server.pem", "id_rsa", "n" * 300 + ".txt"])
def test_a_file_whose_name_the_workspace_refuses_has_another_and_that_is_said(cli: Cli, name: str) -> None:
    with HostedServer([says(cites("Here.", file(name)))], {("cntr_1", "cfile_1"): b"content"}) as server:
        done = asked(analyst(cli), server)

    result = step(done)
    assert saved(cli, result) == {"analyst.bin": b"content"}
    assert f'"{name}" was saved as analyst.bin' in result["text"]
    assert result["text"] == f"Here.\n({result['data']['notes'][0]})"


def test_a_file_that_cannot_be_had_is_named_and_the_step_is_done(cli: Cli) -> None:
    cited = [file("gone.csv", "cfile_1"), file("kept.csv", "cfile_2")]
    with HostedServer([says(cites("Two files.", *cited))], {("cntr_1", "cfile_2"): b"kept"}) as server:
        done = asked(analyst(cli), server)

    result = step(done)
    assert (done.code, result["status"], result["reason"]) == (0, "done", None)
    assert saved(cli, result) == {"kept.csv": b"kept"}
    assert result["text"].startswith('Two files.\n(the file "gone.csv" could not be fetched: ')
    assert "gone.csv" in result["data"]["notes"][0]


def test_data_stays_data_whatever_becomes_of_the_files(cli: Cli) -> None:
    shape = "output: {type: object, properties: {sources: {type: integer}}, required: [sources], "
    shape += "additionalProperties: false}"
    answer = cites('{"sources": 3}', file("gone.csv"), page("https://tea.example/"))
    with HostedServer([says(picture(PNG), answer)]) as server:
        done = asked(analyst(cli, shape), server)
        assert server.count == 1

    result = step(done)
    assert json.loads(result["text"]) == {"sources": 3}
    assert result["data"]["sources"] == 3, "what the agent was asked for goes before what we add"
    assert "gone.csv" in result["data"]["notes"][0]
    assert saved(cli, result) == {"images/analyst.png": PNG}


def test_what_every_turn_leaves_is_kept_and_the_same_file_only_once(cli: Cli) -> None:
    cited = cites("Look.", file("a.csv"), page("https://a.example/"))
    rounds: list[Answer] = [
        says(picture(PNG), cited, call("list_files", {})),
        says(picture(PNG[:-1] + b"."), cited, call("list_files", {})),
        says(cites("Done.", page("https://b.example/"))),
    ]
    with HostedServer(rounds, {("cntr_1", "cfile_1"): b"a"}) as server:
        done = asked(analyst(cli, "tools: [list_files]"), server)
        assert server.faults == []
        listed = next(item for item in server.bodies[1]["input"] if item["type"] == "function_call_output")["output"]

    result = step(done)
    assert [artifact["path"] for artifact in result["artifacts"]] == [
        "images/analyst.png",
        "a.csv",
        "images/analyst-2.png",
    ]
    assert [source["url"] for source in result["data"]["sources"]] == ["https://a.example/", "https://b.example/"]
    assert result["usage"]["images"] == 2
    assert "images/analyst.png" in listed, "a file is there before the next turn"


@pytest.mark.parametrize("after", [failed_response("invalid_prompt"), error(400, "No.")], ids=["failed", "refused"])
def test_what_was_paid_for_is_kept_though_the_step_fails(cli: Cli, after: Answer) -> None:
    with HostedServer([says(picture(PNG), call("list_files", {})), after]) as server:
        done = asked(analyst(cli, "tools: [list_files]"), server)

    assert (done.code != 0, step(done)["status"]) == (True, "failed")
    assert (cli.folder / "images/analyst.png").read_bytes() == PNG


def test_a_resumed_run_has_what_earlier_turns_left_without_asking_for_it_again(cli: Cli) -> None:
    first = says(picture(PNG), cites("Look.", file("a.csv"), page("https://a.example/")), call("list_files", {}))
    with HostedServer([first, error(400, "No."), reply("Done.")], {("cntr_1", "cfile_1"): b"a"}) as server:
        assert step(asked(analyst(cli, "tools: [list_files]"), server))["status"] == "failed"
        done = asked(cli, server, "resume", "--json")
        assert (server.count, server.fetched) == (3, ["cntr_1/cfile_1"])

    result = step(done)
    assert (done.code, result["text"]) == (0, "Done."), done.out
    assert saved(cli, result) == {"images/analyst.png": PNG, "a.csv": b"a"}
    assert [source["url"] for source in result["data"]["sources"]] == ["https://a.example/"]


def test_a_wire_without_hosted_tools_is_told_of_before_any_request(cli: Cli) -> None:
    with ChatServer() as server:
        done = analyst(cli)(
            *("agents", "run", "analyst", "Do it", "--json"), *("--openai-base-url", server.base_url, "--model", "m")
        )
        assert server.count == 0

    failure = step(done)["error"]
    assert (done.code, failure["type"]) == (1, "settings"), done.out
    for said in ("analyst", "code_interpreter, web_search, image_generation", "the wire chat"):
        assert said in failure["message"]
    assert "--wire responses" in failure["hint"]


def test_what_hosted_tools_cost_is_unknown_and_so_refused_where_money_is_limited(cli: Cli) -> None:
    with HostedServer([says(cites("Done."))]) as server:
        run_it = ["agents", "run", "analyst", "Do it", "--json", "--max-cost", "1", "--wire", "responses"]
        run_it += ["--model", "openai:gpt-5", "--openai-base-url", server.base_url]
        refused = analyst(cli)(*run_it)
        assert server.count == 0
        done = cli(*run_it, "--allow-unpriced")

    error, tools = refused.json["error"], "code_interpreter, web_search, image_generation"
    assert (refused.code, error["type"]) == (2, "settings"), refused.out
    assert error["message"] == f"--max-cost: no price is known of {tools} at the model's provider (analyst)"
    used = [done.json["usage"], step(done)["usage"], cli("cost", "--json").json["total"]]
    assert [(one["cost_usd"] > 0, one["cost_complete"]) for one in used] == [(True, False)] * 3, done.out


def test_a_server_that_runs_no_such_tool_is_asked_once(cli: Cli) -> None:
    with HostedServer([error(400, "Hosted tool 'web_search' is not supported with test-model.")]) as server:
        done = asked(analyst(cli), server)
        assert server.count == 1

    assert "does not run web_search" in step(done)["error"]["hint"]


def test_a_script_runs_agents_with_hosted_tools_too(cli: Cli) -> None:
    done = analyst(cli)("agents", "run", "analyst", "Do it", cli.script(scripted("Done.")), "--json")

    assert (done.code, done.json["final"]) == (0, "Done."), done.out


def test_what_the_provider_may_do_is_said_before_a_plan_is_run(cli: Cli) -> None:
    done = analyst(cli)("run", cli.plan({"agent": "analyst", "prompt": "Do it"}), cli.script(scripted("Done.")))

    tools = "code_interpreter, image_generation, web_search"
    said = f"1 step may use {tools} at the model's provider, which may bill them: analyst_1"
    assert (done.code, said in done.err) == (0, True), done.err


def test_the_journal_holds_which_file_was_made_and_not_its_bytes(cli: Cli) -> None:
    with HostedServer([says(picture(PNG), cites("Here.", file("a.csv")))], {("cntr_1", "cfile_1"): b"a,b"}) as server:
        done = asked(analyst(cli), server, "agents", "run", "analyst", "Do it", "--events")

    changed = [event for event in done.events if event["type"] == "file_changed"]
    assert [(event["step"], event["file"]["path"]) for event in changed] == [
        ("analyst", "images/analyst.png"),
        ("analyst", "a.csv"),
    ]
    assert base64.b64encode(PNG).decode()[:40] not in done.out


def test_hosted_tools_stand_in_the_lists_of_agents(cli: Cli) -> None:
    listed: list[Body] = analyst(cli)("agents", "--json").json["agents"]

    assert {agent["name"]: agent["hosted"] for agent in listed} | {"analyst": list(HOSTED), "code": []} == {
        agent["name"]: agent["hosted"] for agent in listed
    }
    assert cli("agents", "show", "analyst", "--json").json["hosted"] == list(HOSTED)
    (row,) = [line for line in cli("agents").out.splitlines() if line.startswith("analyst")]
    assert "web_search (hosted)" in row


def test_the_readme_names_every_hosted_tool() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `hosted`")]
    assert [name for name in HOSTED if f"`{name}`" not in row] == []
