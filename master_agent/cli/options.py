"""The flags of the commands: one for each setting, made from the table of settings, and those about output."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from master_agent.errors import UsageError
from master_agent.settings import Setting, table

MODELS = (
    "model",
    "planner_model",
    "openai_base_url",
    "context_size",
    "local_server",
    "wire",
    "thread_store",
    "script",
    "record",
    "replay",
    "call_timeout",
    "attempts",
    "plan_repairs",
    "max_calls",
    "max_tokens",
    "max_cost",
)
BUDGET = ("max_cost", "max_calls", "max_tokens", "max_steps")
EXEC = (
    "no_exec",
    "exec_python",
    "exec_engine",
    "exec_image",
    "exec_seconds",
    "exec_cpu_seconds",
    "exec_memory",
    "exec_processes",
    "exec_file_size",
    "exec_disk",
    "exec_output",
)
WORK = (
    "image_provider",
    "image_model",
    "replicate_base_url",
    "workspace",
    "state_dir",
    "cache_dir",
    "concurrency",
    "timeout",
    "step_timeout",
    "turns",
    "max_steps",
    "reuse",
    "allow_host",
    "proxy",
    *EXEC,
    "log_file",
)
EVERYTHING = (*MODELS, *WORK)


Approved = Annotated[bool, typer.Option("--yes", "-y", hidden=True)]
"""A yes to a command that asks nothing: said out of habit, and without effect."""


@dataclass(frozen=True)
class Options:
    """What was said on the command line: settings by name, and how to report."""

    flags: Mapping[str, object]
    json: bool = False
    events: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    allow_unpriced: bool = False
    trust_project: bool = False
    unsafe_exec: bool = False

    @property
    def for_programs(self) -> bool:
        """Whether stdout is for a program to read."""
        return self.json or self.events


_OUTPUT = {
    "json": "print one JSON object, after failures too",
    "events": "print every event as a line of JSON",
    "quiet": "print the final text and errors only",
    "verbose": "say more: choices made, whole texts",
    "debug": "show tracebacks of errors",
}
_OF_ONE_RUN = {
    "allow_unpriced": "with --max-cost: use models, pictures and tools whose price nobody knows, uncounted",
    "trust_project": "let agents of this folder run programs, reach the network and spend money",
    "unsafe_exec": "run code WITHOUT a sandbox: it can do all that you can",
}


def with_options(*names: str, output: tuple[str, ...] = tuple(_OUTPUT)) -> Callable[[Callable[..., int]], Any]:
    """Gives a command the flags of the named settings and about output; it takes them as its first argument."""
    settings = [table()[name] for name in names]
    output = (*output, *_OF_ONE_RUN) if "max_cost" in names else output

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        added = [_flag(setting) for setting in settings] + [_switch(name) for name in output]

        @functools.wraps(command)
        def run(**values: Any) -> int:
            flags = {setting.name: values.pop(setting.name) for setting in settings}
            switches = {name: values.pop(name) for name in output}
            if switches.get("json") and switches.get("events"):
                raise UsageError("--json and --events exclude each other")
            return command(Options(flags, **switches), **values)

        parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *added]
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        return run

    return decorate


@functools.cache
def _flag(setting: Setting) -> inspect.Parameter:
    if setting.switch:
        option = typer.Option(setting.flag, help=setting.help, show_default=False)
        return _parameter(setting.name, Annotated[bool | None, option])
    default = f"; default {_plain(setting)}" if isinstance(setting.default, str | int | float) else ""
    choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
    metavar = "NUMBER" if isinstance(setting.default, int | float) or setting.name in ("timeout", *BUDGET) else "TEXT"
    metavar = "SIZE" if setting.size else metavar
    option = typer.Option(
        setting.flag,
        help=f"{setting.help}{choices}{default}",
        metavar=metavar,
        show_default=False,
        autocompletion=one_of(setting.choices) if setting.choices else None,
    )
    hint = list[str] | None if setting.repeatable else str | None
    return _parameter(setting.name, Annotated[hint, option])


def one_of(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """Completes a value in the shell."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _plain(setting: Setting) -> str:
    default = setting.default
    if setting.size:
        power = next(power for power in (3, 2, 1, 0) if default % 1024**power == 0)
        return f"{default // 1024**power}{' KMG'[power].strip()}"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _switch(name: str) -> inspect.Parameter:
    short = {"quiet": ("-q",), "verbose": ("-v",)}.get(name, ())
    help_text = {**_OUTPUT, **_OF_ONE_RUN}[name]
    option = typer.Option(f"--{name.replace('_', '-')}", *short, help=help_text, show_default=False)
    return _parameter(name, Annotated[bool, option], default=False)


def _parameter(name: str, annotation: Any, *, default: object = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
