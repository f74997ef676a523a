"""Pictures by Replicate, against a stand-in on loopback that the real `replicate` package takes for the service."""

import asyncio
import base64
import sys
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, TypeVar

import httpx
import pytest

from master_agent.errors import ImageError, SettingsError
from master_agent.fetch import Fetcher
from master_agent.images import ImageProvider, ImageRequest, Pictures
from master_agent.images.replicate import Replicate
from master_agent.retry import RetryPolicy
from tests.servers.replicate import BROKEN, TOKEN, Refusal, Script, StandIn, png, stand_in

T = TypeVar("T")
EPOCH = 1_772_366_400.0  # 2026-03-01 12:00:00 UTC, when everything at the stand-in happens


class Slept:
    """Waits for no time, and notes how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0.001)


def with_provider(
    server: StandIn, work: Callable[[Replicate], Coroutine[Any, Any, T]], allowed: tuple[str, ...] = (), **options: Any
) -> T:
    async def run() -> T:
        async with Fetcher([server.url.removeprefix("http://"), *allowed]) as fetcher:
            settings: dict[str, Any] = {"sleep": Slept(), "clock": lambda: EPOCH, **options}
            return await work(Replicate(fetcher, settings.pop("token", TOKEN), base_url=server.url, **settings))

    return asyncio.run(run())


def generate(server: StandIn, prompt: str = "A sunset", count: int = 1, **options: Any) -> Pictures:
    request = ImageRequest(prompt, "16:9", count, seed=7)
    return with_provider(server, lambda provider: provider.generate(request), **options)


def fails(script: Script, **options: Any) -> tuple[ImageError, StandIn]:
    with stand_in(script) as server:
        with pytest.raises(ImageError) as caught:
            generate(server, **options)
        return caught.value, server


# What is asked for, and what comes of it


def test_a_picture_is_asked_for_waited_for_and_fetched() -> None:
    with stand_in() as server:
        pictures = generate(server)
    (picture,) = pictures.pictures
    assert picture.content == png()
    assert picture.source_url == f"{server.url}/files/p0/0.png"
    assert picture.expires_at == "2026-03-01T13:00:00Z"
    assert (pictures.provider, pictures.model, pictures.seed) == ("replicate", "black-forest-labs/flux-schnell", 7)
    assert (pictures.remote_id, pictures.note) == ("p0", None)
    assert [request.kind for request in server.requests] == ["create", "poll", "poll", "poll", "file"]


def test_the_request_holds_what_the_model_takes() -> None:
    with stand_in() as server:
        generate(server, count=2)
        (create,) = server.seen("create")
    assert create.path == "/v1/models/black-forest-labs/flux-schnell/predictions"
    assert create.json == {
        "input": {
            "prompt": "A sunset",
            "aspect_ratio": "16:9",
            "seed": 7,
            "num_outputs": 2,
            "go_fast": False,
            "output_format": "webp",
        }
    }
    assert create.headers["authorization"] == f"Bearer {TOKEN}"
    assert create.headers["cancel-after"] == "305s"
    assert "prefer" not in create.headers


def test_a_model_of_a_version_is_asked_for_by_its_version() -> None:
    with stand_in() as server:
        generate(server, model="someone/painter:abc123")
        (create,) = server.seen("create")
    assert create.path == "/v1/predictions"
    assert create.json == {"version": "abc123", "input": {"prompt": "A sunset", "aspect_ratio": "16:9", "seed": 7}}


def test_a_model_that_makes_one_picture_at_a_time_is_asked_again_with_the_next_seed() -> None:
    with stand_in() as server:
        pictures = generate(server, model="someone/painter", count=3)
        assert [request.json["input"]["seed"] for request in server.seen("create")] == [7, 8, 9]
    assert len(pictures.pictures) == 3
    assert pictures.remote_id == "p0, p1, p2"


def test_pictures_that_were_paid_are_kept_when_a_later_one_fails() -> None:
    with stand_in(Script(create=(None, Refusal(402, "Insufficient credit")))) as server:
        pictures = generate(server, model="someone/painter", count=3)
        assert len(server.seen("create")) == 2
    assert len(pictures.pictures) == 1
    assert pictures.note
    assert "only 1 of 3 pictures came" in pictures.note
    assert "Insufficient credit" in pictures.note


def test_pictures_that_came_are_kept_when_another_cannot_be_fetched() -> None:
    with stand_in(Script(file=(None, Refusal(404)))) as server:
        pictures = generate(server, count=3)
    assert [(picture.source_url or "")[-5:] for picture in pictures.pictures] == ["0.png", "2.png"]
    assert pictures.note
    assert "only 2 of 3 pictures came: the picture was made, but could not be fetched" in pictures.note


def test_a_model_without_a_seed_does_not_claim_one() -> None:
    with stand_in() as server:
        pictures = generate(server, model="google/nano-banana-pro")
        assert "seed" not in server.seen("create")[0].json["input"]
    assert pictures.seed is None


@pytest.mark.parametrize("model", ["flux", "a/b/c", "a/", "a/b:", "../../v1/files", "a/b?x=y"])
def test_what_names_no_model_is_a_settings_error(model: str) -> None:
    with pytest.raises(SettingsError, match="no model of Replicate"):
        Replicate(Fetcher(), TOKEN, model=model)


def test_a_picture_costs_money() -> None:
    provider: ImageProvider = Replicate(Fetcher(), TOKEN)
    assert provider.paid


@pytest.mark.parametrize("output", ["list", "text", "map", "nested", "data"])
def test_an_output_of_any_shape_gives_its_picture(output: Any) -> None:
    with stand_in(Script(output=output)) as server:
        (picture,) = generate(server).pictures
    assert picture.content == png()
    assert (picture.source_url is None) is (output == "data")


def test_several_outputs_give_several_pictures() -> None:
    with stand_in(Script(output="nested")) as server:
        pictures = generate(server, count=4)
    assert [picture.source_url for picture in pictures.pictures] == [f"{server.url}/files/p0/{n}.png" for n in range(4)]


@pytest.mark.parametrize("output", ["nothing", "words"])
def test_success_without_a_picture_is_an_error(output: Any) -> None:
    error, _ = fails(Script(output=output))
    assert "succeeded without a picture" in error.message


def test_a_picture_that_is_gone_is_not_made_again() -> None:
    error, server = fails(Script(file=(Refusal(404),) * 9))
    assert (error.type, error.retryable) == ("image_failed", False)
    assert "the picture was made, but could not be fetched" in error.message
    assert "404" in error.message
    assert error.hint is not None
    assert "Until 2026-03-01T13:00:00Z it may be at http://127.0.0.1:" in error.hint
    assert (len(server.seen("create")), len(server.seen("file"))) == (1, 1)


def test_a_page_that_is_called_a_picture_is_an_error() -> None:
    error, _ = fails(Script(output="page"))
    assert error.type == "image_failed"
    assert "no picture" in error.message
    assert "<html>" in error.message
    assert error.hint
    assert "/files/p0/page.png" in error.hint


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("failed", "failed: NSFW"),
        ("canceled", "cancelled"),
        ("aborted", "given up"),
        ("exploded", 'ended as "exploded"'),
    ],
)
def test_an_end_other_than_success_is_an_error_that_says_which(end: str, words: str) -> None:
    error, server = fails(Script(end=end, error="NSFW" if end == "failed" else None))
    assert words in error.message
    assert len(server.seen("create")) == 1
    assert not error.retryable


def test_the_way_of_a_prediction_is_built_from_our_base_and_not_from_the_answer() -> None:
    with stand_in(Script(urls="http://127.0.0.1:1")) as server:
        assert generate(server).pictures


# The token


def test_the_token_is_not_sent_to_where_the_pictures_are() -> None:
    with (
        stand_in() as elsewhere,
        stand_in(Script(output="elsewhere", elsewhere=f"{elsewhere.url}/files/p/0.png")) as api,
    ):
        generate(api, allowed=(elsewhere.url.removeprefix("http://"),))
        generate(api, allowed=(elsewhere.url.removeprefix("http://"),))
    for server in (elsewhere, api):
        for request in server.requests:
            assert ("authorization" in request.headers) is (request.kind != "file")
    assert len(elsewhere.seen("file")) == 2


def test_an_output_on_a_private_address_is_not_fetched() -> None:
    error, _ = fails(Script(output="elsewhere", elsewhere="http://169.254.169.254/latest/meta-data"))
    assert error.type == "fetch_refused"
    assert "not a public address" in error.message


def test_a_wrong_token_is_answered_with_what_to_do() -> None:
    error, server = fails(Script(), token="r8_wrong")
    assert error.type == "missing_token"
    assert error.hint
    assert "REPLICATE_API_TOKEN" in error.hint
    assert "r8_wrong" not in error.message + error.hint
    assert len(server.requests) == 1


def test_a_token_with_a_line_end_around_it_works() -> None:
    with stand_in() as server:
        assert generate(server, token=f" {TOKEN}\n").pictures


# Refusals


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (402, "image_failed", "credit"),
        (403, "permission", "no"),
        (404, "model_not_found", "no"),
        (302, "image_failed", "302"),
    ],
)
def test_a_refusal_says_what_it_means_and_is_not_tried_again(status: int, kind: str, words: str) -> None:
    error, server = fails(Script(create=(Refusal(status),)))
    assert (error.type, error.retryable) == (kind, False)
    assert words in error.message
    assert len(server.requests) == 1


def test_a_wrong_input_is_answered_with_the_detail() -> None:
    error, server = fails(Script(create=(Refusal(422, "- input.seed: must be less than 100\n"),)))
    assert error.type == "bad_request"
    assert "input.seed: must be less than 100" in error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id": "../../x"}', b'{"id": null}', b"[" * 100_000])
def test_an_answer_that_is_no_prediction_is_an_error(body: bytes) -> None:
    error, server = fails(Script(create=(Refusal(200, body=body),)))
    assert error.type == "malformed_reply"
    assert len(server.requests) == 1


# Trying again


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), (format_datetime(datetime.fromtimestamp(EPOCH + 11, UTC), usegmt=True), 11.0)],
)
def test_a_create_that_comes_too_early_waits_as_long_as_it_is_told(header: str, seconds: float) -> None:
    slept = Slept()
    with stand_in(Script(create=(Refusal(429, headers={"retry-after": header}),))) as server:
        assert generate(server, sleep=slept).pictures
        assert len(server.seen("create")) == 2
        assert len(server.predictions) == 1
    assert seconds <= slept.seconds[0] <= seconds + 0.2


@pytest.mark.parametrize(
    "refusal", [Refusal(500, accepts=True), Refusal(503, accepts=True), Refusal(BROKEN, accepts=True)]
)
def test_a_create_that_may_have_been_accepted_is_never_sent_again(refusal: Refusal) -> None:
    error, server = fails(Script(create=(refusal,)))
    assert len(server.predictions) == 1
    assert len(server.seen("create")) == 1
    assert not error.retryable


def test_a_create_that_is_not_answered_in_time_is_never_sent_again() -> None:
    with stand_in(Script(create=(Refusal(500, accepts=True, delay=0.6),))) as server:

        async def run() -> None:
            async with Fetcher([server.url.removeprefix("http://")], timeout=0.2) as fetcher:
                with pytest.raises(ImageError, match="fell silent") as caught:
                    await Replicate(fetcher, TOKEN, base_url=server.url).generate(ImageRequest("x"))
                assert not caught.value.retryable
                assert caught.value.hint
                assert "may have been accepted" in caught.value.hint

        asyncio.run(run())
        assert len(server.seen("create")) == 1


def test_a_create_that_reached_nobody_is_sent_again() -> None:
    slept = Slept()
    with stand_in() as server:
        port = server.server_port
    # Nobody listens there any more.

    async def run() -> None:
        async with Fetcher(["127.0.0.1"]) as fetcher:
            provider = Replicate(
                fetcher, TOKEN, base_url=f"http://127.0.0.1:{port}", sleep=slept, policy=RetryPolicy(attempts=3)
            )
            with pytest.raises(ImageError, match="cannot be reached") as caught:
                await provider.generate(ImageRequest("x"))
            assert caught.value.type == "connection"

    asyncio.run(run())
    assert len(slept.seconds) == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, BROKEN])
def test_a_look_that_fails_is_tried_again(status: int) -> None:
    with stand_in(Script(poll=(Refusal(status), Refusal(status)))) as server:
        assert generate(server).pictures
        assert len(server.predictions) == 1
        assert len(server.seen("poll")) == 5


def test_a_picture_that_cannot_be_fetched_at_first_is_fetched_again() -> None:
    with stand_in(Script(file=(Refusal(503), Refusal(BROKEN)))) as server:
        assert generate(server).pictures
        assert len(server.predictions) == 1


# Stopping


def test_a_prediction_that_never_ends_is_cancelled_at_the_deadline() -> None:
    error, server = fails(Script(end="never"), timeout=0.3)
    assert "did not end within 0.3 seconds" in error.message
    assert server.running == []
    assert server.predictions["p0"]["status"] == "canceled"


def test_a_cancel_that_fails_is_tried_again() -> None:
    _, server = fails(Script(end="never", cancel=(Refusal(500), Refusal(BROKEN))), timeout=0.3)
    assert server.running == []
    assert len(server.seen("cancel")) == 3


def test_looks_that_keep_failing_cancel_the_prediction() -> None:
    error, server = fails(Script(poll=(Refusal(500),) * 20), policy=RetryPolicy(attempts=2))
    assert error.type == "server_error"
    assert server.running == []
    assert server.predictions["p0"]["status"] == "canceled"


def cancel_when(server: StandIn, ready: Callable[[], bool], times: int = 1) -> float:
    """Cancels a generation once something is so; how many seconds it then took to end."""

    async def work(provider: Replicate) -> float:
        task = asyncio.create_task(provider.generate(ImageRequest("x")))
        while not ready():  # noqa: ASYNC110 - what it waits for happens in the stand-in's thread
            await asyncio.sleep(0.005)
        started = time.monotonic()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - started

    return with_provider(server, work)


def test_who_is_cancelled_cancels_the_prediction() -> None:
    with stand_in(Script(end="never")) as server:
        cancel_when(server, lambda: len(server.seen("poll")) > 1)
        assert server.running == []
        assert len(server.seen("cancel")) == 1


def test_who_is_cancelled_while_asking_cancels_what_was_asked_for() -> None:
    with stand_in(Script(end="never", create_delay=0.3)) as server:
        cancel_when(server, lambda: len(server.predictions) == 1)
        assert server.running == []
        assert server.predictions["p0"]["status"] == "canceled"


def test_who_is_cancelled_twice_does_not_wait() -> None:
    with stand_in(Script(end="never", cancel=(Refusal(500, delay=1.5),))) as server:
        assert cancel_when(server, lambda: len(server.seen("poll")) > 1, times=2) < 1.0


def test_what_has_ended_is_not_cancelled() -> None:
    _, server = fails(Script(output="page"))
    assert server.seen("cancel") == []


def test_looks_become_rarer() -> None:
    slept = Slept()
    with stand_in(Script(polls=12)) as server:
        generate(server, sleep=slept)
    assert slept.seconds == sorted(slept.seconds)
    assert (slept.seconds[0], slept.seconds[-1]) == (0.5, 3.0)


# The stand-in itself, as the real package sees it


Connect = Callable[..., Any]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A client of the real package, connected to a stand-in."""
    if sys.version_info >= (3, 14):
        pytest.skip("the replicate package cannot be imported on Python 3.14")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("replicate")
    with ExitStack() as opened:

        def client(server: StandIn, token: str = TOKEN) -> Any:
            transport = opened.enter_context(httpx.HTTPTransport())
            return package.Client(api_token=token, base_url=server.url, transport=transport)

        yield client


def test_the_package_of_the_service_gets_its_picture_from_the_stand_in(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.01")
    with stand_in() as server:
        prediction = connect(server).models.predictions.create(
            model=("black-forest-labs", "flux-schnell"), input={"prompt": "x", "num_outputs": 2}
        )
        assert (prediction.id, prediction.status, server.running) == ("p0", "starting", ["p0"])
        prediction.wait()
        assert prediction.status == "succeeded"
        assert prediction.output == [f"{server.url}/files/p0/0.png", f"{server.url}/files/p0/1.png"]
        assert server.running == []


def test_the_package_of_the_service_runs_a_model_at_the_stand_in(connect: Connect) -> None:
    with stand_in(Script(output="data")) as server:
        (output,) = connect(server).run("owner/name", input={"prompt": "x"})
        assert output.read() == png()
        assert server.seen("create")[0].headers["prefer"] == "wait"
        (again,) = connect(server).run("owner/name", input={"prompt": "x"}, use_file_output=False)
        assert base64.b64decode(again.partition(",")[2]) == png()


def test_the_package_of_the_service_cancels_at_the_stand_in(connect: Connect) -> None:
    with stand_in(Script(end="never")) as server:
        prediction = connect(server).predictions.create(version="abc", input={"prompt": "x"})
        prediction.reload()
        assert prediction.status == "processing"
        prediction.cancel()
        assert server.running == []
        prediction.reload()
        assert prediction.status == "canceled"


def test_the_package_of_the_service_knows_the_failures_of_the_stand_in(connect: Connect) -> None:
    from importlib import import_module

    errors = import_module("replicate.exceptions")
    with stand_in(Script(end="failed", error="NSFW")) as server, pytest.raises(errors.ModelError) as failed:
        connect(server).run("owner/name", input={"prompt": "x"})
    assert failed.value.prediction.error == "NSFW"
    with stand_in(Script(create=(Refusal(402, "credit"),))) as server:
        for asked, token, status in (({"prompt": "x"}, TOKEN, 402), ({}, TOKEN, 422), ({"prompt": "x"}, "no", 401)):
            with pytest.raises(errors.ReplicateError) as refused:
                connect(server, token).run("owner/name", input=asked)
            assert refused.value.status == status
            assert refused.value.detail
