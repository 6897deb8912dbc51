"""Reasons why the rules of a camera reported or did not report the tracks of one frame. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.contract.records import Box, Detection, Event, Result
from stream.analyse.analyser import Analyser
from stream.analyse.rule import WHOLE_SCENE, CameraRule, RuleWatch, Scene
from stream.analyse.tracking.appearance import WAIT_S
from stream.analyse.tracking.overlaps import one_per_object
from stream.analyse.tracking.tracker import CONFIRM_FRAMES

_SAME_PX = 0.5
"""Maximum difference of the coordinates of two equal boxes, in pixels. A box changes slightly when it is converted to
pixels of the epoch's first picture and back."""


@dataclass(frozen=True, slots=True)
class TrackVerdict:
    """A track of a frame, and the reasons why a rule did not report it. A reported track has no reasons.

    ``box`` is in pixels of the frame.
    """

    track: str
    label: str
    score: float
    box: Box
    reported: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """The events of a rule in one frame, or the reasons why there are none, for the picture and for each track."""

    rule: CameraRule
    events: tuple[Event, ...]
    reasons: tuple[str, ...]
    tracks: tuple[TrackVerdict, ...]


@dataclass(frozen=True, slots=True)
class Untracked:
    """A detection that belongs to no confirmed track, and is therefore invisible to rules."""

    detection: Detection
    reason: str


def verdicts(analyser: Analyser, result: Result, events: Iterable[Event]) -> list[RuleVerdict]:
    """Return the verdict of each rule on the result that the analyser has just processed.

    ``events`` are the events that ``step`` returned; those of earlier frames are left out. Return an empty list if
    the result was shed, or had already been processed before this call.
    """
    scene = analyser.scene
    found = [one for one in events if (one.data.epoch, one.data.seq) == (result.epoch, result.seq)]
    if scene is None:
        return []
    return [
        _verdict(watch, scene, analyser, result, [one for one in found if one.data.rule == watch.rule.name])
        for watch in analyser.watches
    ]


def untracked(analyser: Analyser, result: Result) -> list[Untracked]:
    """Return the detections of the result that the analyser assigned to no track, each with the reason."""
    scene = analyser.scene
    tracked = [analyser.in_frame(result, track.box) for track in scene.tracks] if scene else []
    waiting = [analyser.in_frame(result, track.box) for track in scene.waiting] if scene else []
    counted = one_per_object(result)
    return [
        Untracked(one, _why_untracked(one, counted, waiting, analyser.begin_score))
        for one in result.detections
        if not any(_equal(one.box, box) for box in tracked)
    ]


def _verdict(
    watch: RuleWatch[CameraRule], scene: Scene, analyser: Analyser, result: Result, events: Sequence[Event]
) -> RuleVerdict:
    reported = {one.data.track or WHOLE_SCENE for one in events}
    tracks = tuple(
        TrackVerdict(
            track.name,
            track.label,
            track.score,
            analyser.in_frame(result, track.box),
            track.name in reported,
            () if track.name in reported else tuple(watch.reasons(scene, track)),
        )
        for track in scene.tracks
    )
    return RuleVerdict(watch.rule, tuple(events), () if events else tuple(watch.scene_reasons(scene)), tracks)


def _why_untracked(one: Detection, counted: Sequence[Detection], waiting: Sequence[Box], begin_score: float) -> str:
    if not any(one is other for other in counted):
        return "is a further box of an object that has a track"
    if any(_equal(one.box, box) for box in waiting):
        return f"may be a lost track: waits up to {WAIT_S:g} s for a better view"
    if one.score < begin_score:
        return f"score {one.score:.4g} below {begin_score:g}, the score at which a track begins"
    return f"has no track yet: a track needs {CONFIRM_FRAMES} detections"


def _equal(one: Box, other: Box) -> bool:
    return all(abs(a - b) < _SAME_PX for a, b in zip(one, other, strict=True))
