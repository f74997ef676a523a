"""The benchmark itself: it runs, everybody does the same work in it, and its tables say what was counted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scheduler import WIDE, graph, waits

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_shapes_are_done_by_us_and_by_the_bare_script(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "shapes", "--shape", "sequence", "--shape", "fan-out"]
    ran = subprocess.run(
        [*command, "--latency", "1", "--runs", "2", "--out", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PEERS": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ran.returncode == 0, ran.stderr
    shapes = json.loads((tmp_path / "results.json").read_text())["shapes"]
    calls = {shape: {who: runs[0]["calls"] for who, runs in by.items()} for shape, by in shapes.items()}
    assert calls == {"sequence 1": {"master-agent": 3, "bare": 7}, "fan-out 1": {"master-agent": 18, "bare": 18}}
    told = (tmp_path / "results.md").read_text()
    assert "| sequence | 1 | master-agent |" in told
    assert "Not installed, so not measured: langgraph" in told


def test_every_step_with_needs_starts_after_them(tmp_path: Path) -> None:
    found = waits(graph(60), tmp_path)

    assert len(found) == 60 - WIDE
    assert min(found) > 0


def test_a_part_that_is_none_is_refused() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "starts"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 2
    assert "no part starts; there are start, own, shapes" in ran.stderr
