"""What docs/security.md says of settings is what the program does."""

import os
import re
from pathlib import Path

from master_agent.settings import table
from tests.attacks.table import PAGE, WRITE
from tests.conftest import ROOT, Cli

BEGIN, END = "<!-- settings: made by the suite -->", "<!-- end of settings -->"


def rows() -> str:
    """The table: every setting, and whether a folder's .env may set it."""
    lines = ["| variable | what it sets | a folder's `.env` may set it |", "|---|---|---|"]
    for setting in table().values():
        lines.append(f"| `{setting.variable}` | {setting.help} | {'yes' if setting.folder else 'no'} |")
    lines.append("| `MASTER_AGENT_CONFIG_DIR` | folder of your config and agents | no |")
    return "\n".join(lines)


def test_the_page_says_of_every_setting_whether_a_folder_may_set_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    said = text.partition(BEGIN)[2].partition(END)[0].strip()
    if os.environ.get(WRITE):
        PAGE.write_text(text.replace(f"{BEGIN}\n{said}\n{END}", f"{BEGIN}\n{rows()}\n{END}"), encoding="utf-8")
        return
    assert said == rows(), f"write it anew: {WRITE}=1 .venv/bin/python -m pytest -n0 tests/test_security_page.py"


def test_what_the_page_refuses_a_folder_is_refused(cli: Cli) -> None:
    every = [setting.variable for setting in table().values() if not setting.folder]
    refused = [variable for variable in every if variable not in cli.environ]
    cli.file(".env", "".join(f"{name}=1\n" for name in [*refused, "MASTER_AGENT_CONFIG_DIR"]))

    ran = cli("doctor", "--json")

    said = " ".join(finding["message"] for finding in ran.json["findings"])
    assert [name for name in refused if f"{name} in .env is not used" not in said] == []
    assert str(cli.home / "config") in said


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/security.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_links_of_the_page_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.removeprefix("#") in headings or Path(PAGE.parent, target.partition("#")[0]).is_file(), target
