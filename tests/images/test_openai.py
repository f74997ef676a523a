"""Pictures by OpenAI, through its real SDK against a stand-in on loopback that refuses what OpenAI refuses."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from master_agent.errors import ImageError
from master_agent.images import ASPECT_RATIOS, ImageProvider, ImageRequest, Pictures
from master_agent.images.openai import OpenAIImages, size_of
from master_agent.retry import RetryPolicy
from tests.servers import chat
from tests.servers.chat import error, html, json_body, status
from tests.servers.images import MODELS, USAGE, ImageServer, encoded, pictures, png
from tests.servers.loopback import Behaviour

KEY = "sk-right-and-long-enough"


class Slept:
    """Waits for no time, and notes how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def provider(server: ImageServer, **options: Any) -> OpenAIImages:
    settings: dict[str, Any] = {"sleep": Slept(), "timeout": 10.0, **options}
    return OpenAIImages(settings.pop("api_key", KEY), settings.pop("base_url", server.base_url), **settings)


def generate(
    server: ImageServer, ratio: str = "1:1", count: int = 1, prompt: str = "A sunset", **opts: Any
) -> Pictures:
    return asyncio.run(provider(server, **opts).generate(ImageRequest(prompt, ratio, count, seed=7)))


def fails(*behaviours: Behaviour, **options: Any) -> tuple[ImageError, ImageServer]:
    with ImageServer(*behaviours) as server:
        with pytest.raises(ImageError) as caught:
            generate(server, **options)
        return caught.value, server


# What is asked for, and what comes of it


def test_a_picture_is_asked_for_and_its_bytes_come_back() -> None:
    with ImageServer(key=KEY) as server:
        made = generate(server, "16:9")
        (body,) = server.bodies
    asked = {"model": "gpt-image-2", "prompt": "A sunset", "n": 1, "size": "1280x720"}
    assert body == {**asked, "output_format": "png"}
    (picture,) = made.pictures
    assert picture.content == png(1280, 720)
    assert (picture.source_url, picture.expires_at) == (None, None)
    assert (made.provider, made.model, made.remote_id) == ("openai", "gpt-image-2", "req_1")


def test_several_pictures_come_of_one_request() -> None:
    with ImageServer() as server:
        made = generate(server, count=3)
        assert [body["n"] for body in server.bodies] == [3]
    assert [picture.content for picture in made.pictures] == [png(1024, 1024, number) for number in range(3)]


def test_the_seed_is_said_not_to_be_used_and_not_claimed() -> None:
    with ImageServer() as server:
        made = generate(server)
        assert "seed" not in server.bodies[0]
    assert made.seed is None
    assert made.note == "the seed was not used: OpenAI's image models take none"


def test_the_tokens_that_were_reported_are_counted() -> None:
    with ImageServer(pictures(usage=USAGE)) as server:
        usage = generate(server).usage
    assert (usage.input_tokens, usage.output_tokens, usage.complete) == (13, 1056, True)
    assert (usage.calls, usage.images) == (0, 0)


def test_tokens_that_were_not_reported_are_unknown_and_not_none() -> None:
    with ImageServer(pictures(usage=None)) as server:
        usage = generate(server).usage
    assert (usage.input_tokens, usage.output_tokens, usage.complete) == (None, None, False)


def test_a_picture_costs_money() -> None:
    paying: ImageProvider = OpenAIImages(KEY)
    assert paying.paid


# Sizes


@pytest.mark.parametrize("ratio", ASPECT_RATIOS)
@pytest.mark.parametrize("model", ["gpt-image-2", "gpt-image-2.5-flare", "gpt-image-3", "gpt-image-10-2027-01-01"])
def test_a_size_is_exactly_the_ratio_about_a_megapixel_and_in_steps_of_16(model: str, ratio: str) -> None:
    width, height = size_of(model, ratio)
    wide, high = map(int, ratio.split(":"))
    assert width * high == height * wide
    assert (width % 16, height % 16) == (0, 0)
    assert 0.85 <= width * height / 1024**2 <= 1.15
    assert 1 / 3 <= width / height <= 3


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("1:1", "1024x1024"),
        ("2:3", "1024x1536"),
        ("16:9", "1536x1024"),
        ("5:4", "1536x1024"),
    ],
)
@pytest.mark.parametrize("model", ["gpt-image-1", "gpt-image-1.5", "gpt-image-1-mini", "chatgpt-image-latest"])
def test_older_models_get_one_of_their_three_sizes(model: str, ratio: str, size: str) -> None:
    with ImageServer() as server:
        made = generate(server, ratio, model=model)
        assert server.bodies[0]["size"] == size
    assert made.note
    assert (f"{model} has no {ratio}: the picture is" in made.note) is (ratio not in ("1:1", "2:3"))


def test_a_ratio_that_there_is_not_is_refused_before_anything_is_paid() -> None:
    caught, server = fails(ratio="7:1")
    assert '"7:1"' in caught.message
    assert server.requests == []


def test_a_model_of_another_server_is_told_to_send_the_picture_itself() -> None:
    with ImageServer() as server:
        generate(server, "9:16", model="stable-diffusion")
        (body,) = server.bodies
    assert (body["response_format"], body["size"]) == ("b64_json", "1024x1536")
    assert "output_format" not in body


def test_half_a_character_in_a_prompt_does_not_stop_it() -> None:
    with ImageServer() as server:
        assert generate(server, prompt="A sunset \ud83c").pictures


# Refusals


def test_a_wrong_key_names_its_variable_and_is_not_printed() -> None:
    with ImageServer(key=KEY) as server, pytest.raises(ImageError) as caught:
        generate(server, api_key="sk-wrong-and-long-enough")
    assert caught.value.type == "missing_token"
    assert caught.value.hint
    assert "OPENAI_API_KEY" in caught.value.hint
    assert "sk-wrong" not in caught.value.message + caught.value.hint
    assert len(server.orders) == 1


def test_a_key_that_can_be_none_is_refused_without_a_request() -> None:
    caught, server = fails(api_key="sk-with a space")
    assert caught.type == "missing_token"
    assert server.requests == []


@pytest.mark.parametrize(
    ("behaviour", "kind", "words", "hint"),
    [
        (
            error(403, "Your organization must be verified to use gpt-image-2"),
            "permission",
            "verified",
            "OPENAI_API_KEY",
        ),
        (error(404, "The model does not exist", reason="model_not_found"), "model_not_found", "exist", "--image-model"),
        (error(400, "Unknown model: gpt-image-9"), "model_not_found", "gpt-image-9", "--image-model"),
        (error(404, "Invalid URL (POST /v1/images/generations)"), "bad_request", "404", "--image-provider"),
        (error(400, "Invalid size"), "bad_request", "Invalid size", None),
        (error(429, "You exceeded your quota", reason="insufficient_quota"), "rate_limited", "quota", "no credit"),
        (error(400, "Hard limit", reason="billing_hard_limit_reached"), "rate_limited", "Hard limit", "no credit"),
        (status(302, "", {"location": "https://elsewhere.example"}), "bad_request", "elsewhere.example", None),
    ],
)
def test_a_refusal_says_what_it_means_and_is_not_tried_again(
    behaviour: Behaviour, kind: str, words: str, hint: str | None
) -> None:
    caught, server = fails(behaviour)
    assert (caught.type, caught.retryable) == (kind, False)
    assert words in caught.message
    assert (hint or "") in (caught.hint or "")
    assert "paid" not in (caught.hint or "")
    assert len(server.orders) == 1


@pytest.mark.parametrize("code", ["moderation_blocked", "content_policy_violation"])
def test_a_prompt_that_moderation_refuses_is_said_to_be_and_not_sent_again(code: str) -> None:
    caught, server = fails(error(400, "Your request was rejected. safety_violations=[violence].", reason=code))
    assert (caught.type, caught.retryable) == ("refused", False)
    assert "the prompt was refused" in caught.message
    assert "safety_violations=[violence]" in caught.message
    assert caught.hint == "The same prompt will be refused again: let the picture show something else."
    assert len(server.orders) == 1


# Answers that hold no picture


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (json_body({"created": 1, "data": []}), "malformed_reply", "without a picture"),
        (json_body({"created": 1, "data": None}), "malformed_reply", "no pictures"),
        (json_body([1]), "malformed_reply", "no pictures"),
        (html(), "malformed_reply", "<html>"),
        (status(200, "[" * 100_000), "malformed_reply", "[[["),
        (pictures({"b64_json": "Zm9v*"}), "malformed_reply", "cannot be decoded: 'Zm9v*'"),
        (pictures({"b64_json": "¡ñ!"}), "malformed_reply", "cannot be decoded"),
        (pictures({"url": "https://x.example/p.png"}), "malformed_reply", "without b64_json (it has: ['url'])"),
        (pictures(encoded(b"<html>not found</html>")), "image_failed", "no picture"),
        (pictures(encoded(png(64, 64)[:100])), "image_failed", "no picture"),
        (chat.nothing(), "connection", "no connection"),
    ],
)
def test_an_answer_without_a_picture_is_an_error_that_may_be_paid_and_is_not_asked_for_again(
    behaviour: Behaviour, kind: str, words: str
) -> None:
    caught, server = fails(behaviour)
    assert (caught.type, caught.retryable) == (kind, False)
    assert words in caught.message
    assert caught.hint
    assert "may have been made and paid for" in caught.hint
    assert len(server.orders) == 1


def test_an_error_that_comes_as_a_success_is_an_error() -> None:
    caught, server = fails(json_body({"error": {"message": "No GPU is left", "code": "rate_limit_exceeded"}}))
    assert (caught.type, "reported: No GPU is left" in caught.message) == ("rate_limited", True)
    assert len(server.orders) == 1


def test_pictures_that_were_paid_are_kept_when_another_is_broken() -> None:
    with ImageServer(pictures(encoded(png()), encoded(b"oops"), encoded(png(shade=9)))) as server:
        made = generate(server, count=3)
    assert [picture.content for picture in made.pictures] == [png(), png(shade=9)]
    assert made.note
    assert "only 2 of 3 pictures came: what came is no picture" in made.note


# Trying again: only what cannot have been bought


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "7"}, 7.0, 7.2),
        ({"retry-after-ms": "1500"}, 1.5, 1.7),
        ({}, 0.25, 0.5),
    ],
)
def test_a_request_that_comes_too_early_waits_as_long_as_it_is_told(
    headers: dict[str, str], least: float, most: float
) -> None:
    slept = Slept()
    with ImageServer(status(429, None, headers)) as server:
        assert generate(server, sleep=slept).pictures
        assert len(server.orders) == 2
    (seconds,) = slept.seconds
    assert least <= seconds <= most


def test_a_time_of_day_to_come_back_at_is_waited_for() -> None:
    slept = Slept()
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with ImageServer(status(429, None, {"retry-after": at})) as server:
        assert generate(server, sleep=slept, timeout=300.0).pictures
    (seconds,) = slept.seconds
    assert 40 <= seconds <= 60.2


def test_a_wait_that_is_longer_than_all_its_time_is_not_begun() -> None:
    slept = Slept()
    caught, server = fails(status(429, None, {"retry-after": "60"}), sleep=slept, timeout=30.0)
    assert (caught.type, caught.hint) == ("rate_limited", "It asks to wait 60 seconds; try again then.")
    assert (len(server.orders), slept.seconds) == (1, [])


@pytest.mark.parametrize(
    "behaviour", [status(500), status(502, "<html>"), status(503, None, {"retry-after": "1"}), status(408), status(409)]
)
def test_a_request_that_may_have_been_accepted_is_never_sent_again(behaviour: Behaviour) -> None:
    caught, server = fails(behaviour)
    assert not caught.retryable
    assert caught.hint
    assert "may have been made and paid for" in caught.hint
    assert len(server.orders) == 1


def test_a_request_whose_connection_breaks_is_never_sent_again() -> None:
    caught, server = fails(chat.reset())
    assert (caught.type, caught.retryable) == ("connection", False)
    assert caught.hint
    assert "may have been made and paid for" in caught.hint
    assert len(server.orders) == 1


def test_a_request_that_is_not_answered_in_time_is_never_sent_again() -> None:
    with ImageServer(chat.hang_before_first_byte()) as server:
        with pytest.raises(ImageError, match=r"did not make the picture within 0\.3 s") as caught:
            generate(server, timeout=0.3)
        assert server.wait_for(lambda: server.open_requests == 0)
        assert len(server.orders) == 1
    assert (caught.value.type, caught.value.retryable) == ("model_timeout", False)
    assert caught.value.hint
    assert "may have been made and paid for" in caught.value.hint


def test_a_request_that_reached_nobody_is_sent_again() -> None:
    slept = Slept()
    with ImageServer() as server:
        base_url = server.base_url
    # Nobody listens there any more.
    with pytest.raises(ImageError, match="no connection") as caught:
        generate(server, base_url=base_url, sleep=slept, policy=RetryPolicy(attempts=3))
    assert caught.value.type == "connection"
    assert "paid" not in (caught.value.hint or "")
    assert len(slept.seconds) == 2


# Stopping


def test_who_is_cancelled_closes_the_connection_at_once() -> None:
    async def work() -> float:
        task = asyncio.create_task(provider(server).generate(ImageRequest("x")))
        await asyncio.to_thread(server.wait_for, lambda: server.open_requests == 1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.wait_for, lambda: server.open_requests == 0)
        return time.monotonic() - began

    with ImageServer(chat.hang_before_first_byte()) as server:
        assert asyncio.run(work()) < 1.0
        assert (server.closed_by_client, len(server.orders)) == (1, 1)


def test_pictures_are_made_side_by_side() -> None:
    async def work() -> list[Pictures]:
        openai = provider(server)
        return await asyncio.gather(*(openai.generate(ImageRequest(f"picture {number}")) for number in range(4)))

    with ImageServer(*[pictures(delay=0.2)] * 4) as server:
        assert len(asyncio.run(work())) == 4
        assert server.most_open == 4


# Looking without paying


def test_a_check_lists_the_models_and_buys_nothing() -> None:
    with ImageServer(key=KEY) as server:
        said = asyncio.run(provider(server).check())
        assert [(one.method, one.path) for one in server.requests] == [("GET", "/v1/models")]
    assert "the key is taken" in said
    assert "gpt-image-2" in said


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"models": MODELS[1:]}, "model_not_found", "does not offer gpt-image-2; it offers gpt-image-1.5"),
        ({"key": "sk-another-key-altogether"}, "missing_token", "401"),
        ({"listing": html()}, "malformed_reply", "a list of models"),
        ({"listing": json_body({"data": 3})}, "malformed_reply", "a list of models"),
        ({"listing": status(503)}, "server_error", "503"),
    ],
)
def test_a_check_that_finds_no_pictures_says_why(options: dict[str, Any], kind: str, words: str) -> None:
    with ImageServer(**options) as server, pytest.raises(ImageError) as caught:
        asyncio.run(provider(server).check())
    assert caught.value.type == kind
    assert words in caught.value.message
    assert "paid" not in (caught.value.hint or "")
    assert "sk-" not in caught.value.message


def test_the_environment_gives_neither_key_nor_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-environment")
    with ImageServer() as server:
        generate(server)
        (order,) = server.orders
    assert order.headers["authorization"] == f"Bearer {KEY}"
    assert "org-of-the-environment" not in str(order.headers)
