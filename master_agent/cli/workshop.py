"""One run's things, each made from those before it: layers, runner, planner, dispatcher, and the master of all."""

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from pydantic import JsonValue

from master_agent import __version__, layers
from master_agent.attachments import Attachment
from master_agent.budget import Budget, payments_reserved, reserved
from master_agent.catalogue import Agent
from master_agent.changes import changes_of
from master_agent.cli import programs, spending
from master_agent.cli.kept import flags_of
from master_agent.cli.keys import secrets_of
from master_agent.cli.lineage import files_of
from master_agent.cli.models import Models
from master_agent.cli.order import Order, People, Team
from master_agent.cli.painters import image_provider, make_images
from master_agent.cli.wires import Words
from master_agent.dispatcher import Dispatcher
from master_agent.errors import FileRefusedError
from master_agent.events import (
    Event,
    FileChanged,
    FileChangeFailed,
    FileContested,
    RunResumed,
    RunStarted,
    StepStarted,
    ToolProgressed,
)
from master_agent.exchanges import Deck
from master_agent.fetch import Fetcher
from master_agent.identity import Identities
from master_agent.images import ImageProvider
from master_agent.journal import Journal
from master_agent.lifetime import Lifetime
from master_agent.limits import Limits, TimeBudget
from master_agent.master import Master
from master_agent.openai_server import Server
from master_agent.past import pasts
from master_agent.plan import Plan
from master_agent.planner import Planner
from master_agent.remember import Memory, RememberedUses
from master_agent.results import Artifact, ErrorInfo, StepResult
from master_agent.retry import RetryPolicy
from master_agent.reuse import Reuse, steps_before
from master_agent.run_files import Before, Rivals, RunFiles
from master_agent.runner import Runner
from master_agent.secrets import Secrets
from master_agent.settings import Settings
from master_agent.threads import Call, CallOptions
from master_agent.tools import Programs, Tool, ToolCall, ToolContext, Use, checked, running
from master_agent.workspace import Workspace

_AROUND_A_PROGRAM = 60.0  # seconds, in which its files are read and saved
PROGRAM = f"master-agent {__version__}"


@dataclass(frozen=True)
class Workshop:
    """What a run is made of. The order of the layers around a request and a tool is read off `call` and `use`."""

    settings: Settings
    team: Team
    order: Order
    people: People
    journal: Journal
    workspace: Workspace
    words: Words
    chosen: Models
    fetcher: Fetcher
    deck: Deck

    def master(self, why_cancelled: Callable[[], ErrorInfo]) -> Master:
        """The master with all it needs."""
        budget = TimeBudget(self.limits.seconds)
        contents = {file.sha256: file.content for file in self.order.given}
        return Master(
            planner=self.planner if self.order.planner else None,
            approve=self.people.approve,
            dispatch=self.dispatch,
            journal=self.journal,
            lifetime=Lifetime(
                self.journal, self._started, why_cancelled, budget, contents, self.deck.finish, self.secrets.hide
            ),
            budget=budget,
            files=lambda: [(self.secrets.hide(entry.path), entry.bytes) for entry in self.workspace.entries()],
            earlier=self.earlier,
        )

    def dispatch(self, plan: Plan) -> Awaitable[object]:
        """A plan performed once; SettingsError where money is limited and it may pay for what has no known price."""
        if not self.order.allow_unpriced:
            spending.check_plan(plan, self.earlier, self.team, self.settings, self.chosen)
        perform = layers.deadline(self.runner.perform, self.settings.step_timeout)
        if self.reuse is not None:
            perform = self.reuse.around(perform)
        reused = {name for name, result in self.earlier.items() if result.status == "reused"}
        attempts = {name: count for name, count in self.memory.attempts().items() if name not in reused}
        return Dispatcher(
            plan,
            perform,
            self._note,
            self.limits.concurrency,
            self.earlier,
            attempts,
            most=self.limits.steps,
            parts=self.identities.parts,
        ).run()

    def _note(self, event: Event) -> Event:
        """Keeps an event of the dispatcher's, a step's beginning with what the step is made of."""
        return self.journal.note(event, self.identities.contents() if isinstance(event, StepStarted) else None)

    @cached_property
    def identities(self) -> Identities:
        """What tells what a step is made of."""
        pictures = {"provider": image_provider(self.settings), "model": self.settings.image_model}
        server = self.chosen.at or Server(self.settings.openai_base_url).shown
        here = self.chosen.wire.name in ("scripted", "replay")

        def asked(agent: Agent | None) -> dict[str, JsonValue]:
            model = agent.model if agent and agent.model else self.chosen.agents
            return {"wire": self.chosen.wire.name, "server": None if here else server, "model": model}

        return Identities(
            self.team.agents, self.team.tools, self.words[0], self.given, asked, pictures, self.secrets.hide
        )

    @cached_property
    def reuse(self) -> Reuse | None:
        """The layer that takes over what earlier runs did; None where nobody asked for it, or a cassette is at work."""
        if self.settings.reuse == "off" or self.settings.record or self.settings.replay:
            return None
        begun = (name for name, past in self.memory.pasts.items() if past.replies or past.outputs or past.intents)
        workspace = str(self.settings.workspace.resolve())
        return Reuse(
            find=steps_before(self.journal, workspace),
            use=self._held,
            workspace=self.workspace,
            agents=self.team.agents,
            mark=self.words[1].mark,
            note=self.journal.note,
            adopt=self._adopt,
            anew={name for name in (self.order.anew, *begun) if name is not None},
            outside=self.settings.reuse == "all",
        )

    @cached_property
    def _adopted(self) -> set[str]:
        return set()

    def _adopt(self, run_id: str) -> None:
        """Takes the files of a run that is built on for this run's own, as far as nobody has touched them since."""
        if run_id not in self._adopted:
            self._adopted.add(run_id)
            self.run_files.adopt(self._untouched(files_of(self.journal.database, run_id)))

    def _untouched(self, files: Mapping[str, str]) -> set[str]:
        return {path for path, digest in files.items() if self.workspace.digest(path) == digest}

    @cached_property
    def began(self) -> RunStarted | None:
        """How the run began in an earlier process; None when it begins now."""
        return next((event for event in self.journal.history if isinstance(event, RunStarted)), None)

    @cached_property
    def earlier(self) -> Mapping[str, StepResult]:
        """Results that stand already."""
        if self.began is None:
            return self.order.earlier
        return {name: result for name, result in self.journal.state.results.items() if result.usable}

    @cached_property
    def given(self) -> tuple[Attachment, ...]:
        """The files given with the run, now or when it began."""
        if self.began is None:
            return self.order.given
        return tuple(
            Attachment(str(kept["name"]), str(kept["media_type"]), self.journal.blob(str(kept["sha256"])))
            for kept in self.began.given
        )

    @cached_property
    def limits(self) -> Limits:
        """What the run may take."""
        return Limits(
            seconds=self.settings.timeout,
            step_seconds=self.settings.step_timeout,
            call_seconds=self.settings.call_timeout,
            turns=self.settings.turns,
            concurrency=self.settings.concurrency,
            cost=self.settings.max_cost,
            calls=self.settings.max_calls,
            tokens=self.settings.max_tokens,
            steps=self.settings.max_steps,
        )

    @cached_property
    def memory(self) -> Memory:
        """What each step had come to in earlier processes."""
        return Memory(pasts(self.journal.history), self.chosen.wire.name, self.journal.blob)

    @cached_property
    def spending(self) -> Budget:
        """What the run may still ask for."""
        return Budget(self.limits, self.journal.state.usage, self.journal.history)

    @cached_property
    def call(self) -> Call:
        """A request to a model: remembered, or tried, and each try reserved, written down and settled."""
        prices = spending.prices_of(self.settings, self.chosen)
        asked = layers.asked(self.journal, self.chosen.wire.name, self.chosen.agents, prices=prices)
        held = reserved(self.deck.calls(asked), self.spending, prices, self.chosen.agents)
        return self.memory.calls(layers.retried(held, RetryPolicy(attempts=self.settings.attempts), self.deck.sleep))

    @cached_property
    def use(self) -> Use:
        """A use of a tool: remembered, or checked, reserved, written down, settled and held to its time."""
        tools, journal = self.tools, self.journal
        price = spending.price_of_picture(self.settings, image_provider(self.settings))
        paid = payments_reserved(
            layers.written_down(self._held, journal, tools),
            self.spending,
            price,
            tools,
            allow_unpriced=self.order.allow_unpriced,
        )
        return RememberedUses(
            layers.refusals_noted(checked(tools, paid), journal, tools),
            self.memory.pasts,
            tools,
            context=self.context,
            blob=journal.blob,
            decide=self.people.unverified,
            collected=partial(layers.note_output, journal, tools),
            hidden=lambda output: layers.without_secrets(output, self.secrets),
        ).use

    @cached_property
    def _held(self) -> Use:
        """A use of a tool that nobody writes down: held to its time and length, told without secrets."""
        timed = layers.in_time(running(self.tools, self.context), self.tools)
        done = layers.settled(layers.in_turn(timed, self.tools, self.limits.concurrency))
        return layers.shortened(layers.hidden(done, self.secrets), self.tools)

    @cached_property
    def tools(self) -> dict[str, Tool]:
        """The tools; one that runs code has more time than the program that it runs."""
        least = self.settings.exec_seconds + _AROUND_A_PROGRAM
        return {
            name: replace(tool, timeout=max(tool.timeout, least)) if "execute" in tool.effects else tool
            for name, tool in self.team.tools.items()
        }

    @cached_property
    def programs(self) -> Programs:
        """How the run's tools may run programs."""
        return programs.programs(self.settings, unsafe=self.order.unsafe_exec)

    @cached_property
    def runner(self) -> Runner:
        """What performs a step."""
        return Runner(
            self.chosen.wire,
            self.call,
            self.use,
            self.team.agents,
            self.team.tools,
            *self.words,
            self.limits,
            self.run_files.for_step,
            self.given,
            self.memory,
        )

    @cached_property
    def planner(self) -> Planner:
        """What makes a plan of a task."""
        prompts, boundaries = self.words
        return Planner(
            self.chosen.wire,
            self.call,
            prompts,
            self.team.agents,
            self.team.tools,
            boundaries,
            CallOptions(agent="planner", timeout=self.settings.call_timeout),
            model=self.chosen.planner,
            repairs=self.settings.plan_repairs,
            given=self.given,
            memory=self.memory,
            before=self.order.before,
        )

    @cached_property
    def run_files(self) -> RunFiles:
        """The files of the run, known to the journal before they change; those of its earlier processes are its own."""

        async def report(artifact: Artifact, before: Before, step: str | None) -> None:
            blobs = {} if before.content is None else {hashlib.sha256(before.content).hexdigest(): before.content}
            digest = next(iter(blobs), None)
            changed = FileChanged(step=step, file=artifact, before=digest, mode=before.mode, folders=before.folders)
            await self.journal.append(changed, blobs)

        def failed(artifact: Artifact, error: FileRefusedError, step: str | None) -> None:
            self.journal.note(FileChangeFailed(step=step, file=artifact, error=ErrorInfo.of(error)))

        changes = changes_of(self.journal.history)
        begun = (event for event in self.journal.history if isinstance(event, FileChanged))
        self.workspace.clear((change.file.path, change.file.sha256) for change in begun)
        # What an earlier run made, and nobody has touched since, is this run's to replace.
        made = {change.file.path for change in changes} | self._untouched(self.order.made)
        written = {(change.step, change.file.sha256): change.file.path for change in changes}
        return RunFiles(self.workspace, report, made, written, self._rivals(changes), failed)

    def _rivals(self, changes: Iterable[FileChanged]) -> Rivals:
        """Who keeps two steps that run at the same time from writing one file; earlier writers are known to it."""

        def at_once(one: str, other: str) -> bool:
            plan = self.journal.state.plan
            return plan is not None and plan.at_once(one, other)

        def told(path: str, step: str, rival: str) -> None:
            self.journal.note(FileContested(step=step, path=path, by=rival))

        before = [(file.path, step) for step, result in self.earlier.items() for file in result.artifacts]
        writers: dict[str, list[str]] = {}
        for path, step in [*before, *((change.file.path, change.step) for change in changes)]:
            if step is not None:
                writers.setdefault(path, []).append(step)
        return Rivals(at_once, told, writers)

    @cached_property
    def secrets(self) -> Secrets:
        """What cuts keys out of all that tools give back."""
        return secrets_of(self.settings, os.environ)

    @cached_property
    def _painter(self) -> ImageProvider:
        return make_images(self.settings, self.fetcher)

    def context(self, call: ToolCall) -> ToolContext:
        """What a tool may work with in one use."""

        async def progressed(remote_id: str) -> None:
            progress = ToolProgressed(step=call.step, tool=call.tool, asked=call.id, remote_id=remote_id)
            await self.journal.append(progress)

        files, outside = self.run_files.for_step(call.step), self.deck.fetcher(self.fetcher, call)
        pictures, hide = partial(self.deck.images, lambda: self._painter, call), self.secrets.hide
        return ToolContext(
            *(call.step, call.inputs, self.workspace, files, outside, pictures, progressed, hide),
            programs=self.programs,
            found=call.found,
        )

    @cached_property
    def _started(self) -> RunStarted | RunResumed:
        if self.began is not None:
            return RunResumed(program=PROGRAM, unsafe_exec=self.order.unsafe_exec)
        settings, order = self.settings, self.order
        return RunStarted(
            task=order.task,
            params=dict(order.params),
            workspace=str(settings.workspace.resolve()),
            folder=str(Path.cwd()),
            flags=flags_of(settings),
            given=[file.to_data() for file in order.given],
            planned=not order.planner,
            mark=self.words[1].mark,
            program=PROGRAM,
            parent=order.parent,
            origin=order.origin,
            unsafe_exec=order.unsafe_exec,
        )
