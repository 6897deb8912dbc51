"""Readings gathered into columns, so that a number does not travel in a record of its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.contract.records import BY_HOST, Account, Readings
from ingest.site import SensorConfig


@dataclass(frozen=True, slots=True)
class Entry:
    """One reading as it is kept: its number, time and whose that is, value and quality."""

    seq: int
    at_ns: int
    timed_by: int
    value: float
    quality: int


class Columns:
    """Gathers readings of unbroken numbers until there are enough of them, or the first has waited long enough."""

    def __init__(self, config: SensorConfig, epoch: int) -> None:
        self._config, self._epoch = config, epoch
        self._entries: list[Entry] = []
        self._account: Account | None = None
        self._due_s = 0.0

    @property
    def due_s(self) -> float | None:
        """When the first reading has waited long enough, in monotonic seconds; None when there is none."""
        return self._due_s if self._entries else None

    def follows(self, seq: int) -> bool:
        """Tell whether a number is the next one, so that its reading may go into the same columns."""
        return not self._entries or self._entries[-1].seq + 1 == seq

    def add(self, entry: Entry, account: Account | None, now_s: float) -> Readings | None:
        """Take one reading that follows, and return the columns when they are full.

        ``account`` is of what was withheld before it: only the first of the columns may have one.
        """
        if not self._entries:
            self._account, self._due_s = account, now_s + self._config.max_delay_s
        self._entries.append(entry)
        return self.close() if len(self._entries) >= self._config.column_rows else None

    def close(self) -> Readings | None:
        """Return what has been gathered, None when that is nothing."""
        entries, self._entries = self._entries, []
        if not entries:
            return None
        timed_by = tuple(e.timed_by for e in entries)
        return Readings(
            sensor=self._config.name,
            epoch=self._epoch,
            seq=entries[0].seq,
            site=self._config.site,
            quantity=self._config.quantity,
            unit=self._config.unit,
            times_ns=tuple(e.at_ns for e in entries),
            values=tuple(e.value for e in entries),
            quality=tuple(e.quality for e in entries),
            timed_by=timed_by if any(by != BY_HOST for by in timed_by) else (),
            account=self._account,
        )
