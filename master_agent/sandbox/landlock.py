"""Programs under Landlock and seccomp: the kernel refuses what is not allowed, but everything stays where it was.

Weaker than namespaces, for machines that have no bubblewrap or forbid it. The ruleset is made here and given to the
warden as a descriptor. Source: the kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

import asyncio
import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SandboxError
from master_agent.sandbox import Outcome, Program, ProgramLimits, launch, places, private, seccomp

LEAST = 4
"""The version of Landlock from which on it can refuse network, and with it be worth its name."""

_CREATE, _ADD, _ASK_VERSION, _BENEATH = 444, 445, 1, 1
_EXECUTE, _WRITE, _READ, _READ_FOLDER, _TRUNCATE, _DEVICE_CONTROL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_MAKE_CHARACTER_DEVICE, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _DEVICE_CONTROL
_TCP, _ABSTRACT_SOCKETS, _SIGNALS = 0b11, 1 << 0, 1 << 1
_DEVICES = ("null", "zero", "full", "random", "urandom")

_GAPS = (
    "the program can see that files exist, their sizes and dates, though not read them",
    "disk, memory and processes are watched some fifty times a second and ended, not held exactly",
    "it cannot set modes, owners and times by a file's name (chmod), nor use /proc and shared memory",
    "the kernel itself: a fault in it is a way out",
)
_SIGNALS_GAP = "it can send signals to other programs of the same user (Linux 6.12 stops that)"


@dataclass(frozen=True)
class Landlock:
    """Programs that the kernel lets read the system and write their scratch folder."""

    version: int
    name: str = "landlock"

    @property
    def gaps(self) -> tuple[str, ...]:
        return _GAPS if self.version >= 6 else (*_GAPS, _SIGNALS_GAP)

    async def run(self, program: Program, limits: ProgramLimits) -> Outcome:
        person = places.stand_in()
        python = places.interpreter(person)
        beside = [*places.readable(program.readable, person), *places.of_interpreter(python)]
        running = await asyncio.to_thread(private.processes_now, person)
        async with private.private(person) as folder:
            with _ruleset(self.version, [*places.system(), *beside], folder.top) as ruleset:
                others = person is not None or all(places.under(place, places.system()) for place in beside)
                environ = {**launch.ENVIRON, **folder.environ, "PATH": places.search(python)}
                job = {
                    **folder.job,
                    "environ": environ,
                    "nproc": limits.processes + running,
                    "confined": True,
                    "filter": seccomp.program_filter(by_name=person is not None, opened=others),
                    "ruleset": ruleset,
                }
                start = launch.Start(launch.warden(str(python)), job, (ruleset,), person)
                return await launch.carried_out(start, program, limits)


def here() -> Landlock:
    """Landlock as this kernel has it. SandboxError that says what is missing."""
    if sys.platform != "linux":
        raise SandboxError("Landlock is a part of Linux")
    if not seccomp.known():
        raise SandboxError("there is no list of system calls for this processor")
    version = _system_call(_CREATE, None, 0, _ASK_VERSION)
    if version < LEAST:
        had = "has no Landlock" if version < 1 else f"has Landlock {version}"
        raise SandboxError(f"the kernel {had}, and version {LEAST} is needed", hint="It is in Linux 6.7 and later.")
    if not Path("/proc/self/task").is_dir() or not list(Path("/proc/self/task").glob("*/children")):
        raise SandboxError("the kernel does not tell a process its children (CONFIG_PROC_CHILDREN)")
    return Landlock(version)


def _system_call(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    return result


@contextlib.contextmanager
def _ruleset(version: int, reads: Sequence[Path], writes: Path) -> Iterator[int]:
    """A descriptor of what is allowed: to read and run from some folders, to write one, and the harmless devices."""
    handled = (1 << 16) - 1 if version >= 5 else (1 << 15) - 1
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if version >= 6 else 0
    about = struct.pack("=QQQ", handled, _TCP, scoped)[: 24 if version >= 6 else 16]
    ruleset = _system_call(_CREATE, about, len(about), 0)
    if ruleset < 0:
        raise SandboxError(f"Landlock cannot be used: {os.strerror(ctypes.get_errno())}")
    try:
        for path in reads:
            _allow(ruleset, path, _EXECUTE | _READ | _READ_FOLDER)
        for name in _DEVICES:
            _allow(ruleset, Path("/dev", name), _READ | _WRITE | _TRUNCATE)
        _allow(ruleset, writes, handled & ~(_MAKE_CHARACTER_DEVICE | _MAKE_BLOCK_DEVICE | _DEVICE_CONTROL))
        yield ruleset
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what cannot be opened cannot be allowed
    try:
        rule = struct.pack("=Qi", access if path.is_dir() else access & _OF_FILES, descriptor)
        if _system_call(_ADD, ruleset, _BENEATH, rule, 0):
            raise SandboxError(f"Landlock refuses to allow {str(path)!r}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
