"""From a plan to yes, no or later: what the plan will do is shown, and a person is asked where one is there."""

import asyncio
import shlex
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from master_agent import plan as plans
from master_agent.approval import Approved, Declined, Later
from master_agent.cli.build import Team, image_provider, no_pictures
from master_agent.errors import PlanError
from master_agent.events import ToolCalled
from master_agent.openai_server import Server
from master_agent.plan import AgentStep, Plan, Step, ToolStep
from master_agent.remember import Unverified
from master_agent.reporters import Reporter
from master_agent.settings import Settings


def maker(settings: Settings) -> str:
    """How pictures come about with these settings, in words: paid for, drawn offline, or not at all."""
    if missing := no_pictures(settings):
        return f"but {missing.message}"
    match image_provider(settings):
        case "openai" if settings.own_server:
            return f"paid for, if it asks for pay, at {Server(settings.openai_base_url).shown}"
        case "openai":
            return "paid for at OpenAI"
        case "replicate":
            return "paid for at Replicate"
    return "drawn offline as a placeholder, free"


def effects(plan: Plan, team: Team, *, workspace: Path, pictures: str) -> list[str]:
    """What a plan may do beside asking models, a line for each kind; `pictures` is how they come about, in words."""
    lines: list[str] = []
    paid = [step for step in plan.plan if "pay" in _step_effects(step, team)]
    if paid:
        lines.append(f"{_count(paid, 'step')} may make pictures, {pictures}: {_names(paid)}")
    for step in plan.plan:
        if isinstance(step, ToolStep) and step.arguments.get("overwrite") is True:
            path = step.arguments.get("path")
            if isinstance(path, str) and (workspace / path).exists():
                lines.append(f"{step.id} replaces the file {path}")
    writing = [s for s in plan.plan if "write" in _step_effects(s, team) and s not in paid]
    if writing:
        lines.append(f"{_count(writing, 'step')} may write files beneath {workspace.resolve()}: {_names(writing)}")
    running = [s for s in plan.plan if "execute" in _step_effects(s, team)]
    if running:
        lines.append(f"{_count(running, 'step')} may run code: {_names(running)}")
    return lines


def _step_effects(step: Step, team: Team) -> set[str]:
    names = team.agents[step.agent].tools if isinstance(step, AgentStep) else (step.tool,)
    return {effect for name in names for effect in team.tools[name].effects}


def _count(steps: list[Step], word: str) -> str:
    return f"{len(steps)} {word}{'' if len(steps) == 1 else 's'}"


def _names(steps: list[Step]) -> str:
    shown = ", ".join(step.id for step in steps[:8])
    return shown + (f" and {len(steps) - 8} more" if len(steps) > 8 else "")


@dataclass(frozen=True)
class Asking:
    """Asks the person at the terminal; `yes` was said already, or the plan was given by its file.

    `show` puts the plan before the person, whoever reads stdout and however quiet the run shall be.
    """

    reporter: Reporter
    team: Team
    workspace: Path
    pictures: str
    yes: bool
    show: Callable[[Plan, Sequence[str]], None]
    stdin: TextIO
    stderr: TextIO
    environ: Mapping[str, str]

    async def approve(self, plan: Plan) -> Approved | Declined | Later:
        """Shows the plan, then asks: run it? yes, no, edit."""
        while True:
            shown = effects(plan, self.team, workspace=self.workspace, pictures=self.pictures)
            if self.yes:
                self.reporter.plan(plan, shown)
                return Approved(plan)
            if not (self.stdin.isatty() and self.stderr.isatty()):
                return Later()
            self.show(plan, shown)
            answer = await self._ask("Run it? [y]es / [n]o / [e]dit: ")
            match answer.strip().lower():
                case "y" | "yes":
                    return Approved(plan)
                case "n" | "no" | "":
                    return Declined()
                case "e" | "edit":
                    plan = await self._edit(plan)

    def unverified(self, said: Unverified | None) -> Callable[[ToolCalled], Awaitable[Unverified]]:
        """Who decides about an effect that nobody can look up: what was said before, else the person, else later."""

        async def decide(called: ToolCalled) -> Unverified:
            if said is not None:
                return said
            if not (self.stdin.isatty() and self.stderr.isatty()):
                return "later"
            arguments = ", ".join(f"{name}={value!r}" for name, value in called.arguments.items())
            self.reporter.notice(f"{called.step}: {called.tool}({arguments}) was begun and may have been done.")
            match (await self._ask("Do it again? [y]es / [n]o, leave it / [l]ater: ")).strip().lower():
                case "y" | "yes":
                    return "retry"
                case "n" | "no":
                    return "skip"
            return "later"

        return decide

    async def _ask(self, question: str) -> str:
        self.reporter.pause()
        try:
            self.stderr.write(question)
            self.stderr.flush()
            return await _line(self.stdin)
        finally:
            self.reporter.resume()

    async def _edit(self, plan: Plan) -> Plan:
        """The plan as the person left it in their editor; the old one when it has faults, which are shown."""
        editor = self.environ.get("VISUAL") or self.environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory(prefix="master-agent-") as folder:
            path = Path(folder) / "plan.json"
            path.write_text(plan.to_json(), encoding="utf-8")
            self.reporter.pause()
            try:
                process = await asyncio.create_subprocess_exec(*shlex.split(editor), str(path))
                code = await process.wait()
            except OSError as error:
                self.reporter.notice(f"the editor {editor} cannot be started: {error}. Set EDITOR to one that can.")
                return plan
            finally:
                self.reporter.resume()
            if code != 0:
                self.reporter.notice(f"the editor {editor} ended with {code}; the plan is as it was")
                return plan
            try:
                raw = plans.load(path.read_bytes(), source="the edited plan")
                return plans.check(raw, self.team.agents, self.team.tools, task=plan.task)
            except PlanError as error:
                self.reporter.notice(f"{error.message}\nThe plan is as it was before.")
                return plan


async def _line(stream: TextIO) -> str:
    """One line of a terminal, without holding up the loop, so that Ctrl-C ends the question too."""
    loop = asyncio.get_running_loop()
    there = loop.create_future()

    def readable() -> None:
        if not there.done():
            there.set_result(None)

    loop.add_reader(stream.fileno(), readable)
    try:
        await there
    finally:
        loop.remove_reader(stream.fileno())
    return stream.readline()
