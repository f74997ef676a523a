"""Between a run and the ports to models, pictures and addresses: records what passes there, or gives what was recorded.

A Deck is what is put around the ports of a run: this one does nothing; `tapes` has those that record and replay.
"""

import asyncio
from collections.abc import Callable

from master_agent.fetch import Fetcher
from master_agent.images import ImageProvider
from master_agent.threads import Call
from master_agent.tools import ToolCall

MakeImages = Callable[[], ImageProvider]


class Deck:
    """Does nothing: whatever is asked goes out."""

    def calls(self, call: Call) -> Call:
        """The layer around one attempt of a request to a model."""
        return call

    def images(self, make: MakeImages, _call: ToolCall) -> ImageProvider:
        """Who makes pictures for one use of a tool."""
        return make()

    def fetcher(self, fetcher: Fetcher, _call: ToolCall) -> Fetcher:
        """What fetches from addresses for one use of a tool."""
        return fetcher

    async def sleep(self, seconds: float) -> None:
        """Waits between two attempts."""
        await asyncio.sleep(seconds)

    def finish(self) -> None:
        """Looks at a run that has come to its end; raises when it should not have come to this one."""
