"""Parser of the lines that a device sends as words, JSON or CSV.

Pure. The parser accepts any bytes without raising an error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, cast

from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.values import parse_json, parse_reading
from ingest.site import SensorConfig
from ingest.site.sensor import LineOptions, csv_cells, csv_separator

MAX_LINE_BYTES = 64 * 1024
"""Maximum length of a line in bytes, enough for a thousand values as JSON. Without a limit, noise on a serial line,
which contains no line ends, would fill the memory."""
_TIME_COLUMNS = ("time", "timestamp")
_SHOWN = 60
"""Maximum number of characters that an error message shows of an unreadable row."""
_RESERVED = ("name", "value", "time", "timestamp", "quality")


class NamedReading(NamedTuple):
    """Reading, and the name that the device gives this reading. The name is empty if the line has no name."""

    name: str
    reading: Reading


class LineParser:
    """Parser that splits a device's bytes into lines and returns the readings in the lines.

    An unreadable line becomes a reading without a value.

    A line in format ``lines`` is ``name value [time]``, a value alone, or JSON. A JSON line is ``{"name": …, "value":
    …, "time": …, "quality": …}``, or a flat object of names and numbers with an optional time. Format ``csv`` has a
    header line of names and then rows; the header line may occur again later. A column ``time`` or ``timestamp``
    holds the times of the rows. Cells are separated by commas, or by semicolons if the header has semicolons. A cell
    may be quoted (RFC 4180), but must not contain line breaks.

    A line ends with LF, CR or CRLF.
    """

    def __init__(self, form: Literal["lines", "csv"] = "lines", header: str = "") -> None:
        self._csv = form == "csv"
        self._separator = csv_separator(header)
        self._columns = csv_cells(header, self._separator) if header else []
        self._rest = b""
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[NamedReading]:
        """Add bytes from the device. Yield the readings of all lines that the added bytes complete."""
        *lines, rest = (self._rest + data.replace(b"\r", b"\n")).split(b"\n")
        self._rest = b""
        for line in lines:
            if self._too_long or len(line) > MAX_LINE_BYTES:
                self._too_long = False
                yield _unreadable(f"a line of more than {MAX_LINE_BYTES} bytes")
            else:
                yield from self._line(line)
        if len(rest) > MAX_LINE_BYTES:
            self._too_long, rest = True, b""
        self._rest = rest

    def end(self) -> Iterator[NamedReading]:
        """Yield the readings of the last line, if that line has no line end."""
        yield from self.feed(b"\n" if self._rest or self._too_long else b"")

    def _line(self, line: bytes) -> Iterable[NamedReading]:
        text = line.decode("utf-8-sig", errors="replace").strip().strip("\0").strip()
        if not text:
            return ()
        if self._csv:
            return self._row(text)
        if text.startswith(("{", "[")):
            return _json(text)
        name, *rest = text.split(maxsplit=2)
        return (NamedReading(name, parse_reading(*rest)) if rest else NamedReading("", parse_reading(text)),)

    def _row(self, text: str) -> Iterable[NamedReading]:
        separator = self._separator if self._columns else csv_separator(text)
        try:
            cells = csv_cells(text, separator)
        except csv.Error as error:
            return self._unreadable_row(f"not CSV: {error}", text)
        if not self._columns:
            self._separator, self._columns = separator, cells
            return ()
        if cells == self._columns:
            return ()  # the device was restarted and repeats its header
        if len(cells) != len(self._columns):
            return self._unreadable_row(f"{len(cells)} cells for {len(self._columns)} columns", text)
        at = next((c for name, c in zip(self._columns, cells, strict=True) if name.lower() in _TIME_COLUMNS), None)
        pairs = zip(self._columns, cells, strict=True)
        return [
            NamedReading(name, parse_reading(cell, at)) for name, cell in pairs if name.lower() not in _TIME_COLUMNS
        ]

    def _unreadable_row(self, problem: str, text: str) -> Iterable[NamedReading]:
        """Return one reading without a value for each column, because each column has lost a reading."""
        reading = Reading(None, problem=f"{problem}: {text[:_SHOWN]!r}")
        return [NamedReading(name, reading) for name in self._columns or [""] if name.lower() not in _TIME_COLUMNS]


class LineReader:
    """Reader that parses a device's lines and passes each reading to the sensors with the reading's name.

    If the device has one sensor, a reading without a name belongs to that sensor. If the device has several sensors,
    a reading without a name is reported as unclaimed.
    """

    def __init__(self, sensors: Sequence[SensorConfig]) -> None:
        options = [cast(LineOptions, sensor.parsed) for sensor in sensors]
        self._parser = LineParser(options[0].format, options[0].header)
        self._sensors: dict[str, list[str]] = {}
        for sensor, option in zip(sensors, options, strict=True):
            self._sensors.setdefault(option.field or sensor.name, []).append(sensor.name)
        self._only = [sensors[0].name] if len(sensors) == 1 else []

    def feed(self, data: bytes, sink: Sink) -> None:
        """Parse bytes from the device, and pass the readings to ``sink``."""
        self._give(self._parser.feed(data), sink)

    def end(self, sink: Sink) -> None:
        """Parse the last line, if that line has no line end, and pass its readings to ``sink``."""
        self._give(self._parser.end(), sink)

    def _give(self, found: Iterable[NamedReading], sink: Sink) -> None:
        for name, reading in found:
            sensors = self._sensors.get(name, []) if name else self._only
            for sensor in sensors:
                sink.take(sensor, reading)
            if not sensors:
                sink.unclaimed(name)


def _json(text: str) -> Iterable[NamedReading]:
    found = parse_json(text)
    if not isinstance(found, Mapping) or not found:
        return (_unreadable(text),)
    at = found.get("time", found.get("timestamp"))
    if "value" in found:
        return (NamedReading(str(found.get("name", "")), parse_reading(found["value"], at, found.get("quality", 0))),)
    return [NamedReading(name, parse_reading(value, at)) for name, value in found.items() if name not in _RESERVED]


def _unreadable(text: str) -> NamedReading:
    return NamedReading("", parse_reading(text))
