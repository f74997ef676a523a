"""What a run may spend: prices are known before anything is asked, or the run is refused."""

from collections.abc import Iterable
from decimal import Decimal

from master_agent import prices
from master_agent.cli.models import Models
from master_agent.errors import SettingsError
from master_agent.prices import Prices
from master_agent.results import Usage
from master_agent.settings import ImageProviderName, Settings

_ANYWAY = "Go on without counting them: --allow-unpriced"


def prices_of(settings: Settings, chosen: Models) -> Prices:
    """The prices of the models that were chosen; where nothing is known of who answers, the address decides."""
    return chosen.prices or Prices(settings.openai_base_url if settings.own_server else None)


def check(settings: Settings, chosen: Models, planner: bool, own: Iterable[str | None], allow: bool) -> None:
    """SettingsError where money is limited and the price of a model that may be asked is unknown."""
    if settings.max_cost is None or allow:
        return
    known = prices_of(settings, chosen)
    models = [chosen.agents, *([chosen.planner] if planner else []), *(model for model in own if model)]
    for model in models:
        if known.tokens(model, Usage(calls=1, input_tokens=1, output_tokens=1)) is None:
            if prices.library() is None:
                raise SettingsError("--max-cost needs the prices of models", hint=f"{prices.MISSING}. {_ANYWAY}")
            raise SettingsError(f"--max-cost: no price is known of {model or 'a model without a name'}", hint=_ANYWAY)


def price_of_picture(settings: Settings, provider: ImageProviderName | None) -> Decimal | None:
    """USD for one picture by who makes them; None when that is unknown."""
    model = settings.image_model or ""
    if provider == "replicate" and not model:
        from master_agent.images import replicate

        model = replicate.MODEL
    return prices.pictures(provider or "", model, 1)
