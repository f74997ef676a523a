"""What we are measured against first: a script on the openai SDK, a loop of tools and asyncio, nothing else."""

import asyncio
import inspect
import json
from typing import Any

from openai import AsyncOpenAI

from benchmarks import work

client = AsyncOpenAI(base_url=work.ADDRESS, api_key=work.KEY, max_retries=0)


def described(function: Any) -> dict[str, Any]:
    """A function as the SDK wants a tool."""
    names = list(inspect.signature(function).parameters)
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    return {"type": "function", "function": {"name": function.__name__, "description": "", "parameters": schema}}


async def ask(instructions: str, text: str, tools: list[Any]) -> str:
    """Asks until the model uses no tool any more."""
    messages: list[Any] = [{"role": "system", "content": instructions}, {"role": "user", "content": text}]
    known = {function.__name__: function for function in tools}
    while True:
        given = {"tools": [described(function) for function in tools]} if tools else {}
        made = await client.chat.completions.create(model="mock", messages=messages, **given)  # type: ignore[call-overload]
        message = made.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            output = known[call.function.name](**json.loads(call.function.arguments))
            output = await output if inspect.isawaitable(output) else output
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})


async def main() -> None:
    """Plans and does the work."""
    steps = work.steps_of(await ask(work.PLANNER, work.task(), []))
    await work.through(steps, lambda step, text: ask(work.WORKER, text, work.TOOLS.get(step, [])))


asyncio.run(main())
