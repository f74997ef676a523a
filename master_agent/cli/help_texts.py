"""Help as it is printed: usage lines that say what to type, and arguments without the types of Python."""

from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand


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


def tidy(app: typer.Typer) -> None:
    """Gives every command of the app, and of the groups in it, this help."""
    for command in app.registered_commands:
        command.cls = PlainCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            tidy(group.typer_instance)


def _name(param: TyperArgument) -> str:
    return (param.name or "").upper() if param.metavar is None else param.metavar
