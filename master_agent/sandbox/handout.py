"""From the bytes that come out of a sandbox to an Outcome, believing none of them.

What the warden writes is a row of frames: a letter, a length (8 bytes, big-endian) and as many bytes.

S  how it ended: exit code, signal, microseconds and limit as words, "-" for none
O, E  what the program wrote to stdout and to stderr
F  a file: the length of its path (2 bytes), the path, "x" or "-" for executable, the content
L  something left out: the length of its path (2 bytes), the path, why
X  the number of the error for which the program could not be started
Z  the end; nothing counts without it

Everything is held to the limits again here, and to what a path of a file can be.
"""

import asyncio
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from master_agent.errors import SandboxError
from master_agent.sandbox import Ended, File, Outcome, Program, ProgramLimits

MOST_FILES, MOST_LEFT_OUT, LONGEST_WHY = 10_000, 1_001, 1_000
_ENDED: Mapping[str, Ended] = {name: name for name in get_args(Ended)}
_SAID: tuple[tuple[bytes, Ended], ...] = (
    (b"MemoryError", "memory"),
    (b"Cannot allocate memory", "memory"),
    (b"std::bad_alloc", "memory"),
    (b"can't start new thread", "processes"),
    (b"fork: Resource temporarily unavailable", "processes"),
    (b"No space left on device", "disk_bytes"),
    (b"File too large", "file_bytes"),
)
"""What a program that failed says of the limit that it ran into; the kernel tells that to nobody else."""


@dataclass
class _Parts:
    """What has come out so far."""

    status: tuple[int | None, int | None, float, Ended | None] | None = None
    output: dict[bytes, bytes] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    room: int = 0


async def read(stream: asyncio.StreamReader, program: Program, limits: ProgramLimits) -> Outcome:
    """The outcome that a stream holds. SandboxError when it is none, or the program could not be started.

    EOFError when it ends too early.
    """
    parts = _Parts(room=limits.disk_bytes)
    while True:
        kind, size = struct.unpack(">cQ", await _exactly(stream, 9))
        if size > _most(kind, parts, limits):
            raise _broken(f"a piece {kind!r} of {size} bytes")
        payload = await _exactly(stream, size)
        if kind == b"Z":
            return _outcome(parts, program)
        _take(kind, payload, parts, program, limits)


def _most(kind: bytes, parts: _Parts, limits: ProgramLimits) -> int:
    """How many bytes such a piece may have now."""
    match kind:
        case b"O" | b"E":
            return limits.output_bytes
        case b"F":
            return min(limits.file_bytes, parts.room) + 4096
        case b"L":
            return 2 * 4096 + LONGEST_WHY
        case b"S" | b"X":
            return 100
        case b"Z":
            return 0
    raise _broken(f"a piece {kind!r}")


def _take(kind: bytes, payload: bytes, parts: _Parts, program: Program, limits: ProgramLimits) -> None:
    match kind:
        case b"S" if parts.status is None:
            parts.status = _status(payload)
        case b"O" | b"E" if kind not in parts.output:
            parts.output[kind] = payload
        case b"X" if payload.isdigit():
            raise SandboxError(
                f"{program.command[0]!r} could not be started in the sandbox: {os.strerror(int(payload[:4]))}",
                hint="Is it installed for everybody on this machine (in /usr)?",
            )
        case b"F":
            path, rest = _path(payload)
            content = rest[1:]
            parts.room -= len(content)
            if rest[:1] not in (b"x", b"-") or len(content) > limits.file_bytes or parts.room < 0:
                raise _broken(f"the file {path!r}")
            if path in parts.files or len(parts.files) == MOST_FILES or not safe(path):
                raise _broken(f"the file {path!r}")
            parts.files[path] = File(content, executable=rest[:1] == b"x")
        case b"L":
            path, why = _path(payload)
            if path in parts.left_out or len(parts.left_out) == MOST_LEFT_OUT or len(why) > LONGEST_WHY:
                raise _broken(f"{path!r} left out")
            parts.left_out[path] = why.decode("utf-8", "replace")
        case _:
            raise _broken(f"a second piece {kind!r}")


def safe(path: str) -> bool:
    """Whether a path stays in the folder that it is relative to."""
    if any(0xD800 <= ord(sign) < 0xE000 for sign in path):
        return False  # half a character
    return "\0" not in path and not any(piece in ("", ".", "..") for piece in path.split("/"))


def _path(payload: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(payload[:2], "big")
    path, rest = payload[2 : 2 + size], payload[2 + size :]
    try:
        return path.decode(), rest
    except UnicodeDecodeError:
        raise _broken(f"the name {path!r}") from None


def _status(payload: bytes) -> tuple[int | None, int | None, float, Ended | None]:
    words = payload.decode("ascii", "replace").split(" ")
    try:
        code, number, took, ended = words
        return _number(code), _number(number), int(took) / 1e6, _ENDED.get(ended)
    except ValueError:
        raise _broken(f"the end {payload!r}") from None


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


def _outcome(parts: _Parts, program: Program) -> Outcome:
    if parts.status is None:
        raise _broken("no end of the program")
    code, number, seconds, ended = parts.status
    stderr = parts.output.get(b"E", b"")
    if ended is None and code != 0:
        ended = next((name for words, name in _SAID if words in stderr[-4096:]), None)
    gone = tuple(path for path in program.files if path not in parts.files and path not in parts.left_out)
    changed = {path: file for path, file in parts.files.items() if program.files.get(path) != file}
    return Outcome(
        exit_code=code,
        stdout=parts.output.get(b"O", b""),
        stderr=stderr,
        seconds=seconds,
        ended_by=ended,
        signal=number,
        files=changed,
        deleted=gone,
        left_out=parts.left_out,
    )


async def _exactly(stream: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await stream.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise EOFError(f"{len(error.partial)} of {size} bytes") from None


def _broken(what: str) -> SandboxError:
    return SandboxError(f"what came out of the sandbox is not to be trusted: {what}")
