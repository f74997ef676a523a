"""From run_started, or run_resumed, to exactly one run_finished, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from master_agent.errors import MasterAgentError
from master_agent.events import RunFinished, RunResumed, RunStarted
from master_agent.journal import Journal
from master_agent.limits import TimeBudget
from master_agent.results import ErrorInfo, RunStatus


@dataclass(frozen=True)
class Lifetime:
    """How a run begins and ends. `contents` are the files given with it, by their SHA-256.

    Its seconds are those of `budget`: a person's thinking is no work of the run. `finish` looks at a run that came to
    its end, and raises when it should not have come to this one. `hide` cuts secrets out of what a bug says.
    """

    journal: Journal
    started: RunStarted | RunResumed
    why_cancelled: Callable[[], ErrorInfo]
    budget: TimeBudget
    contents: Mapping[str, bytes] = field(default_factory=dict)
    finish: Callable[[], None] = lambda: None
    hide: Callable[[str], str] = str

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Callable[[RunStatus], None]]:
        """The run: say how it ended with what is given. An error of ours, or a cancellation, is an end as well."""
        await self.journal.append(self.started, self.contents)
        status: RunStatus = "failed"
        error: ErrorInfo | None = None

        def end(how: RunStatus) -> None:
            nonlocal status
            status = how

        try:
            yield end
            if status not in ("cancelled", "waiting"):
                self.finish()
        except MasterAgentError as failure:
            error = ErrorInfo.of(failure)
            status = "limited" if error.type in ("limit", "run_timeout") else "failed"
        except asyncio.CancelledError:
            status, error = "cancelled", self.why_cancelled()
        except Exception as bug:  # the run must end in the journal before the bug is shown
            status, error = "failed", ErrorInfo(type="bug", message=self.hide(f"{type(bug).__name__}: {bug}"))
            raise
        finally:
            seconds = round(self.budget.spent, 3)
            await self.journal.append(RunFinished(status=status, error=error, seconds=seconds))
