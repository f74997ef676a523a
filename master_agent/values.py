"""JSON values as they are written down and shown to a person, and the known name that is nearest to a given one."""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

MOST_DEPTH = 100  # levels; what reads events back goes no deeper than 200


def clean(value: Any) -> Any:
    """The JSON value as it can be written down: half characters become �, and NaN and infinity null.

    JSON may hold `"\\ud83d"`, half of an emoji, and Python reads `NaN`; neither can be encoded again.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return _cleaned(value)
    return value


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {_cleaned(name): _cleaned(item) for name, item in value.items()}
    return value


def bounded(value: Any) -> Any:
    """The JSON value; RecursionError when it is nested so deeply that it could not be read back once written down."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for item in level if isinstance(item, dict | list) for inner in _parts(item)]
        if not level:
            return value
    raise RecursionError(f"it is nested deeper than {MOST_DEPTH} levels")


def _parts(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the given one, where one is near."""
    found = difflib.get_close_matches(given[:100].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(given: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the known names, or nothing."""
    names = sorted(known)
    near = nearest(given, names)
    if near:
        return f'; did you mean "{near}"?'
    return f" (there are: {', '.join(names[:20])}{', …' if len(names) > 20 else ''})" if names else ""


def quoted(value: object) -> str:
    """The value as JSON, cut to 80 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def kind(raw: object) -> str:
    """What sort of value it is, in words."""
    match raw:
        case dict():
            return f"an object with {', '.join(map(quoted, list(raw)[:8])) or 'nothing in it'}"
        case list():
            return "a list"
    return quoted(raw)


def canonical(value: object) -> bytes:
    """The value as JSON that is the same wherever the value is."""
    return _CANONICAL.encode(value).encode("utf-8", "surrogatepass")


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def key_of(parts: Mapping[str, str]) -> str | None:
    """The one SHA-256 that stands for the hashes of all parts; None where there are none."""
    return hashlib.sha256(canonical(dict(parts))).hexdigest() if parts else None
