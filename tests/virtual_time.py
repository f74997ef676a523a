"""Time that passes only when everybody waits: hours of latency in no time at all, and the same in every run."""

import asyncio
import selectors
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting, it is later."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again: everybody waits for somebody"
            self.now += max(timeout, 0)
        return ready


def run_in_virtual_time(work: Awaitable[T]) -> T:
    """What the work comes to. The loop's clock starts at 0; `asyncio.get_running_loop().time()` tells it."""
    selector = _Jumping()

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = lambda: selector.now  # type: ignore[method-assign]
        return loop

    async def wait() -> T:
        return await work

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(wait())
