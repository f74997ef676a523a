"""A terminal with the program in it and somebody who answers."""

import sys
from pathlib import Path
from typing import Any

import pexpect

from tests.conftest import Cli


class AtTerminal:
    """The program at a terminal of 40 lines, its stdout `to` a file if one is named; `child` is what pexpect knows."""

    def __init__(self, cli: Cli, *arguments: str, columns: int = 100, to: Path | None = None, **variables: str) -> None:
        environ = {**cli.environ, "TERM": "xterm-256color", **variables}
        command = [sys.executable, "-m", "master_agent", *arguments]
        if to is not None:
            command = ["sh", "-c", 'out="$1"; shift; exec "$@" > "$out"', "sh", str(to), *command]
        self.child: Any = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(cli.folder),
            env=environ,
            dimensions=(40, columns),
            encoding="utf-8",
            timeout=30,
        )

    def answer(self, question: str, said: str) -> None:
        """Waits for the question and types the answer."""
        self.child.expect(question)
        self.child.send(said)

    def end(self) -> tuple[int, str]:
        """The exit code, and what was shown since the last answer."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus is not None, f"ended by signal {self.child.signalstatus}"
        return self.child.exitstatus, str(self.child.before)
