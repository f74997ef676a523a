"""For programs: one result object on stdout, whatever happened."""

import json
from typing import IO

from master_agent.reporters import Silent
from master_agent.reporters.text import encoding_of, safe_json
from master_agent.results import RunResult


class JsonReporter(Silent):
    """Prints exactly one object, at the end."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._finished = False

    def finish(self, result: RunResult) -> None:
        if self._finished:
            return
        self._finished = True
        body = json.dumps(result.model_dump_public(), indent=2, ensure_ascii=False)
        self._out.write(safe_json(body, encoding_of(self._out)) + "\n")
        self._out.flush()
