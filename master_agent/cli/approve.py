"""From a plan to yes, no or later: what the plan will do is shown, and a person is asked where one is there."""

import asyncio
import shlex
import tempfile
import termios
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from master_agent import checker
from master_agent.approval import Approved, Declined, Later
from master_agent.cli import keys, streams
from master_agent.cli.build import builtin
from master_agent.cli.interruption import Interruption
from master_agent.cli.order import Team
from master_agent.cli.painters import PICTURES, image_provider, no_pictures
from master_agent.cli.trust import Trust, in_words
from master_agent.errors import FileRefusedError, PlanError, UsageError
from master_agent.events import ToolCalled
from master_agent.openai_server import Server
from master_agent.plan import AgentStep, Plan, Step, ToolStep
from master_agent.providers import PROVIDERS, named
from master_agent.references import Reference, find
from master_agent.remember import Unverified
from master_agent.reporters import Reporter
from master_agent.reporters.words import overwrites, step_names
from master_agent.settings import Settings
from master_agent.tools import Effect
from master_agent.workspace import Workspace

TRYING = 1.0  # seconds that a run waits for the words how code will be run, when nobody is asked


def maker(settings: Settings) -> str:
    """How pictures come about with these settings, in words: paid for, drawn offline, or not at all."""
    if settings.replay is not None:
        return "taken from the cassette, free"
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


def effects(plan: Plan, team: Team, settings: Settings, *, code: str, trust: Trust) -> list[str]:
    """What a plan may do beside asking the models of the settings, a line for each kind; `code` is how code is run."""
    lines = list(of_this_folder(plan, team, trust))
    if pictures := [step for step in plan.plan if PICTURES in team.may_use(step)]:
        lines.append(f"{_count(pictures, 'step')} may make pictures, {maker(settings)}: {step_names(pictures)}")
    lines += _paid(plan, team)
    lines += [] if settings.script or settings.replay else _elsewhere(plan, team)
    lines += _replaced(plan, settings.workspace)
    if writing := _having("write", plan, team):
        where = settings.workspace.resolve()
        lines.append(f"{_count(writing, 'step')} may write files beneath {where}: {step_names(writing)}")
    if fetching := _having("network", plan, team):
        lines.append(f"{_count(fetching, 'step')} may fetch from addresses of the internet: {step_names(fetching)}")
    lines += _hosted(plan, team)
    if running := executing(plan, team):
        lines.append(f"{_count(running, 'step')} may run code {code}: {step_names(running)}")
    return lines


def _paid(plan: Plan, team: Team) -> Iterable[str]:
    """The steps that may spend money with a tool that some package brought: for what, only its description says."""
    steps = _having("pay", plan, team)
    if names := sorted({name for step in steps for name in team.may_use(step) if "pay" in _effects(name, team)}):
        yield f"{_count(steps, 'step')} may spend money with {', '.join(names)}: {step_names(steps)}"


def _elsewhere(plan: Plan, team: Team) -> Iterable[str]:
    """The steps that are asked of a provider that the agent's own file names, which is paid there."""
    asked: dict[str, list[Step]] = {}
    for step in plan.plan:
        model = team.agents[step.agent].model if isinstance(step, AgentStep) else None
        provider = PROVIDERS.get(named(model)[0] or "") if model else None
        if provider is not None and provider.kind == "hosted":
            asked.setdefault(provider.title, []).append(step)
    for title, steps in asked.items():
        yield f"{_count(steps, 'step')} may spend money on a model of {title}, as its agent says: {step_names(steps)}"


def _hosted(plan: Plan, team: Team) -> Iterable[str]:
    """The steps whose agents may use tools that the model's provider runs, out of reach of what holds ours."""
    steps = [step for step in plan.plan if isinstance(step, AgentStep) and team.agents[step.agent].hosted]
    if steps:
        tools = ", ".join(sorted({tool for step in steps for tool in team.agents[step.agent].hosted}))
        which = "at the model's provider, which may bill them"
        yield f"{_count(steps, 'step')} may use {tools} {which}: {step_names(steps)}"


def executing(plan: Plan, team: Team) -> list[Step]:
    """The steps that may run code."""
    return _having("execute", plan, team)


def of_this_folder(plan: Plan, team: Team, trust: Trust) -> Iterable[str]:
    """The agents that a stranger may have put into the folder, the built-in ones that they replace among them."""
    used = dict.fromkeys(step.agent for step in plan.plan if isinstance(step, AgentStep))
    for agent in (team.agents[name] for name in used):
        if agent.source is not None and trust.foreign(agent):
            here = agent.source.relative_to(Path.cwd()) if agent.source.is_relative_to(Path.cwd()) else agent.source
            instead = " in place of the built-in one" if (builtin("agents") / f"{agent.name}.md").is_file() else ""
            may = f"; it may {in_words(wanted)}" if (wanted := trust.wants(agent)) else ""
            yield f"agent {agent.name} comes from this folder{instead}: {here}{may}"


def _replaced(plan: Plan, workspace: Path) -> Iterable[str]:
    given = [(s.id, s.arguments.get("path")) for s in plan.plan if isinstance(s, ToolStep) and overwrites(s)]
    if not given:
        return
    with Workspace(workspace) as files:
        for step_id, path in given:
            try:
                if isinstance(path, str) and files.exists(path):
                    yield f"{step_id} replaces the file {path}"
            except FileRefusedError:  # which the tool will be told as well: nothing is replaced
                continue


def unused(params: Collection[str], plan: Plan) -> list[str]:
    """Those of the parameters that neither the plan's task nor its steps refer to."""
    said = [step.prompt if isinstance(step, AgentStep) else step.arguments for step in plan.plan]
    found = [reference for value in (plan.task, *said) for reference in find(value) if isinstance(reference, Reference)]
    used = {reference.path[0] for reference in found if reference.source == "params"}
    return [name for name in params if name not in used]


def say_unused(params: Collection[str], plan: Plan, say: Callable[[str], None]) -> None:
    """Tells of parameters that nothing refers to: a slip in a name, or a task that never says ${params.NAME}."""
    if names := unused(params, plan):
        what = f"the parameter {names[0]} is" if len(names) == 1 else f"the parameters {', '.join(names)} are"
        say(f"{what} used nowhere in the task or the plan; one is used as ${{params.{names[0]}}}")


def _having(effect: Effect, plan: Plan, team: Team) -> list[Step]:
    """The steps that may have the effect; that pictures are paid for, fetched and stored has a line of its own."""
    return [step for step in plan.plan if any(effect in _effects(name, team) for name in team.may_use(step))]


def _effects(tool: str, team: Team) -> frozenset[Effect]:
    return team.tools[tool].effects if tool in team.tools and tool != PICTURES else frozenset()


def _count(steps: Sequence[Step], word: str) -> str:
    return f"{len(steps)} {word}{'' if len(steps) == 1 else 's'}"


@dataclass(frozen=True)
class Asking:
    """Asks the person at the terminal; `yes` was said already, or the plan was given by its file.

    `show` puts the plan before the person, whoever reads stdout and however quiet the run shall be. `heard` is whether
    the reporter shows a plan that is not asked about.
    """

    reporter: Reporter
    team: Team
    settings: Settings
    code: Callable[[float | None], Awaitable[str]]
    yes: bool
    show: Callable[[Plan, Sequence[str]], None]
    stdin: TextIO
    stderr: TextIO
    environ: Mapping[str, str]
    interruption: Interruption
    trust: Trust
    heard: bool = True
    given: Collection[str] = ()

    async def approve(self, plan: Plan) -> Approved | Declined | Later:
        """Shows the plan, then asks: run it? yes, no, edit."""
        say_unused(self.given, plan, self.reporter.notice)
        if self.yes:
            return await self._approved(plan)
        draft: bytes | None = None
        while True:
            if not (self.stdin.isatty() and self.stderr.isatty()):
                return Later()
            self.show(plan, await self._effects(plan))
            match await self._choose():
                case "yes":
                    await self._trusted(plan)
                    return Approved(plan)
                case "no":
                    return Declined()
            plan, draft = await self._edit(plan, draft)

    async def _approved(self, plan: Plan) -> Approved:
        """A plan that is not asked about; what nobody hears is not found out, for it may take a program's start."""
        if self.heard:
            self.reporter.plan(plan, await self._effects(plan, within=TRYING))
        else:
            for line in of_this_folder(plan, self.team, self.trust):
                streams.say(line)
        await self._trusted(plan)
        return Approved(plan)

    async def _effects(self, plan: Plan, within: float | None = None) -> list[str]:
        code = await self.code(within) if executing(plan, self.team) else ""
        return effects(plan, self.team, self.settings, code=code, trust=self.trust)

    async def _trusted(self, plan: Plan) -> None:
        """Asks about agents of the folder that could do harm; UsageError where one is not trusted."""
        for agent in self.trust.unknown(plan, self.team.agents):
            may = in_words(self.trust.wants(agent))
            if self.stdin.isatty() and self.stderr.isatty():
                streams.say(f"The agent {agent.name} is none of yours: it comes from {agent.source} and may {may}.")
                if (await self._ask("Trust this file as it is? [y]es / [n]o: ")).strip().lower() in ("y", "yes"):
                    self.trust.agree(agent)
                    continue
            raise UsageError(
                f"the agent {agent.name} comes from this folder and may {may}; nobody has said that it is trusted",
                hint=f"Read it: master-agent agents show {agent.name}. Then trust it as it is: master-agent agents "
                f"trust {agent.name}, or all agents of the folder for one run: --trust-project",
            )

    async def _choose(self) -> Literal["yes", "no", "edit"]:
        while True:
            answer = (await self._ask("Run it? [y]es / [n]o / [e]dit: ")).strip()
            match answer.lower():
                case "y" | "yes":
                    return "yes"
                case "n" | "no" | "":
                    return "no"
                case "e" | "edit":
                    return "edit"
            streams.say(f'"{answer}" is no answer: y runs the plan, n leaves it, e opens it in your editor')

    def unverified(self, said: Unverified | None) -> Callable[[ToolCalled, str], Awaitable[Unverified]]:
        """Who decides about an effect that nobody can look up: what was said before, else the person, else later."""

        async def decide(called: ToolCalled, doubt: str) -> Unverified:
            if said is not None:
                return said
            if not (self.stdin.isatty() and self.stderr.isatty()):
                return "later"
            arguments = ", ".join(f"{name}={value!r}" for name, value in called.arguments.items())
            self.reporter.notice(f"{called.step}: {called.tool}({arguments}) was begun and may have been done{doubt}.")
            match (await self._ask("Do it again? [y]es / [n]o, leave it / [l]ater: ")).strip().lower():
                case "y" | "yes":
                    return "retry"
                case "n" | "no":
                    return "skip"
            return "later"

        return decide

    async def _ask(self, question: str) -> str:
        self.reporter.pause()
        answer = ""
        try:
            _forget_typed(self.stdin)
            self.stderr.write(question)
            self.stderr.flush()
            with self.interruption.asking():
                answer = await _line(self.stdin)
            return answer
        finally:
            if not answer.endswith("\n"):  # what comes next gets a line of its own
                self.stderr.write("\n")
            self.reporter.resume()

    async def _edit(self, plan: Plan, draft: bytes | None) -> tuple[Plan, bytes | None]:
        """The plan as the person left it in their editor; the old one when it has faults, which are shown.

        `draft` is what they wrote before that had faults; the second result is what they have written now.
        """
        editor = self.environ.get("VISUAL") or self.environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory(prefix="master-agent-") as folder:
            path = Path(folder) / "plan.json"
            path.write_bytes(draft if draft is not None else plan.to_json().encode())
            if trouble := await self._opened(editor, path):
                streams.say(trouble)
                return plan, draft
            try:
                written = path.read_bytes()
                raw = checker.load(written, source="the edited plan")
                edited = checker.check(raw, self.team.agents, self.team.tools, task=plan.task)
                keys.refuse_in({"the edited plan": edited.to_json()}, self.settings, self.environ)
                return edited, None
            except (PlanError, UsageError) as error:
                streams.say(f"{error.message}\nThe plan is as it was before; e opens what you wrote once more.")
                return plan, written
            except OSError as error:
                streams.say(f"the edited plan cannot be read: {error.strerror}. The plan is as it was.")
                return plan, draft

    async def _opened(self, editor: str, path: Path) -> str | None:
        """Waits until the editor ends; what was wrong, if it did not end well."""
        self.reporter.pause()
        try:
            with self.interruption.editing():
                process = await asyncio.create_subprocess_exec(*shlex.split(editor), str(path))
                code = await process.wait()
        except (OSError, ValueError) as error:  # ValueError: quotes in its name that do not match
            return f"the editor {editor} cannot be started: {error}. Set EDITOR to one that can."
        finally:
            self.reporter.resume()
        return f"the editor {editor} ended with {code}; the plan is as it was" if code else None


def _forget_typed(stdin: TextIO) -> None:
    """Lets go of what was typed before the question stood there: it answers something that nobody had seen."""
    with suppress(OSError, ValueError, termios.error):
        termios.tcflush(stdin, termios.TCIFLUSH)


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
