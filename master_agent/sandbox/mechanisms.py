"""From this machine to the strictest sandbox that works on it; each was made to run a little program before it counts.

`find` gives the first that works, `look` says of every one whether it works, for `doctor`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from master_agent.errors import SandboxError
from master_agent.sandbox import File, Outcome, Program, ProgramLimits, Sandbox, bubblewrap, landlock, unsafe

INSTALL = "Install bubblewrap (apt install bubblewrap, dnf install bubblewrap), or take running code away: --no-exec."
_TRIAL = Program(("/bin/sh", "-c", "cat given && cat > made"), b"made", {"given": File(b"given")})
_KEPT: dict[str, "Mechanism"] = {}
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


async def find(only: str | None = None) -> Sandbox:
    """The strictest sandbox that works on this machine, or the one of that name; "unsafe" is only had by name.

    SandboxError when there is none: it says of each why not, and names the package to install.
    """
    if only == "unsafe":
        return unsafe.Unsafe()
    failed = []
    for name in _WAYS:
        if only in (None, name):
            mechanism = await _tried(name)
            if mechanism.sandbox:
                return mechanism.sandbox
            failed.append(f"{name}: {mechanism.reason}")
    if not failed:
        raise SandboxError(f"there is no sandbox called {only!r}", hint=f"There are: {', '.join(_WAYS)}")
    raise SandboxError(f"no sandbox works here ({'; '.join(failed)})", hint=INSTALL)


async def look() -> tuple[Mechanism, ...]:
    """Every mechanism, strictest first, each tried."""
    return tuple([await _tried(name) for name in _WAYS])


async def _tried(name: str) -> Mechanism:
    """A mechanism that has run a little program, or what happened instead; the same answer for this whole process."""
    if name not in _KEPT:
        try:
            sandbox = _WAYS[name]()
            outcome = await sandbox.run(_TRIAL, ProgramLimits(seconds=20))
            wrong = _wrong(outcome)
            _KEPT[name] = Mechanism(name, None, wrong) if wrong else Mechanism(name, sandbox)
        except SandboxError as error:
            _KEPT[name] = Mechanism(name, None, error.message, error.hint)
    return _KEPT[name]


def _wrong(outcome: Outcome) -> str:
    """What is wrong with the outcome of the trial; empty when nothing is."""
    if (outcome.exit_code, outcome.stdout, dict(outcome.files)) == (0, b"given", {"made": File(b"made")}):
        return ""
    said = outcome.stderr.decode("utf-8", "replace").strip()[-200:]
    return f"a trial ended with exit code {outcome.exit_code}, signal {outcome.signal}: {said or 'it said nothing'}"


_WAYS: dict[str, Callable[[], Sandbox]] = {"bubblewrap": bubblewrap.here, "landlock": landlock.here}
