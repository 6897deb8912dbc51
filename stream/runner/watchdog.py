"""A watchdog that ends a process that makes no progress.

The supervisor restarts the ended process, and the restart cures a stuck rebalance or a dead task.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ingest.kafka.log import Log, LogRecord
from ingest.runtime.clock import Clock
from stream.exceptions import Stuck

STALL_S = 60.0
"""Maximum time in seconds without progress while records wait or a rebalance is running. The limit is longer than the
30 s after which a record that the broker does not accept ends the process. Each record that is read back while a
partition opens counts as progress."""
JOIN_S = 120.0
"""Maximum time in seconds from the start to the first assignment, enough for a restart of the broker and two session
timeouts."""
CHECK_S = 1.0
"""Time in seconds between two checks of the runner."""
MAX_FAILED_CHECKS = 10
"""Maximum number of consecutive checks that may fail. A single check may fail because the Kafka client changes its
state during the check, but ten consecutive checks do not all fail because of this."""


@dataclass(frozen=True, slots=True)
class Signs:
    """The observable state of a runner.

    ``progress`` is a number that changes whenever a record is read, passed to a processor or finished.
    """

    progress: int
    waiting: int
    """Sum of the records that are not processed yet, the running processor calls and the unacknowledged writes."""
    rebalancing: bool
    joined: bool
    kafka_failures: int = 0
    """How often Kafka did not answer. While the number grows, the process is not stuck: no restart of the process can
    end an outage of Kafka."""


class StallDetector:
    """Decides from a series of ``Signs`` whether the process is stuck. Pure: the time is a parameter."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._moved_at = now
        self._last: tuple[int, bool] | None = None
        self._kafka_failures = 0

    def check(self, now: float, signs: Signs) -> str:
        """Return the reason to end the process, or "" if the process is not stuck.

        ``now`` is monotonic time in seconds.
        """
        if signs.kafka_failures != self._kafka_failures:
            self._kafka_failures = signs.kafka_failures
            self._started = self._moved_at = now
            return ""
        if not signs.joined:
            self._moved_at = now
            return "" if now - self._started < JOIN_S else f"no partition was assigned within {JOIN_S:.0f} s"
        idle = not signs.waiting and not signs.rebalancing
        if idle or (signs.progress, signs.rebalancing) != self._last:
            self._last = (signs.progress, signs.rebalancing)
            self._moved_at = now
            return ""
        if now - self._moved_at < STALL_S:
            return ""
        pending = "a rebalance" if signs.rebalancing else f"{signs.waiting} pending records, calls or writes"
        return f"no progress for {STALL_S:.0f} s despite {pending}"


class Watchdog:
    """Checks a runner from a separate thread, so that the watchdog also detects a blocked event loop.

    ``failed`` is called at most once, in the watchdog's thread.
    """

    def __init__(self, signs: Callable[[], Signs], clock: Clock, failed: Callable[[Stuck], None]) -> None:
        self._signs = signs
        self._clock = clock
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread that checks the runner."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the checks, and return when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        detector = StallDetector(self._clock.monotonic())
        failures = 0
        while not self._stop.wait(CHECK_S):
            try:
                reason = detector.check(self._clock.monotonic(), self._signs())
                failures = 0
            except Exception as error:  # an exception in this thread would leave the process without a watchdog
                failures += 1
                reason = "" if failures < MAX_FAILED_CHECKS else f"the watchdog cannot read the state: {error!r}"
            if reason:
                self._failed(Stuck(reason))
                return


class CountingLog:
    """A wrapper of any log that counts the records read from the log, because reading back state counts as
    progress."""

    def __init__(self, log: Log) -> None:
        self.records = 0
        self._log = log

    def __getattr__(self, name: str) -> Any:
        """Return a method of the wrapped log."""
        return getattr(self._log, name)

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records from ``start`` up to but not including ``stop``. Raise LogUnavailable."""
        async with aclosing(self._log.read(topic, partition, start, stop)) as records:
            async for record in records:
                self.records += 1
                yield record
