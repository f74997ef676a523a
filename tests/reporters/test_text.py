"""What a model, a tool or a clock gave, as text that can be shown."""

import json

import pytest

from master_agent.reporters.text import columns, fitted, one_line, safe_json, seconds, size, tokens, visible


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb", "a\\x0db"),
        ("bell\x07 back\x08 del\x7f", "bell\\x07 back\\x08 del\\x7f"),
        ("eight-bit \x9b31m", "eight-bit \\x9b31m"),
        ("turned \u202eround\u2066", "turned \\u202eround\\u2066"),
        ("no\u200bwidth\ufeff", "no\\u200bwidth\\ufeff"),
        ("pass\u200dword", "pass\\u200dword"),
        ("tagged \U000e0041", "tagged \\U000e0041"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_what_would_steer_a_terminal_or_deceive_a_reader_is_written_out(given: str, shown: str) -> None:
    assert visible(given) == shown


def test_newlines_tabs_accents_and_joined_emoji_stay_as_they_are() -> None:
    text = "one\n\ttwo é 你好 👨\u200d👩\u200d👧 می\u200cخواهم"
    assert visible(text) == text
    assert visible("windows\r\nlines") == "windows\nlines"


def test_what_an_encoding_cannot_show_gets_its_nearest_likeness() -> None:
    assert fitted("“Zoë” → 5 … 🙂", "ascii") == '"Zoe" -> 5 ... ??'
    assert fitted("“Zoë” → 5 … 🙂", "cp1252") == "“Zoë” -> 5 … ??"
    assert fitted("“Zoë” 🙂", "utf-8") == "“Zoë” 🙂"


def test_paths_lose_no_character_in_an_encoding_that_lacks_it() -> None:
    assert fitted("é/🙂.png", "ascii", exact=True) == "\\xe9/\\U0001f642.png"


def test_a_line_is_cut_by_columns_and_says_so() -> None:
    assert one_line("  one\n\ttwo  three ", 40) == "one two three"
    assert one_line("one two three", 8) == "one two…"
    assert one_line("one two three", 8, more="...") == "one t..."
    assert one_line("你好你好", 6) == "你好…"
    assert columns("你好") == 4
    assert one_line("\x1b[2J", 20) == "\\x1b[2J"


def test_numbers_are_said_as_people_say_them() -> None:
    assert [seconds(value) for value in (0.04, 3.14, 59.96, 125, 3720)] == [
        "0.0 s",
        "3.1 s",
        "1 min 0 s",
        "2 min 5 s",
        "1 h 2 min",
    ]
    assert [size(value) for value in (512, 48213, 999_960, 3_100_000)] == ["512 B", "48.2 kB", "1.0 MB", "3.1 MB"]
    assert [tokens(value) for value in (1204, 0, None)] == ["1,204", "0", "unknown"]


def test_json_keeps_its_meaning_and_holds_nothing_that_steers_a_terminal() -> None:
    value = {"text": "\x1b[31m \x9b31m \x7f \u202e \u2028 é 🙂 \ud800"}
    for encoding in ("utf-8", "cp1252", None):
        line = safe_json(json.dumps(value, ensure_ascii=False), encoding)
        assert json.loads(line) == value
        assert visible(line) == line
        assert len(line.splitlines()) == 1
        line.encode(encoding or "utf-8")
    assert "é 🙂" in safe_json(json.dumps(value, ensure_ascii=False), "utf-8")
    assert safe_json(json.dumps(value, ensure_ascii=False), "cp1252").isascii()
