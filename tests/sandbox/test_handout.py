"""What comes out of a sandbox is not believed: pieces that break the rules are refused, whatever wrote them."""

import asyncio

import pytest

from master_agent.errors import SandboxError
from master_agent.sandbox import File, Outcome, Program, ProgramLimits, handout

LIMITS = ProgramLimits(file_bytes=100, disk_bytes=150, output_bytes=10)
STATUS = b"0 - 1500000 -"


def piece(kind: bytes, payload: bytes = b"", size: int | None = None) -> bytes:
    return kind + (len(payload) if size is None else size).to_bytes(8, "big") + payload


def file(path: bytes, content: bytes = b"", mode: bytes = b"-") -> bytes:
    return piece(b"F", len(path).to_bytes(2, "big") + path + mode + content)


def left(path: bytes, why: bytes) -> bytes:
    return piece(b"L", len(path).to_bytes(2, "big") + path + why)


def read(*pieces: bytes, program: Program | None = None) -> Outcome:
    async def parsed() -> Outcome:
        stream = asyncio.StreamReader()
        stream.feed_data(b"".join(pieces))
        stream.feed_eof()
        return await handout.read(stream, program or Program(("x",)), LIMITS)

    return asyncio.run(parsed())


def test_an_outcome_is_read_and_unchanged_files_are_no_result() -> None:
    program = Program(("x",), files={"same": File(b"1"), "gone": File(b"2"), "odd": File(b"3"), "run": File(b"4")})
    files = (file(b"same", b"1"), file(b"run", b"4", b"x"), file("ü/new".encode(), b"5"), left(b"odd", b"a link"))
    outcome = read(
        piece(b"S", b"- 9 1500000 memory"),
        piece(b"O", b"out"),
        piece(b"E", b"err"),
        *files,
        piece(b"Z"),
        program=program,
    )
    assert (outcome.exit_code, outcome.signal, outcome.seconds, outcome.ended_by) == (None, 9, 1.5, "memory")
    assert (outcome.stdout, outcome.stderr) == (b"out", b"err")
    assert outcome.files == {"run": File(b"4", executable=True), "ü/new": File(b"5")}
    assert (outcome.deleted, outcome.left_out) == (("gone",), {"odd": "a link"})


HOSTILE = {
    "a path that leaves": [file(b"../x")],
    "an absolute path": [file(b"/etc/passwd")],
    "an empty path": [file(b"")],
    "a path with a hole": [file(b"a//b")],
    "a path with NUL": [file(b"a\0b")],
    "a path that is no text": [file(b"\xff")],
    "a path longer than its piece": [piece(b"F", b"\xff\xffabc")],
    "a file twice": [file(b"a"), file(b"a")],
    "a file with a mode unknown": [file(b"a", b"", b"s")],
    "a file over its limit": [file(b"a", bytes(101))],
    "files over the limit together": [file(b"a", bytes(90)), file(b"b", bytes(90))],
    "too many files": [file(b"%d" % number) for number in range(10_001)],
    "too much left out": [left(b"%d" % number, b"") for number in range(1_002)],
    "a reason without end": [left(b"a", b"x" * 2_000)],
    "too much said": [piece(b"O", bytes(11))],
    "something said twice": [piece(b"E"), piece(b"E")],
    "two ends": [piece(b"S", STATUS)],
    "an end that is none": [piece(b"S", b"0 0 0")],
    "a piece of no kind": [piece(b"?")],
    "a piece that claims to be endless": [piece(b"F", b"", (1 << 64) - 1)],
    "an error that is no number": [piece(b"X", b"-1")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_breaks_the_rules_is_no_outcome(case: str) -> None:
    before = [] if "an end" in case else [piece(b"S", STATUS)]
    with pytest.raises(SandboxError, match="what came out of the sandbox is not to be trusted"):
        read(*before, *HOSTILE[case], piece(b"Z"))


def test_without_its_last_piece_or_the_end_of_the_program_there_is_no_outcome() -> None:
    for cut in range(1, 40, 7):
        whole = piece(b"S", STATUS) + file(b"a", b"abc") + piece(b"Z")
        with pytest.raises(EOFError):
            read(whole[:-cut])
    with pytest.raises(SandboxError, match="no end of the program"):
        read(piece(b"Z"))


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (b"MemoryError\n", "memory"),
        (b"sh: 1: Cannot allocate memory", "memory"),
        (b"OSError: [Errno 28] No space left on device", "disk_bytes"),
        (b"OSError: [Errno 27] File too large", "file_bytes"),
        (b"ValueError", None),
    ],
)
def test_a_program_that_failed_and_names_the_limit_it_ran_into_is_believed(said: bytes, limit: str | None) -> None:
    roomy = ProgramLimits()

    async def parsed(code: bytes) -> Outcome:
        stream = asyncio.StreamReader()
        stream.feed_data(piece(b"S", code + b" - 1 -") + piece(b"E", said) + piece(b"Z"))
        return await handout.read(stream, Program(("x",)), roomy)

    assert asyncio.run(parsed(b"1")).ended_by == limit
    assert asyncio.run(parsed(b"0")).ended_by is None
