"""From runs to what each is called in a list: its task, or the first steps of a plan that was given without one."""

from collections.abc import Sequence
from pathlib import Path

from master_agent.database import RunRecord, reading

MOST_STEPS = 5
_STEPS = """
SELECT json_array_length(body, '$.plan.plan'), (
  SELECT group_concat(json_extract(value, '$.id'), ', ')
  FROM (SELECT value FROM json_each(body, '$.plan.plan') LIMIT ?)
)
FROM events WHERE run_id = ? AND seq = 2 AND type = 'plan_made'
"""


def titles(database: Path, runs: Sequence[RunRecord]) -> dict[str, str]:
    """What to call each run, by its id; empty where it never came to a plan."""
    with reading(database) as connection:
        found = {
            run.run_id: connection.execute(_STEPS, (MOST_STEPS, run.run_id)).fetchone() for run in runs if not run.task
        }
    return {run.run_id: run.task or _of_plan(*(found[run.run_id] or (0, ""))) for run in runs}


def _of_plan(count: int, first: str) -> str:
    more = f" and {count - MOST_STEPS} more" if count > MOST_STEPS else ""
    return f"(plan: {first}{more})" if count else ""
