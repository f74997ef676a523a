"""The commands that work: a task in words, `plan`, and `run`."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

import typer

from master_agent import checker
from master_agent.attachments import Attachment, read_attachment
from master_agent.cli import arguments, exit_codes, keys, programs, reporting, saving, session, streams
from master_agent.cli.approve import effects, executing, say_unused
from master_agent.cli.commands import TASK
from master_agent.cli.options import EVERYTHING, Approved, Options, with_options
from master_agent.cli.order import Order, Team
from master_agent.cli.rerun import rerun
from master_agent.cli.trust import Trust
from master_agent.errors import PlanError, UsageError
from master_agent.master import Master
from master_agent.plan import MAX_BYTES, AgentStep, Plan
from master_agent.results import RunResult
from master_agent.settings import Settings, config_folder

Words = Annotated[list[str] | None, typer.Argument(metavar="", show_default=False, hidden=True)]
TaskWords = Annotated[list[str] | None, typer.Argument(metavar='"TASK"', show_default=False, hidden=True)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="run the plan without asking", show_default=False)]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="a parameter of the task; repeatable", show_default=False),
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="save the plan here", show_default=False)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "--plan-only", help="make the plan and run nothing", show_default=False)
]
PlanFile = Annotated[
    str, typer.Argument(metavar="PLAN", help="a plan file, a result file, or - for stdin", show_default=False)
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="STEP", help="run this step and what follows from it", show_default=False),
]
ContextFile = Annotated[
    Path | None,
    typer.Option("--context", metavar="RESULT", help="a result file with the earlier steps", show_default=False),
]


Files = Annotated[
    list[Path] | None,
    typer.Option("--file", "-f", metavar="PATH", help="give a picture or a text; repeatable", show_default=False),
]

_NO_PARAMETER = re.compile(r': no parameter "([^"]*)"')
_PARAM = re.compile(r"[A-Za-z0-9_-]+")  # what a reference can name


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command(TASK, hidden=True, help=_TASK_HELP)(task)
    app.command("plan", help=_PLAN_HELP)(plan)
    app.command("run", help=_RUN_HELP)(run)


_TASK_HELP = """Plans a task, shows the plan, asks, runs it and shows the results.

\b
Examples:
  master-agent "Make a landing page for a coffee roaster with a picture of the shop"
  master-agent 'Describe ${params.city}' --param city=Lisbon --yes --json > result.json
  echo "Write a haiku about rain" | master-agent - --yes
  master-agent "Tidy up notes.md" --dry-run
"""
_PLAN_HELP = """Makes the plan for a task and runs nothing. A table in a terminal, JSON in a pipe.

\b
Examples:
  master-agent plan "Make a landing page" -o plan.json
  master-agent plan "Make a landing page" | master-agent run -
"""
_RUN_HELP = """Runs a plan from a file. Giving the file is the approval; --yes adds nothing to it.

What it may do is said first, on stderr; not with --quiet, --json or --events: ask `master-agent check PLAN` before.

\b
Examples:
  master-agent run plan.json
  master-agent run plan.json --from page --context result.json
  master-agent plan "Make a landing page" | master-agent run - --json > result.json
"""


@with_options(*EVERYTHING)
def task(
    options: Options,
    words: Words = None,
    *,
    yes: Yes = False,
    param: Params = None,
    file: Files = None,
    dry_run: DryRun = False,
    output: Output = None,
) -> int:
    text = task_text(words)
    order = Order(task=text, params=params_of(param), given=given_files(file))
    if dry_run:
        return _plan_only(options, order, output)
    if output is not None:
        raise UsageError("-o saves a plan: it goes with --dry-run or with the command plan")
    settings = session.settings_of(options)
    return session.run(
        options,
        settings,
        session.team(settings),
        order,
        lambda master: master.run_task(text, order.params),
        yes=yes,
        given=order.params,
    )


@with_options(*EVERYTHING)
def plan(
    options: Options, words: TaskWords = None, *, param: Params = None, file: Files = None, output: Output = None
) -> int:
    order = Order(task=task_text(words, "master-agent plan"), params=params_of(param), given=given_files(file))
    return _plan_only(options, order, output)


@with_options(*EVERYTHING)
def run(
    options: Options,
    plan: PlanFile,
    *,
    param: Params = None,
    file: Files = None,
    from_step: From = None,
    context: ContextFile = None,
    yes: Approved = False,  # noqa: ARG001
) -> int:
    settings, given = session.settings_of(options), params_of(param)
    team = session.team(settings)
    checked = read_plan(plan, team, given)
    keys.refuse_in({"the plan": checked.to_json()}, settings, os.environ)
    part = rerun(checked, from_step, context, settings.workspace)
    checked = part.plan
    order = Order(
        task=checked.task,
        params=checked.params,
        planner=False,
        earlier=part.earlier,
        made=part.made,
        asks_models=asks_models(checked, part.earlier),
        given=given_files(file),
        anew=from_step,
    )
    return session.run(options, settings, team, order, lambda master: master.run_plan(checked), yes=True, given=given)


def asks_models(made: Plan, earlier: Collection[str] = ()) -> bool:
    """Whether a step that is not done yet is an agent's: tools alone need no key."""
    return any(isinstance(step, AgentStep) and step.id not in earlier for step in made.plan)


def read_plan(name: str, team: Team, params: Mapping[str, str]) -> Plan:
    """The checked plan of a file, or of standard input for `-`."""
    source = source_of(name)
    if name == "-":
        content = streams.read_stdin()
        if len(content) > MAX_BYTES:
            raise PlanError(f"{source} holds more than the {MAX_BYTES:,} bytes that a plan may hold")
        if not content.strip():
            raise UsageError("standard input is empty: the command before it made no plan")
    else:
        content = streams.read_file(Path(name))
    raw = checker.load(content, source=source)
    if isinstance(raw, dict) and raw.get("kind") == "result" and not raw.get("plan"):
        who = "the command before it" if name == "-" else f"the run whose result is in {source}"
        error = raw.get("error")
        why = f": {error['message']}" if isinstance(error, dict) and error.get("message") else ""
        raise UsageError(f"{who} made no plan{why}")
    try:
        return checker.check(raw, team.agents, team.tools, params=params)
    except PlanError as error:
        if not error.faults:
            raise
        missing = next(filter(None, (_NO_PARAMETER.search(fault) for fault in error.faults)), None)
        taken = next((name for name in team.taken if any(f'no tool "{name}"' in fault for fault in error.faults)), None)
        hint = f"Give the parameter: --param {missing[1]}=VALUE" if missing else error.hint
        hint = f"No code may be run: --no-exec (no_exec) has taken {taken} away." if taken else hint
        raise PlanError(f"{source}: {error.message.splitlines()[0]}", error.faults, hint=hint) from None


def source_of(name: str) -> str:
    """What a plan that was named on the command line is called in messages."""
    return "standard input" if name == "-" else name


def given_files(paths: list[Path] | None) -> tuple[Attachment, ...]:
    """The files that were named; UsageError for the first that cannot be given."""
    return tuple(read_attachment(path) for path in paths or [])


def _plan_only(options: Options, order: Order, output: Path | None) -> int:
    settings = session.settings_of(options)
    team = session.team(settings)
    target = None if output is None else saving.target(output)

    async def story(master: Master) -> RunResult:
        result = await master.plan_only(order.task or "", order.params)
        kept.append(master.journal.state.plan)
        return result

    kept: list[Plan | None] = []

    def show(_result: RunResult) -> int:
        made = kept[0]
        assert made is not None, "a run that only plans is done when there is a plan"
        if not options.quiet:
            say_unused(order.params, made, streams.say)
        fault = None if target is None else saving.save(target, made)
        if target is not None and fault is None:
            streams.say(f"saved the plan to {output}; run it with: master-agent run {shlex.quote(str(output))}")
        if fault is not None:
            streams.say(f"master-agent: {fault}")
        if options.json or (not options.events and (target is None or fault is not None)):
            if options.json or fault is not None or not sys.stdout.isatty():
                streams.print_json(made.model_dump(mode="json", by_alias=True))
            else:
                lines = foreseen(made, team, settings, unsafe=options.unsafe_exec)
                reporting.show_plan(made, lines, sys.stdout)
        return exit_codes.DONE if fault is None else exit_codes.USAGE

    return session.run(options, settings, team, order, story, yes=False, show=show)


def foreseen(made: Plan, team: Team, settings: Settings, *, unsafe: bool = False) -> list[str]:
    """What the plan may do, a line for each kind, before anything is run."""
    trust = Trust(config_folder(os.environ), team.tools)
    code = asyncio.run(programs.manner(settings, unsafe=unsafe)) if executing(made, team) else ""
    return effects(made, team, settings, code=code, trust=trust)


def task_text(words: list[str] | None, command: str = "master-agent") -> str:
    """The task that the words after a command are; `-` stands for all of standard input."""
    text = arguments.one_task(words or [], command)
    if text != "-":
        return text
    try:
        read = streams.read_stdin().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("the task on standard input is not UTF-8 text") from None
    if not read.strip():
        raise UsageError("standard input is empty: there is no task")
    return read.strip()


def params_of(given: list[str] | None) -> dict[str, str]:
    """The parameters of the command line; UsageError for one that no reference could name."""
    params: dict[str, str] = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not _PARAM.fullmatch(name):
            hint = "A name is letters, digits, _ and -, so that a plan can say ${params.NAME}." if equals else None
            raise UsageError(f'--param takes NAME=VALUE, found "{pair}"', hint=hint)
        params[name] = value
    return params
