"""Run rules over stored results, and compare their events with the events that were emitted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field

from ingest.contract.codec import decode
from ingest.contract.identity import is_replay
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from stream.analyse.analysers import Analysers, RuleSet
from stream.analyse.tracking.tracker import ByteTracker
from stream.explain.comparison import EventComparison, RuleDifference
from stream.readback import tail

Progress = Callable[[int, int], None]
"""A callback that gets the number of offsets read so far and the total number of offsets to read."""
_REPORT_EVERY = 500


@dataclass(slots=True)
class TrialReport:
    """The differences by rule, and the numbers of results that the rules ran over or could not process."""

    rules: defaultdict[str, RuleDifference] = field(default_factory=lambda: defaultdict(RuleDifference))
    results: int = 0
    failed: int = 0


async def try_rules(
    log: Log,
    rules: RuleSet,
    cameras: Collection[str],
    since_ms: int,
    until_ms: int,
    on_progress: Progress = lambda *_: None,
) -> TrialReport:
    """Run the rules over results of the cameras, written within a period, and compare the events.

    The period is by the broker's clock, from ``since_ms`` up to but not including ``until_ms``. Results before the
    period build up the state of the rules, as after a restart of an analyse worker. Nothing is written to the log.

    Raise TooManyEvents if the rules emit more than ``comparison.MAX_EVENTS`` events in a partition, ConfigError if a
    rule lacks its model, and LogUnavailable.
    """
    rules.require()
    report, parts = TrialReport(), {}
    for partition in await log.ends(RESULTS):
        tp = TopicPartition(RESULTS, partition)
        parts[tp] = await log.offset_at(tp, since_ms), await log.offset_at(tp, until_ms)
    total, done = sum(max(0, stop - start) for start, stop in parts.values()), 0
    for tp, (start, stop) in parts.items():
        trial = _Trial(log, rules, cameras, report)
        await trial.run(tp, start, stop, lambda read, done=done: on_progress(done + read, total))  # type: ignore[misc]
        await trial.compare(since_ms)
        done += max(0, stop - start)
    on_progress(total, total)
    return report


class _Trial:
    """The run of tested rules over the stored results of one partition: the frames of the period, and the events of
    the rules."""

    def __init__(self, log: Log, rules: RuleSet, cameras: Collection[str], report: TrialReport) -> None:
        self._log, self._rules, self._cameras, self._report = log, rules, cameras, report
        self._comparison = EventComparison(report.rules)

    async def run(self, tp: TopicPartition, start: int, stop: int, on_progress: Callable[[int], None]) -> None:
        """Run the rules over the results from the offset ``start`` up to but not including ``stop``."""
        if start >= stop:
            return
        analysers = Analysers(lambda: self._rules, ByteTracker)
        analysers.remember(await tail(self._log, tp, start, self._rules.history_point, self._rules.longest_s), {})
        async with aclosing(self._log.read(*tp, start, stop)) as records:
            async for record in records:
                self._take(analysers, record)
                if (record.offset - start) % _REPORT_EVERY == 0:
                    on_progress(record.offset - start)

    async def compare(self, since_ms: int) -> None:
        """Compare the events of the trial with the events that were emitted for the same frames."""
        await self._comparison.compare(self._log, self._rules.cameras, since_ms)

    def _take(self, analysers: Analysers, record: LogRecord) -> None:
        try:
            result = decode(Result, record.value)
        except CodecError:
            self._report.failed += 1
            return
        if result.camera not in self._cameras or is_replay(result.lane):
            return
        self._report.results += 1
        self._comparison.note(result)
        try:
            events = analysers.step(result)
            analysers.take_measures()  # not compared, but measures may lower the score at which a track begins
            analysers.take_signals()  # not compared, because only `sense` decides about their candidates
        except MemoryError:
            raise
        except Exception:  # the stage analyse parks such a result as a dead letter
            self._report.failed += 1
            return
        for event in events:
            self._comparison.add(event)
