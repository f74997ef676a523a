"""How soon a step starts after the last step that it needs: a graph of 10,000 steps, each of which takes a while.

The dispatcher and the journal are the real ones; a step sleeps, as it does while a model thinks.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from master_agent.checker import check
from master_agent.context import Inputs
from master_agent.dispatcher import Dispatcher
from master_agent.events import Event, StepFinished, StepStarted
from master_agent.journal import Journal
from master_agent.plan import Plan, Step
from master_agent.results import StepResult

SIZES = (100, 1_000, 10_000)  # steps
WIDE = 20  # steps that sleep at once, and concurrency
SECONDS = (0.01, 0.05)  # the shortest sleep and the longest: some 650 steps end in a second


def graph(count: int) -> Plan:
    """So many steps, each with two needs among those that lie WIDE steps before it."""
    steps = [
        {
            "id": f"s{i}",
            "agent": "code",
            "prompt": "Part",
            "needs": [f"s{i - WIDE}", f"s{i - WIDE + (1 if (i + 1) % WIDE else 1 - WIDE)}"] if i >= WIDE else [],
        }
        for i in range(count)
    ]
    return check({"plan": steps}, ["code"], {})


def waits(plan: Plan, folder: Path) -> list[float]:
    """For each step with needs, the seconds from the end of the last of them to its start."""
    ended: dict[str, float] = {}
    started: dict[str, float] = {}
    chance = random.Random(1)

    async def perform(_step: Step, _inputs: Inputs) -> StepResult:
        await asyncio.sleep(chance.uniform(*SECONDS))
        return StepResult(status="done", text="Done.")

    def heard(event: Event) -> None:
        if event.step and isinstance(event, StepStarted | StepFinished):
            (started if isinstance(event, StepStarted) else ended)[event.step] = time.perf_counter()

    with Journal(folder / f"{len(plan.plan)}.db", "r", listeners=[heard]) as journal:
        asyncio.run(Dispatcher(plan, perform, journal.note, WIDE).run())
    return [started[step.id] - max(ended[need] for need in step.needs) for step in plan.plan if step.needs]


def main() -> None:
    """Prints the waits of each size of graph."""
    print("| steps | median, ms | 99 of 100 within, ms | longest, ms |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as made:
        for count in SIZES:
            found = sorted(seconds * 1000 for seconds in waits(graph(count), Path(made)))
            within = found[int(len(found) * 0.99)]
            print(f"| {count:,} | {statistics.median(found):.2f} | {within:.2f} | {found[-1]:.2f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
