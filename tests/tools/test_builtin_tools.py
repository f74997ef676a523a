"""The built-in tools, with a real workspace, the placeholder's pictures and a server on loopback."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from master_agent.context import Inputs
from master_agent.errors import FetchRefusedError, FileRefusedError, ImageError, ToolError
from master_agent.fetch import Fetcher
from master_agent.images import ASPECT_RATIOS, ImageProvider, ImageRequest, Picture, Pictures
from master_agent.images.placeholder import Placeholder
from master_agent.results import Artifact, StepResult, StepStatus, Usage
from master_agent.run_files import Before, RunFiles
from master_agent.tools import Tool, ToolCall, ToolContext, ToolOutput, checked, load_tools, running
from master_agent.tools.files import MOST_CHARACTERS, list_files, read_file, save_result, write_file
from master_agent.tools.images import download_image, generate_image
from master_agent.workspace import Workspace
from tests.servers.replicate import Script, png, stand_in

TOOLS = [read_file, write_file, list_files, save_result, generate_image, download_image]


@dataclass
class Desk:
    """A run's surroundings; `use` uses a tool as the step `step` would."""

    workspace: Workspace
    provider: ImageProvider | None = field(default_factory=Placeholder)
    results: dict[str, StepResult] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    step: str | None = "hero"
    reported: list[tuple[Artifact, bytes | None, str | None]] = field(default_factory=list)
    run_files: RunFiles | None = None

    def use(self, tool: Tool, **arguments: Any) -> ToolOutput:
        async def work() -> ToolOutput:
            async with Fetcher(self.allowed) as fetcher:
                return await tool.run(self.context(fetcher), tool.checked(arguments))

        return asyncio.run(work())

    def context(self, fetcher: Fetcher) -> ToolContext:
        self.run_files = self.run_files or RunFiles(self.workspace, self.report)
        files = self.run_files.for_step(self.step)
        inputs = Inputs(results=self.results)
        return ToolContext(self.step, inputs, self.workspace, files, fetcher, self.images)

    def images(self) -> ImageProvider:
        if self.provider is None:
            raise ImageError("no picture can be made", type="missing_token")
        return self.provider

    async def report(self, artifact: Artifact, before: Before, step: str | None) -> None:
        self.reported.append((artifact, before.content, step))

    def text(self, path: str) -> str:
        return (self.workspace.root / path).read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Workspace(tmp_path) as workspace:
        yield Desk(workspace)


@contextmanager
def refused(*words: str, kind: type[ToolError] = ToolError) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    for word in words:
        assert word in caught.value.message


def done(**parts: Any) -> StepResult:
    status: StepStatus = parts.pop("status", "done")
    return StepResult(status=status, **parts)


def code(*files: tuple[str, str]) -> StepResult:
    return done(text="Here it is.", data={"files": [{"name": n, "language": "html", "content": c} for n, c in files]})


# As the model sees them


def test_the_built_in_tools_come_in_by_the_door_of_a_plug_in() -> None:
    loaded = load_tools()
    assert all(loaded[tool.name] is tool for tool in TOOLS)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_says_what_it_does_and_takes_values_only(tool: Tool) -> None:
    assert tool.description
    assert tool.parameters["type"] == "object"
    json.dumps(tool.parameters)


def test_the_effects_of_the_tools_are_declared() -> None:
    assert {tool.name: set(tool.effects) for tool in TOOLS} == {
        "read_file": {"read"},
        "write_file": {"write"},
        "list_files": {"read"},
        "save_result": {"write"},
        "generate_image": {"network", "pay", "write"},
        "download_image": {"network", "write"},
    }
    assert generate_image.timeout == 600


def test_the_step_of_save_result_is_known_as_a_step() -> None:
    assert list(save_result.step_parameters) == ["step"]


def test_the_aspect_ratios_of_the_tool_are_those_of_the_port() -> None:
    assert tuple(generate_image.parameters["properties"]["aspect_ratio"]["enum"]) == ASPECT_RATIOS


# Reading and listing


def test_a_file_is_read_as_it_is(desk: Desk) -> None:
    desk.workspace.write("notes.md", b"one\ntwo three\n")
    assert desk.use(read_file, path="notes.md").text == "one\ntwo three\n"


def test_a_long_file_is_read_in_parts_that_say_how_to_go_on(desk: Desk) -> None:
    lines = [f"line {number}" for number in range(1, 3_001)]
    desk.workspace.write("long.txt", "\n".join(lines).encode())
    first = desk.use(read_file, path="long.txt").text
    assert "line 2000\n" in first
    assert "line 2001" not in first
    assert first.endswith("\n[lines 1 to 2000 of 3000; read on with start_line=2001]")
    second = desk.use(read_file, path="long.txt", start_line=2_001).text
    assert second.startswith("line 2001\n")
    assert second.endswith("\nline 3000\n[lines 2001 to 3000 of 3000]")
    assert desk.use(read_file, path="long.txt", start_line=5, lines=2).text.startswith("line 5\nline 6\n[")


def test_a_reading_is_cut_with_a_note(desk: Desk) -> None:
    desk.workspace.write("wide.txt", ("x" * 30_000 + "\n").encode() * 4)
    desk.workspace.write("one.txt", b"x" * 200_000)
    wide = desk.use(read_file, path="wide.txt").text
    assert wide.endswith("\n[lines 1 to 1 of 5; read on with start_line=2]")
    one = desk.use(read_file, path="one.txt").text
    assert one.endswith(f"\n[line 1 is cut: {MOST_CHARACTERS:,} of 200,000 characters]")


def test_what_is_no_text_is_named_and_not_read(desk: Desk) -> None:
    desk.workspace.write("zero", b"a\0b")
    with refused('"zero" is no text'):
        desk.use(read_file, path="zero")
    with refused("2 lines", kind=ToolError):
        desk.workspace.write("two", b"1\n2")
        desk.use(read_file, path="two", start_line=3)


def test_a_picture_that_is_read_is_shown(desk: Desk) -> None:
    desk.workspace.write("hero.png", png())

    output = desk.use(read_file, path="hero.png")

    (picture,) = output.pictures
    assert (picture.name, picture.media_type, picture.content) == ("hero.png", "image/png", png())
    assert '"hero.png" (image/png' in output.text


def test_files_are_listed_with_their_sizes(desk: Desk) -> None:
    assert desk.use(list_files).text == "there are no files"
    desk.workspace.write("a/b.txt", b"x" * 1_234)
    desk.workspace.write("c.txt", b"x")
    assert desk.use(list_files).text == "a/b.txt (1,234 bytes)\nc.txt (1 bytes)"
    assert "c.txt" not in desk.use(list_files, folder="a").text


def test_a_long_listing_says_that_it_is_cut(desk: Desk) -> None:
    for number in range(501):
        (desk.workspace.root / f"{number:03}").write_text("x")
    text = desk.use(list_files).text
    assert text.endswith("\n[cut after 500 files; list a folder below for the rest]")
    assert text.count("\n") == 500


# Writing


def test_a_written_file_is_an_artifact_and_reported(desk: Desk) -> None:
    output = desk.use(write_file, path="site/index.html", content="<p>é</p>")
    assert desk.text("site/index.html") == "<p>é</p>"
    assert output.text == "wrote site/index.html (9 bytes)"
    assert desk.reported == [(output.artifacts[0], None, "hero")]
    assert output.artifacts[0].media_type == "text/html"


def test_a_file_of_before_is_only_replaced_when_told_so(desk: Desk) -> None:
    (desk.workspace.root / "a.txt").write_text("old")
    with refused("overwrite: true", kind=FileRefusedError):
        desk.use(write_file, path="a.txt", content="new")
    assert desk.text("a.txt") == "old"
    desk.use(write_file, path="a.txt", content="new", overwrite=True)
    desk.use(write_file, path="a.txt", content="newer")
    assert desk.text("a.txt") == "newer"


def test_what_was_not_shown_is_not_written_over(desk: Desk) -> None:
    desk.results["page"] = done(text="key: (secret)")
    (desk.workspace.root / "a.txt").write_text("key: canary")
    (desk.workspace.root / "b.txt").write_text("it says (secret)")

    for tool, arguments in ((write_file, {"content": "key: (secret)"}), (save_result, {"step": "page"})):
        with refused('"a.txt" holds something that you were not shown', kind=FileRefusedError):
            desk.use(tool, path="a.txt", overwrite=True, **arguments)
    with refused('"b.txt" holds', kind=FileRefusedError):
        desk.use(write_file, path="b.txt", content="(secret) and (secret)", overwrite=True)
    assert (desk.text("a.txt"), desk.text("b.txt"), desk.reported) == ("key: canary", "it says (secret)", [])

    desk.use(write_file, path="b.txt", content="it said (secret)", overwrite=True)
    desk.use(write_file, path="c.txt", content="key: (secret)")
    assert (desk.text("b.txt"), desk.text("c.txt")) == ("it said (secret)", "key: (secret)")


def test_half_a_character_is_answered_and_not_written(desk: Desk) -> None:
    with refused("half a character"):
        desk.use(write_file, path="a.txt", content="\ud83d")
    assert desk.workspace.entries() == []


@pytest.mark.parametrize("path", ["../a", "/tmp/a", ".env", ".git/config"])
def test_a_path_that_may_not_be_touched_is_told_to_the_model(desk: Desk, path: str) -> None:
    async def work() -> ToolOutput:
        tools = {"write_file": write_file}
        use = checked(tools, running(tools, lambda _: desk.context(Fetcher())))
        return await use(ToolCall("1", "write_file", json.dumps({"path": path, "content": "x"})))

    output = asyncio.run(work())
    assert output.error
    assert output.error.type == "file_refused"
    assert "may not be touched" in output.text


# Saving an earlier step's work


def test_the_only_code_file_of_a_step_is_saved_byte_for_byte(desk: Desk) -> None:
    content = "<p>é</p>\r\n\t$`'\"\\ ${x}"
    desk.results["page"] = code(("index.html", content))
    output = desk.use(save_result, step="page", path="site/index.html")
    assert (desk.workspace.root / "site/index.html").read_bytes() == content.encode()
    assert output.text == f"saved page as site/index.html ({len(content.encode())} bytes)"
    assert output.artifacts[0].path == "site/index.html"


def test_one_of_several_files_is_saved_by_its_name(desk: Desk) -> None:
    desk.results["site"] = code(("index.html", "<p>"), ("css/style.css", "p {}"))
    with refused('"index.html", "css/style.css"', "name one with file"):
        desk.use(save_result, step="site", path="x")
    desk.use(save_result, step="site", path="a.css", file="css/style.css")
    desk.use(save_result, step="site", path="b.css", file="style.css")
    assert (desk.text("a.css"), desk.text("b.css")) == ("p {}", "p {}")
    with refused('made no file "x.js"; it made "index.html", "css/style.css"'):
        desk.use(save_result, step="site", path="x", file="x.js")
    assert len(desk.workspace.entries()) == 2


def test_a_step_of_a_picture_is_saved_as_the_picture(desk: Desk) -> None:
    picture = desk.use(generate_image, prompt="A sunset")
    desk.results["hero"] = done(text="a picture", artifacts=picture.artifacts)
    desk.use(save_result, step="hero", path="copy.png")
    original = (desk.workspace.root / "images/hero.png").read_bytes()
    assert (desk.workspace.root / "copy.png").read_bytes() == original
    desk.use(save_result, step="hero", path="again.png", file="hero.png")
    assert (desk.workspace.root / "again.png").read_bytes() == original


def test_a_picture_that_was_changed_since_is_not_taken_for_the_steps(desk: Desk) -> None:
    desk.results["hero"] = done(artifacts=desk.use(generate_image, prompt="A sunset").artifacts)
    (desk.workspace.root / "images/hero.png").write_bytes(b"other")
    with refused("was changed since"):
        desk.use(save_result, step="hero", path="copy.png")


def test_a_step_of_words_is_saved_as_its_text(desk: Desk) -> None:
    desk.results["poem"] = done(text="Rosen,\nVeilchen\n")
    desk.use(save_result, step="poem", path="poem.txt")
    assert desk.text("poem.txt") == "Rosen,\nVeilchen\n"
    with refused("no files, only text"):
        desk.use(save_result, step="poem", path="x", file="poem.txt")


def test_a_step_without_work_or_without_a_name_is_answered_with_what_there_is(desk: Desk) -> None:
    desk.results |= {"page": code(("a", "b")), "empty": done(), "broken": done(status="failed", text="x")}
    with refused('no result of a step "pge"; did you mean "page"?'):
        desk.use(save_result, step="pge", path="x")
    with refused("left no file and no text"):
        desk.use(save_result, step="empty", path="x")
    with refused("it is failed"):
        desk.use(save_result, step="broken", path="x")
    assert desk.workspace.entries() == []


def test_saving_respects_what_was_there_before(desk: Desk) -> None:
    (desk.workspace.root / "index.html").write_text("old")
    desk.results["page"] = code(("index.html", "new"))
    with refused("overwrite: true"):
        desk.use(save_result, step="page", path="index.html")
    desk.use(save_result, step="page", path="index.html", overwrite=True)
    assert desk.text("index.html") == "new"


# Pictures


def test_a_picture_is_stored_under_the_steps_name_and_described(desk: Desk) -> None:
    output = desk.use(generate_image, prompt="A sunset", aspect_ratio="16:9", seed=7)
    (artifact,) = output.artifacts
    assert artifact.path == "images/hero.png"
    assert output.usage == Usage(images=1)
    assert output.data == {
        "source_url": None,
        "expires_at": None,
        "width": 1368,
        "height": 768,
        "seed": 7,
        "model": None,
        "provider": "placeholder",
    }
    assert output.text.startswith(f"images/hero.png (image/png, 1368×768 pixels, {artifact.bytes:,} bytes)\n(")
    assert "placeholder" in output.text
    assert desk.reported[0][0] == artifact


def test_several_pictures_are_stored_under_names_of_their_own(desk: Desk) -> None:
    desk.step = None
    output = desk.use(generate_image, prompt="A sunset", count=3)
    paths = [artifact.path for artifact in output.artifacts]
    assert paths == ["images/image.png", "images/image-2.png", "images/image-3.png"]
    images = output.data["images"]
    assert isinstance(images, list)
    assert [image["path"] for image in images if isinstance(image, dict)] == paths
    assert output.usage.images == 3


def test_the_seed_is_drawn_before_the_call(desk: Desk) -> None:
    prepared = [generate_image.checked({"prompt": "x"})["seed"] for _ in range(20)]
    assert len(set(prepared)) > 15
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in prepared)
    assert generate_image.checked({"prompt": "x", "seed": 0})["seed"] == 0
    assert desk.use(generate_image, prompt="x", seed=5).data["seed"] == 5


@pytest.mark.parametrize(
    "arguments", [{"prompt": ""}, {"prompt": "x", "count": 5}, {"prompt": "x", "aspect_ratio": "2:1"}, {"seed": 1}]
)
def test_wrong_arguments_are_refused_before_anything_is_paid(desk: Desk, arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match="wrong arguments"):
        desk.use(generate_image, **arguments)


def test_without_a_provider_the_reason_is_said(desk: Desk) -> None:
    desk.provider = None
    with pytest.raises(ImageError) as caught:
        desk.use(generate_image, prompt="x")
    assert caught.value.type == "missing_token"


class Painter:
    """Gives what it was told to give."""

    name = "painter"
    paid = True

    def __init__(self, *contents: bytes) -> None:
        self.contents = contents

    async def check(self) -> str:
        return "brushes at hand"

    async def settle(self, request: ImageRequest, remote_id: str | None) -> Pictures | None:  # noqa: ARG002
        return None

    async def generate(self, request: ImageRequest) -> Pictures:
        expires = "2026-03-01T13:00:00Z"
        pictures = tuple(Picture(content, f"https://a.b/{n}", expires) for n, content in enumerate(self.contents))
        return Pictures(pictures, self.name, "oil", request.seed)


def test_a_picture_is_named_by_its_bytes_and_its_source_is_kept(desk: Desk) -> None:
    import io

    from PIL import Image

    saved = io.BytesIO()
    Image.new("RGB", (4, 3)).save(saved, "WEBP")
    desk.provider = Painter(saved.getvalue())
    output = desk.use(generate_image, prompt="x", seed=1)
    assert output.artifacts[0].path == "images/hero.webp"
    assert output.data["source_url"] == "https://a.b/0"
    assert output.data["expires_at"] == "2026-03-01T13:00:00Z"
    assert (output.data["width"], output.data["height"], output.data["model"]) == (4, 3, "oil")


@pytest.mark.parametrize("contents", [(), (b"<html>",), (png(), b"<html>")])
def test_what_is_no_picture_is_not_stored(desk: Desk, contents: tuple[bytes, ...]) -> None:
    desk.provider = Painter(*contents)
    with pytest.raises(ImageError):
        desk.use(generate_image, prompt="x")
    assert desk.workspace.entries() == []


def test_a_picture_is_fetched_from_an_address_and_stored(desk: Desk) -> None:
    with stand_in() as server:
        desk.allowed = (server.url.removeprefix("http://"),)
        address = f"{server.url}/files/x/0.png"
        fetched = desk.use(download_image, url=address)
        assert fetched.artifacts[0].path == "images/hero.png"
        assert fetched.data == {"source_url": address, "width": 16, "height": 9}
        assert desk.use(download_image, url=address, path="a/b.png").artifacts[0].path == "a/b.png"
        assert desk.use(download_image, url=address, path="c.jpg").artifacts[0].path == "c.png"
        assert desk.use(download_image, url=address, path="d").artifacts[0].path == "d.png"
        (desk.workspace.root / "e.png").write_text("old")
        with refused("overwrite: true"):
            desk.use(download_image, url=address, path="e.png")
        desk.use(download_image, url=address, path="e.png", overwrite=True)
    assert (desk.workspace.root / "e.png").read_bytes() == png()


def test_a_page_at_a_pictures_address_is_not_stored(desk: Desk) -> None:
    with stand_in(Script()) as server:
        desk.allowed = (server.url.removeprefix("http://"),)
        with refused("/files/x/page.png", "no picture", kind=ImageError):
            desk.use(download_image, url=f"{server.url}/files/x/page.png")
    assert desk.workspace.entries() == []


def test_a_refused_path_is_refused_before_anything_is_fetched(desk: Desk) -> None:
    with stand_in() as server:
        desk.allowed = (server.url.removeprefix("http://"),)
        with refused("may not be touched"):
            desk.use(download_image, url=f"{server.url}/files/x/0.png", path="../x.png")
        assert server.requests == []


def test_a_private_address_is_not_fetched(desk: Desk) -> None:
    with stand_in() as server:
        with refused("127.0.0.1", kind=FetchRefusedError):
            desk.use(download_image, url=f"{server.url}/files/x/0.png")
        assert server.requests == []
