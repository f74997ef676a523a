"""From a way to start the warden to the Outcome of a program: feeds it the job, reads what comes out, ends it surely.

Every mechanism goes through here; what is its own is the command that starts the warden, and what it says in the job.
"""

import asyncio
import contextlib
import marshal
import os
import signal
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

from master_agent.errors import SandboxError
from master_agent.sandbox import Outcome, Program, ProgramLimits, handout
from master_agent.sandbox.places import Person

STARTING, HANDING_OUT, DYING = 20.0, 60.0, 3.0
"""Seconds beside the program's own: until it runs, until its files are out, until a stopped one is dead."""

ENVIRON = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "GIT_CONFIG_NOSYSTEM": "1"}
"""What every program finds in its environment: no caches are left, nothing said is lost."""

_MODULES = ("scratch", "linux", "darwin", "warden")
_COMPLAINTS = 16 * 1024


@dataclass(frozen=True)
class Start:
    """How to start a warden: the command, what it inherits, who it is; and what is special in its job.

    `hint` is what to do when it does not start.
    """

    command: Sequence[str]
    job: Mapping[str, Any]
    descriptors: Sequence[int] = ()
    person: Person | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    hint: str | None = None


def warden(python: str) -> list[str]:
    """The command that is the warden: an interpreter that reads no folder but its own; its text comes with the job."""
    return [python, "-I", "-S", "-B", "-c", _BOOT]


_BOOT = """
import marshal, sys
from _frozen_importlib_external import MAGIC_NUMBER
control = open(0, "rb", closefd=False)
job = marshal.loads(control.read(int.from_bytes(control.read(8), "big")))
for name, code, text in job["modules"]:
    module = sys.modules[name] = type(sys)(name)
    exec(marshal.loads(code) if MAGIC_NUMBER == job["magic"] else compile(text, name, "exec"), module.__dict__)
module.main(control, job)
"""


@cache
def _modules() -> list[tuple[str, bytes, str]]:
    """The warden's modules: names, compiled for an interpreter like ours, and as text for any other."""
    texts = [(f"{__package__}.{name}", Path(__file__).with_name(f"{name}.py")) for name in _MODULES]
    read = [(name, path.read_text(encoding="utf-8")) for name, path in texts]
    return [(name, marshal.dumps(compile(text, name, "exec", dont_inherit=True)), text) for name, text in read]


async def carried_out(start: Start, program: Program, limits: ProgramLimits) -> Outcome:
    """Runs a program to its end. SandboxError when it could not be started; nothing of it is alive afterwards."""
    given = sum(len(file.content) for file in program.files.values())
    if given > limits.disk_bytes:
        raise SandboxError(f"the files for the program are {given:,} bytes; {limits.disk_bytes:,} are the most")
    for path in program.files:
        if not handout.safe(path) or len(path.encode("utf-8", "surrogatepass")) > 1000:
            raise SandboxError(f"{path!r} cannot be a file of the scratch folder")
    process = await _started(start)
    feeding = asyncio.create_task(_feed(process, _job(start, program, limits)))
    complaining = asyncio.create_task(_complaints(process))
    try:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(STARTING + limits.seconds + HANDING_OUT):
                return await handout.read(process.stdout, program, limits)
        except TimeoutError:
            return _lost(limits.seconds, "seconds")
        except EOFError:
            pass
        await _until_dead(process)
        if process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return _lost(0.0, None)
        raise SandboxError(f"the sandbox did not start: {_last(await complaining)}", hint=start.hint)
    finally:
        feeding.cancel()
        await _until_dead(process)
        complaining.cancel()


async def _started(start: Start) -> asyncio.subprocess.Process:
    """The process of the warden, or of what starts it. Whoever is cancelled meanwhile leaves none behind."""
    identity: dict[str, Any] = {}
    if start.person:
        identity = {"user": start.person.number, "group": start.person.number, "extra_groups": []}
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *start.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
            env=dict(start.environ),
            cwd="/",
            pass_fds=tuple(start.descriptors),
            start_new_session=True,
            **identity,
        )
    )
    try:
        return await asyncio.shield(starting)
    except OSError as error:
        raise SandboxError(f"the sandbox did not start: {start.command[0]}: {error.strerror}") from None
    except asyncio.CancelledError:
        await undisturbed(_never_mind(starting))
        raise


async def _never_mind(starting: "asyncio.Future[asyncio.subprocess.Process]") -> None:
    with contextlib.suppress(OSError):
        await _die(await starting)


def _job(start: Start, program: Program, limits: ProgramLimits) -> Iterable[bytes]:
    """What the warden reads, in pieces."""
    job = {
        "modules": _modules(),
        "magic": MAGIC_NUMBER,
        "command": list(program.command),
        "limits": asdict(limits),
        "files": [(path, len(file.content), file.executable) for path, file in program.files.items()],
        "input": len(program.input),
        "nproc": limits.processes,
        "confined": False,
        "filter": b"",
        "ruleset": None,
        "folders": [],
        "alone": False,
        "sized": False,
        "erase": "",
        **start.job,
    }
    told = marshal.dumps(job, 2)
    yield len(told).to_bytes(8, "big") + told
    for file in program.files.values():
        yield file.content
    yield program.input


async def _feed(process: asyncio.subprocess.Process, pieces: Iterable[bytes]) -> None:
    """Writes the job, and leaves the pipe open: its end is the sign to stop."""
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            process.stdin.write(piece)
            await process.stdin.drain()


async def _complaints(process: asyncio.subprocess.Process) -> bytes:
    """What the mechanism itself says when it fails."""
    assert process.stderr is not None
    kept = b""
    while piece := await process.stderr.read(4096):
        kept = (kept + piece)[-_COMPLAINTS:]
    return kept


def _last(complaints: bytes) -> str:
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _lost(seconds: float, ended: Any) -> Outcome:
    """The outcome when the warden itself is gone, and all files with it."""
    why = {".": "the sandbox itself was ended from outside before it could hand out any file"}
    return Outcome(None, b"", b"", seconds, ended_by=ended, signal=int(signal.SIGKILL), left_out=why)


async def _until_dead(process: asyncio.subprocess.Process) -> None:
    """Returns when every process of the sandbox is gone."""
    await undisturbed(_die(process))


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Does work to its end, however often the caller is cancelled meanwhile; then passes the cancelling on."""
    doing = asyncio.ensure_future(work)
    cancelled = False
    while not doing.done():
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            cancelled = True
    doing.result()
    if cancelled:
        raise asyncio.CancelledError


async def _die(process: asyncio.subprocess.Process) -> None:
    """Asks the warden to end everything, by the end of its input; kills it when it does not."""
    assert process.stdin is not None and process.stdout is not None
    if not process.stdin.is_closing():
        process.stdin.transport.abort()  # not close(), which would first pass on all that is still to be said
    try:
        async with asyncio.timeout(DYING):
            while await process.stdout.read(1024 * 1024):
                pass
            await process.wait()
    except TimeoutError:
        # Whoever is stopped makes no new ones; the warden goes last, for its end would hide its children from us.
        family = _family(process.pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in reversed(family):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        await process.wait()


def _family(pid: int) -> list[int]:
    """A process, its children, their children and so on, as far as this can be looked up."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
    return found
