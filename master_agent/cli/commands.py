"""The commands by name: the module that each stands in and its line in the list, so that neither imports anything.

A new command: its line here, and in its module `add_to(app)`, which registers it under the same name.
"""

from typing import NamedTuple

TASK = '"TASK"'  # the hidden command that runs a task in words; its name is what its usage line shows


class Listed(NamedTuple):
    """Where a command is, in `cli/`, and what it does."""

    module: str
    about: str


COMMANDS = {
    "plan": Listed("work", "Makes the plan for a task and runs nothing."),
    "run": Listed("work", "Runs a plan from a file."),
    "resume": Listed("history", "Goes on with a run that ended early."),
    "runs": Listed("history", "Lists the runs, the newest first."),
    "show": Listed("history", "Shows what became of a run."),
    "cost": Listed("cost", "Says what a run has used, in tokens, pictures and money."),
    "undo": Listed("undo", "Gives every file that a run changed its bytes back."),
    "why": Listed("why", "Tells which run and step made a file, and from what."),
    "explain": Listed("explaining", "Tells why a step was reused or not, and what differed."),
    "purge": Listed("purge", "Removes a run wholly, at services too."),
    "clean": Listed("purge", "Removes old runs wholly, as purge does."),
    "fork": Listed("fork", "Runs a part of an earlier run anew, as a new run."),
    "continue": Listed("fork", "Plans a new task on what an earlier run made."),
    "check": Listed("look", "Names every fault of a plan, or says what it may do; runs nothing."),
    "schema": Listed("look", "Prints the JSON Schema of plans, results or events."),
    "agents": Listed("look", "Lists the agents; shows or runs one."),
    "tools": Listed("look", "Lists the tools with their effects and arguments."),
    "models": Listed("offers", "Lists what each provider that is there offers."),
    "doctor": Listed("doctor", "Says what is there, what is missing, and what to do."),
    "init": Listed("init", "Asks for keys and models, and writes .env and your config."),
    "demo": Listed("demo", "Shows a whole run without key or network."),
}
HIDDEN = {TASK: Listed("work", "Plans a task, shows the plan, asks, runs it and shows the results.")}
