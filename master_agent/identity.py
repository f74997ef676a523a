"""From a step and what it is given to what it is made of: a hash for each part, by which a later run knows it again."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.catalogue import Agent
from master_agent.context import Boundaries, Inputs, fill_arguments, fill_prompt
from master_agent.errors import MasterAgentError
from master_agent.plan import AgentStep, Step
from master_agent.prompts import Prompts
from master_agent.results import StepResult
from master_agent.tools import Tool
from master_agent.values import canonical

PARTS = ("agent", "prompt", "arguments", "inputs", "tools", "model")
"""What a step is made of: an agent's step has a prompt, a tool's has arguments and no agent."""

MOST_NAMED = 100  # results whose hashes stand one by one among the inputs; more than that have one hash together
_BOUNDARIES = Boundaries("data-000000000000")  # the same for every run, where its own are another for each
_OF_A_RESULT = {"agent", "tool", "text", "data", "artifacts"}


@dataclass
class Identities:
    """Tells what steps are made of. `parts` gives the hashes, `contents` what was hashed and not yet asked for.

    `model` says of an agent, or of None, who is asked: what of it is not the same gives another result. `pictures` are
    those who make some, for steps that may buy any. `hide` cuts out of a content what nobody may keep.
    """

    agents: Mapping[str, Agent]
    tools: Mapping[str, Tool]
    prompts: Prompts
    given: Sequence[Attachment]
    model: Callable[[Agent | None], Mapping[str, JsonValue]]
    pictures: Mapping[str, JsonValue]
    hide: Callable[[str], str] = lambda text: text
    _contents: dict[str, bytes] = field(default_factory=dict)
    _hashed: set[str] = field(default_factory=set)
    _fixed: dict[str, dict[str, str]] = field(default_factory=dict)
    _results: dict[str, tuple[StepResult, str]] = field(default_factory=dict)
    _rolled: tuple[list[str], "hashlib._Hash"] = field(default_factory=lambda: ([], hashlib.sha256()))

    def parts(self, step: Step, inputs: Inputs) -> dict[str, str]:
        """The SHA-256 of each part; none where a reference of the step leads to nothing."""
        try:
            if isinstance(step, AgentStep):
                own: dict[str, JsonValue] = {"prompt": fill_prompt(step.prompt, inputs, _BOUNDARIES)}
            else:
                own = {"arguments": fill_arguments(step.arguments, inputs)}
        except MasterAgentError:
            return {}  # the step is about to fail for it
        hashed = {name: self._hash(value) for name, value in own.items()}
        return {**hashed, "inputs": self._hash(self._inputs(inputs)), **self._fixed_parts(step)}

    def contents(self) -> dict[str, bytes]:
        """The contents of parts that were hashed since this was asked last, by their hashes; each is given once."""
        new, self._contents = self._contents, {}
        return new

    def _fixed_parts(self, step: Step) -> dict[str, str]:
        """What is the same for all steps of an agent, or of a tool."""
        doer = f"agent {step.agent}" if isinstance(step, AgentStep) else f"tool {step.tool}"
        if doer not in self._fixed:
            agent = self.agents.get(step.agent) if isinstance(step, AgentStep) else None
            names = (step.tool,) if not isinstance(step, AgentStep) else agent.tools if agent else ()
            tools = {name: self.tools[name] for name in names if name in self.tools}
            told: dict[str, JsonValue] = {
                name: {
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "effects": [*map(str, sorted(tool.effects))],
                }
                for name, tool in tools.items()
            }
            pays = any("pay" in tool.effects for tool in tools.values())
            asked = {**self.model(agent)} if agent else {}
            parts: dict[str, JsonValue] = {
                **({"agent": self._agent(agent)} if agent else {}),
                "tools": told,
                "model": {**asked, **({"pictures": dict(self.pictures)} if pays else {})},
            }
            self._fixed[doer] = {name: self._hash(value) for name, value in parts.items()}
        return self._fixed[doer]

    def _agent(self, agent: Agent) -> JsonValue:
        """All that its file says, and the words in which its steps are told."""
        said = {name: value for name, value in asdict(agent).items() if name != "source"}
        names = ("instructions", "mark", "prompt", "context")
        words = self.prompts.fill("step", **{name: f"${name}" for name in names})
        plain: JsonValue = json.loads(canonical({**said, "words": f"{words.instructions}\n{words.message}"}))
        return plain

    def _inputs(self, inputs: Inputs) -> JsonValue:
        results: JsonValue = (
            {name: self._result(name, result) for name, result in inputs.results.items()}
            if len(inputs.results) <= MOST_NAMED
            else self._together(inputs.results)
        )
        given: list[JsonValue] = [{"name": file.name, "sha256": file.sha256} for file in self.given]
        return {"results": results, "params": dict(inputs.params), "given": given}

    def _together(self, results: Mapping[str, StepResult]) -> str:
        """One hash for very many results; in a sequence each step has those of the one before it and one more."""
        names = list(results)
        known, digest = self._rolled
        if names[: len(known)] != known:
            known, digest = [], hashlib.sha256()
        digest = digest.copy()
        for name in names[len(known) :]:
            digest.update(f"{name} {self._result(name, results[name])}\n".encode())
        self._rolled = names, digest
        return digest.hexdigest()

    def _result(self, name: str, result: StepResult) -> str:
        known = self._results.get(name)
        if known is None or known[0] is not result:
            known = self._results[name] = (result, hashlib.sha256(canonical(what_is_left(result))).hexdigest())
        return known[1]

    def _hash(self, value: JsonValue) -> str:
        content = canonical(value)
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._hashed:
            self._hashed.add(digest)
            self._contents[digest] = self.hide(content.decode("utf-8", "replace")).encode()
        return digest


def what_is_left(result: StepResult) -> dict[str, JsonValue]:
    """What later steps can see of a result, whenever and however it came to be."""
    left: dict[str, JsonValue] = result.model_dump(mode="json", include=_OF_A_RESULT)
    return left


def without_marks(content: str) -> str:
    """A content as a person reads it: values without the marks around them."""
    return content.replace(f"<{_BOUNDARIES.mark}>", "").replace(f"</{_BOUNDARIES.mark}>", "")
