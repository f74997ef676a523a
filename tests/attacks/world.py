"""The world that attacks are made on: an ordinary user with a secret, a repository, servers and programs of its own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from master_agent.sandbox import ProgramLimits
from tests.attacks.canary import Canary

MECHANISMS = ("bubblewrap", "landlock")
ROOT = Path(__file__).parent.parent.parent
_UNUSED = 1_879_040_000  # of the numbers that neither distributions nor containers give out
SECRET, KEY = Canary("secret-Zp4LmX9vQe2RtY7w"), Canary("canary-Ga6NcJ1hBs5KuD8f")


@dataclass
class Heard:
    """What came in from outside at one address, while it was listened to."""

    listener: socket.socket
    messages: list[bytes] = field(default_factory=list)

    def listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self.listener.type == socket.SOCK_DGRAM:
                    self.messages.append(self.listener.recv(100))
                    continue
                connection, _ = self.listener.accept()
                with connection:
                    self.messages.append(connection.recv(100))


class World:
    """An ordinary user: when the suite is root, one that is made for it, else whoever runs the suite."""

    def __init__(self) -> None:
        self._number = _UNUSED + os.getpid() % 50_000 if os.geteuid() == 0 else None
        self._everything = contextlib.ExitStack()
        self.top = Path(self._everything.enter_context(_folder()))
        self.home, self.code = self.top / "home", self.top / "code"
        self.work = self.home / "work"
        (self.work / ".git" / "hooks").mkdir(parents=True)
        (self.home / ".secret").write_text(SECRET.value)
        (self.home / ".secret").chmod(0o600)
        self._copy()
        self.tcp, self.udp = self._listening(socket.SOCK_STREAM), self._listening(socket.SOCK_DGRAM)
        self.unix = self._listening_at(str(self.home / "agent.sock"))
        self.abstract = self._listening_at(f"\0attack-{os.getpid()}")
        for path in (self.home, *self.home.rglob("*")):
            self._give(path)
        self.home.chmod(0o700)
        self.sleeper = self._started(["sleep", "600"])
        self._driver = self._started([self._python(), "-B", "-W", "error", str(self.code / "driver.py")])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._driver, self.sleeper):
            process.kill()
            process.communicate()
        for heard in (self.tcp, self.udp, self.unix, self.abstract):
            with contextlib.suppress(OSError):
                heard.listener.shutdown(socket.SHUT_RDWR)
            heard.listener.close()
        self._everything.close()

    @property
    def places(self) -> dict[str, Any]:
        """What an attacker has found out of the world."""
        return {
            "home": str(self.home),
            "work": str(self.work),
            "tcp": self.tcp.listener.getsockname()[1],
            "udp": self.udp.listener.getsockname()[1],
            "unix": self.unix.listener.getsockname(),
            "abstract": self.abstract.listener.getsockname().decode(),
            "sleeper": self.sleeper.pid,
            "mine": f"attack-{os.getpid()}",
        }

    def run(self, mechanism: str, code: str, limits: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What came of a program, run by the user; the test is skipped where there is no such mechanism."""
        if why := hidden(mechanism):
            pytest.skip(f"{mechanism}: {why}")
        given = asdict(ProgramLimits(seconds=30, processes=64)) | dict(limits or {})
        order = {"mechanism": mechanism, "code": code, "limits": given}
        assert self._driver.stdin and self._driver.stdout
        self._driver.stdin.write((json.dumps(order) + "\n").encode())
        self._driver.stdin.flush()
        line = self._driver.stdout.readline()
        assert line, self._driver.stderr and self._driver.stderr.read().decode()
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            pytest.skip(f"{mechanism}: {answer['missing']}")
        return answer

    def again(self) -> None:
        """Puts the world back as it was before an attack."""
        for heard in (self.tcp, self.udp, self.unix, self.abstract):
            heard.messages.clear()
        for path in self.planted:
            path.unlink(missing_ok=True)
        if self.sleeper.poll() is not None:
            self.sleeper.communicate()
            self.sleeper = self._started(["sleep", "600"])
        for pid in self.left_running:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)

    @property
    def planted(self) -> list[Path]:
        """The files that an attack may have left."""
        mine = self.places["mine"]
        names = [self.home / "outside.txt", self.work / ".git" / "hooks" / "post-checkout"]
        return [path for path in (*names, Path("/tmp", mine), Path("/dev/shm", mine)) if path.exists()]

    @property
    def left_running(self) -> list[int]:
        """The processes that an attack has left behind."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"left-{self.places['mine']}".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def settled(self, question: Any) -> bool:
        """Whether something of the outside world becomes true; a moment is enough, or it never does."""
        for _ in range(20):
            if question():
                return True
            time.sleep(0.01)
        return bool(question())

    def _give(self, path: Path) -> None:
        if self._number is not None:
            os.chown(path, self._number, self._number)

    def _copy(self) -> None:
        """The sandbox and the driver where the user can read them."""
        package = self.code / "master_agent"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "master_agent" / "sandbox", package / "sandbox", ignore=ignored)
        for name in ("__init__.py", "errors.py"):
            shutil.copy(ROOT / "master_agent" / name, package)
        shutil.copy(Path(__file__).with_name("driver.py"), self.code)
        for path in (self.code, *self.code.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def _python(self) -> str:
        """A Python that the user may run: the suite's own, or the system's."""
        for path in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
            test = [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            with contextlib.suppress(OSError):
                if subprocess.run(test, capture_output=True, **self._as_user()).returncode == 0:
                    return str(path)
        pytest.skip("there is no Python here that an ordinary user may run")

    def _as_user(self) -> dict[str, Any]:
        if self._number is None:
            return {}
        return {"user": self._number, "group": self._number, "extra_groups": [], "cwd": "/"}

    def _started(self, command: list[str]) -> "subprocess.Popen[bytes]":
        environ = {"HOME": str(self.home), "PATH": os.environ["PATH"], "OPENAI_API_KEY": KEY.value, "LANG": "C.UTF-8"}
        pipe = subprocess.PIPE
        started: subprocess.Popen[bytes] = subprocess.Popen(
            command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, **self._as_user()
        )
        return started

    def _listening(self, kind: socket.SocketKind) -> Heard:
        return self._heard(socket.socket(socket.AF_INET, kind), ("127.0.0.1", 0))

    def _listening_at(self, address: str) -> Heard:
        return self._heard(socket.socket(socket.AF_UNIX), address)

    def _heard(self, listener: socket.socket, address: Any) -> Heard:
        listener.bind(address)
        if listener.type == socket.SOCK_STREAM:
            listener.listen()
        heard = Heard(listener)
        threading.Thread(target=heard.listen, daemon=True).start()
        return heard


def hidden(mechanism: str) -> str | None:
    """Why a mechanism is not to be attacked, if so."""
    if mechanism in os.environ.get("MASTER_AGENT_TEST_WITHOUT", "").split(","):
        return "hidden by MASTER_AGENT_TEST_WITHOUT"
    return None if sys.platform == "linux" else "a part of Linux"


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder that everybody can pass through."""
    path = tempfile.mkdtemp(prefix="attacks-", dir="/tmp")
    Path(path).chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
