"""Medians and ranges of measured figures, as tables. Pure."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Run = Mapping[str, Any]
"""The figures of one measurement: ``case``, ``system``, ``round`` and so on as texts or numbers."""

BARE = "bare"
SIGHTLINE = "sightline"


def to_bare(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the runs with their ratios to the bare loop of the same case and round.

    ``to_bare`` is the ratio of the frames per second, and ``cpu_to_bare`` that of the CPU time per frame.
    """
    bare = {(run["case"], run["round"]): run for run in runs if run["system"] == BARE and "error" not in run}
    return [{**run, **_ratios(run, bare.get((run.get("case"), run["round"])))} for run in runs]


def _ratios(run: Run, bare: Run | None) -> dict[str, float]:
    if bare is None or "error" in run:
        return {}
    return {name: round(run[key] / bare[key], 3) for name, key in (("to_bare", "fps"), ("cpu_to_bare", "cpu_ms"))}


def to_peer(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the runs of operators with ``to_peer``: Sightline's records per second and core, divided by those of the
    run, for the same operator and round. Return other runs unchanged."""
    own = {
        (run["operator"], run["round"]): run["per_core_s"]
        for run in runs
        if "operator" in run and run["system"] == SIGHTLINE and "error" not in run
    }
    rates = [own.get((run.get("operator"), run["round"])) for run in runs]
    return [
        {**run, "to_peer": round(rate / run["per_core_s"], 3)} if rate and "error" not in run else dict(run)
        for run, rate in zip(runs, rates, strict=True)
    ]


def summary(runs: Sequence[Run], keys: Sequence[str], figures: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per combination of the values of ``keys``, in the order of their first run.

    A row has the number of runs, and median, minimum and maximum of each figure that its runs have.
    """
    groups: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(run.get(key) for key in keys)].append(run)
    rows = []
    for group, members in groups.items():
        row = {**dict(zip(keys, group, strict=True)), "runs": len(members)}
        for figure in figures:
            values = [run[figure] for run in members if figure in run]
            if values:
                row[figure] = [round(statistics.median(values), 3), min(values), max(values)]
        rows.append(row)
    return rows


def markdown(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], titles: Mapping[str, str]) -> str:
    """Return rows of ``summary`` as a Markdown table, with the title of each figure."""
    head = [*keys, *titles.values()]
    body = [[str(row[key]) for key in keys] + [_spread(row.get(figure)) for figure in titles] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body])


def _spread(figure: Sequence[float] | None) -> str:
    if figure is None:
        return "–"
    median, low, high = (f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}" for value in figure)
    return median if low == high else f"{median} ({low}–{high})"


def read_runs(file: Path) -> list[dict[str, Any]]:
    """Return the runs in a file with a JSON object per line, or an empty list if the file does not exist."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append_run(file: Path, run: Run) -> None:
    """Append a run to a file with a JSON object per line."""
    with file.open("a") as output:
        output.write(json.dumps(run) + "\n")


def turns(systems: Sequence[str], number: int) -> list[str]:
    """Return the order of the systems in a round: each round begins with the next system."""
    first = number % len(systems)
    return [*systems[first:], *systems[:first]]
