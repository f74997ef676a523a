"""A result for a program, and a person at the terminal: stdout holds nothing else, stderr shows how far it is."""

import json

from tests.conftest import Cli, plans, says
from tests.terminal import AtTerminal

NOTE = {"id": "note", "agent": "code", "prompt": "Say hello."}
MORE = {"id": "more", "agent": "code", "prompt": "Say more.", "needs": ["note"]}


def test_a_person_sees_how_far_a_run_is_whose_result_goes_to_a_file(cli: Cli) -> None:
    planned = plans(NOTE, MORE)
    planned["reply"]["seconds"] = 0.5  # so that it is shown
    script = cli.script(planned, {"port": "thread", "step": "note", "reply": {"hang": True}})
    out = cli.home / "out.json"
    terminal = AtTerminal(cli, "Greet", "--json", script, to=out)
    terminal.child.expect("planning")
    terminal.answer("Run it.*: ", "y\n")
    asked = terminal.child.before
    terminal.child.expect("waits for note")
    terminal.child.sendintr()
    code, shown = terminal.end()

    result = json.loads(out.read_text())
    assert (code, result["status"], result["error"]["type"]) == (130, "cancelled", "interrupted")
    assert "\x1b[?25h" in asked.partition("Plan: 2 steps")[0], "the lines are gone before the question"
    assert shown.index("stopping") < shown.index("Cancelled") < shown.index("master-agent resume")
    assert shown.count("interrupted by Ctrl-C") == 1


def test_nobody_is_shown_more_than_was_asked_for(cli: Cli) -> None:
    script = cli.script(plans(NOTE), says("Hello.", step="note"))
    quiet = AtTerminal(cli, "Greet", "--yes", "--json", "--quiet", script, to=cli.home / "out.json")
    assert quiet.end() == (0, "")
    assert json.loads((cli.home / "out.json").read_text())["final"] == "Hello."

    nobody = cli("Greet", "--yes", "--json", script)
    assert (nobody.json["final"], nobody.err) == ("Hello.", "")

    broken = AtTerminal(cli, "Greet", "--yes", "--json", "--script=none", to=cli.home / "out.json")
    code, shown = broken.end()
    assert (code, shown.count("none cannot be read")) == (2, 1)
    assert json.loads((cli.home / "out.json").read_text())["error"]["type"]
