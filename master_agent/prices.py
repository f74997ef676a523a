"""From what was used to money: a model's tokens by the data of `genai-prices`, pictures by a small table of ours.

What has no known price is None, never 0. The library is the optional extra `cost`; it is loaded when the first cost is
wanted, reads data that it brings along and asks nothing of the network.
"""

import importlib
import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from master_agent.hosts import is_near
from master_agent.results import Usage

MISSING = "Prices come with the extra `cost`: install it as master-agent[cost]"
PICTURES: dict[tuple[str, str], Decimal] = {
    # USD for each picture, as of 2026-11, by https://replicate.com/black-forest-labs/flux-schnell
    ("replicate", "black-forest-labs/flux-schnell"): Decimal("0.003"),
    ("placeholder", ""): Decimal(0),  # drawn on this machine
}
_PASSED_ON = ("-cloud", ":cloud")  # as Ollama names the models of its own service
_DIGITS = 9  # of a dollar, which tells a single token of the cheapest model


class Prices:
    """Prices of one provider's models, and of others' that stand before the colon of a model's name.

    `provider` is the one's name in the library's data. `free` is for servers of one's own, which ask for no money,
    except for models that they only pass on. Without either `address` decides: None is OpenAI's own; a server that the
    library knows has prices of its own; one on this machine or beside it has none that anybody could know; for any
    other the model's name decides.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        provider: str | None = None,
        free: bool = False,
        others: "Mapping[str, Prices] | None" = None,
    ) -> None:
        self._address = address
        self._provider = provider
        self._free = free
        self._others = others or {}
        self._loading: threading.Thread | None = None

    def prepare(self, model: str | None) -> None:
        """Loads what the price of a model needs, without waiting for it."""
        if model and self._loading is None:
            self._loading = threading.Thread(target=library, name="prices", daemon=True)
            self._loading.start()

    def tokens(self, model: str | None, usage: Usage) -> Decimal | None:
        """USD for the tokens of one request, as far as they are known; None when they have no known price."""
        if (whose := self._whose(model)) is not None:
            return whose[0].tokens(whose[1], usage)
        if self._free:
            return Decimal(0) if self.costs_nothing(model) else None
        found = library() if model else None
        if found is None or usage.tokens is None:
            return None
        read = usage.input_tokens or 0  # those from the cache and those written to it are among them
        cached = min(usage.cached_tokens or 0, read)
        used = found.Usage(
            input_tokens=read,
            cache_read_tokens=cached,
            cache_write_tokens=min(usage.cache_write_tokens or 0, read - cached),
            output_tokens=usage.output_tokens or 0,  # with those of reasoning, which cost the same
        )
        for where in self._places():
            try:
                return Decimal(found.calc_price(used, model, **where).total_price)
            except (LookupError, ValueError):
                continue
        return None

    def _whose(self, model: str | None) -> "tuple[Prices, str] | None":
        """Another provider's prices and what the model is called there, where its name begins with the provider's."""
        before, _, after = (model or "").partition(":")
        other = self._others.get(before.lower()) if after else None
        return None if other is None else (other, after)

    def costs_nothing(self, model: str | None) -> bool:
        """Whether a server of one's own runs the model, so that nobody asks for money."""
        if (whose := self._whose(model)) is not None:
            return whose[0].costs_nothing(whose[1])
        return self._free and not (model or "").endswith(_PASSED_ON)

    def _places(self) -> list[dict[str, str]]:
        """Where the price of a model is looked for, one after the other."""
        if self._provider is not None:
            return [{"provider_id": self._provider}]
        if self._address is None:
            return [{"provider_id": "openai"}]
        if is_near(self._address):
            return []
        found = library()
        try:
            found.data_snapshot.get_snapshot().find_provider(None, None, self._address)
        except LookupError:
            return [{}]
        return [{"provider_api_url": self._address}]

    def settled(self, model: str | None, usage: Usage, *, more: bool = False) -> Usage:
        """The usage of a request with its cost; `more`: something beside the tokens costs money as well."""
        cost = self.tokens(model, usage)
        if cost is None:
            return usage
        counted = usage.input_tokens is not None and usage.output_tokens is not None
        whole = self.costs_nothing(model) or (counted and not more)
        return usage.model_copy(update={"cost_usd": in_dollars(cost), "cost_complete": whole})


def pictures(provider: str, model: str, count: int) -> Decimal | None:
    """USD for so many pictures; None when no price is known."""
    name = "" if provider == "placeholder" else model.split(":")[0]
    each = PICTURES.get((provider, name))
    return None if each is None else each * count


def with_pictures(usage: Usage, provider: object, model: object) -> Usage:
    """The usage of a tool that made pictures, with their cost where that is known."""
    cost = pictures(str(provider), str(model), usage.images) if usage.images else None
    if cost is None:
        return usage
    only_pictures = usage == Usage(images=usage.images)
    return usage.model_copy(update={"cost_usd": in_dollars(cost), "cost_complete": only_pictures})


def in_dollars(cost: Decimal) -> float:
    """The amount as JSON has it."""
    return round(float(cost), _DIGITS)


def library() -> Any:
    """The module `genai_prices`; None where the extra is not installed."""
    try:
        importlib.import_module("genai_prices.data_snapshot")
        return importlib.import_module("genai_prices")
    except ImportError:
        return None
