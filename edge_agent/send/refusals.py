"""Records that the link refuses for good: each is parked, and a flood of them is told in few words. Pure."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.spool.schema import Row
from ingest.runtime import logs
from ingest.runtime.clock import Clock

_log = logs.get("edge_agent.send")

TELL_EVERY_S = 10.0
"""A gateway that refuses everything would else have a record on ``status`` for every one."""
_NAMES_TOLD = 10


class Refusals:
    """What was refused and is not parked yet. ``notice`` makes the row that tells of it on ``status``."""

    def __init__(self, notice: Callable[[str], Row], clock: Clock) -> None:
        self._notice, self._clock = notice, clock
        self._rows: list[tuple[Row, str]] = []
        self._untold: list[str] = []
        self._told_s: float | None = None

    def add(self, row: Row, reason: str) -> None:
        """Note that a row was refused, and why."""
        self._rows.append((row, reason))

    def take(self) -> list[tuple[int, list[Row]]]:
        """Return the ids of rows to park, each with what is to be told of it and of those before it, if anything."""
        rows, self._rows = self._rows, []
        return [(row.id, self._tell(row, reason)) for row, reason in rows]

    def _tell(self, row: Row, reason: str) -> list[Row]:
        now_s, name = self._clock.monotonic(), f"{row.kind} {row.name}/{row.epoch}/{row.seq}"
        self._untold.append(name)
        if self._told_s is not None and now_s - self._told_s < TELL_EVERY_S:
            return []
        self._told_s = now_s
        names = ", ".join(self._untold[:_NAMES_TOLD])
        text = f"{len(self._untold)} refused and parked, {names}: {reason}"
        self._untold.clear()
        _log.warning("refused", record=name, reason=reason)
        return [self._notice(text)]
