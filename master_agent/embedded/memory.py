"""From a model and this machine's memory to how much the model may read at once, and how many steps beside another."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from master_agent.errors import ModelError
from master_agent.gguf import ModelFile

CONTEXTS = (16_384, 8_192, 4_096)
"""Tokens for one request, the most wished for first; a plan and what tools return fit into the first."""

LEAST = 2_048
_SPARE = 512 << 20  # bytes that are left to everything else
_PROMPTS = 2 << 30  # the most that prompts which may come again are kept in


@dataclass(frozen=True)
class Fit:
    """The tokens of one request, how many requests at once, and the bytes for prompts that may come again."""

    context: int
    slots: int
    prompt_cache: int


def least(model: ModelFile) -> int:
    """The bytes of memory below which a model is not loaded."""
    return model.needs(min(LEAST, model.context or LEAST)) + _SPARE


def fit(model: ModelFile, at_once: int, free: int | None = None, most: int | None = None) -> Fit:
    """The best that the free memory allows; ModelError when it is too little for the model at all.

    `most` are the tokens that one request shall have, if the model and the memory have them.
    """
    free = available() if free is None else free
    trained = min(model.context or CONTEXTS[-1], most or CONTEXTS[0])
    wishes = list(dict.fromkeys(min(context, trained) for context in (most or CONTEXTS[0], *CONTEXTS, LEAST)))
    for context in wishes:
        for slots in dict.fromkeys((min(at_once, 4), 2, 1)):
            left = free - _SPARE - model.needs(context * slots)
            if slots <= at_once and left >= 0:
                return Fit(context, slots, min(_PROMPTS, left // 4))
    raise ModelError(
        f"{model.name} needs about {gigabytes(least(model))} of memory, and {gigabytes(free)} are free here",
        type="no_model",
        hint="Close other programs, or take a smaller model: master-agent models",
    )


def total() -> int:
    """The bytes of memory that this program may have at most: the machine's, or its container's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [_number(Path(name)) for name in ("/sys/fs/cgroup/memory.max",)]
    return min([machine, *(limit for limit in limits if limit)])


def available() -> int:
    """The bytes that a model may take now. Where the system does not say, three quarters of what there is."""
    most = total()
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    return min(most, int(found[1]) * 1024) if found else most * 3 // 4


def gigabytes(count: int) -> str:
    """The bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.1f} MB"


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
