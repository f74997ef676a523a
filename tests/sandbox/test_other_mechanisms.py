"""The mechanisms that cannot be tried on every machine: an engine's command line by a stand-in, a profile as text."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from master_agent.errors import SandboxError
from master_agent.sandbox import MIB, File, Program, ProgramLimits, container, seatbelt
from master_agent.sandbox.mechanisms import find, look
from tests.conftest import ROOT
from tests.sandbox.test_contract import alive, possible

LIMITS = ProgramLimits(seconds=20, memory=100 * MIB, processes=10, disk_bytes=10 * MIB)
# Stands in for an engine: notes its command line, and runs what the image would be asked for as the first process of a
# namespace, with an empty /tmp, as an engine does.
ENGINE = """#!{python}
import json, os, sys
with open({log!r}, "a") as log: log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "run":
    if sys.argv[-6] != "some/image": sys.exit("Unable to find image locally")
    inside = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/usr/bin/python3"]
    os.execvp("bwrap", ["bwrap", "--unshare-pid", "--as-pid-1", "--die-with-parent", *inside, *sys.argv[-5:]])
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    if not possible("bubblewrap") or not Path("/usr/bin/python3").exists():
        pytest.skip("the stand-in for an engine needs bubblewrap and the system's Python")
    path = tmp_path / "docker"
    path.write_text(ENGINE.format(python=sys.executable, log=str(tmp_path / "log")))
    path.chmod(0o755)
    return path


def log(engine: Path) -> list[list[str]]:
    return [json.loads(line) for line in (engine.parent / "log").read_text().splitlines()]


def test_a_program_runs_in_a_container_that_has_nothing(engine: Path, tmp_path: Path) -> None:
    readable = tmp_path / "packages"
    readable.mkdir()
    sandbox = asyncio.run(find("container", str(engine), "some/image"))
    assert sandbox.name == "docker"
    program = Program(("sh", "-c", "cat in; cat; id -u > out"), b"typed", {"in": File(b"given ")}, (readable,))
    outcome = asyncio.run(sandbox.run(program, LIMITS))
    assert (outcome.exit_code, outcome.stdout, list(outcome.files)) == (0, b"given typed", ["out"])
    command, removed = log(engine)[-2:]
    assert removed == ["rm", "--force", command[command.index("--name") + 1]]
    for flag, value in {
        "--network": "none",
        "--cap-drop": "ALL",
        "--security-opt": "no-new-privileges",
        "--pull": "never",
        "--log-driver": "none",
        "--memory": str(164 * MIB),
        "--memory-swap": str(164 * MIB),
        "--pids-limit": "26",
        "--tmpfs": f"/tmp:rw,exec,nosuid,nodev,size={10 * MIB},mode=1777",
        "--mount": f"type=bind,source={readable},target={readable},readonly",
        "--entrypoint": "python3",
    }.items():
        assert command[command.index(flag) + 1] == value
    assert "--read-only" in command and not any("TOKEN" in word or "KEY" in word for word in command)


def test_a_container_is_removed_when_its_program_is_cancelled(engine: Path) -> None:
    sandbox = container.here(str(engine), "some/image")

    async def cancelled() -> list[bytes]:
        running = asyncio.create_task(sandbox.run(Program(("sleep", "32.5625")), LIMITS))
        while not alive(b"32.5625"):  # noqa: ASYNC110  nothing here could set an event
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return alive(b"32.5625")

    assert asyncio.run(cancelled()) == []
    assert [line[0] for line in log(engine)] == ["run", "rm"]


def test_an_engine_without_the_image_is_told_what_to_do(engine: Path) -> None:
    found = {mechanism.name: mechanism for mechanism in asyncio.run(look(str(engine), "other/image"))}["container"]
    assert found.reason == "the sandbox did not start: Unable to find image locally"
    assert found.hint == "Is docker running, and the image there? docker pull other/image"
    with pytest.raises(SandboxError, match="'no-engine' is not installed"):
        container.here("no-engine")


FIND = """import asyncio
from master_agent.errors import SandboxError
from master_agent.sandbox.mechanisms import find
try: print(asyncio.run(find()).name)
except SandboxError as error: print(error.message, error.hint, sep="\\n")"""


@pytest.mark.skipif(sys.platform != "linux", reason="hides what only Linux has")
def test_where_nothing_works_the_reasons_and_the_package_are_named() -> None:
    hidden = [sys.executable, "-m", "tests.sandbox.hidden", sys.executable, "-c", FIND]
    message, hint = subprocess.run(hidden, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    assert message == (
        "no sandbox works here (bubblewrap: it is not installed; "
        "landlock: the kernel has no Landlock, and version 4 is needed)"
    )
    assert "apt install bubblewrap" in hint


PROFILE = """(version 1)
(deny default)
(import "system.sb")
(deny network*)
(deny mach-lookup)
(allow process-fork)
(allow process-info* (target same-sandbox))
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow ipc-posix-sem)
(allow file-read-metadata)
(allow file-read* file-map-executable process-exec (literal "/") (subpath "/usr/lib") (subpath "/a \\"b\\\\"))
(allow file-read* file-write-data file-ioctl (literal "/dev/null") (literal "/dev/zero") (literal "/dev/random") (literal "/dev/urandom"))
(allow file-read* file-write* file-map-executable process-exec (subpath "/private/x"))"""  # noqa: E501


def test_the_profile_for_macos_allows_the_system_and_the_scratch_folder_only() -> None:
    assert seatbelt.profile([Path("/usr/lib"), Path('/a "b\\')], Path("/private/x")) == PROFILE
    with pytest.raises(SandboxError, match="cannot be named in a profile"):
        seatbelt.profile([Path("/a\n(allow default)")], Path("/private/x"))
    if sys.platform != "darwin":
        with pytest.raises(SandboxError, match="sandbox-exec is a part of macOS"):
            seatbelt.here()
