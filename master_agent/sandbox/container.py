"""Programs in a container of an engine that the user named. Written against the engines' manuals; not run with one.

The container gets nothing of this machine but what is named to be readable; files go in and out through the warden, for
which the image must have `python3`. An image is never pulled from here.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import SandboxError
from master_agent.sandbox import MIB, Outcome, Program, ProgramLimits, launch, places, seccomp
from master_agent.sandbox.bubblewrap import HERE, HOME, TMP

IMAGE = "docker.io/library/python:3-slim"
_CLIENT = ("PATH", "HOME", "USER", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CONTAINER_HOST")
_DOCKER = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")
_FOR_THE_WARDEN = 64 * MIB
_REMOVING = 20.0


@dataclass(frozen=True)
class Container:
    """Programs in containers without network, rights or a disk; `name` is the engine's."""

    engine: Path
    image: str
    gaps: tuple[str, ...] = (
        "the engine works as its own service, often as root: a fault in it or in the kernel is a way out",
        "the image is taken as it is: what it holds can be read",
    )

    @property
    def name(self) -> str:
        return self.engine.name

    async def run(self, program: Program, limits: ProgramLimits) -> Outcome:
        called = f"master-agent-{secrets.token_hex(8)}"
        job = {
            "environ": {**launch.ENVIRON, "HOME": HOME, "TMPDIR": TMP, "PATH": places.SEARCH},
            "scratch": HERE,
            "folders": [HOME],
            "confined": seccomp.known(),
            "filter": seccomp.program_filter() if seccomp.known() else b"",
            "alone": True,
            "sized": True,
        }
        beside = [folder.absolute() for folder in program.readable]
        command = [*self.command(called, limits, beside), self.image, *launch.warden("python3")[1:]]
        client = {name: os.environ[name] for name in (*_CLIENT, *_DOCKER) if name in os.environ}
        hint = f"Is {self.name} running, and the image there? {self.name} pull {self.image}"
        try:
            start = launch.Start(command, job, environ=client, hint=hint)
            return await launch.carried_out(start, program, limits)
        finally:
            # The client that was ended is not the container; one that has ended is gone, and this says so.
            await launch.undisturbed(self._remove(called, client))

    def command(self, called: str, limits: ProgramLimits, beside: Sequence[Path]) -> list[str]:
        """The engine's command line, up to the image."""
        number = 20_000 + os.getpid() % 40_000  # no user of the machine or of an image
        memory = str(limits.memory + _FOR_THE_WARDEN)
        tmp = f"{TMP}:rw,exec,nosuid,nodev,size={limits.disk_bytes},mode=1777"
        return [
            *(str(self.engine), "run", "--rm", "--interactive", "--name", called, "--pull", "never"),
            *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--user", f"{number}:{number}", "--hostname", "sandbox", "--workdir", TMP, "--log-driver", "none"),
            *("--pids-limit", str(limits.processes + 16), "--memory", memory, "--memory-swap", memory),
            *("--tmpfs", tmp, "--shm-size", str(min(_FOR_THE_WARDEN, limits.disk_bytes))),
            *_mounts(beside),
            *("--entrypoint", "python3"),
        ]

    async def _remove(self, called: str, client: dict[str, str]) -> None:
        quiet = asyncio.subprocess.DEVNULL
        removing = await asyncio.create_subprocess_exec(
            *(str(self.engine), "rm", "--force", called), stdin=quiet, stdout=quiet, stderr=quiet, env=client, cwd="/"
        )
        try:
            async with asyncio.timeout(_REMOVING):
                await removing.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                removing.kill()
            await removing.wait()


def _mounts(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        if "," in str(folder) or not folder.is_dir():
            raise SandboxError(f"{str(folder)!r} cannot be shown to a container")
        yield from ("--mount", f"type=bind,source={folder},target={folder},readonly")


def here(engine: str, image: str | None = None) -> Container:
    """The engine of that name as it is installed. SandboxError when it is not."""
    found = shutil.which(engine)
    if found is None:
        raise SandboxError(f"{engine!r} is not installed", hint="Install docker or podman, or name another engine.")
    return Container(Path(found).absolute(), image or IMAGE)
