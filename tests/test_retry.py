"""The retry layer: as often and as patiently as it should, and not at all where nothing can heal."""

import asyncio
import time

import pytest

from master_agent.errors import ModelError, ToolError
from master_agent.retry import RetryPolicy, retrying

HEALS = ModelError("busy", type="server_error", retryable=True)
LASTS = ModelError("wrong key", type="authentication")


def asked_to_wait(seconds: float) -> ModelError:
    return ModelError("slow down", type="rate_limited", retryable=True, retry_after=seconds)


class Trying:
    """Fails with the errors given, one an attempt, then succeeds; remembers the attempts' numbers and the waits."""

    def __init__(self, *errors: Exception, chance: float = 1.0) -> None:
        self.errors = errors
        self.chance = chance
        self.attempts: list[int] = []
        self.waits: list[float] = []

    def run(self, policy: RetryPolicy | None = None) -> str:
        return asyncio.run(
            retrying(self._attempt, policy or RetryPolicy(), sleep=self._sleep, chance=lambda: self.chance)
        )

    async def _attempt(self, number: int) -> str:
        self.attempts.append(number)
        if len(self.attempts) <= len(self.errors):
            raise self.errors[len(self.attempts) - 1]
        return "done"

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_what_succeeds_is_done_once_and_without_a_wait() -> None:
    trying = Trying()
    assert trying.run() == "done"
    assert (trying.attempts, trying.waits) == ([1], [])


def test_what_can_heal_is_tried_again_with_waits_that_double() -> None:
    trying = Trying(HEALS, HEALS, HEALS)
    assert trying.run() == "done"
    assert trying.attempts == [1, 2, 3, 4]
    assert trying.waits == [0.5, 1.0, 2.0]


def test_no_wait_is_longer_than_the_longest() -> None:
    trying = Trying(*[HEALS] * 9)
    trying.run(RetryPolicy(attempts=10, longest_wait=3.0))
    assert trying.waits == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]


def test_chance_shortens_a_wait_to_a_half_at_most() -> None:
    trying = Trying(HEALS, HEALS, chance=0.0)
    trying.run()
    assert trying.waits == [0.25, 0.5]


def test_the_last_error_is_raised_when_no_attempt_is_left_and_nobody_waits_for_it() -> None:
    last = ModelError("still busy", type="server_error", retryable=True)
    trying = Trying(HEALS, HEALS, last)
    with pytest.raises(ModelError) as caught:
        trying.run(RetryPolicy(attempts=3))
    assert caught.value is last
    assert (trying.attempts, len(trying.waits)) == ([1, 2, 3], 2)


@pytest.mark.parametrize("error", [LASTS, ToolError("no such file"), ValueError("a bug")])
def test_what_cannot_heal_is_not_tried_again(error: Exception) -> None:
    trying = Trying(error)
    with pytest.raises(type(error)):
        trying.run()
    assert (trying.attempts, trying.waits) == ([1], [])


def test_a_failure_that_cannot_heal_ends_what_began_with_one_that_can() -> None:
    trying = Trying(HEALS, LASTS)
    with pytest.raises(ModelError, match="wrong key"):
        trying.run()
    assert trying.attempts == [1, 2]


@pytest.mark.parametrize("seconds", [0.0, 0.04, 7.0, 100.0])
def test_a_servers_retry_after_is_waited_for_and_hardly_longer(seconds: float) -> None:
    for chance in (0.0, 1.0):
        trying = Trying(asked_to_wait(seconds), chance=chance)
        trying.run(RetryPolicy(longest_wait=1.0))
        assert trying.waits == [pytest.approx(seconds + 0.1 * chance)]


def test_a_retry_after_that_is_too_long_ends_the_trying() -> None:
    trying = Trying(asked_to_wait(121))
    with pytest.raises(ModelError, match="slow down"):
        trying.run(RetryPolicy(longest_retry_after=120))
    assert (trying.attempts, trying.waits) == ([1], [])


def test_a_server_that_says_when_to_come_back_is_tried_twice_as_often() -> None:
    trying = Trying(*[asked_to_wait(2)] * 5)
    trying.run(RetryPolicy(attempts=3))
    assert trying.attempts == [1, 2, 3, 4, 5, 6]

    trying = Trying(*[asked_to_wait(2)] * 6)
    with pytest.raises(ModelError, match="slow down"):
        trying.run(RetryPolicy(attempts=3))
    assert trying.attempts == [1, 2, 3, 4, 5, 6]


def test_one_that_breaks_after_that_is_tried_no_longer() -> None:
    trying = Trying(*[asked_to_wait(2)] * 3, HEALS)
    with pytest.raises(ModelError):
        trying.run(RetryPolicy(attempts=3))
    assert trying.attempts == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [HEALS, asked_to_wait(2)])
def test_one_attempt_means_one(error: ModelError) -> None:
    trying = Trying(error)
    with pytest.raises(ModelError):
        trying.run(RetryPolicy(attempts=1))
    assert trying.attempts == [1]


def test_a_wait_can_be_cancelled() -> None:
    async def fails(_: int) -> None:
        raise asked_to_wait(60)

    async def run() -> None:
        task = asyncio.ensure_future(retrying(fails, RetryPolicy()))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - begun < 5
