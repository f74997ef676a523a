"""From what tools that a server ran leave in the replies of one step to files in the workspace, sources and notes."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pydantic import JsonValue

from master_agent.attachments import Attachment
from master_agent.errors import FileRefusedError
from master_agent.results import Artifact
from master_agent.threads import Call, CallRequest, Reply, Source
from master_agent.tools import Files


@dataclass
class Kept:
    """What was kept of one step's replies so far. A file is saved as soon as its reply is there, for it is paid for.

    A generated picture becomes images/STEP.png, any other file has its own name, or the next free one like it.
    """

    files_for: Callable[[str | None], Files]
    step: str
    artifacts: list[Artifact] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _saved: set[tuple[str, str]] = field(default_factory=set)

    def around(self, call: Call) -> Call:
        """The call, with what its replies leave kept before they are gone on with."""

        async def keeping(request: CallRequest) -> Reply:
            reply = await call(request)
            for file in reply.files:
                await self._save(file)
            self.notes += reply.lost
            self.sources |= {source.url: source for source in reply.sources}
            return reply

        return keeping

    @property
    def data(self) -> dict[str, JsonValue]:
        """The sources, and what is to be said of files, for later steps; without what there is none of."""
        data: dict[str, JsonValue] = {}
        if self.sources:
            data["sources"] = [source.to_data() for source in self.sources.values()]
        if self.notes:
            data["notes"] = list(self.notes)
        return data

    def told(self, text: str) -> str:
        """The text with the notes below it; where a model said nothing, the paths of what it left."""
        said = text if text.strip() else "\n".join(artifact.path for artifact in self.artifacts)
        return "\n".join(part for part in (said, *(f"({note})" for note in self.notes)) if part)

    async def _save(self, file: Attachment) -> None:
        known = (file.name, hashlib.sha256(file.content).hexdigest())
        if known in self._saved:  # cited again in a later reply
            return
        self._saved.add(known)
        stem, suffix = _name(file, self.step)
        try:
            self.artifacts.append(await self.files_for(self.step).save_new(stem, suffix, file.content))
        except FileRefusedError as refused:
            await self._save_elsewhere(file, refused)

    async def _save_elsewhere(self, file: Attachment, refused: FileRefusedError) -> None:
        try:
            artifact = await self.files_for(self.step).save_new(self.step, "bin", file.content)
        except FileRefusedError:
            self.notes.append(f'the file "{file.name or "picture"}" could not be saved: {refused.message}')
            return
        self.artifacts.append(artifact)
        self.notes.append(f'the file "{file.name or "picture"}" was saved as {artifact.path}: {refused.message}')


def _name(file: Attachment, step: str) -> tuple[str, str]:
    """Stem and suffix: of the last part of the file's name, without what could hide it or lead elsewhere."""
    if not file.name:
        return f"images/{step}", file.media_type.removeprefix("image/").replace("jpeg", "jpg")
    last = re.split(r"[/\\]", file.name)[-1]
    plain = PurePosixPath(re.sub(r"[^\w .,()+@=-]", "_", last).lstrip(" .-").rstrip(" ."))
    return (plain.stem, plain.suffix) if plain.stem else (step, "bin")
