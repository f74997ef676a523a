"""A command line's arguments in, its exit code and output out, from a process that was forked after the imports.

Importing costs each start half a second of the processor, and the suite has a thousand starts. So one process for each
worker imports everything once and forks for each run: the run is a process of its own, with its own folder, variables
and ends, and the program goes through `__main__` as always. What depends on how Python itself starts (its variables,
signals, a terminal, what is imported when) is tested with `Cli.start`, which starts anew; MASTER_AGENT_TEST_COLD=1
starts everything anew, and so do the slow tests.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

ALSO_IMPORTED = ("master_agent.sdk", "httpx", "rich.console", "rich.live")


class Ended(NamedTuple):
    """An exit code as subprocess tells it (a signal's number is negative), and the bytes of stdout and stderr."""

    code: int
    out: bytes
    err: bytes


class Warm:
    """The process that has imported everything. `environ` is what it was started with."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = _of_python(environ)
        self._here, there = socket.socketpair()
        command = [sys.executable, str(Path(__file__)), str(there.fileno())]
        self._process = subprocess.Popen(
            command, env=dict(environ), pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        there.close()
        self._replies = self._here.makefile("r")

    def can_run(self, environ: Mapping[str, str]) -> bool:
        """Whether a run with these variables is as if started anew: none that Python reads at its start differs."""
        return _of_python(environ) == self._environ

    def run(
        self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], stdin: bytes | None, timeout: float
    ) -> Ended:
        """Runs the program to its end; TimeoutExpired when that does not come."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, _input(stdin) as given:
            order = {"arguments": list(arguments), "folder": str(folder), "environ": dict(environ)}
            text = json.dumps(order).encode()
            ends = [given.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(self._here, [len(text).to_bytes(8, "big")], ends)
            self._here.sendall(text)
            pid = int(self._replies.readline())
            self._here.settimeout(timeout)
            try:
                code = int(self._replies.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self.close()
                raise subprocess.TimeoutExpired(list(arguments), timeout) from None
            self._here.settimeout(None)
            out.seek(0)
            err.seek(0)
            return Ended(code, out.read(), err.read())

    def close(self) -> None:
        """Lets the process go."""
        self._replies.close()
        self._here.close()
        self._process.wait(timeout=10)


def _of_python(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(("PYTHON", "LANG", "LC_"))}


def _input(content: bytes | None) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content or b"")
    file.seek(0)
    return file


def _import_everything() -> None:
    import gc
    import importlib
    import pkgutil

    import master_agent

    gc.disable()
    for name in ALSO_IMPORTED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(master_agent.__path__, "master_agent."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()
    gc.enable()


def _serve(there: socket.socket) -> None:
    """Forks for each order. Returns in the forked process, which is then to run the program."""
    while True:
        head, ends, _, _ = socket.recv_fds(there, 8, 3)
        if not head:
            there.close()
            sys.exit(0)
        order = json.loads(there.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            break
        for end in ends:
            os.close(end)
        there.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        there.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    there.close()
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.argv = ["master-agent", *order["arguments"]]
    sys.path[0] = order["folder"]  # as `python -m` has it


if __name__ == "__main__":
    import runpy

    _import_everything()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.modules.pop("master_agent.__main__", None)
    runpy.run_module("master_agent", run_name="__main__", alter_sys=True)
