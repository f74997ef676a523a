"""What a sandbox costs a program: `python -m benchmarks.sandbox` prints a start in each against a plain process.

Medians of pairs in turn, in one process that has found its sandboxes already, as in a run.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from master_agent.sandbox import Program, ProgramLimits
from master_agent.sandbox.mechanisms import find, look

RUNS = 25
PROGRAM = Program(("/bin/true",))


async def plain() -> None:
    """The program without anything."""
    process = await asyncio.create_subprocess_exec(*PROGRAM.command)
    await process.wait()


async def seconds(run: Callable[[], Awaitable[object]]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await run()
    return time.perf_counter() - began


async def main() -> None:
    """Prints the table."""
    print("| sandbox | start, ms | best | plain process, ms | best |\n|---|---|---|---|---|")
    names = [mechanism.name for mechanism in await look() if mechanism.sandbox]
    for name in [*names, "unsafe"]:
        sandbox = await find(name)

        async def inside() -> object:
            return await sandbox.run(PROGRAM, ProgramLimits())  # noqa: B023  called before the next turn

        pairs = [(await seconds(inside), await seconds(plain)) for _ in range(RUNS + 1)][1:]
        cells = [f"{pick(times) * 1000:.1f}" for times in zip(*pairs, strict=True) for pick in (statistics.median, min)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
