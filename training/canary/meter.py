"""Measure the live skill of a model's canary version from the log.

The live skill depends only on the log, on the canary and on the promoted version, so that a restarted
`sightline models watch` comes to the same verdict.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from engines.node.jobs import STAGE
from engines.repository.canary import Canary
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import LIVE
from ingest.contract.records import Result, ShadowRecord
from ingest.contract.topics import DEADLETTER, EVENTS, RESULTS, SHADOW
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord
from ingest.site import PipelineConfig
from ingest.site.topic.store import read
from training.canary.notes import SECOND_MS, RecentNotes
from training.canary.skill import LiveSkill, SkillLimits


class ResultNote(NamedTuple):
    """The pipeline of a live result, and the version of the model that computed the result."""

    pipeline: str
    model: str


class FailureNote(NamedTuple):
    """The pipeline of a live frame for which a model failed, and whether the canary serves the frame's camera."""

    pipeline: str
    served: bool


class ComparisonNote(NamedTuple):
    """A comparison of the canary with a candidate: the candidate and the canary gave ``agreed`` of ``objects`` the
    same label."""

    candidate: str
    agreed: int
    objects: int


class SkillMeter:
    """Measures the live skill of a canary again and again. Each measurement reads only the records that were written
    since the last one."""

    def __init__(self, log: Log, canary: Canary, limits: SkillLimits) -> None:
        self._log, self._canary, self._window_ms = log, canary, round(limits.window_s * 1e3)
        self._results = RecentNotes(log, RESULTS, self._noted_result)
        self._failures = RecentNotes(log, DEADLETTER, self._noted_failure)
        self._events = RecentNotes(log, EVENTS, self._noted_event)
        self._events_before = RecentNotes(log, EVENTS, self._noted_event)
        self._comparisons = RecentNotes(log, SHADOW, self._noted_comparison)

    @property
    def canary(self) -> Canary:
        """The measured canary."""
        return self._canary

    async def measure(self, promoted: str, now_ns: int) -> LiveSkill:
        """Return the live skill over the last ``limits.window_s`` seconds, at most since the canary began. The period
        begins at a whole second.

        ``promoted`` is the promoted version, such as ``regions@1``. Comparisons with other versions do not count. The
        live skill depends only on the log, the canary, ``promoted`` and ``now_ns``, not on earlier measurements.
        ``now_ns`` must not decrease. Raise LogUnavailable.
        """
        canary, now_ms, since_ms = self._canary, now_ns // 10**6, self._canary.since_ns // 10**6
        begin_ms = _whole_second(max(since_ms, now_ms - self._window_ms))
        skill = LiveSkill(max(0.0, (now_ms - begin_ms) / 1e3))
        pipelines = {one.name for one in (await read(self._log)).of(PipelineConfig) if one.model == canary.model}
        for result, count in (await self._results.between(begin_ms, now_ms)).items():
            pipelines.add(result.pipeline)
            skill.side(result.model == canary.id).frames += count
        for failure, count in (await self._failures.between(begin_ms, now_ms)).items():
            if failure.pipeline in pipelines:
                skill.side(failure.served).errors += count
        for served, count in (await self._events.between(begin_ms, now_ms)).items():
            skill.side(served).events = count
        await self._events_before.read(since_ms - self._window_ms, since_ms)
        before_ms = _whole_second(since_ms - (now_ms - begin_ms))
        for served, count in self._events_before.counts(before_ms).items():
            skill.side(served).events_before = count
        for one, count in (await self._comparisons.between(begin_ms, now_ms)).items():
            if one.candidate == promoted:
                skill.compared += count
                skill.agreed += count * one.agreed
                skill.objects += count * one.objects
        return skill

    def _noted_result(self, record: LogRecord) -> Iterator[ResultNote]:
        with contextlib.suppress(CodecError):
            result = decode(Result, record.value)
            if result.lane == LIVE and result.model.partition("@")[0] == self._canary.model:
                yield ResultNote(result.pipeline, result.model)

    def _noted_failure(self, record: LogRecord) -> Iterator[FailureNote]:
        failure, pipeline = h.read_failure(record.headers), h.pipeline_of(record.headers)
        if failure and failure.stage == STAGE and h.lane_of(record.headers, record.topic) == LIVE:
            for frame in h.frames_of(record.headers):
                yield FailureNote(pipeline, self._canary.serves(frame.camera))

    def _noted_event(self, record: LogRecord) -> Iterator[bool]:
        return (self._canary.serves(frame.camera) for frame in h.frames_of(record.headers))

    def _noted_comparison(self, record: LogRecord) -> Iterator[ComparisonNote]:
        with contextlib.suppress(CodecError):
            found = decode(ShadowRecord, record.value)
            if not found.off and found.served == self._canary.id:
                agreed = sum(found.agreed.values())
                objects = agreed + sum(one.form != "score" for one in found.differences)
                yield ComparisonNote(found.candidate, agreed, objects)


def _whole_second(at_ms: int) -> int:
    """Return the first whole second at or after a Unix time, in ms."""
    return -(-at_ms // SECOND_MS) * SECOND_MS
