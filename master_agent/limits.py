"""One record of what a run may take, and the layers that hold a call, a tool and a step to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from master_agent.errors import LimitError


@dataclass(frozen=True)
class Limits:
    """Seconds for a run, a step and a model's call; requests of one step; steps at once.

    Of a whole run, what earlier processes of it used included: dollars, tokens, requests to models, steps.
    """

    seconds: float | None = None
    step_seconds: float = 600.0
    call_seconds: float = 300.0
    turns: int = 20
    concurrency: int = 4
    cost: float | None = None
    tokens: int | None = None
    calls: int | None = None
    steps: int | None = None


@dataclass
class TimeBudget:
    """The seconds a run may work, planning and steps together; a person's thinking does not count."""

    seconds: float | None
    clock: Callable[[], float] = time.monotonic
    spent: float = field(default=0.0, init=False)

    @asynccontextmanager
    async def spend(self) -> AsyncIterator[None]:
        """Work inside it is cancelled and becomes LimitError when the budget is used up."""
        began = self.clock()
        left = None if self.seconds is None else max(self.seconds - self.spent, 0.0)
        timeout = asyncio.timeout(left)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise LimitError(
                f"the run took longer than {self.seconds:g} seconds",
                hint="Give it more time with --timeout SECONDS; finished steps have kept their results.",
                type="run_timeout",
            ) from None
        finally:
            self.spent += self.clock() - began
