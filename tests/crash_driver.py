"""A run that dies: `python -m tests.crash_driver PLAN EVENT HOW [SETTING=VALUE …]` in the folder of the run.

It is put together as the command line does it, with one listener more, which kills the process by SIGKILL at the event
of that number: `at once`, when the event is not yet on the disk, or `after` it is. Number 0 kills at none.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from master_agent.approval import Approved
from master_agent.cli import build, session
from master_agent.cli.options import Options
from master_agent.cli.order import Order, People
from master_agent.cli.work import read_plan
from master_agent.events import Event, ToolCalled
from master_agent.journal import GATHER_SECONDS
from master_agent.plan import Plan
from master_agent.remember import Unverified
from master_agent.results import ErrorInfo


def main() -> None:
    """Runs the plan, or dies in it."""
    name, number, how, *said = sys.argv[1:]
    flags = dict(pair.split("=", 1) for pair in said)
    settings = session.settings_of(Options(flags))
    team = session.team(settings)
    plan = read_plan(name, team, {})

    def die(event: Event) -> None:
        if event.seq == int(number):
            if how == "after":
                time.sleep(GATHER_SECONDS * 5)  # the writer, a thread of its own, has it on the disk by then
            os.kill(os.getpid(), signal.SIGKILL)

    async def approve(plan: Plan) -> Approved:
        return Approved(plan)

    async def unverified(_called: ToolCalled, _doubt: str) -> Unverified:
        return "later"

    people = People(approve, unverified, lambda _text: None, (die,))

    async def work() -> None:
        why = ErrorInfo(type="interrupted", message="interrupted")
        async with build.master(settings, team, Order(planner=False), people, lambda: why) as master:
            result = await master.run_plan(plan)
            sys.exit(0 if result.status == "done" else 1)

    asyncio.run(work())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
