"""Who makes pictures: from settings to the provider, or to what is missing."""

from master_agent.errors import ImageError
from master_agent.fetch import Fetcher
from master_agent.images import ImageProvider
from master_agent.retry import RetryPolicy
from master_agent.settings import ImageProviderName, Settings

PICTURES = "generate_image"
"""The tool that they are made with."""


def image_provider(settings: Settings) -> ImageProviderName | None:
    """Who makes pictures: as set, else by the token that is there; None for nobody.

    A key for another server than OpenAI's is no reason to ask that server for pictures: many make none.
    """
    if settings.image_provider:
        return settings.image_provider
    if settings.replicate_api_token:
        return "replicate"
    return "openai" if settings.openai_api_key and not settings.own_server else None


def no_pictures(settings: Settings) -> ImageError | None:
    """What is missing for pictures to be made; None when nothing is."""
    offline = "draw stand-ins offline: --image-provider placeholder"
    match image_provider(settings):
        case "replicate" if not settings.replicate_api_token:
            missing, next_step = "REPLICATE_API_TOKEN is not set", f"Put REPLICATE_API_TOKEN=… into .env, or {offline}"
        case "openai" if not settings.openai_api_key and not settings.own_server:
            missing, next_step = "OPENAI_API_KEY is not set", f"Put OPENAI_API_KEY=… into .env, or {offline}"
        case None if settings.own_server:
            missing = "no REPLICATE_API_TOKEN, and no OPENAI_API_KEY for OpenAI: OPENAI_BASE_URL names another server"
            next_step = "Put REPLICATE_API_TOKEN=… into .env, let that server make pictures if it can: "
            next_step += f"--image-provider openai, or {offline}"
        case None:
            missing = "neither REPLICATE_API_TOKEN nor OPENAI_API_KEY is set"
            next_step = f"Put one of them into .env, or {offline}"
        case _:
            return None
    return ImageError(f"no picture can be made: {missing}", hint=next_step, type="missing_token")


def make_images(settings: Settings, fetcher: Fetcher) -> ImageProvider:
    """Who makes pictures; ImageError, of the type missing_token, when there is nobody."""
    if missing := no_pictures(settings):
        raise missing
    policy = RetryPolicy(attempts=settings.attempts)
    match image_provider(settings):
        case "replicate":
            from master_agent.images import replicate

            return replicate.Replicate(
                fetcher,
                settings.replicate_api_token or "",
                base_url=settings.replicate_base_url,
                model=settings.image_model or replicate.MODEL,
                policy=policy,
            )
        case "openai":
            from master_agent.images import openai

            key, address = settings.openai_api_key, settings.openai_base_url
            return openai.OpenAIImages(
                key, address, model=settings.image_model or openai.MODEL, policy=policy, proxy=settings.proxy
            )
    from master_agent.images.placeholder import Placeholder

    return Placeholder()
