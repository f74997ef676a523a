"""For programs that follow a run: an event on a line, on stdout or in a log file."""

import os
from pathlib import Path
from typing import IO

from master_agent.errors import SettingsError
from master_agent.events import Event, RunFinished, RunResumed, RunStarted, TextDelta, to_json
from master_agent.reporters import Silent
from master_agent.reporters.text import encoding_of, safe_json
from master_agent.results import RunResult


class JsonLinesReporter(Silent):
    """Prints each event as it happens, pieces of text too; the last line is the one `run_finished`."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._began = False
        self._finished = False
        self._broken: OSError | ValueError | None = None

    def tell(self, event: Event) -> None:
        if self._finished or self._broken:
            return
        self._began = self._began or isinstance(event, RunStarted | RunResumed)
        self._finished = isinstance(event, RunFinished)
        try:
            self._out.write(safe_json(to_json(event), encoding_of(self._out)) + "\n")
            self._out.flush()
        except (OSError, ValueError) as error:
            self._broken = error

    def finish(self, result: RunResult) -> None:
        """Ends a stream whose run never came to begin or to end; raises what kept the stream from being written."""
        if not self._began:
            self.tell(RunStarted(run_id=result.run_id, task=result.task, params=result.params))
        self.tell(
            RunFinished(
                run_id=result.run_id,
                status="failed" if result.status == "running" or result.status == "died" else result.status,
                error=result.error,
                usage=result.usage,
                seconds=result.seconds,
            )
        )
        if isinstance(self._broken, OSError):
            raise self._broken


class LogFile(Silent):
    """Appends each event that the journal keeps to a file that only its owner can read.

    `error` holds what kept it from being written, where something did.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"the log file {path} cannot be written: {error.strerror}",
                hint="Name a file in a folder that exists and is yours: --log-file FILE",
            ) from None
        self._file = os.fdopen(descriptor, "a", encoding="utf-8")

    def tell(self, event: Event) -> None:
        if isinstance(event, TextDelta) or self._file.closed:
            return
        try:
            self._file.write(safe_json(to_json(event), "utf-8") + "\n")
            self._file.flush()
        except OSError as error:
            self.error = self.error or error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error
