"""One run from the command line: signals, streams and reporters around it, and its exit code."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from master_agent.aggregator import project
from master_agent.cli import addresses, build, exit_codes, failures, keys, programs, reporting, streams, vault
from master_agent.cli.approve import Asking, executing
from master_agent.cli.interruption import Interruption
from master_agent.cli.options import Options
from master_agent.cli.order import Order, People, Team
from master_agent.cli.trust import Trust
from master_agent.errors import ModelError, UsageError
from master_agent.master import Master
from master_agent.plan import Plan
from master_agent.remember import Unverified
from master_agent.reporters import Reporter
from master_agent.results import RunResult
from master_agent.settings import Settings, config_folder, load


def settings_of(options: Options) -> Settings:
    """The settings of this process: flags, environment, .env of the current folder, the user's config; the keyring.

    Keys are looked up there for commands that speak to services, and for the one that says what a plan may spend there:
    a keyring may ask a person to open it.
    """
    speaks = "openai_base_url" in options.flags and not (options.flags.get("script") or options.flags.get("replay"))
    keyring = vault.lookup() if speaks else None
    settings = load(options.flags, os.environ, Path.cwd(), keyring)
    addresses.check(settings)
    return settings


def team(settings: Settings | None = None, folder: Path | None = None) -> Team:
    """The agents and tools of this user in a folder, by default the current one; without what the settings forbid."""
    folders = [
        build.builtin("agents"),
        config_folder(os.environ) / "agents",
        (folder or Path.cwd()) / ".master-agent" / "agents",
    ]
    return build.team(folders, no_exec=settings is not None and settings.no_exec)


def builtin_team(settings: Settings) -> Team:
    """The agents that ship with the program, whatever else this user has; without what the settings forbid."""
    return build.team([build.builtin("agents")], no_exec=settings.no_exec)


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
    given: Collection[str] = (),
) -> int:
    """Runs a story of the master, reports it and returns the exit code. `show` takes the place of the report.

    `unverified` answers for the person what becomes of effects that nobody can look up; `given` are the names of the
    parameters on the command line. Whatever goes wrong once the reporter is there is told by it, and only once.
    """
    if options.unsafe_exec and settings.no_exec:
        raise UsageError("--unsafe-exec and --no-exec (no_exec) exclude each other")
    with reporting.open_reporter(options, settings.log_file) as (reporter, listeners):
        for notice in (*settings.notices, *addresses.strange(settings)):
            reporter.notice(notice)
        interruption = Interruption(reporter)
        heard = not (options.quiet or options.for_programs)
        code = programs.Manner(settings, lambda plan: bool(executing(plan, team)), unsafe=options.unsafe_exec)
        if order.planner and show is None and (heard or not yes):
            listeners.append(code.hear)
        asking = Asking(
            reporter=reporter,
            team=team,
            settings=settings,
            code=code.told,
            yes=yes,
            show=_shower(reporter, options),
            stdin=sys.stdin,
            stderr=sys.stderr,
            environ=os.environ,
            interruption=interruption,
            trust=Trust(config_folder(os.environ), team.tools, options.trust_project),
            heard=heard,
            given=given,
        )
        say = reporter.notice if options.verbose else _hear_nothing
        people = People(asking.approve, asking.unverified(unverified), say, tuple(listeners))
        try:
            keys.refuse_in(order.said, settings, os.environ)
            order = replace(order, allow_unpriced=options.allow_unpriced, unsafe_exec=options.unsafe_exec)
            result = _with_a_model(
                options,
                settings,
                lambda settings: asyncio.run(_run(settings, team, order, story, people, interruption, code.end)),
            )
        except (Exception, KeyboardInterrupt) as error:  # the program that listens gets its one end, whatever happened
            reporter.close()
            raise failures.ToldError(
                _told(options, settings, reporter, interruption, order, error, show is None)
            ) from error
        reporter.close()
        try:
            return _report(options, reporter, result, show)
        except OSError as error:  # of stdout: how the run ended says more
            streams.give_up(error)
            raise failures.ToldError(exit_codes.of_result(result) or exit_codes.FAILED) from None


def _with_a_model(options: Options, settings: Settings, work: Callable[[Settings], RunResult]) -> RunResult:
    """The work; again with a model that was downloaded meanwhile, where there was none and a person took the offer."""
    try:
        return work(settings)
    except ModelError as error:
        from master_agent.cli.offering import accepted

        if (with_one := accepted(error, options, settings)) is None:
            raise
        return work(with_one)


def _told(
    options: Options,
    settings: Settings,
    reporter: Reporter,
    interruption: Interruption,
    order: Order,
    error: BaseException,
    reports: bool,
) -> int:
    """Tells what ended the run from outside its story, with what was done until then; returns the exit code."""
    info, code = failures.explain(error, settings)
    failures.trace(error, debug=options.debug, settings=settings)
    order = order.without(keys.secrets_of(settings, os.environ))
    state = interruption.journal.state if interruption.journal is not None else None
    began = state is not None and state.run_id is not None
    result = project(state) if state is not None and began else RunResult(task=order.task, status="failed")
    result = result.model_copy(update={"status": "cancelled" if info.type == "interrupted" else "failed"})
    result = result.model_copy(update={"error": info, "params": result.params or dict(order.params)})
    watched = isinstance(reporter, reporting.Watched)
    told = began and (watched or (reports and not options.for_programs))
    if options.for_programs or told:
        reporter.finish(result)
    if not told:
        failures.say(info)
    return code


def _report(options: Options, reporter: Reporter, result: RunResult, show: Callable[[RunResult], int] | None) -> int:
    if show is not None and result.status == "done":
        if options.events:
            reporter.finish(result)
        return show(result)
    if not options.for_programs and (code := _not_run(result)) is not None:
        return code
    reporter.finish(result)
    return exit_codes.of_result(result)


def _hear_nothing(_text: str) -> None:
    """For those who did not ask for more words."""


def _shower(reporter: Reporter, options: Options) -> Callable[[Plan, Sequence[str]], None]:
    """How a plan is shown that is asked about: by the reporter, but on stderr where that would say nothing."""
    if isinstance(reporter, reporting.Watched):
        return reporter.watching.plan
    if options.quiet or options.for_programs:
        return lambda plan, effects: reporting.show_plan(plan, effects, sys.stderr)
    return reporter.plan


def _not_run(result: RunResult) -> int | None:
    """A plan that was not run: declined, or waiting for somebody, who gets it as JSON that `run` takes."""
    if result.status == "waiting" and not result.results:
        names = ("task", "params", "order", "plan")
        whole = result.model_dump_public()
        streams.print_object("plan", **{name: whole[name] for name in names})
        streams.say("Nothing was run: there is no terminal to ask at. Say --yes, or save the plan and run it:")
        streams.say("  master-agent run plan.json")
    elif result.status == "cancelled" and not result.results:
        told = result.error is not None and result.error.type != "interrupted"
        streams.say(f"Nothing was run: {result.error.message}." if result.error and told else "Nothing was run.")
        if result.plan:
            streams.say(f"To run the plan all the same: master-agent show {result.run_id} --json | master-agent run -")
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
    last: Callable[[], Awaitable[None]],
) -> RunResult:
    async def work() -> RunResult:
        async with build.master(settings, team, order, people, interruption.why) as master:
            interruption.journal = master.journal
            return await story(master)

    task = asyncio.create_task(work())
    interruption.watch(task)
    try:
        return await task
    except asyncio.CancelledError:
        # Interrupted before the run had begun, or after it had ended.
        return RunResult(task=order.task, status="cancelled", error=interruption.why())
    finally:
        await last()
