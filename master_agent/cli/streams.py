"""Standard input and output: read where they were named, written so that no character breaks them."""

import errno
import io
import json
import os
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import IO

from master_agent.errors import PlanError, UsageError
from master_agent.reporters.text import columns, encoding_of, fitted, safe_json, visible

NARROWEST = 20  # columns; in fewer a terminal does better by itself


def prepare() -> None:
    """No stream is missing, and none breaks on a character that it cannot show. OSError when stdout is closed."""
    # What is opened takes the number of the stream that is closed, so that no file of ours gets it.
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY), closefd=False)
    closed = sys.stdout is None
    if closed:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if closed:
        raise OSError(errno.EBADF, "it is closed")


def flush() -> None:
    """All of stdout is written; OSError when it cannot be."""
    sys.stdout.flush()


def is_broken(error: OSError) -> bool:
    """Whether the error is that stdout cannot be written: then it still cannot."""
    if isinstance(error, BrokenPipeError):
        return True
    try:
        flush()
    except OSError:
        return True
    return False


def give_up(error: OSError) -> None:
    """Says that stdout cannot be written, and leaves it alone; whoever closed a pipe need not be told."""
    with suppress(OSError, ValueError):  # at its exit Python would try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        say(f"master-agent: standard output cannot be written: {error.strerror}")


def read_stdin() -> bytes:
    """All of standard input, which the command line named; at most a byte more than a plan may hold."""
    if sys.stdin is None:
        return b""
    from master_agent.plan import MAX_BYTES

    return sys.stdin.buffer.read(MAX_BYTES + 1)


def read_file(path: Path) -> bytes:
    """A plan or a result that the command line named; UsageError when it cannot be read, PlanError when too large."""
    from master_agent.plan import MAX_BYTES

    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise PlanError(f"{path} holds {size:,} bytes; a plan may hold {MAX_BYTES:,}")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def print_json(value: object) -> None:
    """A JSON value on stdout: in UTF-8 where the stream takes it, else escaped."""
    body = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(safe_json(body, encoding_of(sys.stdout)) + "\n")
    sys.stdout.flush()


def print_object(kind: str, /, **body: object) -> None:
    """What a command has found, as the one object on stdout that says what it is."""
    print_json({"kind": kind, "version": 1, **body})


def write(text: str, *, hang: int | None = None) -> None:
    """A line of data on stdout. With `hang`, one that a terminal shows whole, its further lines so far to the right."""
    shown = fitted(visible(text), encoding_of(sys.stdout))
    sys.stdout.write((shown if hang is None else wrapped(shown, sys.stdout, hang=hang)) + "\n")


def write_json_line(line: str) -> None:
    """A JSON value on one line of stdout."""
    sys.stdout.write(safe_json(line, encoding_of(sys.stdout)) + "\n")


def say(text: str) -> None:
    """A message for a person, on stderr; where that is gone, for nobody."""
    with suppress(OSError, ValueError):
        sys.stderr.write(wrapped(fitted(visible(text), encoding_of(sys.stderr)), sys.stderr) + "\n")
        sys.stderr.flush()


def width_of(stream: IO[str]) -> int | None:
    """The columns of the terminal that the stream is; None where it is none, or too narrow to be heeded."""
    if not stream.isatty():
        return None
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return None if width < NARROWEST else width


def wrapped(text: str, stream: IO[str], *, hang: int = 0) -> str:
    """The text with its lines broken between words, where the stream is a terminal that is narrower than they are."""
    if (width := width_of(stream)) is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" ")) + hang)
        fits = columns(line) <= width
        lines += [line] if fits else textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )  # fmt: skip
    return "\n".join(lines)


def interactive() -> bool:
    """Whether a person can be asked: stdin and stderr are terminals, whatever stdout is."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
