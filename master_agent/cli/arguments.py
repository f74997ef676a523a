"""One rewrite of argv: what is a command, what is a task, and what is neither."""

import shlex
from collections.abc import Sequence

from master_agent.cli.commands import COMMANDS, TASK
from master_agent.errors import UsageError

_OF_THE_PROGRAM = ("--help", "-h", "--version", "-V", "--install-completion", "--show-completion")


def rewrite(argv: Sequence[str]) -> list[str]:
    """argv with its command first. The first argument is a command only if it equals one; all else is a task.

    UsageError for a lone word that is near a command's name: it is more likely a slip than a task worth money.
    """
    if not argv:
        return ["--help"]
    argv = _with_its_value(argv)
    first = argv[0]
    if first in COMMANDS or first in _OF_THE_PROGRAM:
        return list(argv)
    before, dashes, after = _split(argv)
    words = [word for word in before if not word.startswith("-") or word == "-"]
    if not dashes and len(words) == 1 and first == words[0]:
        import difflib  # for slips only

        near = difflib.get_close_matches(first.lower(), COMMANDS, n=1, cutoff=0.7)
        if near and " " not in first.strip():
            raise UsageError(
                f'"{first}" is no command; did you mean: master-agent {near[0]}',
                hint=f"If it is a task: master-agent -- {shlex.quote(first)}",
            )
    return [TASK, *before, *(["--", *after] if dashes else [])]


def _with_its_value(argv: Sequence[str]) -> list[str]:
    """argv with `--reuse` alone as `--reuse=on`: it takes the next word only if that is one of its values."""
    before, dashes, after = _split(argv)
    whole: list[str] = []
    for word in before:
        if whole and whole[-1] == "--reuse=on" and word in ("on", "off", "all"):
            whole[-1] = f"--reuse={word}"
        else:
            whole.append("--reuse=on" if word == "--reuse" else word)
    return [*whole, *(["--", *after] if dashes else [])]


def one_task(words: Sequence[str], command: str = "master-agent") -> str:
    """The task that the words are; UsageError when they are none, or loose. `command` is what they were given to."""
    example = f'Say what shall be done: {command} "Make a landing page"'
    if not words:
        raise UsageError("there is no task", hint=example)
    if len(words) > 1:
        if words[0] in COMMANDS and command == "master-agent":
            raise UsageError(
                f"options come after the command: master-agent {words[0]} …",
                hint=f"master-agent {shlex.join(words)} --yes, for example",
            )
        raise UsageError("a task is one argument, in quotes", hint=f"{command} {_quoted(' '.join(words))}")
    if not words[0].strip():
        raise UsageError("the task is empty", hint=example)
    return words[0]


def _quoted(text: str) -> str:
    """The text as a shell takes it for one argument."""
    return shlex.quote(text) if any(sign in text for sign in '"$`\\!') else f'"{text}"'


def _split(argv: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in argv:
        return list(argv), False, []
    at = list(argv).index("--")
    return list(argv[:at]), True, list(argv[at + 1 :])
