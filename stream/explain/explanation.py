"""Explain one frame or alert: its processing steps, the findings of gate and models, and the verdicts of the
rules."""

from __future__ import annotations

from collections.abc import Iterable, Set
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import Event, Frame, Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.site import CameraConfig, MeasureConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.analysers import RuleSet
from stream.analyse.rule import CameraRule
from stream.analyse.tracking.tracker import ByteTracker
from stream.analyse.verdict import RuleVerdict, Untracked, untracked, verdicts
from stream.events import rfc3339
from stream.explain.hops import hops
from stream.explain.search import MAX_RECORDS, place_in
from stream.explain.trail import Trail, Written, frame_trail, trail_of_id
from stream.readback import HistoryPoint, tail


@dataclass(frozen=True, slots=True)
class PipelineVerdict:
    """The verdicts of all rules of one pipeline on the frame, and the detections that no rule saw.

    ``unseen`` is the reason why the rules did not evaluate the frame; empty if they evaluated the frame. ``missing``
    has events that the log holds, but that the present rules do not emit.
    """

    result: Result
    rules: tuple[RuleVerdict, ...]
    untracked: tuple[Untracked, ...]
    unseen: str
    missing: tuple[Event, ...]
    begins: str
    """First frame of the past results over which the rules were replayed."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The records of a frame, and the verdicts of the rules that are configured now."""

    trail: Trail
    pipelines: tuple[PipelineVerdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of plain values that can be written as JSON."""
        trail = self.trail
        frame = trail.frame.value if trail.frame else None
        return {
            "frame": str(trail.frame_id) if trail.frame_id else None,
            "lane": trail.lane,
            "absence": {"state": trail.absence.state, "reason": trail.absence.reason} if trail.absence else None,
            "hops": [{**asdict(hop), "time": rfc3339(hop.at_ns)} for hop in hops(trail)],
            "gate": _gate(frame) if frame else None,
            "pipelines": [_pipeline(one) for one in self.pipelines],
            "events": [one.value.model_dump(mode="json") for one in trail.events],
            "alerts": [one.value.model_dump(mode="json") for one in trail.alerts],
            "deliveries": [one.value.model_dump(mode="json") for one in trail.deliveries],
        }


async def explain(log: Log, name: str, config: Config) -> Explanation:
    """Explain the frame ``camera/epoch/seq``, or the frame of an event or alert with the id ``name``.

    ``config`` must have rules that are validated by ``stream.rules.validated``. Raise FrameNotFound if the log has
    nothing of this name, LogUnavailable if Kafka cannot be reached.
    """
    trail = await (frame_trail(log, FrameId.parse(name), config) if "/" in name else trail_of_id(log, name, config))
    rules = RuleSet(
        config.of(CameraRule),  # type: ignore[type-abstract]
        config.of(CameraConfig),
        config.of(MeasureConfig),  # a measure may lower the score at which a track begins
        config.of(PipelineConfig),
    )
    found = [await _verdicts(log, one, rules, trail) for one in trail.results]
    return Explanation(trail, tuple(found))


async def _verdicts(log: Log, result: Written[Result], rules: RuleSet, trail: Trail) -> PipelineVerdict:
    """Replay the stored results of the camera up to the frame, as an analyse worker does after a restart."""
    own = result.value
    camera, key = own.camera, (own.camera, own.lane, own.pipeline)

    def history_point(record: LogRecord) -> HistoryPoint | None:
        point = rules.history_point(record)
        return point if point and point.key == "/".join(key) else None

    if not rules.of(camera, own.pipeline):
        return PipelineVerdict(own, (), (), "the pipeline has no rule for this camera", (), "")
    tp = TopicPartition(RESULTS, result.partition)
    past = await tail(log, tp, result.offset, history_point, rules.longest_s)
    measures = rules.measures_of(camera, own.pipeline)
    analyser = Analyser(
        rules.of(camera, own.pipeline),
        rules.cameras.get(camera),
        ByteTracker,
        measures=measures,
        appearance=rules.appearance_of(own.pipeline),
    )
    first = own
    for n, record in enumerate(past):
        before = decode(Result, record.value)
        first = first if n else before
        _step(analyser, before)
    events = _step(analyser, own)
    events += [
        one.value for one in trail.events if one.value.data.sensor is not None
    ]  # joins, as `sense` decided them
    found, unmatched = tuple(verdicts(analyser, own, events)), tuple(untracked(analyser, own))
    unseen = "" if analyser.scene else f"the frame is {own.outcome}" + (f": {own.reason}" if own.reason else "")
    waiting = {track.name for track in analyser.scene.waiting} if analyser.scene else set[str]()
    if waiting:
        late = await _late_events(log, result, analyser, waiting)
        events, found = events + late, tuple(_with_events(verdict, late) for verdict in found)
    emitted = {(one.data.rule, one.data.label) for one in events}
    missing = tuple(
        one.value
        for one in trail.events
        if any(one.value.data.rule == verdict.rule.name for verdict in found)
        and (one.value.data.rule, one.value.data.label) not in emitted
    )
    return PipelineVerdict(own, found, unmatched, unseen, missing, str(first.id))


async def _late_events(log: Log, result: Written[Result], analyser: Analyser, waiting: Set[str]) -> list[Event]:
    """Process the results after a frame until none of its ``waiting`` tracks waits any more, and return the frame's
    events. Read at most ``MAX_RECORDS`` records, because the camera may have no further results."""
    own, found, place = result.value, list[Event](), place_in(result.value.camera, result.value.lane)
    end = min((await log.ends(RESULTS))[result.partition], result.offset + MAX_RECORDS)
    async with aclosing(log.read(RESULTS, result.partition, result.offset + 1, end)) as records:
        async for record in records:
            later = _decoded(record) if place(record) else None
            if later is None or later.pipeline != own.pipeline:
                continue
            events = _step(analyser, later)
            found += [one for one in events if (one.data.epoch, one.data.seq) == (own.epoch, own.seq)]
            if waiting.isdisjoint(analyser.waiting_names):
                break
    return found


def _decoded(record: LogRecord) -> Result | None:
    try:
        return decode(Result, record.value)
    except CodecError:
        return None


def _with_events(verdict: RuleVerdict, late: Iterable[Event]) -> RuleVerdict:
    events = tuple(one for one in late if one.data.rule == verdict.rule.name)
    return replace(verdict, events=verdict.events + events, reasons=()) if events else verdict


def _step(analyser: Analyser, result: Result) -> list[Event]:
    """Process a result. Ignore an error, because a result that causes an error became a dead letter."""
    try:
        return analyser.step(result)
    except MemoryError:
        raise
    except Exception:
        return []


def _gate(frame: Frame) -> dict[str, Any]:
    account = frame.account
    return {
        "motion": None if frame.motion is None else [list(box) for box in frame.motion],
        "resting": None if frame.resting is None else [list(box) for box in frame.resting],
        "sampled": frame.sampled,
        "withheld_before": {"first": account.first, "last": account.last, "counts": account.counts}
        if account
        else None,
        "redacted": frame.redacted.model_dump(mode="json") if frame.redacted else None,
        "width": frame.width,
        "height": frame.height,
        "quality": frame.quality,
    }


def _pipeline(one: PipelineVerdict) -> dict[str, Any]:
    result = one.result
    return {
        "pipeline": result.pipeline,
        "outcome": result.outcome,
        "reason": result.reason,
        "model": result.model,
        "detections": [each.model_dump(mode="json") for each in result.detections],
        "unseen": one.unseen,
        "replayed_from": one.begins,
        "rules": [_rule(each) for each in one.rules],
        "untracked": [
            {"label": each.detection.label, "score": each.detection.score, "reason": each.reason}
            for each in one.untracked
        ],
        "not_emitted_now": [each.id for each in one.missing],
    }


def _rule(one: RuleVerdict) -> dict[str, Any]:
    return {
        "rule": one.rule.name,
        "type": one.rule.type,
        "fired": bool(one.events),
        "events": [{"id": each.id, "summary": each.data.summary} for each in one.events],
        "reasons": list(one.reasons),
        "tracks": [
            {
                "track": each.track,
                "label": each.label,
                "score": each.score,
                "box": list(each.box),
                "fired": each.reported,
                "reasons": list(each.reasons),
            }
            for each in one.tracks
        ],
    }
