"""agno: one Agent a part of the work, run with asyncio as soon as its needs are done."""

import asyncio

from agno.agent import Agent
from agno.models.openai.like import OpenAILike

from benchmarks import work


def agent(instructions: str, step: str = "") -> Agent:
    """An agent, with the tools of its step."""
    tools = work.TOOLS.get(step)
    model = OpenAILike(id="mock", base_url=work.ADDRESS, api_key=work.KEY)
    return Agent(model=model, instructions=instructions, tools=tools, telemetry=False)


async def do(step: str, text: str) -> str:
    """One part."""
    return str((await agent(work.WORKER, step).arun(text)).content)


async def main() -> None:
    """Plans and does the work."""
    await work.through(work.steps_of(str((await agent(work.PLANNER).arun(work.task())).content)), do)


asyncio.run(main())
