"""A model of one's own, run here: from a GGUF file to an engine that serves Chat Completions on a loopback port.

The engine is llama.cpp, from the optional package `xllamacpp`. It has a process of its own, which belongs to the run
and ends with it: it does not give Python back until a model is loaded, it prints where it likes, and on a machine that
has too little memory it is killed. In the run's own process each of these would be the end of the run.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from master_agent.embedded.memory import Fit
from master_agent.errors import ModelError
from master_agent.gguf import ModelFile
from master_agent.held_keys import without_keys

INSTALL = "pip install 'master-agent[local]'"
HOST = "127.0.0.1"
_PROGRAM = Path(__file__).with_name("process.py")
_START, _BYTES_A_SECOND = 60.0, 20e6  # the slowest disk that is waited for
_SMALL = 64 << 20  # bytes of a model that one thread runs best, for several would wait for each other; -1 is all cores
_ENDING = 2.0  # seconds that an engine which breaks off may take to be gone
_REASON = re.compile(r"error loading model: (.*)|failed to (?:allocate|create) (.*)")


def installed() -> bool:
    """Whether the engine is there; it is not loaded to find out."""
    return find_spec("xllamacpp") is not None


def missing() -> ModelError:
    """That it is not, and how to get it."""
    return ModelError(
        "the embedded engine is not installed, so no model can be run here",
        type="no_model",
        hint=f"Install it: {INSTALL}",
    )


@dataclass(frozen=True)
class Engine:
    """A running engine: its address, the key that it asks for, and the tokens that one request may hold."""

    model: ModelFile
    address: str
    key: str
    context: int
    slots: int
    process: asyncio.subprocess.Process
    log: IO[str]

    async def ended(self) -> ModelError | None:
        """Why the engine has ended; None while it runs. To be asked when it has broken off."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), _ENDING)
        if self.process.returncode is None:
            return None
        return _died(self.model, self.process.returncode, self.log)

    async def close(self) -> None:
        """Ends the engine, whatever it is doing."""
        await _end(self.process)
        self.log.close()


async def start(model: ModelFile, fit: Fit) -> Engine:
    """The engine with the model loaded; ModelError when that cannot be."""
    if not installed():
        raise missing()
    key = secrets.token_urlsafe(24)
    asked = {
        "path": str(model.path.resolve()),
        "name": model.name,
        "host": HOST,
        "key": key,
        "n_ctx": fit.context * fit.slots,
        "n_parallel": fit.slots,
        "n_threads": 1 if model.bytes < _SMALL else -1,
        "cache_ram_mib": fit.prompt_cache >> 20,
    }
    log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the engine
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_PROGRAM),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            env=without_keys(os.environ),  # it reads a file that may be anybody's
            start_new_session=True,  # Ctrl-C is for the run, which then ends the engine
        )  # fmt: skip
        told = await _told(process, asked, _START + model.bytes / _BYTES_A_SECOND)
        if not told or "error" in told:
            raise _unusable(model, told, await process.wait(), log)
        return Engine(model, told["address"], key, told["n_ctx"], fit.slots, process, log)
    except TimeoutError:
        await _end(process)
        log.close()
        raise ModelError(
            f"the model {model.name} was not loaded in time", type="no_model", hint="Try again, or a smaller model."
        ) from None
    except BaseException:  # a cancelled start too: the process must not outlive it
        await _end(process)
        log.close()
        raise


async def _told(process: asyncio.subprocess.Process, asked: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the process answers; nothing when it ends instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        with contextlib.suppress(ConnectionError):  # it ended before it had read
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
    told: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return told


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None:
        return
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


def _unusable(model: ModelFile, told: dict[str, Any], code: int, log: IO[str]) -> ModelError:
    if not told:
        return _died(model, code, log)
    why = _reason(log) or told["error"]
    return ModelError(
        f"the engine cannot load {model.path}: {why}",
        type="no_model",
        hint="The file may be damaged, or newer than the engine: get it again, or update: pip install -U xllamacpp",
    )


def _died(model: ModelFile, code: int, log: IO[str]) -> ModelError:
    killed = code == -signal.SIGKILL
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    why = f": {reason}" if (reason := _reason(log)) else ""
    hint = "It may have run out of memory: try a smaller model (master-agent models), or close other programs."
    return ModelError(
        f"the engine that ran {model.name} {how}{why}",
        type="no_model",
        hint=hint if killed else "Go on with: master-agent resume; if it ends again, try another model.",
    )


def _reason(log: IO[str]) -> str | None:
    """The engine's own words for what went wrong."""
    log.seek(0)
    lines = log.read(1 << 20).splitlines()
    found = [next(filter(None, match.groups())) for match in map(_REASON.search, lines) if match]
    return found[-1][:300] if found else None
