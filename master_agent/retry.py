"""The one retry layer: tries again what can heal, as patiently as the server asks, and nothing else."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from master_agent.errors import MasterAgentError

T = TypeVar("T")


def asked_to_wait(error: MasterAgentError) -> float | None:
    """The seconds that a server asked to wait, where it did."""
    asked: float | None = getattr(error, "retry_after", None)
    return asked


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently: `attempts` in all; waits in seconds, doubling from `first_wait` to `longest_wait`.

    A server's Retry-After takes the place of the wait; one longer than `longest_retry_after` ends the trying. A server
    that says when to come back is busy and not broken, so it is tried twice as often, where it is tried again at all.
    """

    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 20.0
    longest_retry_after: float = 120.0

    def wait(self, error: MasterAgentError, attempt: int, chance: Callable[[], float]) -> float | None:
        """Seconds to wait after the failed `attempt` (from 1); None when there is no use in another."""
        asked = asked_to_wait(error)
        attempts = self.attempts * 2 if asked and self.attempts > 1 else self.attempts
        if not error.retryable or attempt >= attempts:
            return None
        if asked is not None:
            return asked + chance() * 0.1 if asked <= self.longest_retry_after else None
        # Full jitter: many steps that failed together must not come back together.
        return min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1)) * (0.5 + 0.5 * chance())


async def retrying(
    attempt: Callable[[int], Awaitable[T]],
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> T:
    """What `attempt` returns, called with the number of the attempt from 1; its last error when none succeeded."""
    number = 1
    while True:
        try:
            return await attempt(number)
        except MasterAgentError as error:
            wait = policy.wait(error, number, chance)
            if wait is None:
                asked = asked_to_wait(error)
                if asked and error.hint is None:
                    error.hint = f"It asks to wait {asked:g} seconds; try again then."
                raise
        await sleep(wait)
        number += 1
