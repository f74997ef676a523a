"""What the journal costs: a step with it and without it, and a run of 10,000 done steps read back and resumed.

The events are those of a run: the steps go through the dispatcher, the runner and the layer that writes requests down.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from master_agent.catalogue import Agent
from master_agent.checker import check
from master_agent.context import Boundaries
from master_agent.dispatcher import Dispatcher
from master_agent.events import Event
from master_agent.identity import Identities
from master_agent.journal import Journal, read
from master_agent.layers import asked
from master_agent.limits import Limits
from master_agent.past import pasts
from master_agent.prompts import Prompts
from master_agent.run_files import StepFiles
from master_agent.runner import Runner
from master_agent.state import fold
from master_agent.threads.scripted import Script, Scripted, read_script
from master_agent.tools import ToolCall, ToolOutput

RUNS = 5
STEPS = 500
DONE = 9_999  # and one step that fails, so that there is something to resume
PROMPTS = Path(__file__).parent.parent / "prompts"
PROGRAM = [sys.executable, "-m", "master_agent"]


class NoJournal(Journal):
    """Takes events and keeps none."""

    def __init__(self) -> None:
        """Nothing is opened."""
        self.history = []

    def note(self, event: Event, _blobs: Mapping[str, bytes] | None = None) -> Event:
        return event

    async def append(self, event: Event, _blobs: Mapping[str, bytes] | None = None) -> Event:
        return event

    def tell(self, event: Event) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing is open."""


def cpu_of_steps(journal: Journal) -> float:
    """CPU seconds of a run of STEPS steps, its writer's thread included."""
    agent = Agent("code", "writes", "Write.")
    plan = check(
        {"plan": [{"id": f"s{i}", "agent": "code", "prompt": f"Part {i}", "needs": []} for i in range(STEPS)]},
        ["code"],
        {},
    )
    script: Script = read_script('{"repeat": true, "reply": {"text": "Done."}}\n', source="benchmark")
    wire, prompts = Scripted(script), Prompts(PROMPTS)

    async def no_tool(_: ToolCall) -> ToolOutput:
        raise AssertionError("no step uses a tool")

    def no_files(_: str | None) -> StepFiles:
        raise AssertionError("no step makes a file")

    call = asked(journal, wire.name, None)
    runner = Runner(wire, call, no_tool, {"code": agent}, {}, prompts, Boundaries("data-1"), Limits(), no_files)
    identities = Identities({"code": agent}, {}, prompts, (), lambda _: {}, {})

    def note(event: Event) -> Event:
        return journal.note(event, identities.contents())

    began = time.process_time()
    asyncio.run(Dispatcher(plan, runner.perform, note, parts=identities.parts).run())
    journal.close()
    return time.process_time() - began


def cost_of_a_step(folder: Path) -> tuple[float, float]:
    """CPU seconds of a step with the journal and without it: medians, in turn."""
    with_it, without = [], []
    for number in range(RUNS + 1):
        with_it.append(cpu_of_steps(Journal(folder / "cost" / "journal.db", f"r{number}")))
        without.append(cpu_of_steps(NoJournal()))
    return statistics.median(with_it[1:]) / STEPS, statistics.median(without[1:]) / STEPS


def a_long_run(folder: Path, steps: int) -> tuple[Path, list[str], dict[str, str]]:
    """The database of a run of so many done steps and one that failed, and the command that resumes it."""
    work, state = folder / f"work-{steps}", folder / f"state-{steps}"
    work.mkdir()
    plan: list[dict[str, object]] = [
        {"id": f"s{i}", "agent": "code", "prompt": f"Part {i}", "needs": [f"s{i - 4}"] if i >= 4 else []}
        for i in range(steps)
    ]
    plan.append({"id": "last", "tool": "read_file", "with": {"path": "nowhere.txt"}, "needs": [f"s{steps - 1}"]})
    (folder / "plan.json").write_text(json.dumps({"plan": plan}))
    (folder / "script.jsonl").write_text('{"repeat": true, "reply": {"text": "Done."}}\n')
    environ = {**os.environ, "MASTER_AGENT_STATE_DIR": str(state), "MASTER_AGENT_CONFIG_DIR": str(folder / "config")}
    flags = ["--script", str(folder / "script.jsonl"), "--quiet", "--workspace", str(work)]
    subprocess.run([*PROGRAM, "run", str(folder / "plan.json"), *flags], env=environ, capture_output=True, cwd=folder)
    return state / "journal.db", [*PROGRAM, "resume", "--quiet"], environ


def measured(command: list[str], environ: dict[str, str], folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of CPU that a command takes: medians."""
    clocks, cpus = [], []
    for _ in range(RUNS):
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, env=environ, capture_output=True, cwd=folder)
        after = os.times()
        clocks.append(time.perf_counter() - began)
        used = after.children_user + after.children_system
        cpus.append(used - before.children_user - before.children_system)
    return statistics.median(clocks), statistics.median(cpus)


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work: the median."""
    seconds = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def main() -> None:
    """Prints what the journal costs."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        journaled, bare = cost_of_a_step(folder)
        print(f"\nA step with the journal: {journaled * 1000:.2f} ms of CPU, without: {bare * 1000:.2f} ms")
        _, small, environ = a_long_run(folder, 1)
        few = measured(small, environ, folder)
        database, large, environ = a_long_run(folder, DONE)
        many = measured(large, environ, folder)
        (run_id,) = _runs(database)
        events = read(database, run_id)
        print(f"{len(events):,} events of {DONE:,} done steps, in seconds of CPU:")
        print(f"  read back: {timed(lambda: read(database, run_id)):.2f}, folded: {timed(lambda: fold(events)):.2f}")
        print(f"  what each step had come to: {timed(lambda: pasts(events)):.2f}")
        print(
            f"  resumed to the end, beyond resuming a run of one step: {many[1] - few[1]:.2f} "
            f"({many[0] - few[0]:.2f} of the clock)"
        )


def _runs(database: Path) -> list[str]:
    from master_agent.database import list_runs

    return [run.run_id for run in list_runs(database)]


if __name__ == "__main__":
    main()
