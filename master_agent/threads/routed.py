"""One wire for several providers: an agent's model says which of them is asked, and what it is called there.

Each provider is reached when it is first asked, so that an agent nobody uses costs nothing and fails nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from master_agent.threads import AgentSpec, CallOptions, Capabilities, Reply, TextPiece, Thread, ThreadState, Turn, Wire

Whose = Callable[[str], tuple[str | None, str | None]]
"""From the name of a model to the route to it, None for the wire that is there, and its name at the end of it.

The name is None where there is only one model."""


class Routed:
    """`default` is asked for models without a route. All wires are of the same kind, so that a thread fits each."""

    def __init__(self, default: Wire, whose: Whose, reach: Callable[[str], Awaitable[Wire]]) -> None:
        self.name = default.name
        self._default = default
        self._whose = whose
        self._reach = reach
        self._reached: dict[str, Wire] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """What the provider can do that is asked where nobody says otherwise."""
        return self._default.capabilities

    async def open(self, agent: AgentSpec, state: ThreadState | None = None) -> Thread:
        """A thread at the provider of the agent's model; ModelError when it cannot be reached."""
        wire, model = await self.at(agent.model)
        return _Routed(await wire.open(replace(agent, model=model), state), agent)

    async def at(self, model: str | None) -> tuple[Wire, str | None]:
        """The wire that a model is asked over, and its name there; ModelError when its provider cannot be reached."""
        route, name = self._whose(model) if model else (None, None)
        return (self._default if route is None else await self._wire(route)), name

    async def models(self) -> list[str]:
        """Those of the provider that is asked where nobody says otherwise."""
        return await self._default.models()

    def keep_threads(self) -> None:
        """Asks `close` to leave on the servers what a later process needs to go on."""
        for wire in (self._default, *self._reached.values()):
            wire.keep_threads()

    async def close(self) -> None:
        """Lets go of every provider that was reached."""
        for wire in (self._default, *self._reached.values()):
            await wire.close()

    async def _wire(self, route: str) -> Wire:
        async with self._one_at_a_time:
            if route not in self._reached:
                self._reached[route] = await self._reach(route)
            return self._reached[route]


class _Routed:
    """A thread whose agent keeps the name of its model as it was given, with the provider before the colon."""

    def __init__(self, thread: Thread, agent: AgentSpec) -> None:
        self.agent = agent
        self._thread = thread

    @property
    def state(self) -> ThreadState:
        return self._thread.state

    async def send(self, turn: Turn, options: CallOptions) -> AsyncGenerator[TextPiece | Reply, None]:
        """One request, at the provider."""
        async with aclosing(self._thread.send(turn, options)) as parts:
            async for part in parts:
                yield part

    async def cancel(self) -> None:
        """Stops what runs on the server's side, if anything does."""
        await self._thread.cancel()
