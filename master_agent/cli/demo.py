"""`demo`: no key, no network. Scripted replies drive the real planner, dispatcher, agents and tools."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from master_agent.cli import exit_codes, session, streams
from master_agent.cli.options import Approved, Options, with_options
from master_agent.cli.order import Order
from master_agent.errors import UsageError
from master_agent.settings import load
from master_agent.values import suggestion

SCRIPTS = Path(__file__).parent.parent / "demos"
FOLDER = "master-agent-demo"


@dataclass(frozen=True)
class Demo:
    """A script with its title and its task."""

    name: str
    title: str
    task: str
    script: Path


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("demo", help=_HELP)(demo)


_HELP = """Shows a whole run without key or network: the model's replies are scripted, everything else is real.

\b
Examples:
  master-agent demo
  master-agent demo --list
  master-agent demo trip
"""


def _complete(incomplete: str) -> list[str]:
    return [name for name in load_demos() if name.startswith(incomplete)]


@with_options("workspace", "state_dir", "concurrency", "no_exec", "log_file")
def demo(
    options: Options,
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="which one", show_default=False, autocompletion=_complete),
    ] = "landing",
    *,
    list_demos: Annotated[bool, typer.Option("--list", help="list the demos", show_default=False)] = False,
    yes: Approved = False,  # noqa: ARG001
) -> int:
    demos = load_demos()
    if list_demos:
        if options.json:
            streams.print_object(
                "demos", demos=[{"name": each.name, "title": each.title, "task": each.task} for each in demos.values()]
            )
            return exit_codes.DONE
        for each in demos.values():
            streams.write(f"{each.name:<10} {each.title}")
        return exit_codes.DONE
    if name not in demos:
        raise UsageError(f'no demo "{name}"{suggestion(name, demos)}')
    chosen = demos[name]
    folder = Path(str(options.flags["workspace"])) if options.flags.get("workspace") else fresh_folder(Path.cwd())
    if not options.for_programs and not options.quiet:
        streams.say(f'Demo "{chosen.name}": {chosen.title}.')
        streams.say("The model's replies are scripted; planner, dispatcher, agents, tools, programs, files are real.")
        streams.say(f"Task: {chosen.task}")
        streams.say(f"Folder: {folder}\n")
    flags = {**options.flags, "script": str(chosen.script), "image_provider": "placeholder", "workspace": str(folder)}
    settings = load(flags, os.environ, SCRIPTS)  # of no .env: what stands in the folder's own cannot spoil a demo
    order = Order(task=chosen.task)
    team = session.builtin_team(settings)
    return session.run(options, settings, team, order, lambda master: master.run_task(chosen.task, {}), yes=True)


def load_demos() -> dict[str, Demo]:
    """The demos by name; each script's first line says what it shows."""
    demos: dict[str, Demo] = {}
    for script in sorted(SCRIPTS.glob("*.jsonl")):
        with script.open(encoding="utf-8") as lines:
            head = json.loads(lines.readline())
        demos[script.stem] = Demo(script.stem, head["title"], head["task"], script)
    return demos


def fresh_folder(parent: Path) -> Path:
    """A new folder for one demo: what an earlier one made is left alone."""
    number = 1
    while True:
        folder = parent / (FOLDER if number == 1 else f"{FOLDER}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UsageError(
                f"the demo needs a folder to work in, and {folder} cannot be made: {error.strerror}",
                hint="Name one that exists: master-agent demo --workspace DIR",
            ) from None
        else:
            return folder
