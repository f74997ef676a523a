"""langgraph: a node a part of the work, its edges the needs; the sequence's agents are langchain's own."""

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from benchmarks import work

model = ChatOpenAI(model="mock", base_url=work.ADDRESS, api_key=work.KEY, max_retries=0)


class State(TypedDict):
    """What the parts have left."""

    done: Annotated[dict[str, str], operator.or_]


def node(step: str, needs: list[str]) -> Any:
    """One part as a node: an agent where it has tools, else a request."""
    tools = work.TOOLS.get(step)
    agent = create_agent(model, tools=tools, system_prompt=work.WORKER) if tools else None

    async def run(state: State) -> dict[str, dict[str, str]]:
        text = work.prompt(step, state["done"], needs)
        if agent is not None:
            said = (await agent.ainvoke({"messages": [("user", text)]}))["messages"][-1].text
        else:
            said = (await model.ainvoke([("system", work.WORKER), ("user", text)])).text
        return {"done": {step: str(said)}}

    return run


async def main() -> None:
    """Plans and does the work."""
    planned = await model.ainvoke([("system", work.PLANNER), ("user", work.task())])
    steps = work.steps_of(str(planned.text))
    graph = StateGraph(State)
    needed = {need for needs in steps.values() for need in needs}
    for step, needs in steps.items():
        graph.add_node(step, node(step, needs))
        graph.add_edge(list(needs) or START, step) if len(needs) != 1 else graph.add_edge(needs[0], step)
        if step not in needed:
            graph.add_edge(step, END)
    await graph.compile().ainvoke({"done": {}}, {"recursion_limit": 1000})


asyncio.run(main())
