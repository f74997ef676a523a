"""Imports without the garbage collector in between: they make much, free little, and are most of a short start."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

WAITING = 0.03  # seconds after which a request is on its way and its answer is not there yet


@contextmanager
def importing() -> Iterator[None]:
    """Nothing is collected meanwhile, and what was made is never searched for garbage, at the exit neither.

    The SDK's import took 0.40 s of the processor instead of 0.68 s with it (Python 3.11, Linux, the least of 15).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def beside_waiting(module: str, after: float = WAITING) -> None:
    """Imports the module while something else is waited for, so many seconds after it began, before it is needed.

    Whoever needs it sooner imports it then; what keeps it from being imported is told to them too.
    """
    if module in sys.modules:
        return
    import asyncio

    def import_it() -> None:
        # Whatever it is: who needs the module will be told when they import it themselves.
        with suppress(Exception), importing():
            import_module(module)

    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_later, after, import_it)  # from when the caller waits: it may have a client to make first
