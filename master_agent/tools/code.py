"""The tool that runs code: a program goes into the sandbox with copies of the files that its call names, and what it
printed and made comes back."""

import asyncio
import hashlib
import re
import shutil
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, JsonValue

from master_agent.errors import FileRefusedError, FileTakenError, SandboxError, ToolError
from master_agent.results import Artifact, ErrorInfo
from master_agent.sandbox import Ended, File, Outcome, Program, ProgramLimits, Sandbox, places
from master_agent.tools import Programs, ToolContext, ToolOutput, tool
from master_agent.values import suggestion
from master_agent.workspace import Workspace

STRICT = "bubblewrap"
"""The mechanism that stops all that can be stopped; of every other one is told what it does not stop."""

CONTAINERS = ("docker", "podman")
"""The mechanisms that bring interpreters of their own."""

MOST_SHOWN = 12_000  # characters of stdout, and of stderr, in the text; the data holds all of them
MOST_GIVEN = 2_000  # files
MOST_SAVED = 500  # files
SEARCH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_LANGUAGES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "python": (("python3",), ".py"),
    "shell": (("bash", "sh"), ".sh"),
    "node": (("node",), ".mjs"),
    "ruby": (("ruby",), ".rb"),
    "perl": (("perl",), ".pl"),
    "php": (("php",), ".php"),
    "lua": (("lua",), ".lua"),
    "r": (("Rscript",), ".R"),
}
"""Each language with the interpreters that run a file of it, the best first, and how such a file's name ends."""

_OTHER_NAMES = {
    **dict.fromkeys(("py", "python3"), "python"),
    **dict.fromkeys(("sh", "bash"), "shell"),
    **dict.fromkeys(("js", "javascript", "nodejs"), "node"),
    "rb": "ruby",
}
_CACHES = re.compile(r"(.*/)?(__pycache__|\.[^/]*cache|node_modules)/.*", re.DOTALL)
"""What tools leave for their own next run."""

_ENDS: Mapping[Ended, tuple[str, str]] = {
    "seconds": ("it took longer than {seconds:g} seconds", "--exec-seconds"),
    "cpu_seconds": ("it worked longer than {cpu_seconds} seconds", "--exec-cpu-seconds"),
    "memory": ("it wanted more memory than {memory:,} bytes", "--exec-memory"),
    "processes": ("it wanted more processes than {processes}", "--exec-processes"),
    "file_bytes": ("it wanted a file of more than {file_bytes:,} bytes", "--exec-file-size"),
    "disk_bytes": ("its files wanted more than {disk_bytes:,} bytes", "--exec-disk"),
    "output_bytes": ("it printed more than {output_bytes:,} bytes", "--exec-output"),
}


def _texts(given: object) -> object:
    """A list of texts, where a single one or numbers were given."""
    items = given if isinstance(given, list | tuple) else [given]
    return [str(item) if isinstance(item, int | float) else item for item in items]


Names = Annotated[tuple[str, ...], BeforeValidator(_texts)]


@tool(effects={"execute", "read", "write"}, repeatable=True)
async def run_code(
    context: ToolContext,
    language: str,
    code: str | None = None,
    file: str | None = None,
    arguments: Names = (),
    input: str = "",  # noqa: A002 - the word of the contract
    files: Names = (),
) -> ToolOutput:
    """Runs a program in a sandbox; gives back what it printed, its exit code, and the files that it made.

    `language` is python or shell, or another such as node, ruby or perl where it is installed. The program is `code`,
    or a `file` of the workspace. It starts in a folder that holds copies of `file` and of `files` (paths, folders, or
    patterns such as data/*.csv) and nothing else; there is no network, and its time is short. Files that it makes or
    changes are saved in the workspace when it comes to its own end; one that is there already is only replaced if the
    call named it.
    """
    if (code is None) == (file is None):
        raise ToolError("give the program as code, or name its file: one of the two", type="wrong_arguments")
    if context.programs is None:
        raise SandboxError("no code can be run here")
    programs = context.programs
    sandbox = await programs.sandbox()
    names = [*([file] if file is not None else []), *files]
    given = await asyncio.to_thread(_given, context, names, programs.limits)
    kind = _kind(language)
    main = context.workspace.name(file) if file is not None else _free(f"main{_LANGUAGES[kind][1]}", given)
    inside = given if code is None else {**given, main: File(_bytes(code))}
    interpreter, readable = _interpreter(kind, programs, sandbox)
    command = (interpreter, main, *map(_argument, arguments))
    outcome = await sandbox.run(Program(command, _bytes(input), inside, readable), programs.limits)
    kept = await _keep(context, outcome, given, () if code is None else (main,))
    return _told(kind, outcome, kept, context, sandbox)


def _argument(text: str) -> str:
    """The text, where it can be the argument of a program."""
    if b"\0" in _bytes(text):
        raise ToolError("an argument holds a NUL, which no argument of a program can", type="wrong_arguments")
    return text


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ToolError("the text holds half a character (a lone surrogate)", type="wrong_arguments") from None


# What goes in


def _given(context: ToolContext, names: Iterable[str], limits: ProgramLimits) -> dict[str, File]:
    """Copies of the files that were named, by path; FileRefusedError for one that may not be read."""
    given: dict[str, File] = {}
    size, most = 0, limits.disk_bytes // 2
    for path in dict.fromkeys(path for name in names for path in _paths(context.workspace, name)):
        before = context.found.get(path)
        content = before if before is not None else context.workspace.read(path, limits.file_bytes)
        given[path] = File(content, _executable(context.workspace, path))
        size += len(content)
        if len(given) > MOST_GIVEN or size > most:
            raise ToolError(
                f"too much is given to the program: {len(given):,} files of {size:,} bytes and more; {MOST_GIVEN:,} "
                f"files and {most:,} bytes are the most, so name only what it needs"
            )
    return given


def _paths(workspace: Workspace, name: str) -> list[str]:
    """The files that a name stands for: that one, all of a folder, or all that match a pattern."""
    try:
        return [entry.path for entry in workspace.entries(name, most=MOST_GIVEN + 1)]
    except FileRefusedError:
        path = workspace.name(name)
    if workspace.exists(path) or not re.search(r"[*?]", path):
        return [path]
    pattern = _pattern(path)
    found = [entry.path for entry in workspace.entries(most=MOST_GIVEN + 1) if pattern.fullmatch(entry.path)]
    if not found:
        raise FileRefusedError(f'no file of the workspace matches "{name}"')
    return found


def _pattern(path: str) -> re.Pattern[str]:
    """A pattern of paths: * and ? stand for part of a name, ** for any number of folders."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", path)
    return re.compile("".join(signs.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _executable(workspace: Workspace, path: str) -> bool:
    try:
        return bool((workspace.mode(path) or 0) & 0o100)
    except FileRefusedError:  # it may not be replaced; read it may be all the same
        return False


def _free(name: str, taken: Mapping[str, File]) -> str:
    """A name that none of the files has."""
    stem, _, suffix = name.rpartition(".")
    names = (name if number == 1 else f"{stem}_{number}.{suffix}" for number in range(1, len(taken) + 2))
    return next(free for free in names if free not in taken)


def _kind(language: str) -> str:
    """The language by the name that we know it by; ToolError for one that nobody knows."""
    said = language.strip().lower()
    kind = _OTHER_NAMES.get(said, said)
    if kind not in _LANGUAGES:
        known = ", ".join(_LANGUAGES)
        raise ToolError(
            f'no language "{language}"{suggestion(said, _LANGUAGES)}; there are {known}', type="wrong_arguments"
        )
    return kind


def _interpreter(kind: str, programs: Programs, sandbox: Sandbox) -> tuple[str, tuple[Path, ...]]:
    """The command that runs a file of the language, and what it reads; ToolError when it is not installed."""
    names, contained = _LANGUAGES[kind][0], sandbox.name in CONTAINERS
    if kind == "python" and programs.python is not None and not contained:
        return _of_python(programs.python)
    if contained or kind == "python":
        return names[-1], ()
    found = next((name for name in names if shutil.which(name, path=SEARCH)), None)
    if found is None:
        there = [other for other, (each, _) in _LANGUAGES.items() if any(shutil.which(n, path=SEARCH) for n in each)]
        raise ToolError(f"{names[0]} is not installed on this machine; there are {', '.join(there)}")
    return found, ()


def _of_python(python: Path) -> tuple[str, tuple[Path, ...]]:
    """The command of an interpreter that was named, and what it reads: its environment, or its own libraries."""
    if places.is_environment(python.parent.parent):
        return str(python), (python.parent.parent,)
    own = python.resolve()
    return str(own), tuple(places.of_interpreter(own))


# What comes back


@dataclass
class _Kept:
    """The files that were saved, and why others were not."""

    saved: list[Artifact] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


async def _keep(context: ToolContext, outcome: Outcome, given: Mapping[str, File], own: Iterable[str]) -> _Kept:
    """Saves what the program made and changed, each file as any tool saves one; `own` is the program itself."""
    kept = _Kept(left={**outcome.left_out, **dict.fromkeys(outcome.deleted, "deleted there only; it stays here")})
    for path in own:
        kept.left.pop(path, None)
    for path in sorted(set(outcome.files) - set(own)):
        if outcome.exit_code is None:
            kept.left[path] = "the program did not come to its own end"
        elif _CACHES.fullmatch(path):
            kept.left[path] = "a cache"
        elif len(kept.saved) == MOST_SAVED:
            kept.left[path] = f"{MOST_SAVED} files were saved already"
        else:
            await _save(context, path, outcome.files[path].content, given.get(path), kept)
    return kept


async def _save(context: ToolContext, path: str, content: bytes, before: File | None, kept: _Kept) -> None:
    try:
        if before is not None and path not in context.found:
            now = context.workspace.digest(path)
            if now != hashlib.sha256(before.content).hexdigest():
                raise FileRefusedError("it was changed here while the program ran; run it again")
        kept.saved.append(await context.files.save(path, content, overwrite=before is not None))
    except FileTakenError:
        kept.left[path] = "it is there already and the call did not name it; name it in files to have it replaced"
    except FileRefusedError as error:
        kept.left[path] = error.message


def _told(kind: str, outcome: Outcome, kept: _Kept, context: ToolContext, sandbox: Sandbox) -> ToolOutput:
    """What came of it, in words for a model and as data."""
    stdout, stderr = (context.hide(part.decode("utf-8", "replace")) for part in (outcome.stdout, outcome.stderr))
    limits = context.programs.limits if context.programs else ProgramLimits()
    limit = _ENDS[outcome.ended_by][0].format(**vars(limits)) if outcome.ended_by else None
    end = _end(outcome, limit)
    weaker = sandbox.name != STRICT
    parts = [_cut(stdout, "stdout")] if stdout.strip() else []
    parts += [f"stderr:\n{_cut(stderr, 'stderr')}"] if stderr.strip() else []
    parts += [f"[{end}, after {outcome.seconds:.1f} s{'' if stdout.strip() or stderr.strip() else '; no output'}]"]
    parts += [f"[saved {artifact.path} ({artifact.bytes:,} bytes)]" for artifact in kept.saved[:50]]
    parts += [f"[and {len(kept.saved) - 50} more files]"] if len(kept.saved) > 50 else []
    parts += [f"[not saved: {path}: {why}]" for path, why in list(kept.left.items())[:50] if why != "a cache"]
    parts += [f"[run by {sandbox.name}, which does not stop: {'; '.join(sandbox.gaps)}]"] if weaker else []
    data: dict[str, JsonValue] = {
        "language": kind,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "ended_by": outcome.ended_by,
        "seconds": round(outcome.seconds, 3),
        "stdout": stdout,
        "stderr": stderr,
        "saved": [artifact.path for artifact in kept.saved],
        "not_saved": dict(kept.left),
        "mechanism": sandbox.name,
        "weaker": weaker,
        "gaps": list(sandbox.gaps),
    }
    error = None if outcome.exit_code == 0 else _failed(end, stderr, outcome)
    return ToolOutput("\n".join(parts), data, tuple(kept.saved), error=error)


def _end(outcome: Outcome, limit: str | None) -> str:
    """How it ended: "exit code 0", "ended: it took longer than 60 seconds"."""
    if outcome.exit_code is not None:
        return f"exit code {outcome.exit_code}{f'; {limit}' if limit else ''}"
    if limit is not None:
        return f"ended: {limit}"
    try:
        return f"ended by {signal.Signals(outcome.signal or 0).name}"
    except ValueError:
        return f"ended by signal {outcome.signal}"


def _failed(end: str, stderr: str, outcome: Outcome) -> ErrorInfo:
    last = stderr.strip().rpartition("\n")[2].strip()[:300]
    last = f": {last}" if last else ""
    flag = _ENDS[outcome.ended_by][1] if outcome.ended_by else None
    return ErrorInfo(
        type="program_failed",
        message=f"the program was {end}" if outcome.exit_code is None else f"the program ended with {end}{last}",
        hint=f"To allow more: {flag}" if flag else None,
    )


def _cut(text: str, name: str) -> str:
    """The text without its last line break; of a long one the beginning and the end."""
    text = text.removesuffix("\n")
    if len(text) <= MOST_SHOWN:
        return text
    half = MOST_SHOWN // 2
    return f"{text[:half]}\n[cut: {len(text) - 2 * half:,} of {len(text):,} characters of {name}]\n{text[-half:]}"
