"""What the processes of a program take, as Linux tells it; it goes to the warden's interpreter as text."""

from __future__ import annotations

import os
import resource


def taken(pid: str) -> tuple[float, int, int]:
    """Seconds of work of a process and of the children that it has buried; its threads; the bytes that it holds."""
    fields = stat_of(pid)
    if not fields:
        return 0.0, 0, 0
    work = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return work, int(fields[17]), int(fields[21]) * resource.getpagesize()


def stat_of(pid: str) -> list[bytes]:
    """The fields of a process from its state on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:  # noqa: PTH123
            return file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return []


def proportional(pid: str) -> int:
    """Bytes that a process holds, what it shares divided by the sharers; all of it where that is hidden."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return taken(pid)[2]


def children(pid: str) -> list[str]:
    """The processes that a process has for children."""
    found: list[str] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                found += file.read().split()
    except OSError:
        pass
    return found
