"""From what processes took to tables in Markdown: ratios first, for the seconds are those of one machine and hour."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.measure import Took, median, ratio
from benchmarks.shapes import SHAPES

Runs = Mapping[str, Sequence[Took]]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows beneath a head."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def start_table(runs: Runs) -> str:
    """Commands beside what they are measured against."""
    pairs = [("--version", "python -c pass", "seconds"), ("--help", "import typer", "seconds")]
    pairs += [(name, "ten lines on the SDK", "first") for name in ("run", "plan", "a task")]
    rows = []
    for ours, theirs, what in pairs:
        shown = "first request of " * (what == "first")
        numbers = [f"{median(runs[name], what):.3f}" for name in (ours, theirs)]
        cpu = f"{ratio(runs[ours], runs[theirs], 'cpu'):.2f}" if what == "seconds" else ""
        rows.append([shown + ours, theirs, f"{ratio(runs[ours], runs[theirs], what):.2f}", cpu, *numbers])
    return table(["start", "against", "ratio", "of CPU", "ours, s", "theirs, s"], rows)


def own_table(runs: Runs, counts: Sequence[int]) -> str:
    """The processor's time for one step more, and the largest size."""
    rows = []
    for kind in ("at once", "in a row"):
        least = median(runs[f"1 {kind}"], "cpu")
        for count in counts:
            one = runs[f"{count} {kind}"]
            spent = (median(one, "cpu") - least) / (count - 1) * 1000
            rows.append([f"{count:,} {kind}", f"{spent:.2f}", f"{median(one, 'memory'):.0f}"])
    return table(["steps, scripted, journal on", "CPU for a step, ms", "peak memory, MiB"], rows)


def shape_table(found: Mapping[str, Runs], imported: Mapping[str, float]) -> str:
    """Whole processes over the critical path, with and without the import of the SDK, beside the bare script's.

    `imported` are the seconds of that import, for us and for `others`.
    """
    rows = []
    for key, runs in found.items():
        name, _, latency = key.rpartition(" ")
        path = SHAPES[name].calls * int(latency) / 1000
        for who, one in runs.items():
            seconds = median(one, "seconds")
            without = seconds - imported.get(who, imported["others"])
            over = [f"{seconds / path:.2f}", f"{without / path:.2f}"] if path else ["", ""]
            beside = f"{ratio(one, runs['bare']):.2f}"
            used = [f"{median(one, what):.0f}" for what in ("calls", "tokens", "memory")]
            rows.append([name, latency, who, *over, beside, f"{seconds:.2f}", f"{median(one, 'cpu'):.2f}", *used])
    head = ["shape", "ms", "who", "over path", "less SDK import", "over bare", "s", "CPU, s", "calls", "tokens", "MiB"]
    return table(head, rows)
