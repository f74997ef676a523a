"""From a file's path and bytes to the changes of runs that made it so, out of the whole journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from master_agent.database import reading


@dataclass(frozen=True)
class Made:
    """One change of a file by a run: the place of its event in the journal, and what the file became."""

    run_id: str
    seq: int
    at: str
    workspace: str
    path: str
    sha256: str | None

    @property
    def place(self) -> Path:
        """Where the file is, or was."""
        return Path(self.workspace) / self.path


_CHANGES = """
SELECT events.run_id, seq, at, runs.workspace, json_extract(body, '$.file.path'),
  CASE WHEN json_extract(body, '$.removed') THEN NULL ELSE json_extract(body, '$.file.sha256') END
FROM events JOIN runs ON runs.run_id = events.run_id
WHERE type = 'file_changed' AND runs.workspace IS NOT NULL
ORDER BY at DESC, events.run_id DESC, seq DESC
"""


def changes(database: Path) -> list[Made]:
    """Every change of a file by any run, the newest first."""
    with reading(database) as connection:
        return [Made(*row) for row in connection.execute(_CHANGES)]


def of_file(made: Sequence[Made], place: Path, sha256: str | None) -> list[Made]:
    """The changes that have to do with a file, by where it is or by its bytes, wherever they were made."""
    return [one for one in made if one.place == place or (sha256 is not None and one.sha256 == sha256)]
