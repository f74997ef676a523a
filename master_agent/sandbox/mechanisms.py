"""From this machine to the strictest sandbox that works on it; each was made to run a little program before it counts.

`find` gives the first that works, `look` says of every one whether it works, for `doctor`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from master_agent.errors import SandboxError
from master_agent.sandbox import (
    File,
    Outcome,
    Program,
    ProgramLimits,
    Sandbox,
    bubblewrap,
    container,
    landlock,
    seatbelt,
    unsafe,
)

INSTALL = "Install bubblewrap (apt install bubblewrap, dnf install bubblewrap), or take running code away: --no-exec."
_TRIAL = Program(("/bin/sh", "-c", "cat given && cat > made"), b"made", {"given": File(b"given")})
_KEPT: dict[tuple[str | None, ...], "Mechanism"] = {}
"""What was found in this process."""


@dataclass(frozen=True)
class Mechanism:
    """One way to run code safely: the sandbox when it works here, or why it does not, and what to do."""

    name: str
    sandbox: Sandbox | None
    reason: str = ""
    hint: str | None = None

    @property
    def gaps(self) -> tuple[str, ...]:
        """What it does not stop, in short lines."""
        return self.sandbox.gaps if self.sandbox else ()


async def find(only: str | None = None, engine: str | None = None, image: str | None = None) -> Sandbox:
    """The strictest sandbox that works on this machine, or the one of that name; "unsafe" is only had by name.

    A container is only tried when an engine is named (docker, podman). SandboxError when there is none: it says of each
    why not, and names the package to install.
    """
    if only == "unsafe":
        return unsafe.Unsafe()
    ways = _ways(engine, image)
    failed = []
    for name in ways:
        if only in (None, name):
            mechanism = await _tried(name, ways[name], (name, engine, image))
            if mechanism.sandbox:
                return mechanism.sandbox
            failed.append(f"{name}: {mechanism.reason}")
    if not failed and only is not None:
        raise SandboxError(f"there is no sandbox called {only!r} here", hint=f"There are: {', '.join(ways)}")
    raise SandboxError(f"no sandbox works here ({'; '.join(failed) or 'there is none for this system'})", hint=INSTALL)


async def look(engine: str | None = None, image: str | None = None) -> tuple[Mechanism, ...]:
    """Every mechanism, strictest first, each tried."""
    ways = _ways(engine, image)
    return tuple([await _tried(name, way, (name, engine, image)) for name, way in ways.items()])


def _ways(engine: str | None, image: str | None) -> dict[str, Callable[[], Sandbox]]:
    """The mechanisms of this system, strictest first; a container is one when an engine was named."""
    ways: dict[str, Callable[[], Sandbox]] = {}
    if sys.platform == "linux":
        ways |= {"bubblewrap": bubblewrap.here, "landlock": landlock.here}
    if engine is not None:
        ways["container"] = lambda: container.here(engine, image)
    if sys.platform == "darwin":
        ways["seatbelt"] = seatbelt.here
    return ways


async def _tried(name: str, way: Callable[[], Sandbox], key: tuple[str | None, ...]) -> Mechanism:
    """A mechanism that has run a little program, or what happened instead; the same answer for this whole process."""
    if key not in _KEPT:
        try:
            sandbox = way()
            wrong = _wrong(await sandbox.run(_TRIAL, ProgramLimits(seconds=20)))
            _KEPT[key] = Mechanism(name, None, wrong) if wrong else Mechanism(name, sandbox)
        except SandboxError as error:
            _KEPT[key] = Mechanism(name, None, error.message, error.hint)
    return _KEPT[key]


def _wrong(outcome: Outcome) -> str:
    """What is wrong with the outcome of the trial; empty when nothing is."""
    if (outcome.exit_code, outcome.stdout, dict(outcome.files)) == (0, b"given", {"made": File(b"made")}):
        return ""
    said = outcome.stderr.decode("utf-8", "replace").strip()[-200:]
    return f"a trial ended with exit code {outcome.exit_code}, signal {outcome.signal}: {said or 'it said nothing'}"
