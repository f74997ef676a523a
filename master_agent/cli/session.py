"""One run from the command line: signals, streams and reporters around it, and its exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from master_agent.cli import build, exit_codes, streams
from master_agent.cli.approve import Asking, maker
from master_agent.cli.build import Order, People, Team
from master_agent.cli.options import Options
from master_agent.errors import ErrorType
from master_agent.master import Master
from master_agent.plan import Plan
from master_agent.remember import Unverified
from master_agent.reporters import Reporter
from master_agent.results import ErrorInfo, RunResult
from master_agent.settings import Settings, config_folder, load

_SIGNALS: dict[int, tuple[ErrorType, str, int]] = {
    signal.SIGINT: ("interrupted", "interrupted by Ctrl-C", exit_codes.INTERRUPTED),
    signal.SIGTERM: ("terminated", "terminated from outside", exit_codes.TERMINATED),
}


@dataclass
class Interruption:
    """The first Ctrl-C cancels what runs and lets it end well; the second ends the program at once."""

    reporter: Reporter
    received: int | None = field(default=None, init=False)

    def watch(self, work: asyncio.Task[RunResult]) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._receive, number, work)

    def why(self) -> ErrorInfo:
        type_, message, _ = _SIGNALS[self.received or signal.SIGINT]
        hint = "Finished steps have kept their results."
        return ErrorInfo(type=type_, message=message, hint=hint)

    def _receive(self, number: int, work: asyncio.Task[RunResult]) -> None:
        if self.received is not None:
            self.reporter.close()
            os._exit(_SIGNALS[number][2])
        self.received = number
        self.reporter.notice("stopping; once more to stop at once")
        work.cancel()


def settings_of(options: Options) -> Settings:
    """The settings of this process: flags, environment, .env of the current folder, the user's config."""
    return load(options.flags, os.environ, Path.cwd())


def team(folder: Path | None = None) -> Team:
    """The agents and tools of this user in a folder, by default the current one."""
    folders = [
        build.builtin("agents"),
        config_folder(os.environ) / "agents",
        (folder or Path.cwd()) / ".master-agent" / "agents",
    ]
    return build.team(folders)


def builtin_team() -> Team:
    """The agents that ship with the program, whatever else this user has."""
    return build.team([build.builtin("agents")])


def run(
    options: Options,
    settings: Settings,
    team: Team,
    order: Order,
    story: Callable[[Master], Awaitable[RunResult]],
    *,
    yes: bool,
    show: Callable[[RunResult], int] | None = None,
    unverified: Unverified | None = None,
) -> int:
    """Runs a story of the master, reports it and returns the exit code. `show` takes the place of the report.

    `unverified` answers for the person what becomes of effects that nobody can look up.
    """
    with streams.open_reporter(options, settings.log_file) as (reporter, listeners):
        for notice in settings.notices:
            reporter.notice(notice)
        asking = Asking(
            reporter=reporter,
            team=team,
            workspace=settings.workspace,
            pictures=maker(settings),
            yes=yes,
            show=_shower(reporter, options),
            stdin=sys.stdin,
            stderr=sys.stderr,
            environ=os.environ,
        )
        say = reporter.notice if options.verbose else _hear_nothing
        people = People(asking.approve, asking.unverified(unverified), say, tuple(listeners))
        result = asyncio.run(_run(settings, team, order, story, people, Interruption(reporter)))
        reporter.close()
        if show is not None and result.status == "done":
            return show(result)
        if not options.for_programs and (code := _not_run(result)) is not None:
            return code
        reporter.finish(result)
    return exit_codes.of_result(result)


def _hear_nothing(_text: str) -> None:
    """For those who did not ask for more words."""


def _shower(reporter: Reporter, options: Options) -> Callable[[Plan, Sequence[str]], None]:
    """How a plan is shown that is asked about: by the reporter, but on stderr where that would say nothing."""
    if options.quiet or options.for_programs:
        return lambda plan, effects: streams.show_plan(plan, effects, sys.stderr)
    return reporter.plan


def _not_run(result: RunResult) -> int | None:
    """A plan that was not run: declined, or waiting for somebody, who gets it as JSON that `run` takes."""
    if result.status == "waiting" and not result.results:
        names = ("task", "params", "order", "plan")
        whole = result.model_dump_public()
        streams.print_json({"kind": "plan", "version": 1, **{name: whole[name] for name in names}})
        streams.say("Nothing was run: there is no terminal to ask at. Say --yes, or save the plan and run it:")
        streams.say("  master-agent run plan.json")
    elif result.status == "cancelled" and result.error is None:
        streams.say("Nothing was run.")
    else:
        return None
    return exit_codes.of_result(result)


async def _run(
    settings: Settings,
    team: Team,
    order: Order,
    story: Callable[[Master], Awaitable[RunResult]],
    people: People,
    interruption: Interruption,
) -> RunResult:
    async def work() -> RunResult:
        async with build.master(settings, team, order, people, interruption.why) as master:
            return await story(master)

    task = asyncio.create_task(work())
    interruption.watch(task)
    try:
        return await task
    except asyncio.CancelledError:
        # Interrupted before the run had begun, or after it had ended.
        return RunResult(task=order.task, status="cancelled", error=interruption.why())
