"""From a request to pictures made by Replicate, spoken in its four HTTP calls: create, poll, cancel, fetch the output.

A picture is bought once: a create that may have been accepted is never sent again, and one that nobody waits for any
more is cancelled. Facts about the service: https://replicate.com/docs/reference/http.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from pydantic import JsonValue

from master_agent.errors import FetchRefusedError, ImageError, SettingsError, ToolError
from master_agent.fetch import Answer, Fetcher, UnreachableError
from master_agent.images import ImageRequest, Picture, Pictures, measure
from master_agent.images._predictions import KNOWN_MODELS, ModelInputs, Prediction, addresses, decoded, detail
from master_agent.retry import RetryPolicy, retrying

BASE_URL = "https://api.replicate.com"
MODEL = "black-forest-labs/flux-schnell"
CALL_TIMEOUT = 30.0  # seconds for one call
CANCEL_TIMEOUT = 8.0  # seconds for the farewell of somebody who may have pressed Ctrl-C
FIRST_POLL, LONGEST_POLL = 0.5, 3.0  # seconds between looks
LIFETIME = timedelta(hours=1)  # of what an output's address gives
MOST_OUTPUTS = 8
LATECOMERS = (1.0, 3.0)  # seconds between looks for what may have been asked for when a process died

_MODEL = re.compile(r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?::(?P<version>[\w.-]+))?")
_ID = re.compile(r"[\w-]+")


class Replicate:
    """Makes pictures with a model of Replicate, `owner/name` or `owner/name:version`.

    `timeout` is in seconds, from the first call to the end of the model's work. `sleep` and `clock` (seconds since the
    epoch) are the world's, unless a test brings its own.
    """

    name = "replicate"
    paid = True

    def __init__(
        self,
        fetcher: Fetcher,
        token: str,
        *,
        base_url: str = BASE_URL,
        model: str = MODEL,
        timeout: float = 300.0,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        named = _MODEL.fullmatch(model)
        if named is None:
            raise SettingsError(f'"{model}" is no model of Replicate', hint=f"Name one as owner/name, such as {MODEL}.")
        self.model = model
        self._version = named["version"]
        self._path = "/v1/predictions" if self._version else f"/v1/models/{named['owner']}/{named['name']}/predictions"
        self._inputs = KNOWN_MODELS.get(f"{named['owner']}/{named['name']}", ModelInputs())
        self._fetcher = fetcher
        self._token = token.strip()
        self._base = base_url.rstrip("/")
        self._timeout = timeout
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._clock = clock

    async def generate(self, request: ImageRequest) -> Pictures:
        """The pictures; ImageError when there are none. Cancelling it cancels what runs on Replicate's side."""
        if self._inputs.count:
            batches = [request]
        else:
            seeds = [(request.seed + number) % 2**31 for number in range(request.count)]
            batches = [replace(request, count=1, seed=seed) for seed in seeds]
        made = _Made()
        for batch in batches:
            try:
                await self._make(batch, made)
            except ImageError as error:
                made.failure = error  # what was made before is paid and kept
                break
        if not made.pictures and made.failure:
            raise made.failure
        note = None
        if len(made.pictures) < request.count:
            why = f": {made.failure.message}" if made.failure else ""
            note = f"only {len(made.pictures)} of {request.count} pictures came{why}"
        seed = request.seed if "seed" in self._inputs.fields else None
        return Pictures(tuple(made.pictures), self.name, self.model, seed, ", ".join(made.ids), note)

    async def check(self) -> str:
        """Asks whose token it is, which costs nothing; ImageError when the token is refused or nobody answers."""
        answer = await self._call("GET", "/v1/account")
        try:
            account = json.loads(answer.body)["username"]
        except (ValueError, KeyError, TypeError):
            raise ImageError("Replicate's answer names no account", type="malformed_reply") from None
        return f"the token of {account} is taken; model {self.model}"

    async def _make(self, request: ImageRequest, made: "_Made") -> None:
        """Adds the pictures of one prediction to what was made."""
        running = ""
        try:
            async with asyncio.timeout(self._timeout):
                prediction = await retrying(lambda _: self._create(request), self._policy, sleep=self._sleep)
                running = prediction.id
                prediction = await self._ended(prediction, request.began)
        except TimeoutError:
            raise self._late(running) from None
        await self._collect(prediction, made)

    async def settle(self, request: ImageRequest, remote_id: str | None) -> Pictures | None:
        """The pictures of a prediction that an earlier process asked for, found by its id or by its input and seed.

        None when Replicate knows of none, or of one that came to nothing: then nothing was bought.
        """
        if request.count > 1 and not self._inputs.count:
            raise ImageError("pictures that were asked for one by one cannot be looked up", type="effect_unverified")
        prediction = await self._known(remote_id) if remote_id else await self._found(self._inputs.of(request))
        if prediction is None:
            return None
        async with asyncio.timeout(self._timeout):
            prediction = await self._ended(prediction)
        if prediction.status != "succeeded":
            return None
        made = _Made()
        await self._collect(prediction, made)
        if not made.pictures and made.failure:
            raise made.failure
        seed = request.seed if "seed" in self._inputs.fields else None
        return Pictures(tuple(made.pictures), self.name, self.model, seed, ", ".join(made.ids))

    async def _known(self, prediction: str) -> "Prediction | None":
        try:
            answer = await retrying(
                lambda _: self._call("GET", f"/v1/predictions/{prediction}"), self._policy, sleep=self._sleep
            )
        except ImageError as error:
            if error.type == "model_not_found":
                return None  # Replicate has never heard of it, or has forgotten it
            raise
        return self._prediction(answer)

    async def _found(self, sent: Mapping[str, JsonValue]) -> "Prediction | None":
        """The newest prediction of that input, among those that Replicate lists first.

        One that was on its way when its process died may show only a little later, so it is looked for more than once.
        """
        for wait in (0.0, *LATECOMERS):
            await self._sleep(wait)
            for entry in await self._listed():
                if not isinstance(entry, dict):
                    continue
                given = entry.get("input")
                if isinstance(given, dict) and all(given.get(name) == value for name, value in sent.items()):
                    return await self._known(str(entry.get("id")))
        return None

    async def _listed(self) -> list[JsonValue]:
        answer = await retrying(lambda _: self._call("GET", "/v1/predictions"), self._policy, sleep=self._sleep)
        try:
            listed = json.loads(answer.body)["results"]
        except (ValueError, KeyError, TypeError):
            listed = None
        if not isinstance(listed, list):
            raise ImageError("Replicate's list of predictions cannot be read", type="malformed_reply")
        return listed

    async def _collect(self, prediction: "Prediction", made: "_Made") -> None:
        """Fetches what a prediction that has ended made."""
        if prediction.status != "succeeded":
            raise ImageError(f"Replicate's prediction {prediction.id} {prediction.failure}")
        found = list(dict.fromkeys(addresses(prediction.output)))[:MOST_OUTPUTS]
        if not found:
            shown = json.dumps(prediction.output)[:100]
            raise ImageError(f"Replicate's prediction {prediction.id} succeeded without a picture (output: {shown})")
        made.ids.append(prediction.id)
        expires = self._expiry(prediction)
        for address in found:
            try:
                made.pictures.append(await self._fetched(address, expires))
            except ImageError as error:
                made.failure = error

    async def _create(self, request: ImageRequest) -> "Prediction":
        """Asks for the pictures, once. When cancelled meanwhile, what was asked for is cancelled too."""
        call = asyncio.ensure_future(self._post(request))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            with contextlib.suppress(ToolError, TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT):
                    prediction = await call
                await self._cancelled(prediction.id)
            raise

    async def _post(self, request: ImageRequest) -> "Prediction":
        body: dict[str, JsonValue] = {"input": self._inputs.of(request)}
        if self._version:
            body["version"] = self._version
        # Should this process die, the service ends the work by itself.
        headers = {"cancel-after": f"{max(5, round(self._timeout) + 5)}s"}
        answer = await self._call("POST", self._path, body, headers)
        return self._prediction(answer)

    async def _ended(
        self, prediction: "Prediction", began: Callable[[str], Awaitable[None]] | None = None
    ) -> "Prediction":
        """The prediction at its end. However else this ends, the prediction is cancelled."""
        path = f"/v1/predictions/{prediction.id}"
        wait = FIRST_POLL
        try:
            if began is not None:
                await began(prediction.id)
            while not prediction.ended:
                await self._sleep(wait)
                wait = min(wait * 1.3, LONGEST_POLL)
                answer = await retrying(lambda _: self._call("GET", path), self._policy, sleep=self._sleep)
                prediction = replace(self._prediction(answer), id=prediction.id)
        except BaseException:  # a cancellation too: what nobody waits for is not paid for
            await asyncio.shield(asyncio.ensure_future(self._cancelled(prediction.id)))
            raise
        return prediction

    async def _cancelled(self, prediction: str) -> None:
        """Cancels it as well as can be within a few seconds; whoever cancels has worse to tell than a failure here."""
        with contextlib.suppress(ToolError, TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT):
                cancel = f"/v1/predictions/{prediction}/cancel"
                await retrying(lambda _: self._call("POST", cancel, repeatable=True), self._policy, sleep=self._sleep)

    async def _call(
        self,
        method: str,
        path: str,
        body: JsonValue = None,
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool = False,
    ) -> Answer:
        """One call with the token. What failed is retryable only when it cannot have bought anything."""
        sent = {"authorization": f"Bearer {self._token}", **(headers or {})}
        harmless = repeatable or method == "GET"
        try:
            answer = await self._fetcher.request(
                method, self._base + path, headers=sent, json=body, timeout=CALL_TIMEOUT
            )
        except UnreachableError as error:
            retryable = harmless or not error.sent
            hint = None if retryable else "It may have been accepted: look at https://replicate.com/predictions first."
            raise ImageError(f"Replicate: {error.message}", hint=hint, type="connection", retryable=retryable) from None
        except ToolError as error:
            raise ImageError(f"Replicate: {error.message}", hint=error.hint, type=error.type) from None
        if 200 <= answer.status < 300:
            return answer
        raise self._refusal(answer, harmless)

    def _refusal(self, answer: Answer, harmless: bool) -> ImageError:
        said = detail(answer)
        match answer.status:
            case 401:
                return ImageError(
                    f"Replicate refused the token: {said}",
                    hint="Put a valid REPLICATE_API_TOKEN=… into .env; see https://replicate.com/account/api-tokens",
                    type="missing_token",
                )
            case 402:
                return ImageError(
                    f"Replicate wants credit for this: {said}",
                    hint="Buy credit at https://replicate.com/account/billing, then resume the run.",
                )
            case 403:
                return ImageError(f"Replicate forbids it: {said}", type="permission")
            case 404:
                return ImageError(f"Replicate does not find it ({self.model}): {said}", type="model_not_found")
            case 400 | 422:
                return ImageError(f"Replicate takes the request for wrong: {said}", type="bad_request")
            case 429:
                return ImageError(
                    f"Replicate asks for patience: {said}",
                    type="rate_limited",
                    retryable=True,
                    retry_after=self._retry_after(answer),
                )
            case status if status >= 500:
                return ImageError(f"Replicate failed ({status}): {said}", type="server_error", retryable=harmless)
        return ImageError(f"Replicate answered with HTTP status {answer.status}: {said}")

    def _prediction(self, answer: Answer) -> "Prediction":
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        name = found.get("id") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(name, str) or not _ID.fullmatch(name):
            shown = answer.body[:100].decode("utf-8", "replace")
            raise ImageError(f"Replicate's answer holds no prediction: {shown}", type="malformed_reply")
        return Prediction(
            id=name,
            status=str(found.get("status")),
            output=found.get("output"),
            error=str(found.get("error") or ""),
            completed_at=str(found.get("completed_at") or ""),
        )

    async def _fetched(self, address: str, expires: datetime) -> Picture:
        """The picture at the address, fetched without the token; ImageError when there is none."""
        if address.startswith("data:"):
            content = decoded(address)
            measure(content)
            return Picture(content)
        try:
            got = await retrying(lambda _: self._fetcher.download(address), self._policy, sleep=self._sleep)
            await asyncio.to_thread(measure, got.content)
        except ToolError as error:
            raise ImageError(
                f"the picture was made, but could not be fetched: {error.message}",
                hint=f"Until {_iso(expires)} it may be at {address}",
                type="fetch_refused" if isinstance(error, FetchRefusedError) else "image_failed",
            ) from None
        return Picture(got.content, source_url=address, expires_at=_iso(expires))

    def _expiry(self, prediction: "Prediction") -> datetime:
        with contextlib.suppress(ValueError):
            completed = datetime.fromisoformat(prediction.completed_at)
            return (completed if completed.tzinfo else completed.replace(tzinfo=UTC)) + LIFETIME
        return datetime.fromtimestamp(self._clock(), UTC) + LIFETIME

    def _retry_after(self, answer: Answer) -> float | None:
        """Seconds, of a header that holds seconds or an HTTP date."""
        given = answer.headers.get("retry-after", "").strip()
        try:
            return max(0.0, float(given))
        except ValueError:
            pass
        try:
            until = parsedate_to_datetime(given)
        except ValueError:
            return None
        return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - self._clock())

    def _late(self, prediction: str) -> ImageError:
        if not prediction:
            return ImageError(f"Replicate did not take the request within {self._timeout:g} seconds")
        return ImageError(
            f"Replicate's prediction {prediction} did not end within {self._timeout:g} seconds and was told to stop",
            hint=f"What became of it stands at https://replicate.com/p/{prediction}",
        )


@dataclass
class _Made:
    """What there is so far, and the last thing that went wrong."""

    pictures: list[Picture] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    failure: ImageError | None = None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
