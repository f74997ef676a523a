"""Who holds a run: a name for this process, and from such a name whether that process is known to be gone.

Known means: told by the same kernel since the same start, in the same namespaces, where a process's number and the
moment at which it began belong to it alone. Whatever cannot be seen so counts as alive. Unverified on macOS.
"""

import os
import socket
import sys
from pathlib import Path

_BURIED_SOON = "ended"  # in place of the moment at which a process began that only waits for its parent to notice


def new_holder() -> str:
    """A name for this process as a holder, unlike any other: host/number/random/place/began."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{os.urandom(4).hex()}/{_place()}/{_began(pid)}"


def in_words(holder: str) -> str:
    """The process of that name as it is told of."""
    host, pid, *_ = holder.split("/")
    return f"process {pid} on {host}"


def is_gone(holder: str) -> bool:
    """Whether the process of that name is known to have come to its end."""
    host, pid, _, place, began = (*holder.split("/"), "", "")[:5]
    if not place or (host, place) != (socket.gethostname(), _place()):
        return False  # another machine, another start of this one, another container: nothing can be said
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is there, and another user's
        pass
    now = _began(int(pid))
    return now == _BURIED_SOON or bool(began and now and now != began)


def _place() -> str:
    """Where a process's number and beginning mean one process: kernel, its start, namespaces. Empty where unknown."""
    if sys.platform == "darwin":
        return _boot_of_macos()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbers, clock = Path("/proc/self/ns/pid").readlink(), Path("/proc/self/ns/time")
        clock = clock.readlink() if clock.is_symlink() else Path()  # old kernels have one clock for all
        status = Path("/proc/self/status").read_text(errors="replace")  # the program's name in it is cut at 15 bytes
    except OSError:
        return ""
    # A /proc that was mounted for other namespaces tells of other processes: it knows this one by more numbers.
    seen_as = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return f"{boot} {numbers} {clock}" if boot and seen_as == [str(os.getpid())] else ""


def _began(pid: int) -> str:
    """When the process began, in ticks since the kernel's start; `ended` for a dead one, empty where it is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        state, threads, began = fields[0], int(fields[17]), fields[19]
    except (OSError, ValueError, IndexError):
        return ""
    return _BURIED_SOON if state in "ZX" and threads <= 1 else began


def _boot_of_macos() -> str:
    """The id of this start of the system."""
    import ctypes  # for macOS only: elsewhere no run waits for it

    value, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return ""
    return value.value.decode("ascii", errors="replace")
