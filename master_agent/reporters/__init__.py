"""Events and results go in, something that a person or a program reads comes out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from master_agent.events import Event
    from master_agent.plan import Plan
    from master_agent.results import RunResult


class Reporter(Protocol):
    """Tells of a run, while it goes on and when it has ended."""

    def tell(self, event: "Event") -> None:
        """Takes an event as it happens, on the event loop: quick, and never raises."""

    def plan(self, plan: "Plan", effects: Sequence[str]) -> None:
        """Shows the plan and what it will do, a line for each effect: "1 picture will be paid for (replicate)"."""

    def notice(self, text: str) -> None:
        """Says something to the person that is no part of the result."""

    def pause(self) -> None:
        """Leaves the terminal alone while a question is asked."""

    def resume(self) -> None:
        """Goes on after a pause."""

    def finish(self, result: "RunResult") -> None:
        """Shows what the run has come to. OSError when it cannot be written."""

    def close(self) -> None:
        """Gives the terminal back as it was, whatever happened. May be called again."""


class Silent:
    """Takes everything and says nothing: a reporter that starts from it has only what it does tell."""

    def tell(self, event: "Event") -> None: ...

    def plan(self, plan: "Plan", effects: Sequence[str]) -> None: ...

    def notice(self, text: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def finish(self, result: "RunResult") -> None: ...

    def close(self) -> None: ...
