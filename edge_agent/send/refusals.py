"""Records that the link refuses permanently: each is parked, and many of them share one status row. Pure."""

from __future__ import annotations

from edge_agent.spool.schema import Row
from ingest.runtime import logs
from ingest.runtime.clock import Clock

_log = logs.get("edge_agent.send")

REPORT_EVERY_S = 10.0
"""Minimum time between two status rows about refusals, in seconds: a gateway may refuse every record."""
_MAX_NAMES = 10


class Refusals:
    """Refused rows that are not parked yet, and the notices that report them on ``status``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: list[tuple[Row, str]] = []
        self._unreported: list[str] = []
        self._reported_s: float | None = None

    def add(self, row: Row, reason: str) -> None:
        """Add a refused row with the reason."""
        self._rows.append((row, reason))

    def take(self) -> list[tuple[int, str]]:
        """Return the id of each row to park, with a notice about the unreported rows, or an empty notice."""
        rows, self._rows = self._rows, []
        return [(row.id, self._notice(row, reason)) for row, reason in rows]

    def _notice(self, row: Row, reason: str) -> str:
        now_s, name = self._clock.monotonic(), f"{row.kind} {row.name}/{row.epoch}/{row.seq}"
        self._unreported.append(name)
        if self._reported_s is not None and now_s - self._reported_s < REPORT_EVERY_S:
            return ""
        self._reported_s = now_s
        names = ", ".join(self._unreported[:_MAX_NAMES])
        text = f"{len(self._unreported)} refused and parked, {names}: {reason}"
        self._unreported.clear()
        _log.warning("record_refused", record=name, reason=reason)
        return text
