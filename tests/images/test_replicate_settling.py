"""Pictures that were asked for when a program died: looked up at Replicate and collected, and never bought again."""

import asyncio
from typing import Any

import pytest

from master_agent.errors import ImageError
from master_agent.fetch import Fetcher
from master_agent.images import ImageRequest, Pictures
from master_agent.images.replicate import LATECOMERS, Replicate
from tests.servers.replicate import TOKEN, Refusal, Script, StandIn, png, stand_in

MODEL = "black-forest-labs/flux-schnell"
INPUT = {
    "prompt": "A sunset",
    "aspect_ratio": "16:9",
    "seed": 7,
    "num_outputs": 1,
    "go_fast": False,
    "output_format": "webp",
}


def settle(server: StandIn, remote_id: str | None = None, **options: Any) -> Pictures | None:
    """What a new process finds of the request; `asleep` is told of each wait."""
    asleep = options.pop("asleep", lambda _seconds: None)

    async def sleep(seconds: float) -> None:
        asleep(seconds)
        await asyncio.sleep(0.001)

    async def work() -> Pictures | None:
        async with Fetcher([server.url.removeprefix("http://")]) as fetcher:
            provider = Replicate(fetcher, TOKEN, base_url=server.url, sleep=sleep, **options)
            return await provider.settle(ImageRequest("A sunset", "16:9", 1, seed=7), remote_id)

    return asyncio.run(work())


@pytest.mark.parametrize("remote_id", ["p1", None])
def test_a_prediction_is_found_by_its_id_or_by_its_input_and_collected(remote_id: str | None) -> None:
    with stand_in(Script(polls=2)) as server:
        server.make({"input": {**INPUT, "seed": 8}}, MODEL)
        server.make({"input": INPUT}, MODEL)
        pictures = settle(server, remote_id)

        assert pictures is not None
        assert (pictures.remote_id, pictures.seed) == ("p1", 7)
        assert [picture.content for picture in pictures.pictures] == [png()]
        assert server.seen("create") == []


def test_one_that_was_on_its_way_is_found_though_it_shows_late() -> None:
    waits: list[float] = []
    with stand_in() as server:

        def late(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:  # after the first look found nothing
                server.make({"input": INPUT}, MODEL)

        pictures = settle(server, asleep=late)

    assert pictures is not None
    assert pictures.remote_id == "p0"


def test_what_was_never_accepted_is_known_after_the_last_look() -> None:
    waits: list[float] = []
    with stand_in() as server:
        server.make({"input": {**INPUT, "prompt": "Another"}}, MODEL)

        assert settle(server, asleep=waits.append) is None
        assert len(server.seen("poll")) == 1 + len(LATECOMERS)
    assert waits == [0.0, *LATECOMERS]


@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_one_that_came_to_nothing_was_not_bought(end: str) -> None:
    with stand_in(Script(polls=1, end=end)) as server:
        server.make({"input": INPUT}, MODEL)

        assert settle(server) is None
        assert settle(server, "p0") is None


def test_one_that_replicate_has_forgotten_was_not_bought() -> None:
    with stand_in() as server:
        assert settle(server, "p9") is None


def test_where_replicate_does_not_answer_nobody_can_tell() -> None:
    refusals = tuple(Refusal(403) for _ in range(4))
    with stand_in(Script(poll=refusals)) as server, pytest.raises(ImageError, match="forbids"):
        settle(server)
