"""Lines to readings: words, JSON or CSV. Pure, and never raises whatever the bytes are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from edge_agent.sensors.source import Reading
from edge_agent.sensors.values import read_json, reading

MAX_LINE_BYTES = 64 * 1024
"""A thousand values as JSON. Noise on a wire has no line ends at all, and must not fill the memory."""
_TIME_COLUMNS = ("time", "timestamp")
_RESERVED = ("name", "value", "time", "timestamp", "quality")


class Named(NamedTuple):
    """A reading under the device's name for it, which is empty when the line does not say."""

    name: str
    reading: Reading


class Lines:
    """Cuts a device's bytes into lines, and reads each; a line that cannot be read is a reading without a value.

    ``lines``: ``name value [time]``, a value alone, or JSON: ``{"name": …, "value": …, "time": …, "quality": …}``, or
    a flat object of names and numbers with perhaps a time. ``csv``: a header of names, which may come again, then
    rows; a column ``time`` or ``timestamp`` is the time of its row.
    """

    def __init__(self, form: Literal["lines", "csv"] = "lines", header: str = "") -> None:
        self._csv = form == "csv"
        self._separator = ";" if ";" in header else ","
        self._columns = self._cells(header) if header else []
        self._rest = b""
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[Named]:
        """Take bytes as they come, and yield the readings of the lines that are whole now."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = b""
        for line in lines:
            if self._too_long or len(line) > MAX_LINE_BYTES:
                self._too_long = False
                yield _garbage("a line that is too long")
            else:
                yield from self._line(line)
        if len(rest) > MAX_LINE_BYTES:
            self._too_long, rest = True, b""
        self._rest = rest

    def end(self) -> Iterator[Named]:
        """Yield the readings of a last line that has no end."""
        yield from self.feed(b"\n" if self._rest or self._too_long else b"")

    def _line(self, line: bytes) -> Iterable[Named]:
        text = line.decode("utf-8-sig", errors="replace").strip().strip("\0").strip()
        if not text:
            return ()
        if self._csv:
            return self._row(text)
        return _json(text) if text.startswith(("{", "[")) else _words(text)

    def _row(self, text: str) -> Iterable[Named]:
        if not self._columns:
            self._separator = ";" if ";" in text else ","
            self._columns = self._cells(text)
            return ()
        cells = self._cells(text)
        if cells == self._columns:
            return ()  # the device has begun anew
        if len(cells) != len(self._columns):
            return (_garbage(text),)
        at = next((c for name, c in zip(self._columns, cells, strict=True) if name.lower() in _TIME_COLUMNS), None)
        pairs = zip(self._columns, cells, strict=True)
        return [Named(name, reading(cell, at)) for name, cell in pairs if name.lower() not in _TIME_COLUMNS]

    def _cells(self, text: str) -> list[str]:
        return [cell.strip().strip('"').strip() for cell in text.split(self._separator)]


def _words(text: str) -> Iterable[Named]:
    words = text.split(maxsplit=2)
    if len(words) < 2:
        return (Named("", reading(text)),)
    return (Named(words[0], reading(words[1], words[2] if len(words) > 2 else None)),)


def _json(text: str) -> Iterable[Named]:
    found = read_json(text)
    if not isinstance(found, Mapping) or not found:
        return (_garbage(text),)
    at = found.get("time", found.get("timestamp"))
    if "value" in found:
        return (Named(str(found.get("name", "")), reading(found["value"], at, found.get("quality", 0))),)
    return [Named(name, reading(value, at)) for name, value in found.items() if name not in _RESERVED]


def _garbage(what: str) -> Named:
    return Named("", reading(what))
