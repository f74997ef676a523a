"""Programs as plain processes of the user, for `--unsafe-exec`: limits are kept as far as they can be."""

import asyncio
import os
from dataclasses import dataclass

from master_agent.sandbox import Outcome, Program, ProgramLimits, launch, places, private

_ROOT_GAP = "you are root: the program can end, change and erase everything on this machine"
_GAPS = (
    "the program can read, change and delete whatever you can, your keys among them",
    "it can use the network, and speak to every program of yours",
    "it can leave processes behind, and end this program",
    "its limits hold as long as it does not work against them",
)


@dataclass(frozen=True)
class Unsafe:
    """No sandbox at all; the warden watches and ends the program, and is itself in its reach."""

    name: str = "unsafe"

    @property
    def gaps(self) -> tuple[str, ...]:
        return (_ROOT_GAP, *_GAPS) if os.geteuid() == 0 else _GAPS

    async def run(self, program: Program, limits: ProgramLimits) -> Outcome:
        running = await asyncio.to_thread(private.processes_now, None)
        async with private.private(None) as folder:
            search = os.environ.get("PATH", places.SEARCH)
            home = os.environ.get("HOME", folder.environ["HOME"])
            environ = {**launch.ENVIRON, **folder.environ, "PATH": search, "HOME": home}
            job = {**folder.job, "environ": environ, "nproc": limits.processes + running}
            start = launch.Start(launch.warden(str(places.interpreter(None))), job)
            return await launch.carried_out(start, program, limits)
