"""Ends a process that no longer gets on: its supervisor's restart cures a stuck rebalance or a dead task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ingest.runtime.clock import Clock

STALL_S = 60.0
"""Records wait, or a rebalance goes on, and nothing has moved for so long. A send is given up after 30 s and ends the
process by itself; reading back a partition's tail counts as moving, record by record."""
JOIN_S = 120.0
"""The group has not let us in since the start: a broker's restart and two sessions."""
CHECK_S = 1.0
"""Between two looks."""
BLIND_LOOKS = 10
"""So many looks in a row that failed: one may have met the client in the middle of a change, ten seconds did not."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What can be seen from outside the loop. ``moved`` is any number that changes when something gets on."""

    moved: int
    waiting: int
    """What should get on: records to be read or fed, calls and writes that have not come back."""
    rebalancing: bool
    joined: bool


class Watch:
    """Judges signs of life. Pure: it is told the time."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._moved_at = now
        self._last: tuple[int, bool] | None = None

    def look(self, now: float, signs: Signs) -> str:
        """Return why the process should end, empty while it should not."""
        if not signs.joined:
            self._moved_at = now
            return "" if now - self._started < JOIN_S else f"no partition was offered for {JOIN_S:.0f} s"
        idle = not signs.waiting and not signs.rebalancing
        if idle or (signs.moved, signs.rebalancing) != self._last:
            self._last = (signs.moved, signs.rebalancing)
            self._moved_at = now
            return ""
        if now - self._moved_at < STALL_S:
            return ""
        what = "a rebalance" if signs.rebalancing else f"{signs.waiting} things to do"
        return f"nothing moved for {STALL_S:.0f} s in spite of {what}"


class Watchdog:
    """Looks from a thread of its own, so that a blocked event loop is seen too."""

    def __init__(self, signs: Callable[[], Signs], clock: Clock, bark: Callable[[str], None]) -> None:
        self._signs = signs
        self._clock = clock
        self._bark = bark
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Returns when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        watch = Watch(self._clock.monotonic())
        blind = 0
        while not self._stop.wait(CHECK_S):
            try:
                reason = watch.look(self._clock.monotonic(), self._signs())
                blind = 0
            except Exception as error:  # a watchdog that dies of it would leave the process unguarded
                blind += 1
                reason = "" if blind < BLIND_LOOKS else f"the watchdog cannot see: {error!r}"
            if reason:
                self._bark(reason)
                return
