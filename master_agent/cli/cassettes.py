"""From `--record` and `--replay` to the deck that stands between a run and the ports to models, pictures, addresses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import JsonValue

from master_agent import __version__
from master_agent.cassette import Cassette, Data, Forms, Recorder, read_cassette
from master_agent.cli import keys
from master_agent.cli.models import Models
from master_agent.errors import SettingsError
from master_agent.exchanges import Deck
from master_agent.providers import EMBEDDED, PROVIDERS, named
from master_agent.settings import Settings
from master_agent.threads import Capabilities
from master_agent.workspace import Workspace


@dataclass(frozen=True)
class Played:
    """A cassette that is to be replayed, with what the run is to be as it was."""

    cassette: Cassette

    @property
    def mark(self) -> str:
        """The mark of the recorded run's data."""
        return str(self.cassette.head.get("mark"))

    def models(self, settings: Settings) -> Models:
        """Who answers: the cassette; the models are those that were asked then, unless others are set."""
        from master_agent.exchanges.tapes import ReplayedWire, Replaying

        head = self.cassette.head
        agents, planner = head.get("agents"), head.get("planner")
        model = _then(settings.model, agents)
        deck = Replaying(self.cassette, _forms(settings, self.mark), model)
        return Models(
            ReplayedWire(deck, _able(head)),
            model,
            _then(settings.planner_model or settings.model, planner),
            f"replies come from the cassette {self.cassette.path}",
        )


def _then(wanted: str | None, recorded: JsonValue) -> str | None:
    """The model that is wanted now, by the name that it had in the recorded run: without its provider's."""
    kept = str(recorded) if recorded else None
    if wanted is None:
        return kept
    provider, bare = named(wanted)
    same = wanted == kept or bare == kept or PROVIDERS.get(provider or "") in EMBEDDED
    return kept if same else wanted


def played(settings: Settings, workspace: Workspace, *, resumed: bool) -> Played | None:
    """The cassette to replay, if one is; SettingsError when it cannot be, or does not go with the other settings.

    The file is none of the workspace's, for a recorded run and its replay have different ones.
    """
    file = settings.record or settings.replay
    if file is None:
        return None
    workspace.keep_apart(file)
    if settings.record is not None and settings.replay is not None:
        raise SettingsError("--record and --replay exclude each other: a replay has nothing to record")
    if settings.replay is not None and settings.script is not None:
        raise SettingsError("--replay and --script exclude each other: both say where replies come from")
    if settings.reuse != "off" and settings.origins["reuse"] == "flag":
        raise SettingsError(
            "--reuse does not go with --record or --replay: a cassette holds all of a run",
            hint="Leave out one of them.",
        )
    if resumed:
        raise SettingsError(
            "a run that goes on is neither recorded nor replayed: a cassette holds a run from its beginning",
            hint="Run the task again from its beginning, with --record FILE or --replay FILE.",
        )
    return None if settings.replay is None else Played(read_cassette(settings.replay))


@contextmanager
def deck(settings: Settings, chosen: Models, played: Played | None, mark: str, task: str | None) -> Iterator[Deck]:
    """What stands around the ports of a run, as the settings want it."""
    if played is None and settings.record is None:
        yield Deck()
        return
    from master_agent.exchanges.tapes import Recording, Replaying

    if played is not None:
        yield Replaying(played.cassette, _forms(settings, mark), chosen.agents)
    elif settings.record is not None:
        forms = _forms(settings, mark)
        recorder = Recorder(settings.record, forms.answered(_head(chosen, mark, task)))
        try:
            yield Recording(recorder, forms, chosen.agents)
        finally:
            recorder.close()


def _able(head: Data) -> Capabilities:
    """What the recorded server could do, as far as requests depend on it."""
    hosted, context = head.get("hosted"), head.get("context")
    return Capabilities(
        hosted_tools=frozenset(map(str, hosted)) if isinstance(hosted, list) else frozenset(),
        context=context if isinstance(context, int) else None,
        grammar=head.get("grammar") is True,
    )


def _head(chosen: Models, mark: str, task: str | None) -> Data:
    able = chosen.wire.capabilities
    return {
        "program": f"master-agent {__version__}",
        "title": "a recorded run",
        "task": task or "",
        "wire": chosen.wire.name,
        "agents": chosen.agents,
        "planner": chosen.planner,
        "hosted": list[JsonValue](sorted(able.hosted_tools)),
        "context": able.context,
        "grammar": able.grammar,
        "mark": mark,
    }


def _forms(settings: Settings, mark: str) -> Forms:
    return Forms(keys.secrets_of(settings, os.environ), settings.workspace.resolve(), mark)
