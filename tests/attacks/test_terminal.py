"""What models, tools, files and folders say steers no terminal, wherever it is shown."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import Cli, Ran, calls, plans, says
from tests.servers.chat import ChatServer, error
from tests.terminal import AtTerminal

ATTACK = "".join(
    [
        "\x1b[2J\x1b[31mred",  # clears the screen, changes colours
        "\x1b]52;c;aGVsbG8=\x07",  # writes to the clipboard
        "\x1b]8;;http://evil.example\x1b\\a link\x1b]8;;\x1b\\",  # hides where a link leads
        "\x1b]0;title\x07\x1bPq\x1b\\",  # sets the title, starts a picture
        "\x9b31m\x9d52;c;aGVsbG8=\x9c",  # the same in one byte each
        "safe\rrm -rf /",  # writes over what was shown
        "abc\x08\x08\x08xyz",
        "\u202egnp.exe\u2066\u200b\U000e0041",  # turns the direction, hides
    ]
)
STEERS = "\x1b\x07\x08\r\x9b\x9c\x9d\u202e\u2066\u200b\U000e0041"
AT_TERMINAL = ("\x1b[2J", "\x1b[31mred", "\x1b]", "\x1bP", *STEERS[1:3], *STEERS[4:])  # what Rich never says itself
NAME = "gnp\u202e.txt"
HOSTILE = (
    plans(
        {"id": "note", "agent": "file", "prompt": f"Note {ATTACK}", "needs": []},
        {"id": "read", "tool": "read_file", "with": {"path": NAME}, "needs": []},
        {"id": "page", "agent": "code", "prompt": ATTACK, "needs": ["note"]},
    ),
    calls(
        (f"tool{ATTACK}", {}),
        ("read_file", {"path": f"no{ATTACK}"}),
        ("write_file", {"path": "made\u202e.txt", "content": ATTACK, "last": True}),
        step="note",
    ),
    says(f"{ATTACK}\nmade", step="note", turn=2),
    says(f"# Look\n{ATTACK}\n```html a{ATTACK}.html\n<p>{ATTACK}</p>\n```", step="page"),
)


def clean(ran: Ran) -> None:
    assert [sign for sign in STEERS if sign in ran.out + ran.err] == []


def ran_all(cli: Cli, *flags: str) -> Ran:
    cli.file(NAME, ATTACK)
    return cli(f"Do {ATTACK}", cli.script(*HOSTILE), "--yes", *flags)


def test_nothing_that_was_said_steers_what_reads_the_reports(cli: Cli) -> None:
    naive = ran_all(cli, "--json")
    told = [
        naive.json["task"],
        naive.json["results"]["page"]["text"],
        (cli.folder / "made\u202e.txt").read_bytes().decode(),
    ]
    assert [text for text in told if ATTACK not in text] == [], "whoever prints what is told is steered"
    clean(naive)

    for flags in (["--verbose"], ["--events"], ["--log-file", str(cli.home / "log")]):
        clean(ran_all(cli, *flags))
    assert not set(STEERS) & set((cli.home / "log").read_text())


@pytest.mark.parametrize(
    "command",
    [
        ("show",),
        ("show", "--events"),
        ("show", "--thread", "note"),
        ("show", "--thread", "planner", "--json"),
        ("runs",),
        ("cost",),
        ("why", "made\u202e.txt"),
        ("explain", "page"),
        ("resume",),
    ],
    ids=" ".join,
)
def test_looking_back_steers_nothing(cli: Cli, command: tuple[str, ...]) -> None:
    ran_all(cli, "--quiet")
    ran = cli(*command)
    if command[0] == "explain" and ran.code == 2:
        ran = cli("explain", cli("runs", "--json").json["runs"][0]["run_id"], "page")

    clean(ran)
    assert ran.out + ran.err


def test_files_of_a_folder_and_faults_of_a_plan_steer_nothing(cli: Cli) -> None:
    agent = cli.file(".master-agent/agents/x.md", f"---\ndescription: 'D {chr(0x202E)}'\n---\n{ATTACK}\n")
    plan = cli.file("plan.json", json.dumps({"plan": [{"agent": f"code{ATTACK}", "prompt": ATTACK, ATTACK: 1}]}))
    cli.file(".env", f"OPENAI_BASE_URL=http://host/{ATTACK}\n")

    for command in (["agents"], ["agents", "show", "x"], ["check", str(plan)], ["run", str(plan)], ["doctor"]):
        clean(cli(*command))
    agent.write_text(f"---\ndescription: d\n{ATTACK}: 1\n---\n{ATTACK}")
    clean(cli("agents"))


def test_a_servers_error_steers_nothing(cli: Cli) -> None:
    with ChatServer([error(400, ATTACK)] * 3) as server:
        where = ("--openai-base-url", server.base_url, "--model=m")
        for flags in (["--verbose"], ["--json"], ["--debug"]):
            ran = cli("agents", "run", "code", "Greet", *where, *flags)
            assert ran.code != 0 and "safe" in ran.out + ran.err
            clean(ran)


def at_terminal(cli: Cli, *command: str, answer: Callable[[AtTerminal], None] = lambda _: None) -> str:
    terminal = AtTerminal(cli, *command)
    answer(terminal)
    before = str(terminal.child.before or "")
    return before + terminal.end()[1]


def test_at_a_terminal_question_live_lines_and_panels_steer_nothing(cli: Cli) -> None:
    cli.file(NAME, ATTACK)
    asked = at_terminal(
        cli, f"Do {ATTACK}", cli.script(*HOSTILE), "--verbose", answer=lambda terminal: terminal.answer("Run it", "y\n")
    )
    shown = asked + at_terminal(cli, "show") + at_terminal(cli, "agents") + at_terminal(cli, "runs")

    assert "\\x1b]52;c;" in shown and "\\u202e" in shown
    assert [sign for sign in AT_TERMINAL if sign in shown] == []


def test_what_init_shows_of_a_folders_env_steers_nothing(cli: Cli) -> None:
    cli.file(".env", f"OPENAI_BASE_URL='http://host/{ATTACK}'\n")
    terminal = AtTerminal(cli, "init")
    terminal.answer("OPENAI_API_KEY", "\n")
    terminal.answer("OPENAI_BASE_URL.*: ", "\n")
    shown = str(terminal.child.before) + str(terminal.child.after)
    terminal.child.close(force=True)

    assert [sign for sign in AT_TERMINAL if sign in shown] == []
