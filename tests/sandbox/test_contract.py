"""What every sandbox that works on this machine keeps: a program goes in, its outcome comes out, limits hold."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from master_agent.errors import SandboxError
from master_agent.sandbox import MIB, File, Outcome, Program, ProgramLimits, Sandbox
from master_agent.sandbox.mechanisms import look

LIMITS = ProgramLimits(seconds=20, memory=256 * MIB, processes=16, file_bytes=8 * MIB, disk_bytes=16 * MIB)


@pytest.fixture(params=["bubblewrap"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Each mechanism; the test is skipped, with the reason, where it does not work."""
    found = {mechanism.name: mechanism for mechanism in asyncio.run(look())}[request.param]
    if found.sandbox is None and not possible(request.param):
        pytest.skip(f"{found.name}: {found.reason}")
    assert found.sandbox, found.reason
    yield found.sandbox


def possible(name: str) -> bool:
    """Whether the mechanism works on this machine without us."""
    plain = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    return shutil.which("bwrap") is not None and subprocess.run(plain, capture_output=True).returncode == 0


def ran(sandbox: Sandbox, *command: str, given: bytes = b"", limits: ProgramLimits = LIMITS, **files: bytes) -> Outcome:
    around = {name: File(content) for name, content in files.items()}
    return asyncio.run(sandbox.run(Program(command, given, around), limits))


def test_a_program_gets_its_files_and_input_and_leaves_new_and_changed_files(sandbox: Sandbox) -> None:
    script = """cat kept; cat; echo more >> changed; rm gone
    mkdir -p a/b; echo deep > a/b/c; chmod +x a/b/c; echo no >&2; exit 3"""
    outcome = ran(sandbox, "sh", "-c", script, given=b"typed", kept=b"kept ", changed=b"", gone=b"")
    assert (outcome.exit_code, outcome.signal, outcome.ended_by) == (3, None, None)
    assert (outcome.stdout, outcome.stderr) == (b"kept typed", b"no\n")
    assert outcome.files == {"changed": File(b"more\n"), "a/b/c": File(b"deep\n", executable=True)}
    assert (outcome.deleted, outcome.left_out) == (("gone",), {})


def test_a_command_that_is_not_there_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="'no-such-program' could not be started in the sandbox: No such file"):
        ran(sandbox, "no-such-program")
