"""argv → settings → the master → exit code. `main` is the program's entry."""

import signal
import sys
from contextlib import suppress

INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits with its code. The version is told before anything is imported."""
    argv = sys.argv[1:]
    if argv in (["--version"], ["-V"]) and sys.stdout is not None:
        from master_agent import __version__

        with suppress(OSError):  # what cannot be written is told below
            sys.stdout.write(f"master-agent {__version__}\n")
            sys.stdout.flush()
            return
    sys.exit(_run(argv))


def _run(argv: list[str]) -> int:
    import gc

    imported = False
    try:
        from master_agent.quick import importing

        with importing():
            from master_agent.cli.app import run

        imported = True
        code = run(argv)
        gc.freeze()  # nothing is left to do: what is alive need not be searched for garbage at the exit
    except KeyboardInterrupt:  # before anybody could take it, or a second time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not imported and {"--json", "--events"}.intersection(argv):
            with suppress(BaseException):  # what cannot be told any more is no reason for a traceback
                from master_agent.cli.app import tell_interrupted

                tell_interrupted(argv)
        return INTERRUPTED
    return code
