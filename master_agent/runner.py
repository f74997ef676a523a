"""From one Step and what it is given to its StepResult: for a step of an agent, and for a step of a tool."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.catalogue import Agent
from master_agent.codefiles import code_files
from master_agent.context import Boundaries, Inputs, fill_arguments, fill_prompt, tell, tell_files
from master_agent.converse import Outcome, converse, with_last
from master_agent.errors import MasterAgentError, StepError
from master_agent.hosted import Kept
from master_agent.limits import Limits
from master_agent.plan import AgentStep, Step, ToolStep
from master_agent.prompts import Prompts
from master_agent.remember import Memory
from master_agent.results import Artifact, ErrorInfo, StepResult
from master_agent.threads import AgentSpec, Call, CallOptions, ModelToolCall, Thread, ToolSpec, UserTurn, Wire
from master_agent.tools import Files, Tool, ToolCall, ToolOutput, Use
from master_agent.values import bounded


@dataclass(frozen=True)
class Runner:
    """Carries out steps. What is added around requests and tools is in `call` and `use` already.

    `files_for` gives what saves for a step the files that its model's server has made.
    """

    wire: Wire
    call: Call
    use: Use
    agents: Mapping[str, Agent]
    tools: Mapping[str, Tool]
    prompts: Prompts
    boundaries: Boundaries
    limits: Limits
    files_for: Callable[[str | None], Files]
    given: tuple[Attachment, ...] = ()
    memory: Memory = field(default_factory=lambda: Memory({}, ""))
    stream: bool = True

    async def perform(self, step: Step, inputs: Inputs) -> StepResult:
        """The step's result; what goes wrong in it is a result too."""
        try:
            match step:
                case AgentStep():
                    return await self._agent_step(step, inputs)
                case ToolStep():
                    return await self._tool_step(step, inputs)
        except MasterAgentError as error:
            agent, tool = (step.agent, None) if isinstance(step, AgentStep) else (None, step.tool)
            info = ErrorInfo.of(error)
            return StepResult(status="failed", reason=info.message, agent=agent, tool=tool, error=info)

    async def _tool_step(self, step: ToolStep, inputs: Inputs) -> StepResult:
        call = ToolCall(f"{step.id}", step.tool, fill_arguments(step.arguments, inputs), step.id, inputs)
        output = await self.use(call)
        return StepResult(
            status="failed" if output.error else "done",
            reason=output.error.message if output.error else None,
            tool=step.tool,
            text="" if output.error and output.error.type != "program_failed" else output.text,
            data=output.data,
            artifacts=output.artifacts,
            error=output.error,
        )

    async def _agent_step(self, step: AgentStep, inputs: Inputs) -> StepResult:
        agent = self.agents[step.agent]
        self._check_hosted(agent)
        prompt = self.prompts.fill(
            "step",
            instructions=self._instructions(agent),
            mark=self.boundaries.mark,
            prompt=fill_prompt(step.prompt, inputs, self.boundaries),
            context=self._context(inputs),
        )
        turn = UserTurn(prompt.message, tuple(file for file in self.given if file.is_picture))
        thread = await self.wire.open(self._spec(agent, prompt.instructions), self.memory.thread(step.id))
        try:
            return await self._converse(step, agent, thread, turn, inputs)
        except BaseException:  # a cancellation too: nothing is left running at the server
            await thread.cancel()
            raise

    async def _converse(
        self, step: AgentStep, agent: Agent, thread: Thread, turn: UserTurn, inputs: Inputs
    ) -> StepResult:
        seconds = min(agent.limits.seconds or self.limits.call_seconds, self.limits.call_seconds)
        kept = Kept(self.files_for, step.id)
        call = kept.around(self.call)
        options = CallOptions(agent=agent.name, step=step.id, timeout=seconds, stream=self.stream)
        # What is remembered costs no request, and so no turn of the limit.
        turns = (agent.limits.turns or self.limits.turns) + self.memory.turns(step.id)

        def make(asked: ModelToolCall) -> ToolCall:
            # A tool that the agent was not given is unknown to it, whatever it has heard elsewhere.
            name = asked.name if asked.name in agent.tools else f"{asked.name} (not a tool of {agent.name})"
            return ToolCall(asked.id, name, asked.arguments, step.id, inputs)

        outcome = await converse(
            thread,
            turn,
            call=call,
            use=self.use,
            options=options,
            make=make,
            marked=self._marked,
            turns=turns,
            finish=frozenset(agent.finish),
            remind=self._remind,
        )
        if agent.output == "data":
            outcome, data = await self._data(agent, thread, outcome, options, call)
        else:
            data = _files(outcome.text, step.id) if agent.output == "files" else {}
        result = StepResult(
            status="done",
            agent=agent.name,
            text=outcome.text if agent.output == "data" else kept.told(outcome.text),
            data={**kept.data, **_merged(outcome.outputs), **data},
            artifacts=_artifacts(outcome.artifacts, kept.artifacts),
        )
        if not (result.text.strip() or result.data or result.artifacts):
            raise StepError("the model's answer is empty", hint="Try again, or another --model.", type="wrong_output")
        return result

    async def _data(
        self, agent: Agent, thread: Thread, outcome: Outcome, options: CallOptions, call: Call
    ) -> tuple[Outcome, dict[str, JsonValue]]:
        """The JSON that the agent's schema asks for; asked for once more when it does not follow it."""
        assert agent.schema is not None
        fault = _schema_fault(outcome.text, agent.schema)
        if fault is not None:
            schema = json.dumps(agent.schema, ensure_ascii=False)
            turn = UserTurn(self.prompts.fill("output", fault=fault, schema=schema).message)
            again = await converse(
                thread,
                turn,
                call=call,
                use=self.use,
                options=replace(options, turn=outcome.turns + 1),
                make=lambda asked: ToolCall(asked.id, f"{asked.name} (not now)", asked.arguments, options.step),
                marked=self._marked,
                turns=1,
                remind=self._remind,
            )
            outcome = replace(outcome, text=again.text, turns=again.turns)
            fault = _schema_fault(outcome.text, agent.schema)
        if fault is not None:
            raise StepError(f"the answer does not follow the agent's output schema: {fault}", type="wrong_output")
        return outcome, json.loads(_unfenced(outcome.text))

    def _marked(self, asked: ModelToolCall, output: ToolOutput) -> str:
        """What a tool gave back, as a model is told of it: files, pages and words of servers are data like the rest."""
        return self.boundaries.wrap(f"\n{output.text}\n", tool=asked.name)

    def _remind(self, quote: str) -> UserTurn:
        """What an agent is told whose call cannot be read."""
        return UserTurn(self.prompts.fill("unreadable", quote=quote).message)

    def _check_hosted(self, agent: Agent) -> None:
        """StepError where a tool that the agent needs is run by no server on this wire."""
        missing = [name for name in agent.hosted if name not in self.wire.capabilities.hosted_tools]
        if missing:
            raise StepError(
                f"the agent {agent.name} needs {', '.join(missing)}, which the wire {self.wire.name} does not offer",
                hint="Servers that run such tools are spoken to with --wire responses.",
                type="settings",
            )

    def _context(self, inputs: Inputs) -> str:
        """What the user gave, and what the step builds on, as data."""
        earlier = tell(inputs, self.boundaries, self.wire.capabilities.context) if inputs.results else ""
        parts = [tell_files(self.given, self.boundaries), earlier]
        told = "\n".join(part for part in parts if part)
        return f"\n{told}" if told else ""

    def _instructions(self, agent: Agent) -> str:
        if agent.output != "data":
            return agent.instructions
        schema = json.dumps(agent.schema, ensure_ascii=False)
        return self.prompts.fill("data", instructions=agent.instructions, schema=schema).message

    def _spec(self, agent: Agent, instructions: str) -> AgentSpec:
        return AgentSpec(
            name=agent.name,
            instructions=instructions,
            model=agent.model,
            temperature=agent.temperature,
            max_output_tokens=agent.limits.output_tokens,
            tools=tuple(self._tool_spec(name, name in agent.finish) for name in agent.tools),
            output=agent.schema,
            hosted=agent.hosted,
            tool_calls=agent.tool_calls,
        )

    def _tool_spec(self, name: str, finish: bool) -> ToolSpec:
        tool = self.tools[name]
        spec = ToolSpec(tool.name, tool.description, tool.parameters)
        return with_last(spec) if finish else spec


def _files(text: str, stem: str) -> dict[str, Any]:
    files = code_files(text, stem=stem)
    return {"files": [{"name": f.name, "language": f.language, "content": f.content} for f in files]} if files else {}


def _merged(outputs: tuple[ToolOutput, ...]) -> dict[str, JsonValue]:
    merged: dict[str, JsonValue] = {}
    for output in outputs:
        merged.update(output.data)
    return merged


def _artifacts(made: Iterable[Artifact], kept: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """The files that tools here and at the server made, each path once, as it was left."""
    return tuple({artifact.path: artifact for artifact in (*made, *kept)}.values())


def _unfenced(text: str) -> str:
    blocks = code_files(text, stem="answer")
    return blocks[0].content if blocks else text


def _schema_fault(text: str, schema: Mapping[str, Any]) -> str | None:
    import jsonschema

    try:
        value = bounded(json.loads(_unfenced(text)))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        return f"JSON that cannot be read: {error}"
    faults = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    return "; ".join(f"{fault.json_path}: {fault.message}" for fault in faults[:10]) or None
