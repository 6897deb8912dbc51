"""The last ledger that was computed, and explanations of frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from console.child import run_child
from console.exceptions import TooManyTrials, Unavailable
from ingest.runtime.clock import Clock

MODULE = "console.ledger.compute"
FRESH_S = 300.0
"""Age up to which the page shows the last ledger without computing it again, in seconds. The ledger is computed from
all records of a day, which takes minutes with many cameras."""
LEDGER_S = 1800.0
EXPLAIN_S = 120.0
"""Times in seconds after which the process that computes the ledger, or explains what became of one frame, is
stopped."""
MAX_EXPLAINING = 2
"""Maximum number of explanations that are computed at the same time. Each explanation uses one core."""


class ReportReader:
    """Takes the lines of a computing process: its progress, and its report or problem."""

    def __init__(self) -> None:
        self.read = self.total = 0
        self.report: dict[str, Any] | None = None
        self.problem = ""

    def take(self, line: bytes) -> None:
        """Take a line."""
        message = json.loads(line)
        if "progress" in message:
            self.read, self.total = message["progress"]
        self.report = message.get("report", self.report)
        self.problem = message.get("problem", self.problem)


class LedgerReading:
    """The last ledger, and the computation of the next ledger, of which at most one runs.

    ``hours`` has the counts of frames by camera and by hour since 1970. ``at_ns`` is the time of the last ledger in
    Unix ns, 0 before the first ledger. ``env`` has the environment variables from which the computing process reads
    the settings of Kafka.
    """

    def __init__(self, env: Mapping[str, str], clock: Clock) -> None:
        self._env, self._clock = dict(env), clock
        self._task: asyncio.Task[None] | None = None
        self._explaining = 0
        self.current = ReportReader()
        self.report: dict[str, Any] = {}
        self.hours: dict[str, dict[int, dict[str, Any]]] = {}
        self.problem = ""
        self.at_ns = 0

    @property
    def running(self) -> bool:
        """Whether a ledger is being computed."""
        return self._task is not None and not self._task.done()

    def start(self, *, is_wanted: bool = False) -> None:
        """Count the frames of each camera and hour in the background, unless a count is running already.

        Without ``is_wanted``, a ledger that is younger than ``FRESH_S`` is not computed again.
        """
        is_old = self._clock.now_ns() - self.at_ns > FRESH_S * 1e9
        if not self.running and (is_wanted or is_old):
            self._task = asyncio.create_task(self._compute())

    def take(self, found: ReportReader) -> None:
        """Keep the ledger report, or the problem, that the computing process has returned."""
        self.at_ns, self.problem = self._clock.now_ns(), found.problem
        if found.report is not None:
            self.report = found.report
            hours = found.report["hours"].items()
            self.hours = {camera: {int(hour): one for hour, one in own.items()} for camera, own in hours}

    async def explain(self, frame: str) -> dict[str, Any]:
        """Return the lines of the explanation of a frame, and its events. Raise TooManyTrials or Unavailable."""
        if self._explaining >= MAX_EXPLAINING:
            raise TooManyTrials(MAX_EXPLAINING)
        self._explaining += 1
        found = ReportReader()
        try:
            problem = await run_child(MODULE, json.dumps({"explain": frame}), self._env, found.take, EXPLAIN_S)
        finally:
            self._explaining -= 1
        if found.report is None:
            raise Unavailable(found.problem or f"the explanation {problem}")
        return found.report

    async def close(self) -> None:
        """Stop the computation."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _compute(self) -> None:
        self.current = ReportReader()
        problem = await run_child(MODULE, "{}", self._env, self.current.take, LEDGER_S)
        if self.current.report is None and not self.current.problem:
            self.current.problem = f"the ledger {problem}"
        self.take(self.current)
