"""What a run is compared with: the same requests by a script of a few lines on the openai SDK.

`python -m benchmarks.bare ADDRESS PLAN` sends one request for each step of a plan file, as soon as its needs are done.
"""

import asyncio
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI


async def main() -> None:
    """Runs the plan with nothing around it."""
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    steps = json.loads(Path(sys.argv[2]).read_text())["plan"]  # noqa: ASYNC240  nothing else runs yet
    tasks: dict[str, asyncio.Task[str]] = {}

    async def work(step: dict[str, str]) -> str:
        for need in step["needs"]:
            await tasks[need]
        message = {"role": "user", "content": step["prompt"]}
        made = await client.chat.completions.create(model="mock", messages=[message])  # type: ignore[list-item]
        return made.choices[0].message.content or ""

    for step in steps:
        tasks[step["id"]] = asyncio.create_task(work(step))
    await asyncio.gather(*tasks.values())


asyncio.run(main())
