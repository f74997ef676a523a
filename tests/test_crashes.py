"""The crash matrix: a run is killed at each of its events, before and after it is on the disk, and then resumed.

The events are those of the uninterrupted run. The loopback servers count: no turn that was answered and written down is
asked again, no picture is bought twice, and the folder ends as if nothing had happened.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Cli
from tests.servers.chat import ChatServer, call, reply
from tests.servers.loopback import Behaviour, Body
from tests.servers.replicate import TOKEN, Script, StandIn, stand_in

PAGE = "```html index.html\n<img src='images/hero.png'>\n```"
STEPS: list[dict[str, Any]] = [
    {"id": "hero", "agent": "image", "prompt": "STEP hero: a roastery at dawn", "needs": []},
    {"id": "note", "agent": "file", "prompt": "STEP note: write a note", "needs": []},
    {"id": "page", "agent": "code", "prompt": "STEP page: show ${hero.path}", "needs": ["hero"]},
    {"id": "save", "tool": "save_result", "with": {"step": "page", "path": "index.html"}, "needs": ["page"]},
    {"id": "poster", "tool": "generate_image", "with": {"prompt": "a poster", "seed": 5}, "needs": []},
]


def brain(body: Body) -> Behaviour:
    said = str(body["messages"])
    rounds = sum(message["role"] == "assistant" for message in body["messages"])
    if "STEP hero" in said:
        return reply(calls=[call("generate_image", {"prompt": "dawn", "seed": 3, "last": True})])
    if "STEP page" in said:
        return reply(PAGE)
    if rounds == 0:
        return reply(
            calls=[call("write_file", {"path": "a.txt", "content": "A", "last": False}), call("list_files", {})]
        )
    if rounds == 1:
        return reply(calls=[call("write_file", {"path": "b.txt", "content": "B", "last": False})])
    return reply("Both notes are written.")


def tree(folder: Path) -> dict[str, str]:
    """Every file of a folder with the hash of its bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class World:
    """One run's folder, and the servers it talks to."""

    def __init__(self, home: Path, server: ChatServer, replicate: StandIn) -> None:
        self.cli = Cli(
            home / "work", home / "home", {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url}
        )
        for folder in (self.cli.folder, self.cli.home):
            folder.mkdir(parents=True)
        self.plan = self.cli.plan(*STEPS)
        self.flags = {"openai_base_url": server.base_url, "model": "m"}

    def run(self, number: int, how: str) -> int:
        """The run in a process that dies at that event; its exit code, negative for a signal."""
        said = [f"{name}={value}" for name, value in self.flags.items()]
        environ = {**self.cli.environ, "PYTHONPATH": os.pathsep.join([self.cli.environ["PYTHONPATH"], str(ROOT)])}
        command = [sys.executable, "-m", "tests.crash_driver", self.plan, str(number), how, *said]
        return subprocess.run(command, cwd=self.cli.folder, env=environ, capture_output=True, timeout=60).returncode


def answered(server: ChatServer) -> Counter[str]:
    """How often each turn was asked for, told apart by the whole of its body."""
    return Counter(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() for body in server.bodies)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, str]]:
    """The uninterrupted run: how many events it has, and the folder that it leaves."""
    with ChatServer(brain) as server, stand_in(Script(polls=1)) as replicate:
        world = World(tmp_path_factory.mktemp("whole"), server, replicate)
        assert world.run(0, "after") == 0
        events = world.cli("show", "--events").events
        assert len(replicate.seen("create")) == 2
    return events[-1]["seq"], tree(world.cli.folder)


def test_the_uninterrupted_run_has_boundaries_of_every_kind(whole: tuple[int, dict[str, str]]) -> None:
    count, files = whole

    assert count >= 30
    assert set(files) == {"a.txt", "b.txt", "index.html", "images/hero.png", "images/poster.png"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["at once", "after"])
def test_killed_at_any_event_a_run_is_resumed_and_nothing_is_done_twice(
    whole: tuple[int, dict[str, str]], tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    count, files = whole
    for number in range(1, count + 1):
        with ChatServer(brain) as server, stand_in(Script(polls=1)) as replicate:
            world = World(tmp_path / str(number), server, replicate)
            assert world.run(number, how) == -9, f"event {number} never came"
            before = answered(server)
            ran = world.cli("resume", "--json")
            if ran.code == 2 and "is done" not in ran.err:
                assert "nothing was done" in ran.err or "no runs yet" in ran.err
                assert not before, "a request went out before the run was on the disk"
                continue
            done = ran.code == 2 and "is done" in ran.err + ran.out
            assert ran.code == 0 or done, f"event {number}, {how}: {ran.out}{ran.err}"
            assert tree(world.cli.folder) == files, f"event {number}, {how}"
            assert len(replicate.seen("create")) == 2, f"event {number}, {how}: a picture was bought twice"
            # At most what was on its way when the process died, one request a step, is asked for again.
            again = answered(server) - before
            twice = sum((before & again).values())
            assert twice <= 3, f"event {number}, {how}: {twice} turns were asked for twice"
    with capsys.disabled():
        print(f"\ncrash matrix, {how}: {count} boundaries")
