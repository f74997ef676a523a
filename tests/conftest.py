"""What every test can use: the command line as a user has it, and the promise that no socket leaves the machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.table import pytest_terminal_summary as pytest_terminal_summary
from tests.warm import Warm

GUARD = Path(__file__).parent / "guard"
exec(compile((GUARD / "sitecustomize.py").read_text(), "guard", "exec"), {})  # the same guard as in started programs
ROOT = Path(__file__).parent.parent
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else no program that a test starts hears Ctrl-C


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Cli:
    """`master-agent` in a folder of its own, with a home of its own and nothing else of this machine."""

    folder: Path
    home: Path
    variables: dict[str, str]
    warm: Warm | None = None

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(GUARD),
            "PYTHONWARNINGS": "error",
            "MASTER_AGENT_CONFIG_DIR": str(self.home / "config"),
            "MASTER_AGENT_STATE_DIR": str(self.home / "state"),
            "MASTER_AGENT_CACHE_DIR": str(self.home / "cache"),
            "MASTER_AGENT_LOCAL_SERVER": "none",  # what runs on this machine is no part of a test
            "LANG": "C.UTF-8",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",  # nobody's own keyring is asked
            **self.variables,
        }

    def start(self, *arguments: str, stdin: Any = subprocess.DEVNULL, **popen: Any) -> "subprocess.Popen[bytes]":
        """The program, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "master_agent", *arguments],
            cwd=popen.pop("cwd", self.folder),
            env={**self.environ, **popen.pop("env", {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **popen,
        )

    def __call__(
        self,
        *arguments: str,
        stdin: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        encoding: str = "utf-8",
        cwd: Path | None = None,
    ) -> Ran:
        """The program, run to its end."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        environ = {**self.environ, **(env or {})}
        if self.warm is not None and self.warm.can_run(environ):
            code, warm_out, warm_err = self.warm.run(arguments, cwd or self.folder, environ, given, timeout)
            return Ran(code, warm_out.decode(encoding), warm_err.decode(encoding))
        process = self.start(
            *arguments,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            env=dict(env or {}),
            cwd=cwd or self.folder,
        )
        try:
            out, err = process.communicate(given, timeout=timeout)
        finally:
            process.kill()
        return Ran(process.returncode, out.decode(encoding), err.decode(encoding))

    def script(self, *lines: Mapping[str, Any], name: str = "script.jsonl") -> str:
        """A file of scripted replies, as a flag: `--script=FILE`."""
        path = self.home / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return f"--script={path}"

    def plan(self, *steps: Mapping[str, Any], name: str = "plan.json", **envelope: Any) -> str:
        """A plan file's name."""
        path = self.home / name
        path.write_text(json.dumps({**envelope, "plan": list(steps)}), encoding="utf-8")
        return str(path)

    def file(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def says(text: Any, **where: Any) -> dict[str, Any]:
    """A script line: a reply of text (or of a JSON value)."""
    return {"port": "thread", **where, "reply": {"text": text}}


def calls(*tools: tuple[str, Mapping[str, Any]], **where: Any) -> dict[str, Any]:
    """A script line: a reply that uses tools."""
    listed = [{"name": name, "arguments": dict(arguments)} for name, arguments in tools]
    return {"port": "thread", **where, "reply": {"calls": listed}}


def plans(*steps: Mapping[str, Any]) -> dict[str, Any]:
    """A script line: the planner's reply."""
    return says({"plan": list(steps)}, agent="planner")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm | None]:
    """A process that has imported everything; none when all is to start anew."""
    if os.environ.get("MASTER_AGENT_TEST_COLD"):
        yield None
        return
    home = tmp_path_factory.mktemp("warm")
    running = Warm(Cli(home, home, {}).environ)
    yield running
    running.close()


@pytest.fixture
def cli(tmp_path: Path, warm: Warm | None, request: pytest.FixtureRequest) -> Cli:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    return Cli(folder, home, {}, None if request.node.get_closest_marker("slow") else warm)


def lines_of(path: Path) -> Sequence[str]:
    """The lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()
