"""What a run costs beside the model: `make bench` prints and keeps a table of whole processes, medians of five.

    python -m benchmarks                                  everything: half an hour with three peers
    python -m benchmarks start own                        parts of it: start, own, shapes
    python -m benchmarks shapes --latency 200 --shape graph --runs 3

Each contestant's runs take turns with the others', so that the ratios hold on a busy machine where the seconds do not.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.install_peers import PEERS, python_of
from benchmarks.measure import ROOT, Contestant, Took, in_turn, median, mock
from benchmarks.report import own_table, shape_table, start_table
from benchmarks.shapes import SHAPES

PROGRAM = [sys.executable, "-m", "master_agent"]
NO_KEYRING = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}  # as without that extra
PARTS = ("start", "own", "shapes")
OWN_STEPS = (200, 1_000, 10_000)
TEN_LINES = """
import asyncio, sys
from openai import AsyncOpenAI
async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    said = [{"role": "user", "content": "Say it."}]
    made = await client.chat.completions.create(model="mock", messages=said)
    print(made.choices[0].message.content)
asyncio.run(main())
"""


def environ_of(home: Path) -> dict[str, str]:
    """A process's environment with nothing of this machine's settings in it."""
    folders = {f"MASTER_AGENT_{name}_DIR": str(home / name.lower()) for name in ("STATE", "CONFIG", "CACHE")}
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "none",
        **NO_KEYRING,
        **folders,
    }


def start(home: Path, runs: int) -> dict[str, list[Took]]:
    """Start-up: commands that need little, and the moment of the first request."""
    (home / "plan.json").write_text('{"plan": [{"agent": "code", "prompt": "Say it."}]}')
    (home / "ten.py").write_text(TEN_LINES)
    python, environ = sys.executable, environ_of(home)
    quick = [
        Contestant("python -c pass", [python, "-c", "pass"]),
        Contestant("--version", [*PROGRAM, "--version"]),
        Contestant("import typer", [python, "-c", "import typer"]),
        Contestant("--help", [*PROGRAM, "--help"]),
        Contestant("import the SDK", [python, "-c", "from openai import AsyncOpenAI"]),
        Contestant("import the SDK, less its classes", [python, "-c", "import master_agent.sdk"]),
    ]
    took_by = in_turn(quick, environ, home, runs)
    with mock(0) as address:
        flags = ["--openai-base-url", address, "--model", "mock", "--quiet"]
        first = [
            Contestant("ten lines on the SDK", [python, str(home / "ten.py"), address]),
            Contestant("run", [*PROGRAM, "run", str(home / "plan.json"), *flags]),
            Contestant("plan", [*PROGRAM, "plan", SHAPES["fan-out"].task, *flags]),
            Contestant("a task", [*PROGRAM, SHAPES["fan-out"].task, "--yes", *flags]),
        ]
        return took_by | in_turn(first, environ, home, runs, address)


def own(home: Path, runs: int) -> dict[str, list[Took]]:
    """Our own work: runs of a plan by scripted replies, journal on, no SDK and no HTTP."""
    (home / "script.jsonl").write_text('{"repeat": true, "reply": {"text": "Done."}}\n')
    contestants = []
    for kind in ("at once", "in a row"):
        for count in (1, *OWN_STEPS):
            needs = [[f"s{i - 1}"] if i and kind == "in a row" else [] for i in range(count)]
            steps = [{"id": f"s{i}", "agent": "code", "prompt": "Part", "needs": n} for i, n in enumerate(needs)]
            file = home / f"{count} {kind}.json"
            file.write_text(json.dumps({"plan": steps}))
            flags = ["--script", str(home / "script.jsonl"), "--quiet", "--timeout", "900"]
            contestants.append(Contestant(f"{count} {kind}", [*PROGRAM, "run", str(file), *flags]))
    return in_turn(contestants, environ_of(home), home, runs)


def shapes(home: Path, runs: int, names: list[str], latencies: list[int]) -> dict[str, dict[str, list[Took]]]:
    """The shapes, for us, for the bare script and for the peers that are installed."""
    found: dict[str, dict[str, list[Took]]] = {}
    for latency in latencies:
        for name in names:
            with mock(latency / 1000) as address:
                flags = ["--openai-base-url", address, "--model", "mock", "--image-provider", "openai", "--quiet"]
                task = [*PROGRAM, SHAPES[name].task, "--yes", "--concurrency", "200", "--timeout", "900", *flags]
                contestants = [Contestant("master-agent", task)]
                contestants.append(Contestant("bare", [sys.executable, "-m", "benchmarks.bare", address, name]))
                for peer in PEERS:
                    if python := python_of(peer):
                        module = f"benchmarks.peers.{peer.replace('-', '_')}"
                        contestants.append(Contestant(peer, [str(python), "-m", module, address, name]))
                found[f"{name} {latency}"] = in_turn(contestants, environ_of(home), home, runs, address)
            print(f"# {name} at {latency} ms: done", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measures, prints the tables, and keeps them with all numbers in JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this one; repeatable")
    parser.add_argument("--latency", action="append", type=int, help="milliseconds of a request; repeatable")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks")
    said = parser.parse_args()
    parts = said.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    missing = [peer for peer in PEERS if python_of(peer) is None]
    of = f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores, medians of {said.runs}"
    busy = os.getloadavg()[0]
    lines, kept = [f"{datetime.now(UTC):%Y-%m-%d}, {of}; {busy:.1f} processes ran when it began."], dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if "start" in parts:
            started = start(home, said.runs)
            kept["start"], lines = started, [*lines, start_table(started)]
        if "own" in parts:
            worked = own(home, min(said.runs, 3))
            kept["own"], lines = worked, [*lines, own_table(worked, OWN_STEPS)]
        if "shapes" in parts:
            sdk = kept.get("start") or start(home, said.runs)
            imported = {
                name: median(sdk[f"import the SDK{of_it}"], "seconds") - median(sdk["python -c pass"], "seconds")
                for name, of_it in (("master-agent", ", less its classes"), ("others", ""))
            }
            found = shapes(home, said.runs, said.shape or list(SHAPES), said.latency or [0, 200, 2000])
            kept["shapes"], lines = found, [*lines, shape_table(found, imported)]
            if missing:
                lines.append(f"Not installed, so not measured: {', '.join(missing)}.")
    said.out.mkdir(parents=True, exist_ok=True)
    (said.out / "results.md").write_text("\n\n".join(lines) + "\n")
    numbers = json.dumps(kept, indent=1, default=asdict)
    (said.out / "results.json").write_text(numbers + "\n")
    print("\n\n".join(lines))


if __name__ == "__main__":
    main()
