"""From commands to what they took: whole processes, in turn, so that a slow moment of the machine slows all alike."""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Took:
    """One process: seconds of the clock and of the processor, its largest size in MiB, and what it asked of the mock.

    `first` is when its first request came, in seconds after its start; `tokens` an estimate, 4 bytes each.
    """

    seconds: float
    cpu: float
    memory: float
    calls: int = 0
    tokens: int = 0
    connections: int = 0
    first: float | None = None


@dataclass(frozen=True)
class Contestant:
    """A command, by the name under which its row stands."""

    name: str
    command: Sequence[str]


def took(command: Sequence[str], environ: Mapping[str, str], cwd: Path, address: str | None = None) -> Took:
    """Runs a command to its end, which must be a good one."""
    if address:
        counted(address)
    at, began = time.time(), time.perf_counter()
    with subprocess.Popen(
        command, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()  # until it ends
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{said.decode()[-2000:]}")
    size = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    one = Took(seconds, used.ru_utime + used.ru_stime, size)
    if address is None:
        return one
    told = counted(address)
    first = told["first"] - at if told["first"] else None
    return replace(one, first=first, **{name: told[name] for name in ("calls", "tokens", "connections")})


def counted(address: str) -> Any:
    """What the mock was asked since the last time."""
    with urllib.request.urlopen(address.removesuffix("/v1") + "/counted") as answer:
        return json.load(answer)


def in_turn(
    contestants: Sequence[Contestant], environ: Mapping[str, str], home: Path, runs: int, address: str | None = None
) -> dict[str, list[Took]]:
    """So many runs of each, one after the other; a first one of each, which fills the disk's cache, does not count."""
    took_by: dict[str, list[Took]] = {contestant.name: [] for contestant in contestants}
    for number in range(runs + 1 if address is None else runs):
        for contestant in contestants:
            with TemporaryDirectory(dir=home) as folder:  # what one has written is in nobody's way
                one = took(contestant.command, environ, Path(folder), address)
            if number or address is not None:
                took_by[contestant.name].append(one)
    return took_by


def median(runs: Sequence[Took], what: str) -> float:
    """The median of one of their numbers."""
    return float(statistics.median(getattr(run, what) or 0.0 for run in runs))


def ratio(ours: Sequence[Took], theirs: Sequence[Took], what: str = "seconds") -> float:
    """The median of the ratios of runs that were neighbours."""
    return float(statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(ours, theirs, strict=True)))


@contextmanager
def mock(latency: float) -> Iterator[str]:
    """The address of a mock of the wire."""
    command = [sys.executable, "-m", "benchmarks.mock", str(latency)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.communicate("")
