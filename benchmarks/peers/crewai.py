"""crewai: a Task a part of the work in one Crew, those that need nothing of each other in threads as it does."""

import asyncio
import os

from benchmarks import work

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true")

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

llm = LLM(model="openai/mock", base_url=work.ADDRESS, api_key=work.KEY)


def agent(step: str = "", goal: str = work.WORKER) -> Agent:
    """An agent, with the tools of its step."""
    tools = [tool(function) for function in work.TOOLS.get(step, [])]
    return Agent(role=step or "worker", goal=goal, backstory="", llm=llm, tools=tools)


async def ask(text: str, who: Agent) -> str:
    """One part as a Crew of one."""
    crew = Crew(agents=[who], tasks=[Task(description=text, expected_output="the work", agent=who)])
    return str(await crew.kickoff_async())


async def main() -> None:
    """Plans and does the work."""
    plan = await ask(work.task(), agent(goal=work.PLANNER))
    await work.through(work.steps_of(plan), lambda step, text: ask(text, agent(step)))


asyncio.run(main())
