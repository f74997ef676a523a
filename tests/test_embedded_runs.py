"""Runs with a model in the embedded engine: a real engine, real grammar, real tools; only the model is a tiny one."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from master_agent import embedded
from master_agent.embedded.memory import fit
from master_agent.errors import ModelError
from master_agent.gguf import read_gguf
from master_agent.planner import exact_plan_schema
from master_agent.threads import AgentSpec, CallOptions, Reply, TextPiece, UserTurn
from master_agent.threads.embedded import Embedded
from tests.conftest import Cli
from tests.terminal import AtTerminal

pytest.importorskip("xllamacpp", reason="there is no wheel of the engine for this machine")

PLACEHOLDER = ("--image-provider", "placeholder")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    from tests.tiny_gguf import write

    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write(path)
    return path


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether the process has ended, be it read off or not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ran = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
        if ran.stdout.strip()[:1] in ("", "Z"):
            return True
        time.sleep(0.02)
    return False


def engines_of(pid: int) -> list[int]:
    """The engines that a process has started."""
    ran = subprocess.run(["ps", "-Aww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in ran.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "embedded/process.py" in row[-1]]


def test_a_whole_task_is_planned_and_done_by_a_model_in_the_engine(cli: Cli, tiny: Path) -> None:
    near = f"gguf:{os.path.relpath(tiny, cli.folder)}"
    ran = cli("Draw an image of a cat", "--yes", "--json", "-v", "--model", near, *PLACEHOLDER)

    assert ran.code == 0, ran.err
    (step,) = ran.json["plan"]
    result = ran.json["results"][step["id"]]
    assert (ran.json["status"], step["agent"], result["status"]) == ("done", "image", "done")
    (artifact,) = result["artifacts"]
    assert (cli.folder / artifact["path"]).read_bytes().startswith(b"\x89PNG")
    assert ran.json["usage"]["calls"] in (
        2,
        3,
    )  # the plan, the tool call, and words where that was not said to be the last
    assert ran.json["usage"]["input_tokens"] > 1_000
    assert (ran.json["usage"]["cost_usd"], ran.json["usage"]["cost_complete"]) == (0.0, True)
    (told,) = ran.err.splitlines()  # the engine prints nothing of its own
    assert f"the embedded engine runs {near.removeprefix('gguf:')}, 16,384 tokens" in told
    began = cli("show", "--events").events[0]
    assert began["flags"]["model"] == f"gguf:{tiny}"  # from whatever folder it is resumed


def test_a_model_that_was_downloaded_is_run_where_there_is_neither_key_nor_server(cli: Cli, tiny: Path) -> None:
    models = cli.home / "cache" / "models"
    models.mkdir(parents=True)
    (models / "tiny.gguf").symlink_to(tiny)
    found = {one["name"]: one for one in cli("doctor", "--json").json["findings"]}
    assert found["provider"]["message"] == "the embedded engine: there is no key, and no local server answers"
    assert (found["model"]["status"], "agents: tiny" in found["model"]["message"]) == ("found", True)
    (models / "other.gguf").symlink_to(tiny)
    ran = cli("Greet", "--yes")
    assert (ran.code, "--model local:other" in ran.err) == (4, True)


def test_a_run_with_the_engine_is_interrupted_at_the_question_and_leaves_no_engine(cli: Cli, tiny: Path) -> None:
    terminal = AtTerminal(cli, "Write some code", "--model", f"gguf:{tiny}")
    terminal.child.expect("Run it")
    (engine,) = engines_of(terminal.child.pid)

    terminal.child.sendintr()
    code, _ = terminal.end()

    assert code == 130
    assert gone(engine)


HOLD = """
import asyncio, sys
from pathlib import Path
from master_agent import embedded
from master_agent.embedded.memory import fit
from master_agent.gguf import read_gguf

async def hold():
    model = read_gguf(Path(sys.argv[1]))
    engine = await embedded.start(model, fit(model, 1))
    print(engine.process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(hold())
"""


def test_no_engine_outlives_a_run_that_is_killed_or_knows_its_keys(tiny: Path) -> None:
    environ = {**os.environ, "OPENAI_API_KEY": "sk-of-the-run-1", "PROXY": "http://me:word@host", "PLAIN": "kept"}
    command = [sys.executable, "-c", HOLD, str(tiny)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as run:
        assert run.stdout is not None
        engine = int(run.stdout.readline())
        known = Path(f"/proc/{engine}/environ")
        told = known.read_text() if known.exists() else "PLAIN=kept"
        run.kill()

    assert "PLAIN=kept" in told and "sk-of-the-run" not in told and "me:word" not in told

    assert gone(engine)


def test_the_engine_answers_in_the_form_that_was_asked_for_and_only_with_its_key(tiny: Path) -> None:
    form = exact_plan_schema(["image", "code"], ["save_result"])

    async def talk() -> tuple[str, Reply, int]:
        model = read_gguf(tiny)
        wire = Embedded(await embedded.start(model, fit(model, 2)))
        try:
            assert (wire.capabilities.context, wire.engine.slots) == (16_384, 2)
            assert await wire.models() == ["tiny"]
            with pytest.raises(urllib.error.HTTPError, match="401"):
                await asyncio.to_thread(urllib.request.urlopen, f"{wire.engine.address}/v1/models")
            with pytest.raises(ModelError, match="wants the model gpt-6, but the embedded engine runs tiny"):
                await wire.open(AgentSpec("code", "Write.", model="gpt-6"))
            thread = await wire.open(AgentSpec("planner", "Plan it.", output=form))
            told = [part async for part in thread.send(UserTurn("write code"), CallOptions("planner"))]
            assert isinstance(told[-1], Reply)
            for long, said in (("word " * 20_000, "reads 16,384"), ("7 " * 30_000, "answered 400")):  # we or it say so
                with pytest.raises(ModelError, match=f"the embedded engine with tiny {said}") as told_so:
                    await anext(thread.send(UserTurn(long), CallOptions("planner")))
                error = told_so.value
                assert (error.type, "--context-size" in (error.hint or "")) == ("context_exceeded", True)
                assert "127.0.0.1" not in error.message
            assert wire.engine.process.stdin is not None
            wire.engine.process.stdin.close()  # as it is when the run has gone
            assert await asyncio.wait_for(wire.engine.process.wait(), 10) == 0
            return (
                "".join(part.text for part in told[:-1] if isinstance(part, TextPiece)),
                told[-1],
                wire.engine.process.pid,
            )
        finally:
            await wire.close()

    text, reply, engine = asyncio.run(talk())

    (step,) = json.loads(text)["plan"]
    assert step["agent"] == "code" and step["tool"] is None and step["needs"] == []
    assert reply.status == "completed" and reply.usage is not None and reply.usage.complete
    assert gone(engine)


def killed(engine: embedded.Engine) -> None:
    os.kill(engine.process.pid, signal.SIGKILL)


def test_an_engine_that_dies_is_named_with_what_ended_it(tiny: Path) -> None:
    async def talk() -> None:
        model = read_gguf(tiny)
        wire = Embedded(await embedded.start(model, fit(model, 1)))
        try:
            thread = await wire.open(AgentSpec("code", "Write."))
            killed(wire.engine)
            async for _ in thread.send(UserTurn("code"), CallOptions("code")):
                pass
        finally:
            await wire.close()

    with pytest.raises(ModelError, match="the engine that ran tiny was ended by SIGKILL") as caught:
        asyncio.run(talk())

    assert caught.value.hint is not None and "out of memory" in caught.value.hint


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def renamed(content: bytes) -> bytes:
    return content.replace(b"blk.1.attn_q.weight", b"blk.1.attn_x.weight")


@pytest.mark.parametrize(
    ("damage", "said"), [(cut, "not within the file bounds"), (renamed, "tensor 'blk.1.attn_q.weight' not found")]
)
def test_a_damaged_model_is_named_in_the_engines_own_words(
    cli: Cli, tiny: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    cli.file("bad.gguf", damage(tiny.read_bytes()))

    ran = cli("Say hello", "--yes", "--json", "--model", "gguf:bad.gguf")

    assert ran.code == 4
    assert ran.json["error"]["type"] == "no_model"
    assert "bad.gguf" in ran.err and said in ran.err and "get it again" in ran.err


def test_a_task_is_planned_in_short_where_the_model_reads_little(cli: Cli, tiny: Path) -> None:
    flags = ("--yes", "--json", "-v", "--model", f"gguf:{tiny}", "--context-size", "4096", *PLACEHOLDER)
    ran = cli("Draw an image of a cat", *flags)

    assert ran.err.splitlines()[0].startswith(f"models: the embedded engine runs {tiny}, 4,096 tokens")
    assert (ran.code, ran.json["plan"][0]["agent"]) == (0, "image"), ran.out
