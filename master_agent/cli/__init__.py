"""argv → settings → the master → exit code. `main` is the program's entry."""

import sys


def main() -> None:
    """Runs the command line and exits with its code. The version is told before anything is imported."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from master_agent import __version__

        sys.stdout.write(f"master-agent {__version__}\n")
        return
    import gc

    gc.disable()  # imports make much and free little: collecting in between costs a tenth of the start
    from master_agent.cli.app import run

    code = run(sys.argv[1:])
    gc.freeze()  # nothing is left to do: what is alive need not be searched for garbage at the exit
    sys.exit(code)
