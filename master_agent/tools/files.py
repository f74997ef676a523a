"""The tools that read, write and list files, and the one that saves what an earlier step made."""

import hashlib
import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from master_agent.attachments import PICTURE_LIMIT, Attachment, picture_type
from master_agent.errors import FileRefusedError, ToolError
from master_agent.media import media_type
from master_agent.results import StepResult
from master_agent.tools import StepName, ToolContext, ToolOutput, tool
from master_agent.values import suggestion

MOST_CHARACTERS = 40_000  # of one reading; less than a tool's output may hold, so that the notes are never cut
MOST_ENTRIES = 500
SAVE_LIMIT = 100 * 1024 * 1024  # bytes of an earlier step's file


@tool(effects={"read"})
async def read_file(
    context: ToolContext,
    path: str,
    start_line: Annotated[int, Field(ge=1)] = 1,
    lines: Annotated[int, Field(ge=1, le=5_000)] = 2_000,
) -> ToolOutput:
    """Reads a text file of the workspace: `lines` lines from `start_line` on. Says when there is more to read.

    A picture is shown to you, if you can see. Where a key stood, you see `(secret)`: never write that into a file.
    """
    content = context.workspace.read(path)
    if kind := picture_type(content):
        return _picture(path, kind, content)
    text = context.hide(_text(path, content))
    every = text.split("\n")
    if start_line > len(every):
        raise ToolError(f'"{path}" has {len(every):,} lines; start_line {start_line:,} is behind the last')
    part: list[str] = []
    room = MOST_CHARACTERS
    for line in every[start_line - 1 : start_line - 1 + lines]:
        if len(line) >= room:
            break
        part.append(line)
        room -= len(line) + 1
    cut = not part  # a single line that is longer than one reading
    if cut:
        part.append(every[start_line - 1][:MOST_CHARACTERS])
    last = start_line + len(part) - 1
    notes = []
    if cut:
        notes.append(f"[line {start_line} is cut: {MOST_CHARACTERS:,} of {len(every[start_line - 1]):,} characters]")
    if start_line > 1 or last < len(every):
        more = f"; read on with start_line={last + 1}" if last < len(every) else ""
        notes.append(f"[lines {start_line} to {last} of {len(every)}{more}]")
    return ToolOutput(text="\n".join([*part, *notes]))


def _picture(path: str, kind: str, content: bytes) -> ToolOutput:
    if len(content) > PICTURE_LIMIT:
        raise ToolError(f'the picture "{path}" has {len(content):,} bytes; {PICTURE_LIMIT:,} is the most to be shown')
    text = f'the picture "{path}" ({kind}, {len(content):,} bytes)'
    return ToolOutput(text=text, pictures=(Attachment(path, kind, content),))


@tool(effects={"write"})
async def write_file(context: ToolContext, path: str, content: str, overwrite: bool = False) -> ToolOutput:
    """Writes a text file into the workspace, whole, and makes the folders above it.

    A file that was there before this run is only replaced with `overwrite` set to true.
    """
    return await _saved(context, path, _bytes(content), overwrite=overwrite, what="wrote")


@tool(effects={"read"})
async def list_files(context: ToolContext, folder: str = ".") -> ToolOutput:
    """Lists all files below a folder of the workspace, with their sizes in bytes."""
    found = context.workspace.entries(folder, most=MOST_ENTRIES + 1)
    if not found:
        return ToolOutput(text="there are no files")
    listed = "\n".join(f"{entry.path} ({entry.bytes:,} bytes)" for entry in found[:MOST_ENTRIES])
    if len(listed) > MOST_CHARACTERS:
        listed = listed[:MOST_CHARACTERS].rpartition("\n")[0]
    shown = listed.count("\n") + 1
    more = f"\n[cut after {shown} files; list a folder below for the rest]" if shown < len(found) else ""
    return ToolOutput(text=listed + more)


@tool(effects={"write"})
async def save_result(
    context: ToolContext, step: StepName, path: str, file: str | None = None, overwrite: bool = False
) -> ToolOutput:
    """Saves what an earlier step made under `path`, byte for byte: its code file, else its picture, else its text.

    `file` names which one where the step made several. A file that was there before this run is only replaced with
    `overwrite` set to true.
    """
    result = context.inputs.results.get(step)
    if result is None:
        known = context.inputs.results
        raise ToolError(f'no result of a step "{step}"{suggestion(step, known)}', type="wrong_arguments")
    if not result.usable:
        raise ToolError(f'the step "{step}" left nothing to save: it is {result.status}')
    return await _saved(context, path, _made(context, step, result, file), overwrite=overwrite, what=f"saved {step} as")


def _made(context: ToolContext, step: str, result: StepResult, file: str | None) -> bytes:
    """The bytes of the one thing that is meant; ToolError with all there is when it is not clear which."""
    listed = result.data.get("files")
    items = listed if isinstance(listed, list) else []
    codes = {str(item.get("name")): item for item in items if isinstance(item, dict)}
    pictures = {artifact.path: artifact for artifact in result.artifacts}
    if file is not None:
        names = {**pictures, **codes}
        # The last part of a name is enough where only one has it.
        ends = [name for name in names if name.rpartition("/")[2] == file]
        if file not in names and len(ends) != 1:
            there = _list(names) if names else "no files, only text; leave out file to save that"
            raise ToolError(f'the step "{step}" made no file "{file}"; it made {there}', type="wrong_arguments")
        chosen = file if file in names else ends[0]
    elif len(codes) == 1 or (not codes and len(pictures) == 1):
        chosen = next(iter(codes or pictures))
    elif codes or pictures:
        raise ToolError(
            f'the step "{step}" made several files: {_list(codes or pictures)}; name one with file',
            type="wrong_arguments",
        )
    elif result.text:
        return _bytes(result.text)
    else:
        raise ToolError(f'the step "{step}" left no file and no text to save')
    if chosen in codes:
        return _code(step, chosen, codes[chosen])
    artifact = pictures[chosen]
    content = context.workspace.read(artifact.path, limit=SAVE_LIMIT)
    if hashlib.sha256(content).hexdigest() != artifact.sha256:
        raise ToolError(f'"{artifact.path}" was changed since the step "{step}" made it; read or write it by its name')
    return content


def _code(step: str, name: str, item: Mapping[str, Any]) -> bytes:
    content = item.get("content")
    if not isinstance(content, str):
        raise ToolError(f'the file "{name}" of the step "{step}" has no content')
    return _bytes(content)


async def _saved(context: ToolContext, path: str, content: bytes, *, overwrite: bool, what: str) -> ToolOutput:
    artifact = await context.files.save(path, content, overwrite=overwrite)
    told = f"{what} {artifact.path} ({artifact.bytes:,} bytes)"
    if content.startswith(b"#!") and not (context.workspace.mode(artifact.path) or 0) & 0o111:
        by_hand = (
            f"chmod +x {shlex.quote(artifact.path)}"  # a person's to do: what an agent left does not run by itself
        )
        told += f"; whoever runs it as a program makes it executable first: {by_hand}"
    return ToolOutput(text=told, artifacts=(artifact,))


def _text(path: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise FileRefusedError(f'"{path}" is no text: {media_type(path, content)}, {len(content):,} bytes')
    return text


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ToolError("the content holds half a character (a lone surrogate), which no file can") from None


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(f'"{name}"' for name in names)
