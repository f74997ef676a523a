"""From settings to how code is run: the sandbox, its limits and its Python, and what a person is told of them."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from master_agent.errors import SandboxError, SettingsError
from master_agent.events import Event, ModelCalled, PlanMade
from master_agent.plan import Plan
from master_agent.quick import WAITING
from master_agent.sandbox import ProgramLimits, Sandbox
from master_agent.settings import Settings
from master_agent.tools import Programs
from master_agent.tools.code import STRICT

if TYPE_CHECKING:
    from master_agent.sandbox.mechanisms import Mechanism

UNSAFE = "unsafe"
"""What stands for no sandbox at all; it has to be asked for by --unsafe-exec."""


def programs(settings: Settings, *, unsafe: bool) -> Programs:
    """How the tools of a run may run programs; SettingsError where there is no such Python."""

    async def sandbox() -> Sandbox:
        return await find(settings, unsafe=unsafe)

    return Programs(sandbox, limits(settings), python(settings))


async def find(settings: Settings, *, unsafe: bool) -> Sandbox:
    """The strictest sandbox that works, or none at all where that was asked for; SandboxError when there is none."""
    from master_agent.sandbox import mechanisms

    if settings.no_exec:
        raise SandboxError("no code may be run: --no-exec")
    return await mechanisms.find(UNSAFE if unsafe else None, settings.exec_engine, settings.exec_image)


async def look(settings: Settings) -> tuple[list["Mechanism"], "Sandbox | None"]:
    """The mechanisms that do not work here, each with its reason, and the first after them that does."""
    from master_agent.sandbox import mechanisms

    failed: list[Mechanism] = []
    for mechanism in await mechanisms.look(settings.exec_engine, settings.exec_image):
        if mechanism.sandbox is not None:
            return failed, mechanism.sandbox
        failed.append(mechanism)
    return failed, None


def install() -> str:
    """What to do where there is no sandbox, or only a weaker one."""
    from master_agent.sandbox.mechanisms import INSTALL

    return INSTALL


def limits(settings: Settings) -> ProgramLimits:
    """What one program may take."""
    return ProgramLimits(
        seconds=settings.exec_seconds,
        cpu_seconds=settings.exec_cpu_seconds,
        memory=settings.exec_memory,
        processes=settings.exec_processes,
        file_bytes=settings.exec_file_size,
        disk_bytes=settings.exec_disk,
        output_bytes=settings.exec_output,
    )


def python(settings: Settings) -> Path | None:
    """The interpreter of the environment that was named; SettingsError when there is none."""
    if settings.exec_python is None:
        return None
    given = settings.exec_python.absolute()
    found = given / "bin" / "python" if given.is_dir() else given
    if not found.is_file():
        raise SettingsError(
            f"--exec-python: there is no Python at {found}",
            hint="Name an environment, or its bin/python: python3 -m venv DIR makes one.",
        )
    return found


class Manner:
    """How code will be run, in words; found out while the planner's answer is waited for, where somebody listens.

    `runs_code` says of a plan whether it may: for one that may not, nothing is found out to its end.
    """

    def __init__(self, settings: Settings, runs_code: Callable[[Plan], bool], *, unsafe: bool) -> None:
        self._find = partial(manner, settings, unsafe=unsafe)
        self._runs_code = runs_code
        self._found: asyncio.Task[str] | None = None
        self._left: list[asyncio.Task[str]] = []
        self._soon: asyncio.TimerHandle | None = None

    def hear(self, event: Event) -> None:
        """Begins when the request has gone out, for the first start of a sandbox takes a while."""
        match event:
            case ModelCalled(step=None) if self._soon is None:  # the planner's first; a step's comes when it is known
                self._soon = asyncio.get_running_loop().call_later(WAITING, self._begin)
            case PlanMade() if not self._runs_code(event.plan):
                self._leave_off()

    async def told(self, within: float | None = None) -> str:
        """The words, which go on from "may run code"; after so many seconds that it is not known yet."""
        found = self._begin()
        await asyncio.wait({found}, timeout=within)
        return found.result() if found.done() else "in a sandbox that is still being tried"

    async def end(self) -> None:
        """Leaves off, to be called before the event loop ends: that would cut off a start which then never ends."""
        self._leave_off()
        for found in self._left:
            await asyncio.wait({found})
            if not found.cancelled():
                found.exception()  # looked at, for nobody waits for it any more

    def _begin(self) -> asyncio.Task[str]:
        if self._found is None:
            self._found = asyncio.create_task(self._find())
        return self._found

    def _leave_off(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        if self._found is not None:
            self._found.cancel()
            self._left.append(self._found)
            self._found = None


async def manner(settings: Settings, *, unsafe: bool) -> str:
    """How code will be run, in words that go on from "may run code"."""
    if unsafe:
        return "WITHOUT A SANDBOX (--unsafe-exec), with all that you may do"
    try:
        sandbox = await find(settings, unsafe=False)
    except SandboxError as error:
        return f"but cannot: {error.message}. {error.hint or ''}".strip()
    if sandbox.name == STRICT:
        return f"in a sandbox ({sandbox.name})"
    return f"in a weaker sandbox ({sandbox.name}), which does not stop: {'; '.join(sandbox.gaps)}"
