"""pydantic-ai: one Agent a part of the work, run with asyncio as soon as its needs are done."""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks import work

model = OpenAIChatModel("mock", provider=OpenAIProvider(base_url=work.ADDRESS, api_key=work.KEY))
planner = Agent(model, instructions=work.PLANNER)
worker = Agent(model, instructions=work.WORKER)
special = {step: Agent(model, instructions=work.WORKER, tools=tools) for step, tools in work.TOOLS.items()}


async def do(step: str, text: str) -> str:
    """One part."""
    return (await special.get(step, worker).run(text)).output


async def main() -> None:
    """Plans and does the work."""
    await work.through(work.steps_of((await planner.run(work.task())).output), do)


asyncio.run(main())
