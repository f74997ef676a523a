"""What a run may spend: the prices of models are known before any is asked, those of a plan before its first step."""

from collections.abc import Collection, Iterable
from decimal import Decimal

from master_agent import prices
from master_agent.cli.models import Models
from master_agent.cli.order import Team
from master_agent.cli.painters import PICTURES, image_provider, no_pictures
from master_agent.errors import SettingsError
from master_agent.plan import AgentStep, Plan, Step
from master_agent.prices import Prices
from master_agent.reporters.words import step_names
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


def check_plan(plan: Plan, done: Collection[str], team: Team, settings: Settings, chosen: Models) -> None:
    """SettingsError where money is limited and a step that is not `done` may pay for what has no known price."""
    if settings.max_cost is None:
        return
    found: dict[str, list[Step]] = {}
    for step in plan.plan:
        for what in _unpriced(step, team, settings, chosen) if step.id not in done else ():
            found.setdefault(what, []).append(step)
    if found:
        said = "; ".join(f"{what} ({step_names(steps)})" for what, steps in found.items())
        raise SettingsError(f"--max-cost: no price is known of {said}", hint=_ANYWAY)


def _unpriced(step: Step, team: Team, settings: Settings, chosen: Models) -> Iterable[str]:
    """What a step may pay for though nobody knows its price: pictures, tools of packages, those of a model's server."""
    for name in team.may_use(step):
        if name == PICTURES:
            maker = image_provider(settings)
            if price_of_picture(settings, maker) is None and no_pictures(settings) is None:
                yield f"the pictures of {settings.image_model or maker}"
        elif name in team.tools and "pay" in team.tools[name].effects:
            yield f"what {name} pays for"
    agent = team.agents[step.agent] if isinstance(step, AgentStep) else None
    if agent and agent.hosted and not prices_of(settings, chosen).costs_nothing(agent.model or chosen.agents):
        yield f"{', '.join(agent.hosted)} at the model's provider"


def price_of_picture(settings: Settings, provider: ImageProviderName | None) -> Decimal | None:
    """USD for one picture by who makes them; None when that is unknown."""
    model = settings.image_model or ""
    if provider == "replicate" and not model:
        from master_agent.images import replicate

        model = replicate.MODEL
    return prices.pictures(provider or "", model, 1)
