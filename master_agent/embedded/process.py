"""The engine's own process: what to load comes in as a line of JSON, its address goes out as one, then it serves.

It ends when its standard input does, so no engine outlives the run that started it. Nothing of the program is imported.
"""

import contextlib
import ctypes
import http.client
import json
import os
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

_PR_SET_PDEATHSIG = 1
_ERRORS_ONLY = 1


def main() -> None:
    """Serves until whoever started it has gone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the engine prints is a log, wherever it prints it
    if sys.platform == "linux":  # elsewhere it ends as soon as the model is loaded
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    asked = json.loads(sys.stdin.readline())
    server, told = _serve(asked)
    answers.write(json.dumps(told) + "\n")
    answers.flush()
    if server is None:
        return  # the usual end, which writes all of the log
    sys.stdin.read()
    os._exit(0)


def _serve(asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked["path"]
    params.model_alias = {asked["name"]}
    params.hostnames = [asked["host"]]
    params.port = 0
    params.api_keys = [asked["key"]]
    params.n_ctx = asked["n_ctx"]
    params.n_parallel = asked["n_parallel"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["n_threads"]
    params.cache_ram_mib = asked["cache_ram_mib"]
    params.enable_reasoning = 0  # a plan is wanted, not thousands of tokens before it
    params.ui = False
    params.verbosity = _ERRORS_ONLY
    try:
        server = xllamacpp.Server(params)
        return server, {"address": server.listening_address, **_look(server.listening_address, asked["key"])}
    except (RuntimeError, ValueError, OSError, http.client.HTTPException) as error:
        return None, {"error": str(error)}


def _look(address: str, key: str) -> dict[str, Any]:
    """What the server says of itself: that it is well, and how many tokens a request may hold."""
    headers = {"authorization": f"Bearer {key}"}
    with contextlib.closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)) as connection:
        connection.request("GET", "/health", headers=headers)
        health = json.load(connection.getresponse())
        if health.get("status") != "ok":
            raise OSError(f"the engine is not well: {health}")
        connection.request("GET", "/props", headers=headers)
        return {"n_ctx": json.load(connection.getresponse())["default_generation_settings"]["n_ctx"]}


if __name__ == "__main__":
    main()
