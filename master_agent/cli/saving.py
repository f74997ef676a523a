"""A plan into the file that -o names: looked at before a model is asked, written whole or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from master_agent.errors import UsageError
from master_agent.plan import Plan


def target(path: Path) -> Path:
    """The file to write, links followed; UsageError when no plan can be saved there."""
    said = f"the plan cannot be saved to {path}"
    try:
        real = path.resolve()
        if path == Path() or real.is_dir():
            raise UsageError(f"{said}: it is a folder", hint="Name a file: -o plan.json")
        if not real.parent.is_dir():
            raise UsageError(f"{said}: there is no folder {path.parent}")
        writable = real if _is_special(real) else real.parent
        if not os.access(writable, os.W_OK):
            raise UsageError(f"{said}: {writable} may not be written to")
    except OSError as error:
        raise UsageError(f"{said}: {error.strerror}") from None
    return real


def save(path: Path, made: Plan) -> str | None:
    """Writes the plan; what kept it from being written, if something did."""
    try:
        if _is_special(path):  # a device or a pipe, which nothing may take the place of
            path.write_text(made.to_json(), encoding="utf-8")
        else:
            replace(path, made.to_json())
    except OSError as error:
        return f"the plan cannot be saved to {path}: {error.strerror}"
    return None


def replace(path: Path, text: str) -> None:
    """Puts the text into the file in one go: whoever reads it finds the old one or the new one whole."""
    part = path.with_name(f".master-agent-{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
        if path.exists():
            part.chmod(path.stat().st_mode & 0o7777)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
