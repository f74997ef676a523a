"""The conversation of a step in words: `show RUN --thread STEP`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from master_agent.cli import streams
from master_agent.history.conversation import Entry
from master_agent.reporters.text import seconds, tokens


def tell(entries: Sequence[Entry]) -> None:
    """The conversation on stdout, for a person."""
    if not entries:
        streams.say("nothing was said: the step did not begin")
    for entry in entries:
        heading, *text = _lines(entry)
        streams.write(heading)
        for line in text:
            for part in line.splitlines() or [""]:
                streams.write(f"    {part}".rstrip())


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    match entry["role"]:
        case "start":
            yield f"started: {_doer(entry)}, attempt {entry['attempt'] or 1}"
        case "user":
            yield f"turn {entry['turn']}, to {entry['model'] or 'the default model'}:"
            yield str(entry.get("text", ""))
            yield from (f"(picture {picture['name']})" for picture in entry.get("pictures", []))
        case "tools":
            count = len(entry.get("outputs", []))
            yield f"turn {entry['turn']}: {count} output{'' if count == 1 else 's'} given back"
        case "model":
            yield _reply_heading(entry)
            yield from filter(None, [entry["text"]])
            yield from (f"uses {call['name']} {call['arguments']}" for call in entry["calls"])
            yield from (f"cites {source['url']}" for source in entry["sources"])
            yield from (f"({note})" for note in entry["lost"])
        case "tool":
            yield f"tool {entry['tool']}: {json.dumps(entry['arguments'], ensure_ascii=False)}"
        case "output":
            yield f"output of {entry['tool']}{_failure(entry)}"
            yield from filter(None, [entry["text"]])
            yield from (f"file {one['path']}" for one in entry["artifacts"])
        case "file":
            verb = "removes" if entry["removed"] else "replaces" if entry["before"] else "makes"
            yield f"{verb} {entry['file']['path']} ({entry['file']['bytes']:,} bytes)"
        case "file_failed":
            yield f"{entry['file']['path']} stays as it was{_failure(entry)}"
        case "end":
            result = entry["result"]
            yield f"ended: {result['status']}{_failure(result)}"


def _doer(entry: Mapping[str, Any]) -> str:
    return f"agent {entry['agent']}" if entry["agent"] else f"tool {entry['tool']}"


def _failure(entry: Mapping[str, Any]) -> str:
    return f", {entry['error']['type']}: {entry['error']['message']}" if entry["error"] else ""


def _reply_heading(entry: Mapping[str, Any]) -> str:
    used = entry["usage"]
    counts = f"{tokens(used['input_tokens'])} tokens in, {tokens(used['output_tokens'])} out"
    return f"model: {entry['status']}, {counts}, {seconds(entry['seconds'])}{_failure(entry)}"
