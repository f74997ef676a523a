"""`python -m tests.sandbox.hidden COMMAND…` runs a command on a machine without bubblewrap and without Landlock.

The first is hidden by a search path that has nothing but the interpreter's folder, the second by a filter that answers
for the kernel that it has no such system call.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

_CREATE_RULESET = 444
_MARKS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def hide_landlock() -> None:
    """From here on this process and its children have no Landlock."""
    lines = [
        (0x20, 0, 0, 4),
        (0x15, 0, 3, _MARKS[platform.machine()]),
        (0x20, 0, 0, 0),
        (0x15, 0, 1, _CREATE_RULESET),
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    text = b"".join(struct.pack("=HBBI", *line) for line in lines)
    kernel = ctypes.CDLL(None, use_errno=True)
    assert kernel.prctl(38, 1, 0, 0, 0) == 0
    assert kernel.prctl(22, 2, ctypes.byref(_Filter(len(lines), text)), 0, 0) == 0


if __name__ == "__main__":
    hide_landlock()
    os.execvpe(sys.argv[1], sys.argv[1:], {**os.environ, "PATH": str(Path(sys.executable).parent)})
