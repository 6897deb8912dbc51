"""Read a series from a CSV file, or from the JSON lines of the topic ``measures``."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from ingest.contract.records.measure import Measure
from ingest.runtime.text import read_text
from ingest.site.sensor import csv_separator
from stream.sense.forecast.spec import DAY_S
from stream.sense.forecast.steps import Aggregate, MinuteValue, Steps
from training.exceptions import SeriesUnusable
from training.forecast.dataset import Series

DateOrder = Literal["iso", "day-first", "month-first"]
_DATE = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?")
_EXAMPLES = {
    "iso": "a time such as 2016-01-31 13:05",
    "day-first": "a day-first time such as 31/01/2016 13:05",
    "month-first": "a month-first time such as 01/31/2016 13:05",
}
MAX_STEPS = 2_000_000
"""Maximum number of steps between the first and the last time of a series. If the dates of a series span more steps,
one of them is probably wrong."""


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """Names of the columns of a CSV file, and the order of day, month and year in its dates.

    If ``time`` is empty, the first column has the times. If ``value`` is empty, the second column has the values. If
    ``series`` is empty, all rows belong to one series.
    """

    time: str = ""
    value: str = ""
    series: str = ""
    chosen: str = ""
    """Name of the series to read, for a file with several series."""
    dates: DateOrder = "iso"
    time_zone: str = "UTC"


class _Row(NamedTuple):
    line: int
    at_s: int
    value: float | None


def read_csv(path: Path, options: CsvOptions) -> Series:
    """Read one series from a CSV file (RFC 4180) with a header.

    A cell without a number is a step that was not observed. The length of a time step is the most frequent distance
    between two times. Raise SeriesUnusable, with the file, the line and the wrong value.
    """
    lines = read_text(path, "CSV").lstrip("\ufeff").splitlines()
    if len(lines) < 2:
        raise SeriesUnusable(f"file {path}: expected a header and rows, such as `time,flow`")
    try:
        rows = list(csv.reader(lines, delimiter=csv_separator(lines[0])))
    except csv.Error as error:  # such as a cell of more than 131,072 characters
        raise SeriesUnusable(f"file {path}: {error}: expected a CSV file by RFC 4180") from None
    header = [cell.strip() for cell in rows[0]]
    time, value = _column(path, header, options.time, 0), _column(path, header, options.value, 1)
    series = _column(path, header, options.series, None)
    found: defaultdict[str, list[_Row]] = defaultdict(list)
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        cells = [row[k].strip() if k is not None and k < len(row) else "" for k in (time, value, series)]
        at_s = _time(path, number, cells[0], options)
        found[cells[2]].append(_Row(number, at_s, _number(path, number, cells[1])))
    if not found:
        raise SeriesUnusable(f"file {path} has only empty rows: expected times and values, such as `time,flow`")
    name = options.chosen or next(iter(found))
    if name not in found or (len(found) > 1 and not options.chosen):
        raise SeriesUnusable(
            f"file {path} has the series {', '.join(sorted(found))}: expected one of them as --series, not {name!r}"
        )
    return _on_grid(path, name or header[value or 0], found[name], options.time_zone)


def _column(path: Path, header: Sequence[str], name: str, default: int | None) -> int | None:
    if not name:
        return default
    if name not in header:
        raise SeriesUnusable(f"file {path} has no column {name!r}: expected one of {', '.join(header)}")
    return header.index(name)


def _number(path: Path, line: int, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        raise SeriesUnusable(
            f"file {path}, line {line}: value {cell!r}: expected a number or an empty cell"
        ) from None
    return value if np.isfinite(value) else None


def _time(path: Path, line: int, cell: str, options: CsvOptions) -> int:
    """Return the Unix time in seconds of a cell of a CSV file. A time without an offset is local time of
    ``options.time_zone``."""
    match = _DATE.fullmatch(cell)
    try:
        if match and options.dates != "iso":
            first, second, year, hour, minute, second_s = (int(part or 0) for part in match.groups())
            day, month = (first, second) if options.dates == "day-first" else (second, first)
            at = datetime(year, month, day, hour, minute, second_s)
        elif not match and options.dates == "iso":
            at = datetime.fromisoformat(cell)
        else:
            raise ValueError
    except ValueError:
        raise SeriesUnusable(
            f"file {path}, line {line}: time {cell!r}: expected {_EXAMPLES[options.dates]}. For another "
            "order of day, month and year, pass --dates"
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=ZoneInfo(options.time_zone))).timestamp())


def _on_grid(path: Path, name: str, rows: Sequence[_Row], time_zone: str) -> Series:
    """Put the rows of a CSV file on a grid of equal time steps without holes."""
    ordered = sorted(rows, key=lambda row: row.at_s)
    times = np.array([row.at_s for row in ordered], np.int64)
    gaps = np.diff(times)
    twice = np.flatnonzero(gaps == 0)
    if len(twice):
        raise SeriesUnusable(
            f"file {path}, line {ordered[int(twice[0]) + 1].line}: expected each time once, as line "
            f"{ordered[int(twice[0])].line} has the same. If the file has several series, pass --series-column"
        )
    if not len(gaps):
        raise SeriesUnusable(f"file {path} has one row: expected at least two")
    lengths, counts = np.unique(gaps, return_counts=True)
    step_s = int(lengths[np.argmax(counts)])
    if step_s % 60 or DAY_S % step_s:
        raise SeriesUnusable(
            f"file {path}: most steps take {step_s} s: expected whole minutes that divide a day, such as 300 s"
        )
    off = np.flatnonzero((times - times[0]) % step_s)
    if len(off) or times[0] % step_s:
        line = ordered[int(off[0]) if len(off) else 0].line
        raise SeriesUnusable(f"file {path}, line {line}: expected a time on the grid of steps of {step_s} s")
    first, count = int(times[0]) // step_s, int(times[-1] - times[0]) // step_s + 1
    _require_span(f"file {path}", count)
    values = np.full(count, np.nan)
    values[(times - times[0]) // step_s] = [np.nan if row.value is None else row.value for row in ordered]
    return Series(name, step_s, first, values, time_zone)


def _require_span(source: str, steps: int) -> None:
    if steps > MAX_STEPS:
        raise SeriesUnusable(f"{source} spans {steps} steps: expected at most {MAX_STEPS}. Check the dates")


def from_measures(
    records: Iterable[Measure], name: str, value: str, step_s: int, time_zone: str, aggregate: Aggregate
) -> Series:
    """Return the series of one value of a measure, combined from the measure's records of minutes. The last revision
    of a minute counts. Raise SeriesUnusable."""
    latest: dict[int, Measure] = {}
    values: set[str] = set()
    for record in records:
        if record.name == name:
            known = latest.get(record.start_ns)
            values |= record.values.keys()
            if known is None or known.revision <= record.revision:
                latest[record.start_ns] = record
    if not latest:
        raise SeriesUnusable(f"measure {name!r} has no records in this period: expected the name of a measure")
    if value not in values:
        raise SeriesUnusable(f"measure {name!r} has no value {value!r}: expected one of {', '.join(sorted(values))}")
    steps = Steps(step_s, aggregate)
    for start_ns in sorted(latest):
        steps.add(MinuteValue.of(latest[start_ns], value))
    first, last = min(latest) // (step_s * 10**9), max(latest) // (step_s * 10**9)
    _require_span(f"measure {name!r}", last - first + 1)
    return Series(f"{name} {value}", step_s, first, steps.values(first, last), time_zone)


def day_of(step: int, step_s: int) -> str:
    """Return the UTC date of a time step, for reports."""
    return datetime.fromtimestamp(step * step_s, UTC).date().isoformat()


def described(series: Series) -> Mapping[str, int | float | str]:
    """Return the facts about a series that the training report shows."""
    seen = ~np.isnan(series.values)
    return {
        "series": series.name,
        "step_s": series.step_s,
        "first_day": day_of(series.first, series.step_s),
        "last_day": day_of(series.first + len(series.values) - 1, series.step_s),
        "observed_days": len(np.unique(series.days()[seen])),
        "observed_steps": int(seen.sum()),
    }
