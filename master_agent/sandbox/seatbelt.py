"""Programs under macOS's own sandbox, by `sandbox-exec` and a profile made for each. It has not been run.

Apple calls the command deprecated and keeps it working; browsers and build tools stand on the same profiles.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SandboxError
from master_agent.sandbox import Outcome, Program, ProgramLimits, launch, places, private

COMMAND = Path("/usr/bin/sandbox-exec")
SYSTEM = tuple(
    Path(name)
    for name in (
        *("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/share", "/System/Library"),
        *("/System/Cryptexes", "/System/Volumes/Preboot/Cryptexes", "/Library/Apple", "/Library/Developer"),
        *("/private/var/db/dyld", "/private/var/db/timezone", "/private/etc/ssl", "/private/etc/localtime"),
        *("/opt/homebrew/bin", "/opt/homebrew/lib", "/opt/homebrew/opt", "/opt/homebrew/Cellar"),
        *("/usr/local/bin", "/usr/local/lib", "/usr/local/opt", "/usr/local/Cellar"),
    )
)
"""What may be read and run: the system, and the programs of Homebrew without their settings."""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


@dataclass(frozen=True)
class Seatbelt:
    """Programs that macOS lets read the system and write their scratch folder."""

    name: str = "seatbelt"
    gaps: tuple[str, ...] = (
        "this way has not been tried by those who wrote it",
        "a process that leaves its parent and its group can outlive the program",
        "disk, memory and processes are watched and ended, not held exactly",
        "the kernel itself: a fault in it is a way out",
    )

    async def run(self, program: Program, limits: ProgramLimits) -> Outcome:
        python = places.interpreter(None)
        beside = [*places.readable(program.readable, None), *places.of_interpreter(python)]
        async with private.private(None) as folder:
            confined = [str(COMMAND), "-p", profile([*SYSTEM, *beside], folder.top), "--", *program.command]
            environ = {**launch.ENVIRON, **folder.environ, "PATH": f"{places.search(python)}:/opt/homebrew/bin"}
            job = {**folder.job, "environ": environ, "command": confined}
            return await launch.carried_out(launch.Start(launch.warden(str(python)), job), program, limits)


def here() -> Seatbelt:
    """The sandbox of this macOS. SandboxError on any other system."""
    if sys.platform != "darwin" or not COMMAND.exists():
        raise SandboxError("sandbox-exec is a part of macOS")
    return Seatbelt()


def profile(reads: Sequence[Path], writes: Path) -> str:
    """The rules, in the language of sandbox profiles: what no rule allows is refused, the network among it."""
    readable = " ".join(f"(subpath {_quoted(path)})" for path in reads)
    devices = " ".join(f"(literal {_quoted(Path(name))})" for name in _DEVICES)
    return "\n".join(
        (
            "(version 1)",
            "(deny default)",
            '(import "system.sb")',
            "(deny network*)",
            "(deny mach-lookup)",
            "(allow process-fork)",
            "(allow process-info* (target same-sandbox))",
            "(allow signal (target same-sandbox))",
            "(allow sysctl-read)",
            "(allow ipc-posix-sem)",
            "(allow file-read-metadata)",
            f'(allow file-read* file-map-executable process-exec (literal "/") {readable})',
            f"(allow file-read* file-write-data file-ioctl {devices})",
            f"(allow file-read* file-write* file-map-executable process-exec (subpath {_quoted(writes)}))",
        )
    )


def _quoted(path: Path) -> str:
    """A path as a string of the profile's language."""
    text = str(path)
    if not text.isprintable():
        raise SandboxError(f"{text!r} cannot be named in a profile of the sandbox")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
