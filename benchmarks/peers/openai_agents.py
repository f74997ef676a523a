"""openai-agents: one Agent a part of the work, run with asyncio as soon as its needs are done."""

import asyncio

from openai import AsyncOpenAI

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from benchmarks import work

set_tracing_disabled(True)
model = OpenAIChatCompletionsModel("mock", openai_client=AsyncOpenAI(base_url=work.ADDRESS, api_key=work.KEY))
planner = Agent(name="planner", instructions=work.PLANNER, model=model)
worker = Agent(name="worker", instructions=work.WORKER, model=model)
special = {
    step: Agent(name=step, instructions=work.WORKER, model=model, tools=[function_tool(tool) for tool in tools])
    for step, tools in work.TOOLS.items()
}


async def do(step: str, text: str) -> str:
    """One part."""
    return str((await Runner.run(special.get(step, worker), text)).final_output)


async def main() -> None:
    """Plans and does the work."""
    await work.through(work.steps_of(str((await Runner.run(planner, work.task())).final_output)), do)


asyncio.run(main())
