"""What programs read: one result object, a line for each event, a log file."""

import json
import stat
from io import StringIO
from pathlib import Path

import pytest

from master_agent.errors import SettingsError
from master_agent.events import EVENT, RunFinished, TextDelta
from master_agent.reporters import Reporter
from master_agent.reporters.json import JsonReporter
from master_agent.reporters.json_lines import JsonLinesReporter, LogFile
from master_agent.results import ErrorInfo, RunResult
from tests.reporters.samples import PLAN, RESULT, Stream, whole_run


def test_json_prints_exactly_the_one_result_object() -> None:
    out = StringIO()
    reporter: Reporter = JsonReporter(out)
    for event in whole_run():
        reporter.tell(event)
    reporter.plan(PLAN, ["overwrites index.html"])
    reporter.notice("the replies are scripted")
    reporter.finish(RESULT)
    reporter.finish(RESULT)
    reporter.close()
    assert json.loads(out.getvalue()) == RESULT.model_dump_public()
    assert out.getvalue().endswith("}\n")


def test_json_is_utf_8_where_the_stream_is_and_ascii_where_it_is_not() -> None:
    result = RunResult(status="done", final="é → 🙂")
    for encoding, final in (("utf-8", "é → 🙂"), ("cp1252", "\\u00e9 \\u2192 \\ud83d\\ude42")):
        out = Stream(encoding)
        JsonReporter(out).finish(result)
        assert f'"final": "{final}"' in out.text
        assert json.loads(out.text)["final"] == "é → 🙂"


def test_events_are_printed_as_they_happen_with_the_text_and_one_end() -> None:
    out = StringIO()
    reporter = JsonLinesReporter(out)
    for number, event in enumerate(whole_run(), 1):
        reporter.tell(event)
        assert len(out.getvalue().splitlines()) == number
    reporter.finish(RESULT)
    told = [EVENT.validate_json(line) for line in out.getvalue().splitlines()]
    assert told == whole_run()
    assert any(isinstance(event, TextDelta) for event in told)


def test_events_are_flushed_line_by_line() -> None:
    out = Stream("utf-8")
    JsonLinesReporter(out).tell(whole_run()[0])
    assert out.buffer.getvalue().endswith(b"\n")  # type: ignore[attr-defined]


def test_the_events_of_a_run_that_never_began_still_begin_and_end() -> None:
    out = StringIO()
    error = ErrorInfo(type="usage", message="no task")
    JsonLinesReporter(out).finish(RunResult(status="failed", error=error))
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["type"] for line in told] == ["run_started", "run_finished"]
    assert told[-1]["error"]["message"] == "no task"


def test_a_closed_stdout_does_not_stop_a_run_that_prints_events_but_is_named_at_the_end() -> None:
    class Broken(StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    reporter = JsonLinesReporter(Broken())
    for event in whole_run():
        reporter.tell(event)
    with pytest.raises(BrokenPipeError):
        reporter.finish(RESULT)


def test_the_log_file_gains_every_event_but_the_pieces_of_text_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for _ in range(2):
        log = LogFile(path)
        for event in whole_run():
            log.tell(event)
        log.close()
        log.close()
        log.tell(RunFinished(status="done"))
    kept = [event for event in whole_run() if not isinstance(event, TextDelta)]
    assert [EVENT.validate_json(line) for line in path.read_text("utf-8").splitlines()] == kept * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert log.error is None


def test_a_log_file_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing/run\.log cannot be written: No such file") as caught:
        LogFile(tmp_path / "missing" / "run.log")
    assert "--log-file" in (caught.value.hint or "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is needed")
def test_a_full_disk_under_the_log_file_is_kept_for_later_and_does_not_stop_the_run() -> None:
    log = LogFile(Path("/dev/full"))
    for event in whole_run():
        log.tell(event)
    log.close()
    assert log.error is not None
