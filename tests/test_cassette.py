"""A run is recorded with what passes at its ports, and replayed from that alone: the same, or not at all."""

import asyncio
import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from master_agent.attachments import Attachment
from master_agent.cassette import DIGEST, Forms, Recorder, difference, read_cassette
from master_agent.errors import ReplayError, SettingsError
from master_agent.exchanges.tapes import Recording, ReplayedWire, Replaying
from master_agent.results import Usage
from master_agent.secrets import HIDDEN, Secrets
from master_agent.threads import (
    AgentSpec,
    CallOptions,
    CallRequest,
    Capabilities,
    ModelToolCall,
    Reply,
    Source,
    TextPiece,
    ThreadState,
    UserTurn,
)
from master_agent.threads.scripted import Script as Lines
from master_agent.threads.scripted import ScriptedThread
from tests.conftest import Cli, Ran, calls, plans, says
from tests.servers.chat import ChatServer, call, reply, status
from tests.servers.loopback import Behaviour, Body
from tests.servers.replicate import TOKEN, Script, stand_in
from tests.test_three_agents import PAGE, brain

KEY = "canary-of-a-key-7f3a91"
TASK = "Make a landing page"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its id and its seconds, those of programs too, which run again."""
    result = json.loads(re.sub(r"(?<=, after )\d+\.\d(?= s)|(?<=\"seconds\": )[\d.]+", "0", json.dumps(result)))
    steps = {name: {**step, "seconds": 0} for name, step in result["results"].items()}
    return {**result, "run_id": "", "seconds": 0, "results": steps}


def elsewhere(cli: Cli, name: str = "elsewhere") -> Cli:
    """Another folder and another home, on the same machine."""
    folder, home = cli.folder.parent / name, cli.home.parent / f"{name}-home"
    folder.mkdir()
    home.mkdir()
    return Cli(folder, home, {})


@dataclass(frozen=True)
class Recorded:
    """A recorded run: its cassette, its result and the files it left."""

    path: Path
    ran: Ran
    files: dict[str, bytes]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def with_lines(self, lines: list[dict[str, Any]], name: str = "changed.jsonl") -> Path:
        path = self.path.with_name(name)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path


def record(cli: Cli, brain: Callable[[Body], Behaviour], *arguments: str, code: int = 0) -> Recorded:
    """A run against the servers on loopback, recorded."""
    path = cli.home / "run.jsonl"
    with ChatServer(brain, key=KEY) as server, stand_in(Script(polls=1)) as replicate:
        ran = cli(
            *(*(arguments or (TASK, "--yes")), "--json", "--record", str(path), "--openai-base-url", server.base_url),
            env={"OPENAI_API_KEY": KEY, "REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": replicate.url},
        )
    assert ran.code == code, ran.out + ran.err
    return Recorded(path, ran, tree(cli.folder))


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    root = tmp_path_factory.mktemp("recorded")
    (root / "work").mkdir()
    (root / "home").mkdir()
    return record(Cli(root / "work", root / "home", {}), brain)


def replay(cli: Cli, path: Path, *arguments: str) -> Ran:
    return cli(*(arguments or (TASK, "--yes", "--json")), "--replay", str(path))


def test_a_recorded_run_is_replayed_without_servers_and_keys_in_another_folder(cli: Cli, landing: Recorded) -> None:
    again = replay(cli, landing.path)

    assert again.code == 0, again.out + again.err
    assert tree(cli.folder) == landing.files
    assert {"index.html", "images/hero.png"} <= landing.files.keys()
    assert timeless(again.json) == timeless(landing.ran.json)


def test_every_exchange_is_a_line_with_who_asked_and_only_its_owner_reads_the_file(landing: Recorded) -> None:
    head, *lines = landing.lines

    assert (head["kind"], head["version"], head["task"]) == ("cassette", 1, TASK)
    asked = [(line["port"], line["step"], line.get("turn"), line.get("attempt")) for line in lines]
    assert asked == [
        ("thread", None, 1, 1),
        ("thread", "hero", 1, 1),
        ("thread", "hero", 2, 1),
        ("image", "hero", None, None),
        ("thread", "page", 1, 1),
        *(("thread", "store", turn, 1) for turn in (1, 2, 3)),
    ]
    assert stat.S_IMODE(landing.path.stat().st_mode) == 0o600


def test_streamed_text_of_a_replay_reaches_the_events(cli: Cli, landing: Recorded) -> None:
    ran = replay(cli, landing.path, TASK, "--yes", "--events")

    deltas = [event["text"] for event in ran.events if event["type"] == "text_delta" and event["step"] == "page"]
    assert len(deltas) > 1
    assert "".join(deltas).endswith(f"{PAGE}```\n")


def test_no_key_is_in_the_file_in_any_form(cli: Cli) -> None:
    shape = "sk-proj-0123456789abcdefGHIJ"
    coded = [base64.b64encode(b"x" * shift + KEY.encode()).decode()[4:-4] for shift in range(3)]
    cli.file("notes.txt", f"key: {KEY}, other: {shape}, coded: {base64.b64encode(f'user:{KEY}'.encode()).decode()}")

    def leaking(body: Body) -> Behaviour:
        if body["messages"][-1]["role"] == "tool":
            return reply(
                f"It says {body['messages'][-1]['content']}, the key is {KEY}, the token is {TOKEN}0123456789."
            )
        return reply(calls=[call("read_file", {"path": "notes.txt"})])

    made = record(cli, leaking, "run", cli.plan({"agent": "file", "prompt": "Read notes.txt"}))

    content = made.path.read_text()
    for secret in (KEY, shape, TOKEN, *coded):
        assert secret not in content, secret
    assert HIDDEN in content
    assert KEY in made.ran.out, "the run itself is not changed by being recorded"


def change(line: dict[str, Any], name: str) -> dict[str, Any]:
    """The line with one field changed, deeply where it holds others."""
    value = line[name]
    match value:
        case dict():
            first = next(iter(value))
            return {**line, name: change(value, first)}
        case list():
            return {**line, name: [*value, "more"]}
        case str():
            return {**line, name: value + "x"}
        case bool():
            return {**line, name: not value}
        case int():
            return {**line, name: value + 1}
    return {**line, name: "x"}


def differing(made: Recorded) -> Iterator[tuple[int, str, Path]]:
    """A cassette for every line that is deleted, and for every field of every line that is changed."""
    lines = made.lines
    for place in range(len(lines)):
        rest = [*lines[:place], *lines[place + 1 :]]
        yield place + 1, "", made.with_lines(rest, f"without-{place}.jsonl")
        for name in lines[place]:
            changed = [*lines[:place], change(lines[place], name), *lines[place + 1 :]]
            yield place + 1, name, made.with_lines(changed, f"changed-{place}-{name}.jsonl")


def small(cli: Cli) -> Recorded:
    """A short run: one answer that was refused first, one picture, one text."""
    plan = cli.plan(
        {"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn", "seed": 4}, "needs": []},
        {"id": "note", "agent": "code", "prompt": "A line on ${hero.path}", "needs": ["hero"]},
    )
    first = iter([status(429, headers={"retry-after": "0"})])
    return record(cli, lambda _: next(first, None) or reply("Dawn."), "run", plan)


@pytest.mark.slow
def test_a_replay_fails_where_a_line_is_deleted_or_any_field_of_it_is_changed(cli: Cli) -> None:
    made = small(cli)
    plan = str(cli.home / "plan.json")
    asked = ["", "", "step hero", "step note, turn 1", "step note, turn 1, attempt 2"]
    tried = 0
    for number, name, path in differing(made):
        ran = replay(elsewhere(cli, path.stem), path, "run", plan, "--json")
        told = ran.json["error"]
        assert ran.code in (1, 2), f"line {number}, {name}: {ran.out}"
        assert told["type"] == ("settings" if ran.code == 2 else "replay_differs"), (number, name)
        place = (
            f"line {number}",
            f"line {number} of",
            f"no exchange for {asked[number]}",
            "its first line",
            "of version 2",
        )
        assert any(words in told["message"] for words in place), (number, name, told["message"])
        tried += 1
    assert tried == sum(len(line) + 1 for line in made.lines)
    assert replay(elsewhere(cli), made.path, "run", plan, "--json").code == 0, "the one that was not changed"


def test_a_replay_stops_at_the_first_request_that_differs_and_shows_the_difference(cli: Cli) -> None:
    made = small(cli)
    plan = cli.plan(
        {"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn", "seed": 4}, "needs": []},
        {"id": "note", "agent": "code", "prompt": "A word on ${hero.path}", "needs": ["hero"]},
        {"id": "after", "agent": "code", "prompt": "Another", "needs": ["note"]},
    )

    ran = replay(elsewhere(cli), made.path, "run", plan, "--json")

    told = ran.json["error"]
    assert (ran.code, told["type"], ran.json["status"]) == (1, "replay_differs", "failed")
    assert "step note, turn 1 differs from line 3" in told["message"]
    assert "-turn.text: A line on" in told["message"] and "+turn.text: A word on" in told["message"]
    assert "--record" in told["hint"]
    assert ran.json["results"]["after"]["status"] in ("skipped", "not_started")


def test_another_task_differs_at_the_planner_before_anything_is_done(cli: Cli, landing: Recorded) -> None:
    ran = replay(cli, landing.path, "Make a sitemap", "--yes", "--json")

    assert (ran.code, ran.json["results"], tree(cli.folder)) == (1, {}, {})
    assert "the request of the planner, turn 1 differs from line 2" in ran.json["error"]["message"]


def test_what_was_recorded_and_is_not_asked_for_is_an_error(cli: Cli) -> None:
    made = small(cli)
    plan = cli.plan({"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn", "seed": 4}, "needs": []})

    ran = replay(elsewhere(cli), made.path, "run", plan, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (1, "replay_differs")
    assert "2 exchanges were not asked for; the first is line 3" in ran.json["error"]["message"]


def test_a_seed_that_was_given_is_compared_and_one_that_was_drawn_is_not(cli: Cli) -> None:
    step = {"id": "hero", "tool": "generate_image", "needs": []}
    drawn, given = {"prompt": "dawn"}, {"prompt": "dawn", "seed": 4}
    made = record(cli, brain, "run", cli.plan({**step, "with": drawn}))
    again = replay(elsewhere(cli), made.path, "run", str(cli.home / "plan.json"), "--json")
    other = replay(elsewhere(cli, "other"), made.path, "run", cli.plan({**step, "with": given}), "--json")

    assert again.json["results"]["hero"]["data"] == made.ran.json["results"]["hero"]["data"]
    assert other.code == 1 and "seed: drawn" in other.json["error"]["message"]


def test_steps_at_once_are_replayed_whatever_the_order_of_their_lines(cli: Cli) -> None:
    names = ("one", "two", "three", "four")
    steps = [{"id": name, "agent": "code", "prompt": f"Say {name}", "needs": []} for name in names]
    waits = {"one": 0.3, "two": 0.0, "three": 0.2, "four": 0.1}

    def talking(body: Body) -> Behaviour:
        text = body["messages"][-1]["content"]
        name = next(name for name in names if f"Say {name}" in text)
        return reply(f"I say {name}.", delay=waits[name])

    made = record(cli, talking, "run", cli.plan(*steps))
    backwards = made.with_lines([made.lines[0], *reversed(made.lines[1:])])
    plan = str(cli.home / "plan.json")
    runs = [
        replay(elsewhere(cli, "a"), made.path, "run", plan, "--json"),
        replay(elsewhere(cli, "b"), backwards, "run", plan, "--json", "--concurrency", "1"),
    ]

    assert [line["step"] for line in made.lines[1:]] == ["two", "four", "three", "one"]
    for ran in runs:
        assert (ran.code, timeless(ran.json)) == (0, timeless(made.ran.json))


def test_a_recorded_failure_is_replayed_as_that_failure_without_waiting(cli: Cli) -> None:
    plan = cli.plan({"id": "note", "agent": "code", "prompt": "Hi", "needs": []})
    refused = status(429, headers={"retry-after": "1"})
    made = record(cli, lambda _: refused, "run", plan, "--attempts", "2", code=4)

    again = replay(elsewhere(cli), made.path, "run", plan, "--json", "--attempts", "2")

    assert [line["error"]["retry_after"] for line in made.lines[1:]] == [
        1.0
    ] * 4  # a busy server is asked twice as often
    assert (again.code, timeless(again.json)) == (4, timeless(made.ran.json))
    assert again.json["seconds"] < 0.9
    assert replay(elsewhere(cli, "more"), made.path, "run", plan, "--json", "--attempts", "3").code == 1


def test_a_missing_token_for_pictures_is_replayed_too(cli: Cli) -> None:
    plan = cli.plan({"id": "hero", "tool": "generate_image", "with": {"prompt": "dawn"}, "needs": []})
    made = cli("run", plan, "--json", "--record", str(cli.home / "run.jsonl"))

    again = replay(elsewhere(cli), cli.home / "run.jsonl", "run", plan, "--json")

    assert made.json["results"]["hero"]["error"]["type"] == "missing_token"
    assert (again.code, timeless(again.json)) == (made.code, timeless(made.json))


def test_a_download_is_recorded_and_replayed_without_a_connection(cli: Cli) -> None:
    with stand_in() as server:
        server.make({"input": {"prompt": "x"}}, "some/model")
        url = f"{server.url}/files/p0/0.png"
        plan = cli.plan({"id": "hero", "tool": "download_image", "with": {"url": url}, "needs": []})
        host = server.url.removeprefix("http://")
        made = cli("run", plan, "--json", "--allow-host", host, "--record", str(cli.home / "run.jsonl"))
    assert made.code == 0, made.out
    other = elsewhere(cli)

    again = replay(other, cli.home / "run.jsonl", "run", plan, "--json")

    assert (again.code, timeless(again.json)) == (0, timeless(made.json))
    assert tree(other.folder) == tree(cli.folder)


def test_paths_of_the_workspace_are_those_of_the_replay(cli: Cli) -> None:
    def writing(_: Body) -> Behaviour:
        return reply(f"It is in {cli.folder}/note.txt.")

    plan = cli.plan({"id": "note", "agent": "code", "prompt": "Say where you are", "needs": []})
    made = record(cli, writing, "run", plan)
    other = elsewhere(cli)

    again = replay(other, made.path, "run", plan, "--json")

    assert str(cli.folder) not in made.path.read_text()
    assert again.json["final"] == f"It is in {other.folder}/note.txt."


def test_a_cassette_in_the_workspace_is_neither_told_of_nor_touched(cli: Cli) -> None:
    script = cli.script(
        plans({"id": "look", "agent": "file", "prompt": "Look", "needs": []}),
        calls(
            ("list_files", {}), ("write_file", {"path": "run.jsonl", "content": "x", "overwrite": True}), step="look"
        ),
        calls(("write_file", {"path": "note.txt", "content": "x"}), step="look"),
        says("I looked.", step="look"),
    )
    ran = cli("Look around", script, "--yes", "--json", "--record", "run.jsonl")
    other = elsewhere(cli)
    (other.folder / "run.jsonl").write_bytes((cli.folder / "run.jsonl").read_bytes())

    again = other("Look around", "--yes", "--json", "--replay", "run.jsonl")

    assert ran.code == 0, ran.out
    requests = [json.loads(line)["request"] for line in (cli.folder / "run.jsonl").read_text().splitlines()[1:]]
    assert len(requests) == 4
    assert "run.jsonl (" not in json.dumps(requests)
    assert "a place of the program's own" in json.dumps(requests[2])
    assert (again.code, timeless(again.json)) == (0, timeless(ran.json))


def test_a_cassette_is_a_script_too(cli: Cli, landing: Recorded) -> None:
    ran = cli(TASK, "--yes", "--json", f"--script={landing.path}", "--image-provider=placeholder")

    assert ran.code == 0, ran.out
    assert (cli.folder / "index.html").read_text() == PAGE


def test_the_demo_is_recorded_and_replayed(cli: Cli) -> None:
    other = elsewhere(cli)
    ran = cli("demo", "--json", "--workspace", ".", env={"MASTER_AGENT_RECORD": str(cli.home / "run.jsonl")})
    again = other(ran.json["task"], "--yes", "--json", "--replay", str(cli.home / "run.jsonl"))

    assert (ran.code, again.code) == (0, 0), again.out
    assert timeless(again.json) == timeless(ran.json)
    assert tree(other.folder) == tree(cli.folder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--record", "a", "--replay", "b"), "--record and --replay exclude each other"),
        (("--replay", "b", "--script", "c"), "--replay and --script exclude each other"),
        (("--replay", "nothing-there.jsonl"), "nothing-there.jsonl cannot be read"),
        (("--record", "no/such/folder.jsonl"), "cannot be written"),
        (("--record", "notes.txt"), "is no cassette; it is left alone"),
        (("--replay", "notes.txt"), "line 1 is not JSON"),
        (("--replay", "demo.jsonl"), "line 2 holds no request"),
    ],
)
def test_what_cannot_be_recorded_or_replayed_is_said_before_anything_runs(
    cli: Cli, flags: tuple[str, ...], said: str
) -> None:
    cli.file("notes.txt", "my notes")
    head, line = {"kind": "cassette", "version": 1}, says("Hi", step="note")
    cli.file("demo.jsonl", f"{json.dumps(head)}\n{json.dumps(line)}\n")
    script = () if "--script" in flags or "--replay" in flags else (cli.script(says("Hi")),)

    ran = cli("Greet", "--yes", *flags, *script)

    assert (ran.code, said in ran.err) == (2, True), ran.err
    assert (cli.folder / "notes.txt").read_text() == "my notes"


def test_a_run_that_goes_on_is_neither_recorded_nor_replayed(cli: Cli) -> None:
    script = cli.script({"step": "note", "error": {"type": "server_error"}})
    plan = cli.plan({"id": "note", "agent": "code", "prompt": "Hi", "needs": []})
    cli("run", plan, script, "--record", "run.jsonl", "--attempts", "1")

    ran = cli("resume", "--record", "again.jsonl")
    plain = cli("resume", cli.script(says("Hi", step="note")))

    assert ran.code == 2 and "neither recorded nor replayed" in ran.err
    assert plain.code == 0, plain.err


# The parts.


def forms(mark: str = "data-aaaaaaaaaaaa", folder: str = "/home/somebody/work") -> Forms:
    return Forms(Secrets(["a-key-of-mine"]), Path(folder), mark)


def test_requests_are_equal_whatever_the_mark_and_the_folder() -> None:
    def told(mark: str, folder: str) -> dict[str, Any]:
        return forms(mark, folder).asked({"turn": [{"text": f"<{mark}>{folder}/a.txt</{mark}> a-key-of-mine"}]})

    assert told("data-aaaaaaaaaaaa", "/home/somebody/work") == told("data-bbbbbbbbbbbb", "/tmp/x/y")
    assert forms().asked({"text": "/home/somebody/workshop"}) == {"text": "/home/somebody/workshop"}
    assert forms(folder="/").asked({"text": "a/b"}) == {"text": "a/b"}


def test_bytes_are_kept_whole_but_for_keys() -> None:
    coded = base64.b64encode(b"AKIA0123456789ABCDEF").decode()
    assert forms().answered({"content": coded, "text": "AKIA0123456789ABCDEF"}) == {"content": coded, "text": HIDDEN}
    assert Secrets(["a-key-of-mine"]).blank(b"<a-key-of-mine>") == b"<xxxxxxxxxxxxx>"


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abc123abc123abc123",
        "r8_abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "AKIA0123456789ABCDEF",
        "Bearer abcdef0123456789abcdef",
        "authorization: bearer abcdef0123456789abcdef",
        "BASIC dXNlcjpwYXNzd29yZA==",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_key_is_hidden(text: str) -> None:
    hidden = Secrets().hide(f"it is '{text}'.")
    assert HIDDEN in hidden and text.split()[-1][-12:] not in hidden


@pytest.mark.parametrize(
    "text",
    [
        *("task-a-long-name-of-1-thing", "sk-loading-animation-frame", "ollama", "short-sk-1"),
        *("sk-learn-pipelines-version-2", "Bearer authentication-scheme", "the basic understanding of it"),
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert Secrets(["ollama"]).hide(text) == text


def test_what_was_written_before_a_crash_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    pid = os.fork()
    if pid == 0:
        recorder = Recorder(path, {"mark": "m"})
        recorder.write({"port": "thread", "step": "a", "request": {"text": "x" * 1_000_000}})
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)

    assert list(read_cassette(path).lines) == [2]


def test_after_a_difference_nothing_is_given_any_more(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl", {})
    recorder.write({"port": "thread", "step": "a", "request": {"text": "x"}})
    recorder.close()
    cassette = read_cassette(tmp_path / "run.jsonl")

    for text in ("y", "x"):
        with pytest.raises(ReplayError, match="differs from line 2"):
            cassette.take({"port": "thread", "step": "a"}, {"text": text})
    with pytest.raises(ReplayError, match="differs from line 2"):
        cassette.finish()


def test_a_cut_off_line_and_a_newer_version_are_said(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind": "cassette", "version": 1}\n{"port": "thr')
    with pytest.raises(SettingsError, match="line 2 is not JSON"):
        read_cassette(path)
    path.write_text('{"kind": "cassette", "version": 2}\n')
    with pytest.raises(SettingsError, match="version 2"):
        read_cassette(path)


def test_a_difference_is_short_however_long_the_texts(tmp_path: Path) -> None:
    shown = difference({"text": "a\n" * 500}, {"text": "b\n" * 500})

    assert len(shown) == 41
    assert shown[-1].startswith("… and ")


def test_the_hash_of_a_line_does_not_depend_on_the_order_of_its_fields(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl", {})
    recorder.write({"port": "thread", "step": "ä", "request": {}})
    recorder.close()
    line = json.loads((tmp_path / "run.jsonl").read_text().splitlines()[1])
    plain = json.dumps({name: line[name] for name in sorted(line) if name != DIGEST}, separators=(",", ":"))

    assert line[DIGEST] == hashlib.sha256(plain.encode()).hexdigest()


def test_all_of_a_reply_comes_back(tmp_path: Path) -> None:
    usage = Usage(calls=2, input_tokens=9, cached_tokens=None, images=1, complete=False)
    said = Reply(
        "requires_action",
        "Wait.",
        (ModelToolCall("c1", "read_file", '{"path": '),),
        usage,
        reason="why",
        files=(Attachment("a.bin", "application/octet-stream", bytes(range(256))),),
        lost=("b.bin: gone",),
        sources=(Source("A page", "https://example.org/?q=ä"),),
    )
    agent, options, turn = AgentSpec("code", "Do it."), CallOptions(agent="code", step="a"), UserTurn("Please.")

    async def call(_: CallRequest) -> Reply:
        return said

    async def both() -> Reply | TextPiece:
        recorder = Recorder(tmp_path / "run.jsonl", {})
        thread = ScriptedThread(agent, ThreadState("scripted"), Lines([]))
        await Recording(recorder, forms(), "m").calls(call)(CallRequest(thread, turn, options))
        recorder.close()
        deck = Replaying(read_cassette(tmp_path / "run.jsonl"), forms("data-bbbbbbbbbbbb", "/tmp/x/y"), "m")
        parts = [part async for part in (await ReplayedWire(deck, Capabilities()).open(agent)).send(turn, options)]
        deck.finish()
        return parts[-1]

    assert asyncio.run(both()) == said
