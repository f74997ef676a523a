"""Between events and the rows that hold them: long texts are kept once, by their hash, and put back when read."""

import gc
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from typing import Any, get_args

from master_agent.database import get_blob
from master_agent.events import EVENT, Event

LONG_TEXT = 4096  # characters; a text as long as that is kept once, by its hash
BLOB = "$blob"
_KNOWN = {member.model_fields["type"].default for member in get_args(Event)}


def read_rows(connection: sqlite3.Connection, rows: Iterable[tuple[str, str]]) -> list[Event]:
    """The events of rows of type and body; those of types that this version does not know are passed over."""
    collecting = gc.isenabled()
    gc.disable()  # all that is made here stays: to look for what does not takes twice as long as the reading
    try:
        return [EVENT.validate_json(_whole(connection, body)) for type_, body in rows if type_ in _KNOWN]
    finally:
        if collecting:
            gc.enable()


def without_long_texts(line: str) -> tuple[str, dict[str, bytes]]:
    """The line with each long text replaced by its hash, and the texts by their hashes."""
    if len(line) < LONG_TEXT:
        return line, {}
    blobs: dict[str, bytes] = {}

    def lift(value: Any) -> Any:
        match value:
            case str() if len(value) >= LONG_TEXT:
                content = value.encode()
                digest = hashlib.sha256(content).hexdigest()
                blobs[digest] = content
                return {BLOB: digest}
            case list():
                return [lift(item) for item in value]
            case dict():
                return {name: lift(item) for name, item in value.items()}
        return value

    lifted = lift(json.loads(line))
    return (json.dumps(lifted, ensure_ascii=False, separators=(",", ":")) if blobs else line), blobs


def _whole(connection: sqlite3.Connection, line: str) -> str:
    """The line with its long texts back in their places."""
    if f'"{BLOB}"' not in line:
        return line

    def back(value: dict[str, Any]) -> Any:
        if value.keys() == {BLOB} and (content := get_blob(connection, str(value[BLOB]))) is not None:
            return content.decode()
        return value

    return json.dumps(json.loads(line, object_hook=back), ensure_ascii=False)
