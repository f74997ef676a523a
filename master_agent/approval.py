"""What is said of a plan before it is run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from master_agent.plan import Plan


@dataclass(frozen=True)
class Approved:
    """Yes; the plan may have been edited."""

    plan: Plan


@dataclass(frozen=True)
class Declined:
    """No: nothing is run."""


@dataclass(frozen=True)
class Later:
    """Nobody is there to ask: the plan waits."""


Approve = Callable[[Plan], Awaitable[Approved | Declined | Later]]
