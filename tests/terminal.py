"""A terminal with the program in it and somebody who answers."""

import sys
from typing import Any

import pexpect

from tests.conftest import Cli


class AtTerminal:
    """The program at a terminal of 40 lines; `child` is what pexpect knows of it."""

    def __init__(self, cli: Cli, *arguments: str, columns: int = 100, **variables: str) -> None:
        environ = {**cli.environ, "TERM": "xterm-256color", **variables}
        self.child: Any = pexpect.spawn(
            sys.executable,
            ["-m", "master_agent", *arguments],
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
