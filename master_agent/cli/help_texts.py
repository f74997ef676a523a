"""The list of commands, and help as it is printed: usage lines that say what to type, without the types of Python."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from master_agent.cli.commands import COMMANDS, HIDDEN
from master_agent.quick import importing


class Commands(TyperGroup):
    """Lists and completes the commands from their table; the module of one is imported when it is called for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, listed in {**COMMANDS, **HIDDEN}.items():
            self.add_command(TyperCommand(name, short_help=listed.about, hidden=name in HIDDEN))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and _real(str(name)), rest


def _real(name: str) -> Any:
    """The command itself, as its module registers it."""
    app = typer.Typer(rich_markup_mode=None)
    with importing():
        module = import_module(f"master_agent.cli.{(COMMANDS | HIDDEN)[name].module}")
    module.add_to(app)
    app.registered_commands = [command for command in app.registered_commands if command.name == name]
    app.registered_groups = [group for group in app.registered_groups if group.name == name]
    _tidy(app)
    return typer.main.get_group(app).commands[name]


class PlainCommand(TyperCommand):
    """A command whose help names its arguments as the README does: PLAN, [NAME]."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [_name(param) for param in self.get_params(ctx) if isinstance(param, TyperArgument)]
        return ["[OPTIONS]", *filter(None, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, options = [], []
        for param in self.get_params(ctx):
            if isinstance(param, TyperArgument):
                if param.help and not param.hidden:
                    arguments.append((_name(param).strip("[]"), param.help))
            elif record := param.get_help_record(ctx):
                options.append(record)
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _tidy(app: typer.Typer) -> None:
    """Gives every command of the app, and of the groups in it, this help."""
    for command in app.registered_commands:
        command.cls = PlainCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _tidy(group.typer_instance)


def _name(param: TyperArgument) -> str:
    return (param.name or "").upper() if param.metavar is None else param.metavar
