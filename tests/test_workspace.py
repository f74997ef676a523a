"""The workspace: what may be read and written beneath it, and what is refused."""

import asyncio
import hashlib
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from master_agent.errors import FileRefusedError, SettingsError
from master_agent.media import media_type
from master_agent.results import Artifact
from master_agent.run_files import INLINE, Before, RunFiles
from master_agent.workspace import Entry, Workspace

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.fixture(params=["kernel", "walk"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    root = tmp_path / "workspace"
    root.mkdir()
    with Workspace(root, walk=request.param == "walk") as opened:
        yield opened


def put(workspace: Workspace, path: str, content: str = "x") -> Path:
    place = workspace.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    return place


def refused(act: object, *words: str) -> str:
    assert callable(act)
    with pytest.raises(FileRefusedError) as caught:
        act()
    for word in words:
        assert word in caught.value.message
    return caught.value.message


# The folder itself


def test_a_missing_workspace_is_a_settings_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist") as caught:
        Workspace(tmp_path / "missing")
    assert caught.value.hint


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="is not a folder"):
        Workspace(tmp_path / "file")


def test_a_folder_that_cannot_be_written_to_is_no_workspace() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        made_read_only(Path(folder)),
        as_an_ordinary_user(),
        pytest.raises(SettingsError, match="cannot be written to"),
    ):
        Workspace(Path(folder))


@contextmanager
def made_read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so it steps down for a moment."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_workspace_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Workspace(tmp_path / "link") as workspace:
        workspace.write("a.txt", b"x")
    assert (tmp_path / "real/a.txt").read_bytes() == b"x"


def test_a_closed_workspace_gives_its_folder_back_once(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    workspace = Workspace(tmp_path)
    workspace.close()
    workspace.close()
    assert len(list(Path("/dev/fd").iterdir())) == before


# Writing


def test_what_was_written_is_read_back_and_described(workspace: Workspace) -> None:
    artifact = workspace.write("./site//index.html", b"<p>hello</p>")
    digest = hashlib.sha256(b"<p>hello</p>").hexdigest()
    assert artifact == Artifact(path="site/index.html", media_type="text/html", bytes=12, sha256=digest)
    assert workspace.read("site/index.html") == b"<p>hello</p>"
    assert workspace.digest("site/index.html") == digest
    assert workspace.exists("site/index.html")


def test_nothing_there_has_no_digest_and_does_not_exist(workspace: Workspace) -> None:
    put(workspace, "file")
    for path in ("missing", "missing/below", "file/below"):
        assert workspace.digest(path) is None
        assert not workspace.exists(path)


def test_a_written_file_keeps_the_mode_it_had(workspace: Workspace) -> None:
    put(workspace, "run.sh").chmod(0o750)
    workspace.write("run.sh", b"new")
    assert stat.S_IMODE((workspace.root / "run.sh").stat().st_mode) == 0o750


def test_a_new_file_has_the_mode_that_the_umask_leaves(workspace: Workspace) -> None:
    before = os.umask(0o027)
    try:
        workspace.write("new.txt", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((workspace.root / "new.txt").stat().st_mode) == 0o640


def test_a_reader_never_sees_half_a_file(workspace: Workspace) -> None:
    old, new = b"a" * 300_000, b"b" * 300_000
    workspace.write("file", old)
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add((workspace.root / "file").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        workspace.write("file", new if turn % 2 else old)
    done.set()
    reader.join()
    assert seen <= {old, new}


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(workspace, "file", "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    refused(lambda: workspace.write("file", b"new"), "file", "No space left on device")
    assert [path.name for path in workspace.root.iterdir()] == ["file"]
    assert (workspace.root / "file").read_text() == "old"


def test_a_read_only_file_is_not_replaced(workspace: Workspace) -> None:
    put(workspace, "file", "old").chmod(0o444)
    refused(lambda: workspace.write("file", b"new"), "read-only")


def test_a_file_with_other_names_is_not_written(workspace: Workspace) -> None:
    outside = workspace.root.parent / "outside"
    outside.write_text("old")
    os.link(outside, workspace.root / "inside")
    refused(lambda: workspace.write("inside", b"new"), "hard links")
    assert outside.read_text() == "old"


def test_a_name_that_is_taken_is_kept_when_nothing_may_be_replaced(workspace: Workspace) -> None:
    workspace.write("file", b"first", replace=False)
    refused(lambda: workspace.write("file", b"second", replace=False), "exists already")
    assert workspace.read("file") == b"first"
    assert [path.name for path in workspace.root.iterdir()] == ["file"]
    assert (workspace.root / "file").stat().st_nlink == 1


def test_a_name_that_is_taken_is_kept_on_a_file_system_without_links_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unknown)
    workspace.write("file", b"first", replace=False)
    refused(lambda: workspace.write("file", b"second", replace=False), "exists already")
    assert workspace.read("file") == b"first"


# What leaves, or is no file


def test_absolute_paths_and_ways_up_are_refused(workspace: Workspace) -> None:
    (workspace.root.parent / "secret").write_text("secret")
    for act in (workspace.read, workspace.exists, workspace.digest, workspace.entries):
        refused(lambda act=act: act("/etc/passwd"), "absolute")
        refused(lambda act=act: act("../secret"), "..")
        refused(lambda act=act: act("a/../../secret"), "..")
    refused(lambda: workspace.write("../new", b"x"), "..")
    refused(lambda: workspace.write("/tmp/new", b"x"), "absolute")
    assert not (workspace.root.parent / "new").exists()


def test_a_link_that_leaves_the_workspace_is_refused(workspace: Workspace) -> None:
    outside = workspace.root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (workspace.root / "folder").symlink_to(outside)
    (workspace.root / "file").symlink_to(outside / "secret")
    for path in ("folder/secret", "file"):
        refused(lambda path=path: workspace.read(path), path, "link")
        refused(lambda path=path: workspace.digest(path), "link")
        refused(lambda path=path: workspace.write(path, b"new"), "link")
    refused(lambda: workspace.write("folder/new", b"x"), "link")
    refused(lambda: workspace.write("folder/below/new", b"x"), "link")
    refused(lambda: workspace.entries("folder"), "link")
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_link_inside_does_not_open_a_file_under_another_name(workspace: Workspace) -> None:
    put(workspace, ".env", "OPENAI_API_KEY=secret")
    (workspace.root / "notes.txt").symlink_to(".env")
    refused(lambda: workspace.read("notes.txt"), "link", "name the file itself")


def test_a_dangling_link_exists_and_is_not_written_through(workspace: Workspace) -> None:
    target = workspace.root.parent / "made"
    (workspace.root / "link").symlink_to(target)
    assert workspace.exists("link")
    refused(lambda: workspace.write("link", b"x"), "link")
    assert not target.exists()


def test_pipes_sockets_devices_and_folders_are_no_files(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(workspace.root / "pipe")
    (workspace.root / "folder").mkdir()
    monkeypatch.chdir(workspace.root)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, word in (("pipe", "pipe"), ("folder", "folder"), ("socket", "socket")):
            refused(lambda name=name: workspace.read(name), name, word)
            refused(lambda name=name: workspace.write(name, b"x"), name, word)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a device")
def test_a_device_is_no_file(workspace: Workspace) -> None:
    try:
        os.mknod(workspace.root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container forbids devices")
    refused(lambda: workspace.read("zero"), "device")


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("", "empty"),
        (".", "the workspace itself"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a" * 256, "255"),
        ("é" * 128, "255"),
        ("/".join(["abc"] * 1_100), "4,000"),
        ("\ud800", "not Unicode"),
    ],
)
def test_a_path_that_can_be_no_file_is_refused_with_the_reason(workspace: Workspace, path: str, word: str) -> None:
    refused(lambda: workspace.read(path), word)
    refused(lambda: workspace.write(path, b"x"), word)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "sub/.git/hooks/pre-commit",
        ".GIT/config",
        ".gi\u200dt/config",
        ".env",
        ".ENV",
        ".env.production",
        ".env.example.local",
        ".envrc",
        ".master-agent/agents/x.md",
        ".master-agent-0011.tmp",
        "id_rsa",
        "keys/ID_ED25519",
        "server.pem",
        "Server.KEY",
        ".ssh/config",
        ".kube/config",
        ".pgpass",
        "AuthKey.p8",
        "app.keystore",
        ".git./config",
        ".git /config",
        ".env. .",
        ".git:stream/config",
        "12:30.pem",
        "GIT~1/config",
        "ENV~1.LOC",
        "MASTER~1/agents/x.md",
    ],
)
def test_names_that_hold_secrets_or_steer_others_are_refused(workspace: Workspace, path: str) -> None:
    put(workspace, path, "secret")
    refused(lambda: workspace.read(path), "may not be touched")
    refused(lambda: workspace.exists(path), "may not be touched")
    refused(lambda: workspace.write(path, b"x"), "may not be touched")
    assert workspace.entries() == []


@pytest.mark.parametrize(
    "path",
    [
        ".env.example",
        ".env.sample",
        ".ENV.template",
        ".gitignore",
        ".github/x.yml",
        "id_rsa.pub",
        "key.py",
        "notes~1.md",
        "git: how.md",
    ],
)
def test_names_that_only_look_alike_are_allowed(workspace: Workspace, path: str) -> None:
    workspace.write(path, b"x")
    assert workspace.read(path) == b"x"
    assert [entry.path for entry in workspace.entries()] == [path]


def test_a_missing_file_is_answered_with_the_nearest_names(workspace: Workspace) -> None:
    put(workspace, "site/index.html")
    refused(lambda: workspace.read("site/indx.html"), '"site/indx.html" does not exist', '"site/index.html"')


def test_a_file_that_is_too_large_is_not_read(workspace: Workspace) -> None:
    put(workspace, "file", "12345")
    assert workspace.read("file", limit=5) == b"12345"
    refused(lambda: workspace.read("file", limit=4), "5 bytes", "4")


def test_a_file_that_grows_meanwhile_is_not_read_past_the_limit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put(workspace, "file", "12345")
    look = os.fstat

    def look_and_grow(fd: int) -> os.stat_result:
        about = look(fd)
        place.write_text("123456")
        return about

    monkeypatch.setattr(os, "fstat", look_and_grow)
    refused(lambda: workspace.read("file", limit=5), "more than 5 bytes")


def test_a_file_is_never_read_from_outside_while_a_folder_and_a_link_swap_places(workspace: Workspace) -> None:
    outside = workspace.root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    put(workspace, "folder/file", "inside")
    (workspace.root / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        folder, link, spare = (workspace.root / name for name in ("folder", "link", "spare"))
        while not done.is_set():
            folder.rename(spare)
            link.rename(folder)
            folder.rename(link)
            spare.rename(folder)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: dict[str, int] = {}
    try:
        for _ in range(2_000):
            try:
                what = workspace.read("folder/file").decode()
            except FileRefusedError:
                what = "refused"
            seen[what] = seen.get(what, 0) + 1
    finally:
        done.set()
        swapper.join()
    assert "secret" not in seen
    assert seen.get("inside")  # else there was no race


# Listing


def test_entries_are_all_files_below_sorted_with_their_sizes(workspace: Workspace) -> None:
    put(workspace, "b.txt", "12")
    put(workspace, "a/c.txt", "123")
    put(workspace, "a.txt", "1")
    put(workspace, ".env", "secret")
    put(workspace, ".git/config")
    os.mkfifo(workspace.root / "pipe")
    (workspace.root / "link").symlink_to("a")
    (workspace.root / "loop").symlink_to(".")
    assert workspace.entries() == [Entry("a.txt", 1), Entry("a/c.txt", 3), Entry("b.txt", 2)]
    assert workspace.entries("a") == [Entry("a/c.txt", 3)]
    assert workspace.entries("./a/") == [Entry("a/c.txt", 3)]


def test_entries_are_bounded_and_the_less_deep_ones_come_first(workspace: Workspace) -> None:
    for number in range(30):
        put(workspace, f"a/deep/{number:02}")
    put(workspace, "z.txt")
    assert [entry.path for entry in workspace.entries(most=3)] == ["a/deep/00", "a/deep/01", "z.txt"]


def test_the_entries_of_what_is_no_folder_are_refused(workspace: Workspace) -> None:
    put(workspace, "file")
    refused(lambda: workspace.entries("file"), "not a folder")
    refused(lambda: workspace.entries("missing"), "does not exist")


# Media types


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("a.jpg", PNG, "image/png"),
        ("a", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        ("a", b"GIF89a", "image/gif"),
        ("a.png", b"<html>", "text/plain"),
        ("a.svg", b"<svg/>", "image/svg+xml"),
        ("a.html", b"<html>", "text/html"),
        ("a.js", b"1", "text/javascript"),
        ("a.md", b"# x", "text/markdown"),
        ("a.unknown", b"text", "text/plain"),
        ("a.unknown", b"\xff\xfe", "application/octet-stream"),
        ("a.unknown", b"a\0b", "application/octet-stream"),
    ],
)
def test_a_media_type_is_told_by_the_bytes_of_a_picture_else_by_the_name(
    path: str, content: bytes, expected: str
) -> None:
    assert media_type(path, content) == expected


# The files of a run


class Reports:
    """What was reported, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, str | None]] = []

    async def __call__(self, artifact: Artifact, before: Before, step: str | None) -> None:
        await asyncio.sleep(0)
        there = None if before.content is None else hashlib.sha256(before.content).hexdigest()
        self.seen.append((artifact.path, there, step))


def test_a_file_that_this_run_did_not_make_is_kept_unless_told_otherwise(workspace: Workspace) -> None:
    put(workspace, "page.html", "old")
    reports = Reports()

    async def work() -> None:
        files = RunFiles(workspace, reports).for_step("page")
        with pytest.raises(FileRefusedError, match="overwrite: true"):
            await files.save("./page.html", b"new", overwrite=False)
        assert workspace.read("page.html") == b"old"
        assert reports.seen == []
        await files.save("page.html", b"new", overwrite=True)

    asyncio.run(work())
    assert workspace.read("page.html") == b"new"
    assert reports.seen == [("page.html", hashlib.sha256(b"old").hexdigest(), "page")]


def test_a_file_that_this_run_made_may_be_written_again_by_another_step(workspace: Workspace) -> None:
    reports = Reports()

    async def work() -> None:
        run = RunFiles(workspace, reports)
        await run.for_step("one").save("a/page.html", b"1", overwrite=False)
        await run.for_step("two").save("a//page.html", b"2", overwrite=False)
        await (
            RunFiles(workspace, reports, made=["a/page.html"])
            .for_step("three")
            .save("a/page.html", b"3", overwrite=False)
        )

    asyncio.run(work())
    digests = [hashlib.sha256(content).hexdigest() for content in (b"1", b"2")]
    assert reports.seen == [
        ("a/page.html", None, "one"),
        ("a/page.html", digests[0], "two"),
        ("a/page.html", digests[1], "three"),
    ]


def test_new_files_take_the_first_free_name(workspace: Workspace) -> None:
    put(workspace, "images/hero.png")
    reports = Reports()

    async def work() -> list[Artifact]:
        files = RunFiles(workspace, reports).for_step("hero")
        return list(await asyncio.gather(*(files.save_new("images/hero", ".png", PNG) for _ in range(3))))

    artifacts = asyncio.run(work())
    assert [artifact.path for artifact in artifacts] == ["images/hero-2.png", "images/hero-3.png", "images/hero-4.png"]
    assert (workspace.root / "images/hero.png").read_text() == "x"


def test_saves_to_one_path_come_one_after_the_other(workspace: Workspace) -> None:
    reports = Reports()

    async def work() -> None:
        run = RunFiles(workspace, reports)
        contents = [bytes([number]) * (INLINE + 1) for number in range(4)]
        await asyncio.gather(*(run.for_step("s").save("file", content, overwrite=False) for content in contents))

    asyncio.run(work())
    befores = [hashlib.sha256(bytes([number]) * (INLINE + 1)).hexdigest() for number in range(3)]
    assert [before for _, before, _ in reports.seen] == [None, *befores]


def test_a_write_that_is_cancelled_meanwhile_is_still_reported(workspace: Workspace) -> None:
    reports = Reports()

    async def work() -> None:
        files = RunFiles(workspace, reports).for_step("big")
        save = asyncio.create_task(files.save("big", b"x" * (INLINE + 1), overwrite=False))
        await asyncio.sleep(0)
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save
        assert reports.seen == [("big", None, "big")]

    asyncio.run(work())
    assert workspace.exists("big")
