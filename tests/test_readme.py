"""What the README promises is there: its commands, its tables, its examples and its picture."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from master_agent.catalogue import parse_agent
from master_agent.cli import exit_codes
from master_agent.sandbox import mechanisms
from master_agent.settings import PREFIX, WireName, table
from master_agent.tools import load_tools
from tests.conftest import ROOT, Cli

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
VARIABLES = {setting.variable for setting in table().values()} | {f"{PREFIX}CONFIG_DIR"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith("master-agent")]


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert blocks("sh")[0].splitlines() == ["make demo", "make test"]
    assert {"demo", "test", "test-slow", "picture", "bench"} <= set(targets)


@pytest.mark.parametrize("command", commands())
def test_every_flag_of_every_command_in_the_readme_exists(cli: Cli, command: str) -> None:
    for part in command.split(" | "):
        words = re.findall(r"\"[^\"]*\"|'[^']*'|\S+", part.split(" > ")[0])[1:]
        name = next((word for word in words if not word.startswith("-")), "x").strip("\"'")
        help_text = cli(name, "--help").out
        for flag in [word for word in words if word.startswith("--")]:
            assert flag in help_text, f"{flag} of: {part}"


def test_every_command_stands_in_the_readme(cli: Cli) -> None:
    listed = re.findall(r"^  (\w+) ", cli("--help").out.split("Commands:")[1].split("Exit codes")[0], re.MULTILINE)

    assert len(listed) >= 9
    for name in listed:
        assert f"| `master-agent {name}" in README, name


def test_every_setting_stands_in_the_readme_and_in_the_example_and_no_other() -> None:
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE)) == VARIABLES
    assert set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", EXAMPLE, re.MULTILINE)) == VARIABLES


def test_the_defaults_in_the_example_are_the_real_ones() -> None:
    said = dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    for setting in table().values():
        if isinstance(setting.default, int | float):
            assert setting.read(said[setting.variable], "the example") == setting.default, setting.variable


def test_what_the_example_says_a_folder_may_set_is_what_it_may() -> None:
    allowed, _, others = EXAMPLE.partition("# --- Not from a .env")
    for setting in table().values():
        part = allowed if setting.folder else others
        assert re.search(rf"^(?:# )?{setting.variable}=", part, re.MULTILINE), setting.variable


def test_the_exit_codes_in_the_readme_are_the_programs() -> None:
    said = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE) for code in row.split(",")}
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}

    assert said == codes


def test_every_wire_stands_in_the_docs_and_no_other() -> None:
    section = (DOCS / "models.md").read_text(encoding="utf-8").partition("## Wires")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE)) == set(get_args(WireName))


def test_the_plan_in_the_readme_is_a_good_one(cli: Cli) -> None:
    path = cli.file("plan.json", blocks("json")[0])

    assert cli("check", str(path)).code == 0


def test_the_agent_file_in_the_readme_is_a_good_one() -> None:
    agent = parse_agent(blocks("markdown")[0], Path("translator.md"), load_tools())

    assert (agent.name, agent.limits.turns, agent.finish) == ("translator", 10, ("write_file",))


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *(f"docs/{page.name}" for page in DOCS.glob("*.md"))],
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


def test_the_scripts_in_the_docs_run_as_they_stand(cli: Cli) -> None:
    text = (ROOT / "docs" / "scripted.md").read_text(encoding="utf-8")
    script, command = re.findall(r"```(?:json|sh)\n(.*?)```", text, re.DOTALL)[:2]
    cli.file("replies.jsonl", script)

    ran = cli(*json.loads("[" + '"Write a note", "--script", "replies.jsonl", "--yes"' + "]"))

    assert command.strip() == 'master-agent "Write a note" --script replies.jsonl --yes'
    assert (ran.code, (cli.folder / "note.txt").read_text()) == (0, "Hello"), ran.err


def test_the_picture_is_what_the_demo_shows_today(tmp_path: Path) -> None:
    if (sandbox := asyncio.run(mechanisms.look())[0]).sandbox is None:
        pytest.skip(f"the demo runs a program, and the picture shows it in bubblewrap: {sandbox.reason}")
    drawn = tmp_path / "demo.svg"
    subprocess.run([sys.executable, str(ROOT / "docs" / "picture.py"), str(drawn)], check=True, timeout=60)

    assert _timeless(drawn.read_text()) == _timeless((ROOT / "docs" / "demo.svg").read_text()), "run: make picture"


def _timeless(svg: str) -> str:
    """The picture without its seconds, which are those of one run."""
    return re.sub(r"\d+\.\d(?=(&#160;|\s)s\b)", "0.0", svg)
