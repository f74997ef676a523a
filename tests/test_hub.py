"""Models from a hub: which file a name stands for, and how it comes whole onto the shelf, whatever happens."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from master_agent.embedded.shelf import Shelf
from master_agent.errors import MasterAgentError, ModelError, SettingsError
from master_agent.fetch import Fetcher
from master_agent.gguf import ModelFile
from master_agent.hub import KNOWN, Source, suggested
from master_agent.hub import Hub as Client
from master_agent.hub.download import pull
from tests.servers.hub import Hub
from tests.test_embedded import LLAMA, head

MODEL = head(*LLAMA) + random.Random(1).randbytes(3_000_000)
OTHER = head(*LLAMA) + random.Random(2).randbytes(3_000_000)
SHA256 = hashlib.sha256(MODEL).hexdigest()
NAME = "maker/Tiny-GGUF"
FILES = {"README.md": b"Tiny", "mmproj-F16.gguf": OTHER, "Tiny-Q4_K_M.gguf": MODEL, "Tiny-Q8_0.gguf": OTHER}


async def at_once(_seconds: float) -> None:
    """Waits for nothing."""


class Pulled:
    """What pulling from a hub came to: the shelf, and the bytes that were told of."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder / "models")
        self.told: list[int] = []

    def find(self, hub: Hub, name: str = NAME, sha256: str | None = None) -> Source:
        async def work() -> Source:
            async with Fetcher(["127.0.0.1"]) as fetcher:
                return await Client(fetcher, hub.origin).find(name, sha256)

        return asyncio.run(work())

    async def again(self, source: Source, enough: int = 0, reached: asyncio.Event | None = None) -> ModelFile:
        def tell(there: int) -> None:
            self.told.append(there)
            if reached and there >= enough:
                reached.set()

        async with Fetcher(["127.0.0.1"]) as fetcher:
            return await pull(fetcher, source, self.shelf, tell, at_once)

    def __call__(self, hub: Hub, name: str = NAME) -> ModelFile:
        return asyncio.run(self.again(self.find(hub, name)))

    @property
    def there(self) -> list[str]:
        return sorted(path.name for path in self.shelf.folder.glob("*"))


@pytest.fixture
def pulled(tmp_path: Path) -> Pulled:
    return Pulled(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        (NAME, "Tiny-Q4_K_M", len(MODEL)),
        (f"{NAME}:q8_0", "Tiny-Q8_0", len(OTHER)),
        (f"{NAME}/Tiny-Q8_0.gguf", "Tiny-Q8_0", len(OTHER)),
        ("old/Name/Tiny-Q8_0.gguf", "Tiny-Q8_0", len(OTHER)),
        ("{hub}/maker/Tiny-GGUF/resolve/main/Tiny-Q8_0.gguf", "Tiny-Q8_0", len(OTHER)),
        ("{hub}/maker/Tiny-GGUF/resolve/main/Tiny-Q8_0.gguf?token=secret", "Tiny-Q8_0", len(OTHER)),
        ("qwen3.5-4b", "qwen3.5-4b", len(MODEL)),
    ],
)
def test_a_name_stands_for_a_file_of_the_hub(pulled: Pulled, name: str, file: str, size: int) -> None:
    known = next(known for known in KNOWN if known.name == "qwen3.5-4b")
    with Hub({NAME: FILES, known.repository: {known.file: MODEL}}) as hub:
        hub.renamed["old/Name"] = NAME
        asked = name.format(hub=hub.origin)
        source = pulled.find(hub, asked)

    assert (source.name, source.bytes) == (file, size)
    assert source.asked == ("" if "secret" in asked else asked), "what is noted on the disk holds no more than a name"
    assert source.sha256 in (SHA256, hashlib.sha256(OTHER).hexdigest())


@pytest.mark.parametrize(
    ("name", "sha256", "error", "said"),
    [
        ("tiny", None, SettingsError, "expected one of qwen3.5-2b, qwen3.5-4b, qwen3.5-9b, or a repository"),
        (f"{NAME}:Q2_K", None, SettingsError, "has no file with Q2_K; there are: Tiny-Q4_K_M.gguf, Tiny-Q8_0.gguf"),
        ("nobody/Nothing", None, SettingsError, "answered 404: Repository not found"),
        (f"{NAME}/none.gguf", None, SettingsError, "answered 404: Repository not found"),
        (NAME, "abc", SettingsError, '"abc" is no sha256'),
        (NAME, "0" * 64, SettingsError, f"the hub has the file with the sha256 {SHA256}, not 000"),
        ("http://127.0.0.1:1/x.gguf", None, ModelError, "cannot be looked up: 127.0.0.1 cannot be reached"),
        ("http://127.0.0.1:1", None, SettingsError, '"http://127.0.0.1:1" names no file'),
        ("http://10.0.0.1/x.gguf", None, SettingsError, "10.0.0.1 may not be fetched from"),
    ],
)
def test_a_name_that_stands_for_nothing_is_named(
    pulled: Pulled, name: str, sha256: str | None, error: type[MasterAgentError], said: str
) -> None:
    with Hub({NAME: FILES}) as hub, pytest.raises(error) as caught:
        pulled.find(hub, name, sha256)

    assert said in caught.value.message


def test_a_hub_that_names_no_sha256_needs_one_from_the_user(pulled: Pulled) -> None:
    with Hub({NAME: FILES}) as hub:
        hub.linked = False
        with pytest.raises(SettingsError, match="nobody could tell whether it is whole"):
            pulled.find(hub)


def test_the_suggestion_follows_the_memory() -> None:
    assert [suggested(memory * 10**9).name for memory in (2, 8, 64)] == ["qwen3.5-2b", "qwen3.5-4b", "qwen3.5-9b"]


def test_a_model_comes_whole_and_leaves_nothing_beside_it(pulled: Pulled) -> None:
    with Hub({NAME: FILES}) as hub:
        model = pulled(hub)

    assert model.path.read_bytes() == MODEL
    assert pulled.there == ["Tiny-Q4_K_M.gguf"]
    assert pulled.told == sorted(pulled.told) and pulled.told[-1] == len(MODEL)


def ranges(hub: Hub) -> list[str | None]:
    return [request.headers.get("range") for request in hub.files.requests]


def test_what_breaks_off_goes_on_from_there(pulled: Pulled) -> None:
    with Hub({NAME: FILES}) as hub:
        hub.files.breaks = [1_000_000, 1_500_000]
        model = pulled(hub)

    assert model.path.read_bytes() == MODEL
    assert ranges(hub) == [None, "bytes=1000000-", "bytes=2500000-"]


def test_what_was_interrupted_goes_on_in_another_process(pulled: Pulled) -> None:
    async def interrupted(source: Source) -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(pulled.again(source, 500_000, reached))
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])

    with Hub({NAME: FILES}) as hub:
        hub.files.pace = 0.02
        asyncio.run(interrupted(pulled.find(hub)))
        had = (pulled.shelf.folder / "Tiny-Q4_K_M.gguf.part").stat().st_size
        assert pulled.shelf.names() == []
        hub.files.pace = 0
        model = pulled(hub)

    assert had >= 500_000
    assert ranges(hub) == [None, f"bytes={had}-"]
    assert hub.files.requests[1].headers["if-range"].startswith('"')
    assert model.path.read_bytes() == MODEL


def another_version(hub: Hub) -> None:
    hub.files.version = "2"


def no_ranges(hub: Hub) -> None:
    hub.files.ranges = False


def other_file(hub: Hub) -> None:
    hub.repositories = {NAME: {**FILES, "Tiny-Q4_K_M.gguf": OTHER}}


@pytest.mark.parametrize(
    ("change", "content", "weak"),
    [
        (another_version, MODEL, False),
        (no_ranges, MODEL, False),
        (other_file, OTHER, False),
        (other_file, OTHER, True),
    ],
)
def test_what_cannot_be_gone_on_with_begins_anew(
    pulled: Pulled, change: Callable[[Hub], None], content: bytes, weak: bool
) -> None:
    with Hub({NAME: FILES}) as hub:
        hub.files.breaks, hub.files.weak = [1_000_000, 0, 0, 0, 0, 0], weak
        with pytest.raises(ModelError, match=r"broke off: .*; 1\.0 MB of 3\.0 MB are there") as caught:
            pulled(hub)
        hub.files.breaks = []
        change(hub)
        model = pulled(hub)

    assert "goes on from there" in str(caught.value.hint)
    assert model.path.read_bytes() == content
    assert pulled.there == ["Tiny-Q4_K_M.gguf"]


def test_a_file_that_came_changed_is_thrown_away(pulled: Pulled) -> None:
    with Hub({NAME: FILES}) as hub:
        hub.files.twisted = True
        with pytest.raises(ModelError, match=f"not {SHA256}"):
            pulled(hub)

    assert pulled.there == []


def test_a_file_that_is_no_model_is_thrown_away(pulled: Pulled) -> None:
    with Hub({NAME: {"Tiny-Q4_K_M.gguf": b"<html>"}}) as hub, pytest.raises(SettingsError, match="is no GGUF file"):
        pulled(hub)

    assert pulled.there == []


def test_a_file_without_room_on_the_disk_is_not_begun(pulled: Pulled) -> None:
    with Hub({NAME: FILES}) as hub:
        with pytest.raises(SettingsError, match=r"needs 1125\d\d\d\.\d GB in .* are free") as caught:
            asyncio.run(pulled.again(Source("huge", f"{hub.origin}/huge", 1 << 50, SHA256)))

        assert hub.requests == []
    assert "--cache-dir" in str(caught.value.hint)


def test_a_file_is_downloaded_by_one_process_at_a_time(pulled: Pulled) -> None:
    async def both(source: Source) -> None:
        reached = asyncio.Event()
        first = asyncio.create_task(pulled.again(source, 1, reached))
        await reached.wait()
        with pytest.raises(SettingsError, match="another process downloads Tiny-Q4_K_M"):
            await pulled.again(source)
        await first

    with Hub({NAME: FILES}) as hub:
        hub.files.pace = 0.01
        asyncio.run(both(pulled.find(hub)))

    assert pulled.there == ["Tiny-Q4_K_M.gguf"]
