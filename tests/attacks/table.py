"""From the results of the attacks to the table of docs/security.md: written by them, and held against them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"
PROPERTY = "attack"
WRITE = "MASTER_AGENT_WRITE_ATTACKS"
GETS_THROUGH = "**succeeds**"
_BEGIN, _END = "<!-- attacks: made by the suite -->", "<!-- end of attacks -->"
_WORDS = {
    "FileNotFoundError": "not there",
    "PermissionError": "refused",
    "ProcessLookupError": "not there",
    "ConnectionRefusedError": "nobody there",
    "OSError": "refused",
    "MemoryError": "no memory",
    "NameError": "nothing found",
}
_LIMITS = {
    "seconds": "ended: time",
    "cpu_seconds": "ended: time",
    "memory": "ended: memory",
    "processes": "ended: processes",
    "file_bytes": "ended: file size",
    "disk_bytes": "ended: disk",
    "output_bytes": "cut",
}


def cell(*, succeeded: bool, ended_by: str | None, stderr: str) -> str:
    """What the table says of an attack on a mechanism."""
    if succeeded:
        return GETS_THROUGH
    if ended_by:
        return _LIMITS[ended_by]
    errors = re.findall(r"^(\w*Error)\b", stderr, re.MULTILINE)
    return _WORDS.get(errors[-1], errors[-1]) if errors else "in vain"


def keep(node: Any, number: int, attack: str, mechanism: str, found: str) -> None:
    """Notes a result, with the place of the attack among the others, and holds it against the page.

    How an attack fails differs between kernels; whether it does must not.
    """
    node.user_properties.append((PROPERTY, [number, attack, mechanism, found]))
    if not os.environ.get(WRITE):
        said = stated().get((attack, mechanism))
        assert said is not None and (said == GETS_THROUGH) == (found == GETS_THROUGH), (
            f"docs/security.md says {said}, but: {found}. Write its table anew with {WRITE}=1"
        )


def stated() -> dict[tuple[str, str], str]:
    """What the page says, by attack and mechanism."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", _between(text), re.MULTILINE)]
    if len(rows) < 2:
        return {}
    head = [name.strip() for name in rows[0]]
    return {(row[0].strip(), name): row[i].strip() for row in rows[2:] for i, name in enumerate(head) if i}


def write(found_now: Iterable[Sequence[Any]]) -> None:
    """Puts the results into the page; what was not run on a mechanism stays as the page has it."""
    before, results = stated(), sorted(map(list, found_now))
    attacks = list(dict.fromkeys(str(attack) for _, attack, _, _ in results))
    cells = {key: found for key, found in before.items() if key[0] in attacks}
    cells |= {(attack, mechanism): found for _, attack, mechanism, found in results}
    mechanisms = ["no sandbox", *(name for name in ("bubblewrap", "landlock") if any(m == name for _, m in cells))]
    lines = ["| a program that … | " + " | ".join(mechanisms) + " |", "|---|" + "---|" * len(mechanisms)]
    for attack in attacks:
        found = [GETS_THROUGH, *(cells.get((attack, name), "not run") for name in mechanisms[1:])]
        lines.append(f"| {attack} | " + " | ".join(found) + " |")
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.partition(_BEGIN)[0], text.partition(_END)[2]
    PAGE.write_text("\n".join([head + _BEGIN, *lines, _END + tail]), encoding="utf-8")


def _between(text: str) -> str:
    return text.partition(_BEGIN)[2].partition(_END)[0]


def summary(reports: Iterable[Any]) -> list[Sequence[Any]]:
    """The results that the reports of a run of the suite hold."""
    every = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == PROPERTY]
    return list({(one[1], one[2]): one for one in every}.values())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says at the end of the suite which mechanisms were attacked, and which were not, and why."""
    results = summary(report for reports in terminalreporter.stats.values() for report in reports)
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "tests/attacks" in report.nodeid]
    reasons = sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped})
    if not results and not reasons:
        return
    counts = Counter(str(mechanism) for _, _, mechanism, _ in results)
    said = ", ".join(f"{name} ({count} attacks)" for name, count in sorted(counts.items())) or "none"
    terminalreporter.write_sep("-", "sandboxes that were attacked")
    terminalreporter.write_line(said)
    for reason in reasons:
        terminalreporter.write_line(f"not attacked: {reason}")
    if os.environ.get(WRITE):
        write(results)
        terminalreporter.write_line(f"wrote {PAGE}")
