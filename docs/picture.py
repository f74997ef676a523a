"""Draws docs/demo.svg: a real run of the demo, as the terminal reporter shows it, exported by Rich.

`python docs/picture.py [FILE]`. The run is real; its seconds differ from one to the next.
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from master_agent.aggregator import project
from master_agent.events import EVENT, Event, PlanMade
from master_agent.reporters.terminal import TerminalReporter, show_plan
from master_agent.state import fold

WIDTH = 96
HERE = Path(__file__).parent


def run_demo() -> list[Event]:
    """The events of a demo run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "master_agent", "demo", "--events", "--state-dir", f"{folder}/state"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return [EVENT.validate_json(line) for line in ran.stdout.splitlines()]


def draw(events: list[Event]) -> str:
    """The picture: the plan, and what the run came to."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor")
    plan = next(event.plan for event in events if isinstance(event, PlanMade))
    kept = [event for event in events if event.seq is not None]
    effects = [
        "1 step may make pictures, drawn offline as a placeholder, free: hero",
        "2 steps may run code in a sandbox (bubblewrap): page, check",
    ]
    show_plan(console, plan, effects)
    reporter = TerminalReporter(console, console)
    reporter.finish(project(fold(kept)))
    return console.export_svg(title="master-agent demo", unique_id="demo")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "demo.svg"
    target.write_text(draw(run_demo()), encoding="utf-8")
