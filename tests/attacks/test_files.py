"""Paths that a model writes, and folders in which somebody moves things: naive tools fall for them, ours do not."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from master_agent.errors import FileRefusedError
from master_agent.workspace import Workspace
from tests.conftest import Cli, calls, says

SECRET = "secret-Rk4YwB7mTf1ZxN6p"
READS = 20_000


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text(SECRET)
    return folder


@contextmanager
def swapping(root: Path, outside: Path) -> Iterator[None]:
    """A folder and a link to somewhere else that swap places, as quickly as can be, by a process of its own."""
    (root / "folder").mkdir()
    (root / "folder" / "file").write_text("inside")
    (root / "link").symlink_to(outside)
    program = (
        "import os, sys\nos.chdir(sys.argv[1])\nprint('begun', flush=True)\nwhile True:\n"
        " os.rename('folder', 'spare'); os.rename('link', 'folder')\n"
        " os.rename('folder', 'link'); os.rename('spare', 'folder')"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None and swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.kill()


def naively(root: Path) -> str:
    """As a tool would that compares paths: where it leads is asked first, and opened then."""
    path = os.path.realpath(root / "folder" / "file")
    if not path.startswith(str(root) + os.sep):
        raise FileRefusedError("outside")
    with open(path) as file:  # noqa: PTH123  as such tools do
        return file.read()


def seen(read: Callable[[], str], times: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for _ in range(times):
        try:
            what = read()
        except (FileRefusedError, OSError):
            what = "refused"
        found[what] = found.get(what, 0) + 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("walk", [False, True], ids=["by the kernel", "by walking"])
def test_twenty_thousand_raced_reads_never_leave_the_workspace(tmp_path: Path, outside: Path, walk: bool) -> None:
    root = tmp_path / "work"
    root.mkdir()
    with swapping(root, outside), Workspace(root, walk=walk) as workspace:
        naive: dict[str, int] = {}
        for _ in range(50):
            naive = seen(lambda: naively(root), READS)
            if SECRET in naive:
                break
        ours = seen(lambda: workspace.read("folder/file").decode(), READS)

    assert naive.get(SECRET), "the race is never won, so nothing is shown"
    assert SECRET not in ours and ours.get("inside")


PATHS = {
    "up": "../outside/file",
    "absolute": "{outside}/file",
    "a link to a file": "link-file",
    "behind a link to a folder": "link-folder/file",
    "a hard link": "hard",
    "an .env": ".env",
    "git": ".git/config",
    "a key": "id_ed25519",
    "the program's own": ".master-agent/notes.txt",
}


def test_a_model_reads_and_writes_nothing_outside_and_nothing_secret(cli: Cli, outside: Path) -> None:
    paths = {case: path.replace("{outside}", str(outside)) for case, path in PATHS.items()}
    for name in (".env", ".git/config", "id_ed25519", ".master-agent/notes.txt"):
        cli.file(name, f"OPENAI_API_KEY={SECRET}")
    (cli.folder / "link-file").symlink_to(outside / "file")
    (cli.folder / "link-folder").symlink_to(outside)
    os.link(outside / "file", cli.folder / "hard")
    everything = (outside, cli.folder)
    before = {place: place.read_bytes() for top in everything for place in top.rglob("*") if place.is_file()}
    assert [case for case, path in paths.items() if SECRET not in (cli.folder / path).read_text()] == []
    script = cli.script(
        calls(*(("read_file", {"path": path}) for path in paths.values()), step="file", turn=1),
        calls(*(("write_file", {"path": path, "content": "x", "overwrite": True}) for path in paths.values()), turn=2),
        says("Done.", step="file", turn=3),
    )

    ran = cli("agents", "run", "file", "Look", script, "--events")

    assert before == {place: place.read_bytes() for top in everything for place in top.rglob("*") if place.is_file()}
    told = [event for event in ran.events if event["type"] == "tool_returned"]
    went = [event for event in told if not event.get("error")]
    assert {event["error"]["type"] for event in told if event.get("error")} == {"file_refused"}
    assert (len(told), [event["tool"] for event in went]) == (2 * len(PATHS), ["read_file"])  # of the hard link alone


def test_a_link_that_is_planted_after_a_run_is_not_followed_by_the_next(cli: Cli, outside: Path) -> None:
    save = calls(("write_file", {"path": "notes/a.txt", "content": "one", "last": True}), step="file")
    script = cli.script(save, says("It was refused.", step="file"))
    assert cli("agents", "run", "file", "Save", script).code == 0
    (cli.folder / "notes" / "a.txt").unlink()
    (cli.folder / "notes").rmdir()
    (cli.folder / "notes").symlink_to(outside)
    (cli.folder / "notes" / "b.txt").write_text("a naive tool writes here")
    assert (outside / "b.txt").exists()

    again = cli("agents", "run", "file", "Save", script, "--json")
    undone = cli("undo", cli("runs", "--json").json["runs"][-1]["run_id"])

    assert again.json["results"]["file"]["error"]["type"] == "file_refused"
    assert undone.code != 0
    assert sorted(path.name for path in outside.iterdir()) == ["b.txt", "file"]
    assert (outside / "file").read_text() == SECRET


def test_a_thread_that_swaps_folders_gets_no_write_outside(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "work"
    root.mkdir()
    with swapping(root, outside), Workspace(root) as workspace:
        for number in range(500):
            try:
                workspace.write(f"folder/new{number}", b"x")
            except FileRefusedError:
                continue
    assert sorted(path.name for path in outside.iterdir()) == ["file"]


def test_no_agent_touches_what_steers_the_program_or_what_it_keeps_where_the_workspace_holds_them(cli: Cli) -> None:
    agent = "---\ndescription: Runs what it likes.\ntools: [run_code]\n---\nRun.\n"
    before = {"config/config.toml": "turns = 5\n", "cache/model.gguf": "weights"}
    for name, text in before.items():
        cli.file(str(cli.home / name), text)
    writes = {
        "config/config.toml": "allow_host = ['127.0.0.1']\n",
        "config/agents/file.md": agent,
        "CONFIG/agents/file.md": agent,
        "config/trusted.json": '{"agents": []}',
        "cache/model.gguf": "others",
        "run.log": "",
        "config.md": "mine",
    }
    script = cli.script(
        calls(
            *(("write_file", {"path": path, "content": text, "overwrite": True}) for path, text in writes.items()),
            ("run_code", {"language": "python", "code": "print(1)", "files": ["state/journal.db"]}),
            ("list_files", {"folder": "state"}),
        ),
        calls(("list_files", {})),
        says("Done."),
    )
    both = "---\ndescription: Does both.\ntools: [write_file, list_files, run_code]\n---\nDo it.\n"
    cli.file(".master-agent/agents/both.md", both)

    command = ("agents", "run", "both", "x", script, "--workspace", str(cli.home), "--trust-project", "--quiet")
    ran = cli(*command, "--log-file", str(cli.home / "run.log"))

    assert ran.code == 0, ran.err
    told = [event for event in cli("show", "--events").events if event["type"] == "tool_returned"]
    told.sort(key=lambda event: [int(number) for number in event["asked"].split("_")[1:]])
    *refused, mine, code, state, every = [event["text"] for event in told]
    assert len(refused) == len(writes) - 1 and mine.startswith("wrote config.md")
    assert all("a place of the program's own" in text for text in (*refused, code, state))
    assert "config.md (4 bytes)" in every and not any(name in every for name in ("journal", "run.log", "config.toml"))
    assert {name: (cli.home / name).read_text() for name in before} == before
    assert not (cli.home / "config" / "agents").exists() and not (cli.home / "config" / "trusted.json").exists()


def test_no_agent_works_in_a_folder_that_steers_later_runs(cli: Cli) -> None:
    for folder in ("config/agents", "cache/models/mine", "state/mine"):
        (cli.home / folder).mkdir(parents=True)
    (cli.folder / "link").symlink_to(cli.home / "config")
    plan = cli.plan({"tool": "write_file", "with": {"path": "code.md", "content": "x"}})

    refused = {"../home/config": "config", "../home/config/agents": "config", "link": "config", "link/agents": "config"}
    refused |= {str(cli.home / "cache" / "models" / "mine"): "cache", "../home/cache": "cache"}
    for workspace, folder in refused.items():
        ran = cli("run", plan, "--workspace", workspace)
        assert ran.code == 2, ran.err
        assert f"{cli.home / folder} holds" in ran.err and "--workspace DIR" in ran.err
    here = cli("run", plan, cwd=cli.home / "config" / "agents")
    looked = cli("doctor", "--workspace", "link")

    assert here.code == 2 and "is no place for agents" in here.err
    assert "is no place for agents" in looked.out
    assert not list(cli.home.rglob("code.md"))
    assert cli("run", plan, "--workspace", "../home/state/mine").code == 0  # which holds nothing but the journal


def test_the_journal_and_the_file_that_env_leads_to_are_out_of_reach_wherever_they_lie(cli: Cli) -> None:
    cli.file("settings/dev.txt", "TITLE=mine\n")
    (cli.folder / ".env").symlink_to("settings/dev.txt")
    places = ["journal.db", "journal.db-wal", "journal.db-journal", "settings/dev.txt"]
    writes = [{"tool": "write_file", "with": {"path": path, "content": "x", "overwrite": True}} for path in places]
    read = {"tool": "read_file", "with": {"path": "settings/dev.txt"}, "needs": []}
    plan = cli.plan(*({**write, "needs": []} for write in writes), read, {"tool": "list_files", "needs": []})

    ran = cli("run", plan, "--json", "--state-dir", ".")

    *refused, listed = ran.json["results"].values()
    assert [result["error"]["type"] for result in refused] == ["file_refused"] * 5
    assert listed["status"] == "done" and "journal" not in listed["text"] and "dev.txt" not in listed["text"]
    assert (cli.folder / "journal.db").is_file() and (cli.folder / "settings/dev.txt").read_text() == "TITLE=mine\n"


def test_what_the_programs_own_folders_link_to_is_out_of_reach_too(cli: Cli) -> None:
    """As people have it who keep their settings in a repository, and their models on another disk."""
    for name in ("config.toml", "trusted.json", "agents/mine.md", "models/a.gguf"):
        cli.file(name, "turns = 5\n" if name == "config.toml" else "x")
    (cli.folder / "agents/mine.md").write_text("---\ndescription: Mine.\n---\nDo it.\n")
    before = {path: path.read_bytes() for path in cli.folder.rglob("*.*")}
    (cli.home / "config" / "agents").mkdir(parents=True)
    (cli.home / "cache").mkdir()
    for link, target in {
        "config/config.toml": "config.toml",
        "config/trusted.json": "trusted.json",
        "config/agents/mine.md": "agents/mine.md",
        "cache/models": "models",
    }.items():
        (cli.home / link).symlink_to(cli.folder / target)
    places = ["config.toml", "trusted.json", "agents/mine.md", "models/a.gguf", "models/new.gguf"]
    writes = [{"tool": "write_file", "with": {"path": path, "content": "y", "overwrite": True}} for path in places]
    plan = cli.plan(*({**write, "needs": []} for write in writes))

    ran = cli("run", plan, "--json")
    within = cli("run", plan, "--workspace", "models")

    assert [result["error"]["type"] for result in ran.json["results"].values()] == ["file_refused"] * len(places)
    assert {path: path.read_bytes() for path in cli.folder.rglob("*.*")} == before
    assert within.code == 2 and "is no place for agents" in within.err
