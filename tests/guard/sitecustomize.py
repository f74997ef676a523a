"""Put on the path of every program that a test starts: no socket leaves the machine."""

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
