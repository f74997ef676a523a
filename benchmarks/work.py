"""What every contestant but us needs: the plan as steps, the tools as plain functions, and one way through a graph."""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.shapes import SHAPES, prompt_of

ADDRESS, SHAPE = (*sys.argv[1:3], "", "")[:2]
KEY = "none"
PLANNER = "You are a planner. Answer with a plan in JSON."
WORKER = "You do a part of the work."
Do = Callable[[str, str], Awaitable[str]]


def task() -> str:
    """The words of the task."""
    return SHAPES[SHAPE].task


def steps_of(plan: str) -> dict[str, list[str]]:
    """The ids of the steps and what each needs, of a planner's answer."""
    return {step["id"]: step["needs"] for step in json.loads(plan)["plan"]}


def prompt(step: str, done: dict[str, str], needs: list[str]) -> str:
    """What a step is told: its part, and what the steps left that it needs."""
    return "\n".join([prompt_of(step), *(f"{need}: {done[need]}" for need in needs)])


async def through(steps: dict[str, list[str]], do: Do) -> dict[str, str]:
    """Every step as soon as its needs are done: what a person writes with asyncio who has no scheduler."""
    tasks: dict[str, asyncio.Task[str]] = {}

    async def one(step: str) -> str:
        done = {need: await tasks[need] for need in steps[step]}
        return await do(step, prompt(step, done, steps[step]))

    for step in steps:
        tasks[step] = asyncio.create_task(one(step))
    return {step: await task for step, task in tasks.items()}


async def generate_image(prompt: str) -> str:
    """Makes a picture from words and stores it."""
    from openai import AsyncOpenAI

    made = await AsyncOpenAI(base_url=ADDRESS, api_key=KEY).images.generate(model="mock", prompt=prompt)
    assert made.data is not None
    return store(base64.b64decode(made.data[0].b64_json or ""))


def store(picture: bytes) -> str:
    """The name of the picture's file."""
    Path("hero.png").write_bytes(picture)
    return "hero.png"


def list_files() -> str:
    """Lists the files of the folder."""
    return " ".join(sorted(path.name for path in Path().iterdir())[:20])


def write_file(path: str, content: str) -> str:
    """Writes a text into a file."""
    return f"wrote {Path(path).write_text(content)} characters"


TOOLS: dict[str, list[Callable[..., Any]]] = {"hero": [generate_image], "save": [list_files, write_file]}
"""The tools of the sequence's agents."""
