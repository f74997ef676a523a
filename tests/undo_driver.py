"""An undo that dies: `python -m tests.undo_driver RUN EVENT HOW` in the folder of the run.

It is killed by SIGKILL at its event of that number: `at once`, when the event is not yet on the disk, or `after` it is.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping

from master_agent.cli import app
from master_agent.events import Event
from master_agent.journal import GATHER_SECONDS, Journal


def main() -> None:
    """Undoes the run, or dies in it."""
    run_id, number, how = sys.argv[1:]
    take = Journal._take

    def take_or_die(self: Journal, event: Event, safe: object, contents: Mapping[str, bytes] | None = None) -> Event:
        stamped = take(self, event, safe, contents)  # type: ignore[arg-type]
        if stamped.seq == int(number):
            if how == "after":
                time.sleep(GATHER_SECONDS * 5)  # the writer, a thread of its own, has it on the disk by then
            os.kill(os.getpid(), signal.SIGKILL)
        return stamped

    Journal._take = take_or_die  # type: ignore[method-assign]
    sys.exit(app.run(["undo", run_id]))


if __name__ == "__main__":
    main()
