"""What the processes of a program take, as macOS tells it; it goes to the warden's interpreter as text.

It has not been run. Source: <libproc.h> and <sys/resource.h> (struct rusage_info_v0) of Apple's SDK.
"""

from __future__ import annotations

import ctypes

_MOST_CHILDREN = 4096


class _Usage(ctypes.Structure):
    """struct rusage_info_v0."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in ("user", "system", "idle", "interrupts", "pageins", "wired", "resident")),
        *((name, ctypes.c_uint64) for name in ("footprint", "started", "exited")),
    )


class _Base(ctypes.Structure):
    """struct mach_timebase_info: what to multiply ticks with, and divide by, for nanoseconds."""

    _fields_ = (("numerator", ctypes.c_uint32), ("denominator", ctypes.c_uint32))


def taken(pid: str) -> tuple[float, int, int]:
    """Seconds of work of a process, one for itself, and the bytes that it holds."""
    system, usage, base = ctypes.CDLL(None), _Usage(), _Base()
    if system.proc_pid_rusage(int(pid), 0, ctypes.byref(usage)):
        return 0.0, 0, 0
    system.mach_timebase_info(ctypes.byref(base))
    return (usage.user + usage.system) * base.numerator / base.denominator / 1e9, 1, usage.footprint


def proportional(pid: str) -> int:
    """Bytes that a process holds; the footprint counts nothing twice that is shared."""
    return taken(pid)[2]


def children(pid: str) -> list[str]:
    """The processes that a process has for children."""
    found = (ctypes.c_int * _MOST_CHILDREN)()
    ctypes.CDLL(None).proc_listchildpids(int(pid), found, ctypes.sizeof(found))
    return [str(each) for each in found if each]
