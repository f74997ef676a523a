"""What a run costs beside the model: `make bench` prints a table of whole processes, medians of five, as ratios.

Each row is a command against another in the same run, in turn, so that a slow machine slows both.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import journal

LATENCY = 0.2
RUNS = 5
STEPS = 200
PROGRAM = [sys.executable, "-m", "master_agent"]


def measured(command: Sequence[str], environ: dict[str, str]) -> tuple[float, float]:
    """Seconds of the clock and of CPU that a command took; it must succeed."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu


def pair(ours: Sequence[str], theirs: Sequence[str], environ: dict[str, str]) -> tuple[float, float, float]:
    """The medians of both in seconds, and of the ratio pair by pair."""
    pairs = [(measured(ours, environ)[0], measured(theirs, environ)[0]) for _ in range(RUNS + 1)][1:]
    mine, others = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(others), statistics.median(a / b for a, b in pairs)


def shape(name: str) -> list[dict[str, object]]:
    """The plans: three steps in a row, sixteen at once and one after them, a graph of 24."""

    def step(i: int, needs: list[str]) -> dict[str, object]:
        return {"id": f"s{i}", "agent": "code", "prompt": f"Part {i}", "needs": needs}

    match name:
        case "sequence of 3":
            return [step(i, [f"s{i - 1}"] if i else []) for i in range(3)]
        case "16 at once, then 1":
            return [*(step(i, []) for i in range(16)), step(16, [f"s{i}" for i in range(16)])]
    return [step(i, [f"s{i - 4}"] if i >= 4 else []) for i in range(24)]


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environ = {**os.environ, "MASTER_AGENT_STATE_DIR": folder, "MASTER_AGENT_CONFIG_DIR": folder}
        print("| what | ours, s | against | theirs, s | ratio |\n|---|---|---|---|---|")

        def row(what: str, ours: Sequence[str], against: str, theirs: Sequence[str]) -> None:
            mine, others, ratio = pair(ours, theirs, environ)
            print(f"| {what} | {mine:.3f} | {against} | {others:.3f} | {ratio:.2f} |", flush=True)

        row("--version", [*PROGRAM, "--version"], "python -c pass", [sys.executable, "-c", "pass"])
        row("--help", [*PROGRAM, "--help"], "import typer", [sys.executable, "-c", "import typer"])
        mock = [sys.executable, "-m", "benchmarks.mock", str(LATENCY)]
        with subprocess.Popen(mock, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            for name in ("sequence of 3", "16 at once, then 1", "graph of 24, 6 deep"):
                plan = home / "plan.json"
                plan.write_text(json.dumps({"plan": shape(name)}))
                ours = [*PROGRAM, "run", str(plan), "--openai-base-url", address, "--model", "mock", "--quiet"]
                row(name, [*ours, "--concurrency", "16"], "bare SDK script", [*_bare(), address, str(plan)])
            server.communicate("")
        print(f"\nOwn work for a step, journal on, no SDK: {own_work(home, environ) * 1000:.2f} ms of CPU")
        journal.main()


def _bare() -> list[str]:
    return [sys.executable, "-m", "benchmarks.bare"]


def own_work(home: Path, environ: dict[str, str]) -> float:
    """CPU seconds of one step: a run of many scripted steps, less a run of one."""
    script = home / "script.jsonl"
    script.write_text('{"repeat": true, "reply": {"text": "Done."}}\n')

    def cpu(count: int) -> float:
        plan = home / "many.json"
        steps = [{"agent": "code", "prompt": "Part", "id": f"s{i}", "needs": []} for i in range(count)]
        plan.write_text(json.dumps({"plan": steps}))
        command = [*PROGRAM, "run", str(plan), "--script", str(script), "--quiet"]
        return statistics.median(measured(command, environ)[1] for _ in range(RUNS))

    return (cpu(STEPS + 1) - cpu(1)) / STEPS


if __name__ == "__main__":
    main()
