"""From agents' files to what may be done with them: those of a folder can come from a stranger, and are held to that.

Such an agent may use tools that read and write files of the workspace. For programs, the network and whatever costs
money, a person must have said so: for one run by `--trust-project`, or once for a file as it is. That consent is kept
in the user's config folder by the file's path and SHA-256; whoever changes the file loses it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from master_agent.catalogue import Agent
from master_agent.cli import saving
from master_agent.errors import SettingsError
from master_agent.plan import AgentStep, Plan
from master_agent.providers import EMBEDDED, PROVIDERS, named
from master_agent.tools import Effect, Tool

FREE: frozenset[Effect] = frozenset({"read", "write"})
HOSTED: Mapping[str, tuple[Effect, ...]] = {
    "code_interpreter": ("execute", "pay"),
    "web_search": ("network", "pay"),
    "image_generation": ("network", "pay"),
}
_OF_A_FOLDER = (".master-agent", "agents")
_EVERY: tuple[Effect, ...] = ("execute", "network", "pay")


@dataclass(frozen=True)
class Trust:
    """Who may do what. `config` is the user's config folder; `everybody` when `--trust-project` was said."""

    config: Path
    tools: Mapping[str, Tool]
    everybody: bool = False

    def foreign(self, agent: Agent) -> bool:
        """Whether the agent's file lies in a project's folder, and not in one of the user's own."""
        if agent.source is None or agent.source.parent.parts[-2:] != _OF_A_FOLDER:
            return False
        return agent.source.parent.resolve() != (self.config / "agents").resolve()

    def wants(self, agent: Agent) -> tuple[Effect, ...]:
        """What its tools and its model may do beside reading and writing files: execute, network, pay."""
        effects = {effect for name in agent.tools for effect in self.tools[name].effects}
        effects |= set(_of_model(agent.model))
        effects |= {effect for name in agent.hosted for effect in HOSTED.get(name, _EVERY)}
        return tuple(effect for effect in _EVERY if effect in effects - FREE)

    def may(self, agent: Agent) -> bool:
        """Whether the agent may be run as it is."""
        return self.everybody or not (self.foreign(agent) and self.wants(agent)) or self.agreed(agent)

    def agreed(self, agent: Agent) -> bool:
        """Whether a person has agreed to this very file."""
        return self._kept().get(str(agent.source and agent.source.resolve())) == agent.sha256 != ""

    def unknown(self, plan: Plan, agents: Mapping[str, Agent]) -> list[Agent]:
        """Those agents of a plan that may not be run as they are."""
        used = dict.fromkeys(step.agent for step in plan.plan if isinstance(step, AgentStep))
        return [agents[name] for name in used if not self.may(agents[name])]

    def agree(self, agent: Agent) -> None:
        """Keeps that a person trusts this file as it is; SettingsError when that cannot be kept."""
        assert agent.source is not None
        self._keep({**self._kept(), str(agent.source.resolve()): agent.sha256})

    def revoke(self, agent: Agent) -> bool:
        """Takes a consent back; False when there was none."""
        kept = self._kept()
        there = kept.pop(str(agent.source and agent.source.resolve()), None) is not None
        if there:
            self._keep(kept)
        return there

    @property
    def _file(self) -> Path:
        return self.config / "trusted.json"

    def _kept(self) -> dict[str, str]:
        try:
            read = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(one["path"]): str(one["sha256"]) for one in read["agents"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{self._file} cannot be read: {error}", hint="Delete it, and agree anew.") from None

    def _keep(self, agents: Mapping[str, str]) -> None:
        listed = [{"path": path, "sha256": sha256} for path, sha256 in sorted(agents.items())]
        try:
            self.config.mkdir(parents=True, exist_ok=True)
            saving.replace(self._file, json.dumps({"kind": "trust", "version": 1, "agents": listed}, indent=2) + "\n")
        except OSError as error:
            raise SettingsError(f"{self._file} cannot be written: {error.strerror}") from None


def _of_model(model: str | None) -> tuple[Effect, ...]:
    """What it means that an agent names a provider itself: what it is given goes there, or a file is run."""
    provider = PROVIDERS.get(named(model)[0] or "") if model else None
    if provider is None:
        return ()
    if provider in EMBEDDED:
        return ("execute",)
    return ("network", "pay") if provider.kind == "hosted" else ()


def in_words(effects: Iterable[Effect]) -> str:
    """What effects mean for a person: "run programs, reach the network and spend money"."""
    words = {"execute": "run programs", "network": "reach the network", "pay": "spend money"}
    said = [words.get(effect, effect) for effect in effects]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
