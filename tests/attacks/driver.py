"""An ordinary user's process: orders come in as lines of JSON, each program is run, outcomes go out as lines of JSON.

It is started with the user's own rights from a copy of the package, because the suite may run as root, out of folders
that nobody else can read. It holds a canary in its environment, as the real program holds a key there.
"""

import asyncio
import base64
import json
import subprocess
import sys
from typing import Any

from master_agent.errors import SandboxError
from master_agent.sandbox import File, Outcome, Program, ProgramLimits
from master_agent.sandbox.mechanisms import find


async def carried_out(order: dict[str, Any]) -> dict[str, Any]:
    limits = ProgramLimits(**order["limits"])
    program = Program(("python3", "-c", order["code"]), files={"given.txt": File(b"given")})
    if order["mechanism"] == "naive":
        return _naively(program, limits)
    outcome = await (await find(order["mechanism"])).run(program, limits)
    return _told(outcome)


def _naively(program: Program, limits: ProgramLimits) -> dict[str, Any]:
    """As a tool would that thinks of nothing: the output is waited for, and no longer than the seconds allow."""
    run = subprocess.run(program.command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.seconds)
    return _told(Outcome(run.returncode, run.stdout, run.stderr, 0.0))


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "exit_code": outcome.exit_code,
        "stdout": outcome.stdout.decode("utf-8", "replace"),
        "stderr": outcome.stderr.decode("utf-8", "replace")[-2000:],
        "ended_by": outcome.ended_by,
        "files": {name: base64.b64encode(file.content).decode() for name, file in outcome.files.items()},
        "left_out": dict(outcome.left_out),
    }


def main() -> None:
    for line in sys.stdin:
        try:
            answer = asyncio.run(carried_out(json.loads(line)))
        except SandboxError as error:
            answer = {"missing": error.message}
        except subprocess.TimeoutExpired:
            answer = {"exit_code": None, "stdout": "", "stderr": "", "ended_by": "seconds", "files": {}, "left_out": {}}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
