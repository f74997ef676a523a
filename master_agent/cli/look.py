"""The commands that only look: `check`, `schema`, `agents`, `tools`; and `agents run`, one agent without a planner."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

import typer

from master_agent.catalogue import Agent
from master_agent.checker import MAY
from master_agent.cli import exit_codes, keys, reporting, session, streams
from master_agent.cli.approve import say_unused
from master_agent.cli.build import builtin
from master_agent.cli.options import EVERYTHING, Approved, Options, with_options
from master_agent.cli.order import Order, Team
from master_agent.cli.trust import Trust, in_words
from master_agent.cli.work import (
    Files,
    Params,
    PlanFile,
    foreseen,
    given_files,
    params_of,
    read_plan,
    source_of,
    task_text,
)
from master_agent.errors import MasterAgentError, UsageError
from master_agent.plan import AgentStep, Plan
from master_agent.settings import config_folder
from master_agent.tools import Tool
from master_agent.values import suggestion

_JSON = ("json",)


def _complete_agent(incomplete: str) -> list[str]:
    with suppress(MasterAgentError):  # while a person types, a wrong agent file is no news
        return [name for name in session.team().agents if name.startswith(incomplete)]
    return []


AgentName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="the agent's name", show_default=False, autocompletion=_complete_agent),
]
Prompt = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="what it shall do, in quotes; - for stdin", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("check", help=_CHECK_HELP)(check)
    app.command("schema", help=_SCHEMA_HELP)(schema)
    agents = typer.Typer(
        help=_AGENTS_HELP,
        rich_markup_mode=None,
        invoke_without_command=True,
        options_metavar="[OPTIONS]",
        subcommand_metavar="[COMMAND]",
    )
    agents.callback()(list_agents)
    agents.command("show", help=_SHOW_HELP)(show_agent)
    agents.command("trust", help=_TRUST_HELP)(trust_agent)
    agents.command("revoke", help=_REVOKE_HELP)(revoke_agent)
    agents.command("run", help=_RUN_HELP)(run_agent)
    app.add_typer(agents, name="agents")
    app.command("tools", help=_TOOLS_HELP)(list_tools)


_CHECK_HELP = """Checks a plan and names every fault at once; runs nothing.

Of a good plan it says what it may do: write files, run code, reach the internet, spend money. With --json it prints
the plan as `run` takes it, with that in `may`. It takes the flags of `run` that change what a plan may do.

\b
Examples:
  master-agent check plan.json
  master-agent check plan.json --param city=Lisbon --json
  master-agent check plan.json --image-provider placeholder
"""
_SCHEMA_HELP = """Prints the JSON Schema of plans, results or events.

\b
Examples:
  master-agent schema plan
  master-agent schema result > result.schema.json
"""
_AGENTS_HELP = """Lists the agents; shows or runs one.

\b
Examples:
  master-agent agents
  master-agent agents show code
"""
_SHOW_HELP = """Prints an agent's file.

\b
Examples:
  master-agent agents show code
  master-agent agents show code > .master-agent/agents/code.md
"""
_RUN_HELP = """Gives one agent one prompt, without a planner.

\b
Examples:
  master-agent agents run code "A Python function that parses ISO dates"
  git diff | master-agent agents run code - --quiet
"""
_TRUST_HELP = """Trusts an agent of the current folder, as its file is now.

It may then run programs, reach the network and spend money, as its tools allow.

Read it first. When the file changes, you are asked again.

\b
Examples:
  master-agent agents show painter
  master-agent agents trust painter
"""
_REVOKE_HELP = """Takes back what `agents trust` or an answer at the terminal has allowed.

\b
Examples:
  master-agent agents revoke painter
"""
_TOOLS_HELP = """Lists the tools with their effects and arguments.

\b
Examples:
  master-agent tools
  master-agent tools --json
"""


@with_options(
    *("openai_base_url", "script", "replay", "workspace", "image_provider", "no_exec", "exec_engine", "exec_image"),
    output=(*_JSON, "unsafe_exec"),
)
def check(options: Options, plan: PlanFile, *, param: Params = None) -> int:
    settings, given = session.settings_of(options), params_of(param)
    team = session.team(settings)
    checked = read_plan(plan, team, given)
    keys.refuse_in({"the plan": checked.to_json()}, settings, os.environ)
    say_unused(given, checked, streams.say)
    may = foreseen(checked, team, settings, unsafe=options.unsafe_exec)
    if options.json:
        streams.print_json({**checked.model_dump(mode="json", by_alias=True), MAY: may})
    else:
        count = len(checked.plan)
        streams.write(f"{source_of(plan)}: a good plan of {count} step{'' if count == 1 else 's'} ({checked.order})")
        for line in may:
            streams.write(f"  * {line}")
    return exit_codes.DONE


@with_options(output=())
def schema(
    options: Options,  # noqa: ARG001
    of: Annotated[
        Literal["plan", "result", "event"],
        typer.Argument(metavar="plan|result|event", help="what to describe", show_default=False),
    ],
) -> int:
    from master_agent.events import EVENT
    from master_agent.results import RunResult

    schemas: dict[str, Any] = {
        "plan": _plan_schema,
        "result": lambda: RunResult.model_json_schema(mode="serialization"),
        "event": lambda: EVENT.json_schema(mode="serialization"),
    }
    streams.print_json(schemas[of]())
    return exit_codes.DONE


def _plan_schema() -> dict[str, Any]:
    """The plan as a person may write it: ids, order and needs may be left out."""
    written: dict[str, Any] = Plan.model_json_schema(mode="validation")
    for name in ("AgentStep", "ToolStep"):
        step = written["$defs"][name]
        step["required"] = [field for field in step["required"] if field != "id"]
        needs = step["properties"]["needs"]
        step["properties"]["needs"] = {"anyOf": [{k: v for k, v in needs.items() if k != "default"}, {"type": "null"}]}
    written["properties"]["order"].pop("default", None)
    said = "What `check` says that the plan may do; whoever runs the plan passes over it."
    written["properties"][MAY] = {"type": "array", "items": {"type": "string"}, "description": said}
    return written


@with_options("no_exec", output=_JSON)
def list_agents(options: Options, context: typer.Context) -> int:
    if context.invoked_subcommand is not None:
        return exit_codes.DONE
    team = session.team(session.settings_of(options))
    agents, trust = team.agents, _trust(team)
    if options.json:
        listed = [{**_agent_data(agent), "trusted": trust.may(agent)} for agent in agents.values()]
        streams.print_object("agents", agents=listed)
        return exit_codes.DONE
    _table(("agent", "what it does", "tools", "from"), [_agent_row(agent, trust) for agent in agents.values()])
    return exit_codes.DONE


@with_options(output=_JSON)
def show_agent(options: Options, name: AgentName) -> int:
    agent = _agent(name)
    if options.json:
        streams.print_object("agent", **_agent_data(agent), instructions=agent.instructions)
    else:
        assert agent.source is not None
        streams.write(agent.source.read_text(encoding="utf-8").rstrip("\n"))
    return exit_codes.DONE


@with_options(output=())
def trust_agent(options: Options, name: AgentName) -> int:  # noqa: ARG001
    agent, trust = _agent(name), _trust(session.team())
    if not (trust.foreign(agent) and trust.wants(agent)):
        streams.say(f"the agent {agent.name} needs no trust: it is your own, or only reads and writes files")
        return exit_codes.DONE
    trust.agree(agent)
    streams.say(f"trusted: {agent.source}, as it is now; it may {in_words(trust.wants(agent))}")
    return exit_codes.DONE


@with_options(output=())
def revoke_agent(options: Options, name: AgentName) -> int:  # noqa: ARG001
    agent = _agent(name)
    there = _trust(session.team()).revoke(agent)
    streams.say(f"no longer trusted: {agent.source}" if there else f"the agent {agent.name} was not trusted")
    return exit_codes.DONE


@with_options(*EVERYTHING)
def run_agent(
    options: Options,
    name: AgentName,
    prompt: Prompt = None,
    *,
    file: Files = None,
    yes: Approved = False,  # noqa: ARG001
) -> int:
    agent = _agent(name)
    text = task_text(prompt, f"master-agent agents run {agent.name}")
    step_id = agent.name.replace("-", "_")
    plan = Plan(task=text, plan=(AgentStep(id=step_id, agent=agent.name, prompt=text.replace("${", "$${")),))
    order = Order(task=text, planner=False, given=given_files(file))
    settings = session.settings_of(options)
    return session.run(options, settings, session.team(settings), order, lambda master: master.run_plan(plan), yes=True)


@with_options("no_exec", output=_JSON)
def list_tools(options: Options) -> int:
    tools = session.team(session.settings_of(options)).tools
    if options.json:
        streams.print_object("tools", tools=[_tool_data(tool) for tool in tools.values()])
        return exit_codes.DONE
    rows = []
    for tool in tools.values():
        required = tool.parameters.get("required", [])
        names = [name if name in required else f"[{name}]" for name in tool.parameters["properties"]]
        rows.append((tool.name, " ".join(tool.description.split()), " ".join(names), ", ".join(sorted(tool.effects))))
    _table(("tool", "what it does", "arguments", "effects"), rows)
    return exit_codes.DONE


def _agent(name: str) -> Agent:
    agents = session.team().agents
    if name.lower() not in agents:
        raise UsageError(f'no agent "{name}"{suggestion(name, agents)}')
    return agents[name.lower()]


def _agent_data(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "description": agent.description,
        "when": agent.when,
        "tools": list(agent.tools),
        "finish": list(agent.finish),
        "hosted": list(agent.hosted),
        "model": agent.model,
        "temperature": agent.temperature,
        "output": agent.schema if agent.output == "data" else agent.output,
        "source": str(agent.source),
    }


def _tool_data(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "effects": sorted(tool.effects),
        "parameters": tool.parameters,
    }


def _agent_row(agent: Agent, trust: Trust) -> tuple[str, ...]:
    assert agent.source is not None
    own = not agent.source.is_relative_to(builtin("agents"))
    tools = ", ".join([*agent.tools, *(f"{name} (hosted)" for name in agent.hosted)])
    source = f"{agent.source}{_standing(agent, trust)}" if own else "built in"
    return agent.name, agent.description, tools or "none", source


def _standing(agent: Agent, trust: Trust) -> str:
    """What is to be said of an agent of the folder that wants more than files."""
    if not (trust.foreign(agent) and (wanted := trust.wants(agent))):
        return ""
    return f" ({'trusted' if trust.agreed(agent) else 'not trusted'} to {in_words(wanted)})"


def _trust(team: Team) -> Trust:
    return Trust(config_folder(os.environ), team.tools)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a terminal, tab-separated lines in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            streams.write("\t".join(row))
        return
    from rich.table import Table
    from rich.text import Text

    from master_agent.reporters.text import visible

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(head):
        table.add_column(name, overflow="fold", style="bold" if i == 0 else "", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    reporting.console(sys.stdout).print(table)
