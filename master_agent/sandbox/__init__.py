"""A program and its limits in, its outcome out: the port that every way of running code safely stands behind.

A sandbox gives the program an empty machine: a scratch folder of a fixed size that holds copies of the files it was
given, the interpreters of the system to read, and nothing else. It has no network, no keys and no way to what the user
owns. What it leaves in its scratch folder comes back as bytes; who takes them decides where they may go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Ended = Literal["seconds", "cpu_seconds", "memory", "processes", "file_bytes", "disk_bytes", "output_bytes"]
"""The limit that ended a program, or that it ran into; named as the field of ProgramLimits that holds it."""

MIB = 1024 * 1024


@dataclass(frozen=True)
class ProgramLimits:
    """What one program may take. Seconds are of the clock, `cpu_seconds` of work; sizes are in bytes.

    `memory` is of all processes of the program together, `disk_bytes` of all files in its scratch folder and /tmp
    together, `output_bytes` of stdout and of stderr each.
    """

    seconds: float = 60.0
    cpu_seconds: int = 60
    memory: int = 2048 * MIB
    processes: int = 64
    file_bytes: int = 256 * MIB
    disk_bytes: int = 512 * MIB
    output_bytes: int = MIB


@dataclass(frozen=True)
class File:
    """A file of the scratch folder: its bytes, and whether it may be run."""

    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Program:
    """What is run: a command (no shell is put before it), its standard input, and the files it finds around it.

    `files` are by path relative to the scratch folder, in which the command starts. `readable` are folders of the
    machine that it may read beside the system's interpreters, such as a virtual environment.
    """

    command: tuple[str, ...]
    input: bytes = b""
    files: Mapping[str, File] = field(default_factory=dict)
    readable: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    `exit_code` is None when the program was ended from outside; `signal` is the number of the signal that ended it.
    `files` are those of the scratch folder that are new or changed, by relative path; `left_out` says of each thing
    that cannot be a file of the user why it stayed behind (a link, a device, a size over the limit). `deleted` are the
    given files that are gone. Output over its limit is cut.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    ended_by: Ended | None = None
    signal: int | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


class Sandbox(Protocol):
    """A way to run a program. `name` is what reports call it; `gaps` says in short lines what it does not stop."""

    @property
    def name(self) -> str: ...

    @property
    def gaps(self) -> tuple[str, ...]: ...

    async def run(self, program: Program, limits: ProgramLimits) -> Outcome:
        """Runs the program to its end. SandboxError when it could not be started at all.

        When the caller is cancelled, every process of the program is dead before this returns.
        """
