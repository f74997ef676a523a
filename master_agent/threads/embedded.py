"""The `chat` wire to an engine of this run's own: it says what the engine can do, why it ended, and ends it at last."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from master_agent.embedded import Engine
from master_agent.errors import ModelError
from master_agent.threads import AgentSpec, Capabilities, ThreadState
from master_agent.threads._openai import Server
from master_agent.threads._wire import Answering
from master_agent.threads.chat import Chat


class Embedded(Chat):
    """Chat Completions of the engine, which is closed with the wire."""

    def __init__(self, engine: Engine) -> None:
        able = Capabilities(
            grammar=True,
            schema_with_tools=False,
            length="max_tokens",
            pictures=False,
            context=engine.context,
            tool_calls="either",
        )
        title = f"the embedded engine with {engine.model.name}"
        server = Server(f"{engine.address}/v1", engine.key, place="own", title=title)
        super().__init__(None, None, engine.model.name, capabilities=able, server=server)
        self.engine = engine

    def check(self, agent: AgentSpec, state: ThreadState | None) -> None:
        """ModelError when the conversation began on another wire, or is to be had with a model that is not loaded."""
        super().check(agent, state)
        if agent.model not in (None, self.model):
            raise ModelError(
                f"the agent {agent.name} wants the model {agent.model}, but the embedded engine runs {self.model}",
                type="model_not_found",
                hint="Put its provider before the name, as in gguf:PATH, local:NAME or openai:NAME, or leave it out.",
            )

    async def ask(self, body: dict[str, Any], seconds: float, answer: Answering) -> AsyncGenerator[str, None]:
        """One request; where the engine has ended meanwhile, the ModelError says so."""
        try:
            async with aclosing(super().ask(body, seconds, answer)) as pieces:
                async for piece in pieces:
                    yield piece
        except ModelError as error:
            if error.type == "connection" and (ended := await self.engine.ended()):
                raise ended from error
            raise

    async def close(self) -> None:
        """Closes the client, and ends the engine."""
        await super().close()
        await self.engine.close()
