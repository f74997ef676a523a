"""agent-framework (Microsoft): one agent a part of the work, run with asyncio as soon as its needs are done."""

import asyncio

from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient

from benchmarks import work

client = OpenAIChatCompletionClient(model="mock", base_url=work.ADDRESS, api_key=work.KEY)
planner = Agent(client, work.PLANNER)


async def do(step: str, text: str) -> str:
    """One part."""
    tools = work.TOOLS.get(step, [])
    return (await Agent(client, work.WORKER, tools=tools).run(text)).text


async def main() -> None:
    """Plans and does the work."""
    await work.through(work.steps_of((await planner.run(work.task())).text), do)


asyncio.run(main())
