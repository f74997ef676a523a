"""Put on the path of every program that a test starts: no socket leaves the machine; if asked, no Landlock is there."""

import ctypes
import os
import struct
import sys
from typing import Any


def _stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in ("::1", "localhost") and not str(host).startswith("127."):
            raise ConnectionRefusedError(f"a test tried to reach {host}, which is not this machine")
    elif event == "socket.getaddrinfo" and arguments[0]:
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if host.endswith(("openai.com", "replicate.com", "replicate.delivery")):
            raise ConnectionRefusedError(f"a test tried to look up {host}")


sys.addaudithook(_stay_here)


_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_CREATE_RULESET, _NO_SUCH_CALL, _ALLOW = 444, 0x00050000 | 38, 0x7FFF0000


def _forget_landlock() -> None:
    """Takes Landlock away from this process and its children: the call that makes a ruleset is not there."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, 0),  # the number of the call
            (_EQUAL, 0, 1, _CREATE_RULESET),
            (_RETURN, 0, 0, _NO_SUCH_CALL),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    kept = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(kept))
    kernel = ctypes.CDLL(None, use_errno=True)
    kernel.prctl(38, 1, 0, 0, 0)  # no new privileges, without which nobody but root may filter
    kernel.prctl(22, 2, filters, 0, 0)


if os.environ.get("PYTHON_WITHOUT_LANDLOCK"):
    _forget_landlock()
