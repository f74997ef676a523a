"""Models that run here: what a file says of itself, whether it fits, and what is said where no model can be run."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from master_agent.embedded.memory import Fit, fit
from master_agent.errors import ModelError, SettingsError
from master_agent.gguf import ModelFile, Value, read_gguf
from tests.conftest import Cli


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


LLAMA = [
    text("general.architecture") + struct.pack("<I", 8) + text("llama"),
    number("llama.context_length", 32_768),
    number("llama.embedding_length", 4_096),
    number("llama.block_count", 32),
    number("llama.attention.head_count", 32),
    number("llama.attention.head_count_kv", 8),
    number("llama.feed_forward_length", 14_336),
]


def head(*keys: bytes, version: int = 3, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(keys) if count is None else count) + b"".join(keys)


def test_a_file_says_what_its_model_needs(tmp_path: Path) -> None:
    words = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    lists = text("llama.rope.dimension_sections") + struct.pack("<IIQ3i", 9, 5, 3, 11, 12, 10)
    (tmp_path / "m.gguf").write_bytes(head(words, lists, *LLAMA))

    model = read_gguf(tmp_path / "m.gguf")

    assert (model.name, model.architecture, model.context) == ("m", "llama", 32_768)
    assert model.cache(1) == 32 * 8 * (128 + 128) * 2  # as llama.cpp reports it of such a model: 128 KiB a token
    os.truncate(tmp_path / "m.gguf", 5_000_000_000)
    assert 5_000_000_000 < read_gguf(tmp_path / "m.gguf").needs(0) < 6_000_000_000


def test_a_split_model_counts_whole_and_is_named_by_its_first_part(tmp_path: Path) -> None:
    for number_ in (1, 2):
        (tmp_path / f"big-0000{number_}-of-00002.gguf").write_bytes(head(*LLAMA))

    model = read_gguf(tmp_path / "big-00001-of-00002.gguf")

    assert (model.name, model.bytes) == ("big", 2 * len(head(*LLAMA)))
    with pytest.raises(SettingsError, match="part 2 of 2; name the first"):
        read_gguf(tmp_path / "big-00002-of-00002.gguf")
    (tmp_path / "big-00002-of-00002.gguf").unlink()
    with pytest.raises(SettingsError, match=r"big-00002-of-00002\.gguf is missing"):
        read_gguf(tmp_path / "big-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and more", r"is no GGUF file: it begins with b'PK\\x03\\x04'"),
        (b"GGUF", "damaged or cut off"),
        (head(*LLAMA)[:60], "damaged or cut off"),
        (head(*LLAMA, version=1), "has the GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "the other byte order"),
        (head(count=1 << 60), "its head is damaged"),
        (head(struct.pack("<Q", 1 << 50)), "damaged or cut off"),
        (head(text("k") + struct.pack("<IQ", 8, 1 << 50)), "damaged or cut off"),
        (head(text("k") + struct.pack("<IIQ", 9, 4, 1 << 50)), "damaged or cut off"),
        (head(text("k") + struct.pack("<IIQQ", 9, 8, 1 << 50, 1 << 62)), "damaged or cut off"),
        (head(text("k") + struct.pack("<I", 99)), "damaged or cut off"),
        (head(number("k", 1)), "does not say what kind of model"),
    ],
)
def test_a_file_that_is_no_model_is_named_with_the_reason(cli: Cli, content: bytes, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        read_gguf(cli.file("bad.gguf", content))
    assert caught.value.hint


GB = 1_000_000_000
SAID: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.context_length": 32_768,
    "llama.embedding_length": 4_096,
    "llama.block_count": 32,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}
EIGHT_BILLION = ModelFile(Path("llama-8b.gguf"), 5 * GB, SAID)


@pytest.mark.parametrize(
    ("free", "at_once", "context", "slots"),
    [(64, 8, 16_384, 4), (64, 1, 16_384, 1), (12, 4, 16_384, 2), (9, 4, 16_384, 1), (7.5, 4, 8_192, 1)],
)
def test_the_free_memory_decides_how_much_is_read_at_once(free: float, at_once: int, context: int, slots: int) -> None:
    fitting = fit(EIGHT_BILLION, at_once, int(free * GB))

    assert (fitting.context, fitting.slots) == (context, slots)


@pytest.mark.parametrize(("most", "context"), [(2_000, 2_000), (30_000, 30_000), (99_000, 32_768)])
def test_who_says_how_much_a_request_may_have_gets_it_as_far_as_model_and_memory_go(most: int, context: int) -> None:
    assert fit(EIGHT_BILLION, 4, 64 * GB, most).context == context
    assert fit(EIGHT_BILLION, 1, 8 * GB, most).context == min(context, 8_192)


def test_a_model_is_given_no_more_context_than_it_was_trained_for() -> None:
    short = ModelFile(Path("short.gguf"), GB, {**SAID, "llama.context_length": 4_096})

    assert fit(short, 4, 64 * GB) == Fit(4_096, 4, 2 << 30)


def test_a_model_too_big_for_the_memory_is_refused_before_it_is_loaded(cli: Cli) -> None:
    os.truncate(cli.file("big.gguf", head(*LLAMA)), 10**13)

    ran = cli("Say hello", "--yes", "--json", "--model", "gguf:big.gguf")

    assert ran.code == 4
    assert ran.json["error"]["type"] == "no_model"
    assert "big needs about 1000" in ran.err and "a smaller model" in ran.err
    with pytest.raises(ModelError, match=r"llama-8b needs about 6\.\d GB of memory, and 2\.0 GB are free here"):
        fit(EIGHT_BILLION, 4, 2 * GB)


@pytest.mark.parametrize(
    ("arguments", "prepare", "code", "said"),
    [
        (["--model", "gguf:none.gguf"], None, 2, "none.gguf cannot be read: No such file or directory"),
        (["--model", "gguf:."], None, 2, "is a folder, not a model"),
        (["--model", "gguf:"], None, 2, "names no model"),
        (["--model", "gguf:m.gguf", "--wire", "responses"], None, 2, "the embedded engine speaks the wire chat alone"),
        (["--model", "local:none"], None, 2, 'no model "none" was downloaded'),
        ([], lambda cli: cli.file(".env", "MASTER_AGENT_MODEL=gguf:m.gguf"), 2, "a folder may not choose a file"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    cli: Cli, arguments: list[str], prepare: Callable[[Cli], object] | None, code: int, said: str
) -> None:
    if prepare:
        prepare(cli)

    ran = cli("Say hello", "--yes", *arguments)

    assert ran.code == code and said in ran.err


def test_an_agents_file_chooses_no_file_that_is_run(cli: Cli) -> None:
    cli.file("m.gguf", head(*LLAMA))
    agent = "---\nname: sly\ndescription: Runs a file.\nmodel: gguf:m.gguf\n---\nBe sly."
    cli.file(".master-agent/agents/sly.md", agent)

    ran = cli("agents", "run", "sly", "Go", "--json", "--trust-project", env={"OPENAI_API_KEY": "sk-test-0123456789"})

    (result,) = ran.json["results"].values()
    assert "may not choose a file that is run" in result["error"]["message"]
    assert "local:NAME" in result["error"]["hint"]


def test_without_the_extra_the_way_to_get_it_is_named(cli: Cli) -> None:
    cli.file("m.gguf", head(*LLAMA))
    program = "import sys; sys.modules['xllamacpp'] = None; from master_agent.cli import main; main()"

    ran = subprocess.run(
        [sys.executable, "-c", program, "Say hello", "--yes", "--model", "gguf:m.gguf"],
        cwd=cli.folder,
        env=cli.environ,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 4
    assert "the embedded engine is not installed" in ran.stderr and "master-agent[local]" in ran.stderr
