"""The interface of camera rules: their settings, the tracked frames that they evaluate, and their state from frame to
frame.

Pure.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field

from ingest.contract.records import Box, ClipRequest, Point
from ingest.contract.records.base import Name
from ingest.site import ClipConfig, to_pixels
from ingest.site.entry import RelativePoint, Share
from stream.analyse.geometry import inside
from stream.analyse.ground import GroundPlane
from stream.analyse.tracking.votes import VotedLabel
from stream.events import rfc3339
from stream.rules import Happening, Rule

TAIL_S = 120.0
"""Minimum length in seconds of the past results that are read back for a rule after a restart. 120 s cover the life
of a usual track: a vehicle is in the picture for seconds, and a waiting person for a minute or two."""
MARGIN_S = 60.0
"""Time span of past results that is read back beyond twice a rule's longest time setting, in seconds. This margin
suffices to begin the track of a rarely detected object again after a restart."""


class SceneTrack(NamedTuple):
    """One tracked object in one frame. Coordinates are in pixels of the epoch's first picture."""

    name: str
    """Name of the track. After a restart, a track has the same name as before if the results at its beginning were
    read back."""
    label: str
    """Label that the object had most often so far, weighted by score."""
    score: float
    box: Box
    at_rest: bool
    """Whether the object is known to stand still. A track at rest may have no detection in this frame."""
    trail: Sequence[Point]
    """The latest centres of the track's box, oldest first. Later frames change the sequence of centres, so a rule
    must copy the points that it needs later."""
    attributes: Mapping[str, VotedLabel] = MappingProxyType({})
    """Label of each second-stage model, by the name of the attribute that the model adds. A label is the result of a
    vote over the frames of the track."""
    moved: float = 0.0
    """Largest distance of the box's centre from the track's first position so far, as a share of the picture's
    diagonal."""
    best_score: float = 0.0
    """Highest score of the track's detections so far."""

    @property
    def foot(self) -> Point:
        """Middle of the box's lower edge, ``(x, y)``: the point where the object stands on the ground."""
        return (self.box.left + self.box.right) / 2, self.box.bottom


class Scene(NamedTuple):
    """All confirmed tracks of one classified frame, and the reasons why frames before this frame are missing."""

    frame: str
    """The frame's name ``epoch-seq``, which is unique for each camera."""
    at_ns: int
    """Capture time since the first frame of the epoch (capture run), in ns. The time ``at_ns`` never decreases, even
    if the camera's clock is set back."""
    captured_ns: int
    """Capture time by the camera's clock, in Unix ns."""
    width: int
    """Width of the epoch's first picture, in pixels. All frames of one epoch (capture run) are scaled to this
    width."""
    height: int
    outcome: str
    """``classified``, or ``empty`` for a frame in which nothing moved."""
    tracks: tuple[SceneTrack, ...]
    gap_s: float = 0.0
    """Seconds since the previous classified frame, excluding the time in which the agent detected no motion."""
    missing: Mapping[str, int] | None = None
    """Number of missing frames since the previous classified frame, by reason. The agent and the prepare stage record
    why a frame is missing; the reason is ``unknown`` for frames without any record."""
    view: str = ""
    """State of the camera's view, as the edge agent judged it: empty for a good view, else ``frozen``, ``black`` or
    ``tampered``."""
    ground: GroundPlane | None = None
    """Conversion from pixels to metres on the ground; None for a camera without a ground plane."""
    waiting: tuple[SceneTrack, ...] = ()
    """New tracks that may be lost tracks, and wait for a better view of their objects. When the wait ends, a track
    may get another name, and ``RuleWatch.catch_up`` gets its positions."""

    @property
    def visible(self) -> tuple[SceneTrack, ...]:
        """All visible objects, for rules that count objects and keep no state of single tracks."""
        return self.tracks + self.waiting if self.waiting else self.tracks


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Labels = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One label, or a list of labels of which one must match."""


class CameraRule(Rule):
    """Base class of the rules that evaluate the tracks of one camera and pipeline."""

    REFERS_TO: ClassVar[tuple[str, ...]] = ("camera", "pipeline")

    camera: Name
    pipeline: Name
    labels: tuple[str, ...] = ()
    """Labels of the objects that the rule applies to; empty for all objects."""
    attributes: dict[Name, Labels] = {}
    """Accepted labels of second-stage models, by the name of the attribute. The rule applies to an object only if
    every attribute has an accepted label."""
    min_score: Share = 0.3
    min_move: Share = 0.0
    """Minimum distance that an object must have moved from its first position, as a share of the picture's diagonal.
    With 0.05, a parked vehicle whose box shakes causes no event."""
    clip: ClipConfig | None = None
    """The clip that the rule's alerts get. A site file sets its own ``clip`` in rules that have none."""

    def applies_to(self, track: SceneTrack) -> bool:
        """Return whether a track has one of the rule's labels and all attributes of the rule, has moved by at least
        ``min_move``, and had a detection with the score ``min_score``.

        One detection with the score ``min_score`` suffices: a vehicle that is then partly covered is still the same
        vehicle.
        """
        return not self.misfit(track)

    def misfit(self, track: SceneTrack) -> str:
        """Return the reason why the rule does not apply to a track; empty if the rule applies."""
        if (best := max(track.score, track.best_score)) < self.min_score:
            return f"score {best:.4g} below min_score {self.min_score:g}"
        if track.moved < self.min_move:
            return f"moved by {track.moved:.2g} of the picture's diagonal, below min_move {self.min_move:g}"
        if self.labels and track.label not in self.labels:
            return f"label {track.label} is not in labels ({', '.join(self.labels)})"
        for name, labels in self.attributes.items():
            voted = track.attributes.get(name)
            if voted is None or voted.label not in labels:
                found = voted.label if voted else "missing"
                return f"attribute {name} is {found}, expected {' or '.join(labels)}"
        return ""

    @property
    def subject_words(self) -> str:
        """Description in words of the objects that the rule applies to, such as ``car with type van``; empty for all
        objects."""
        wanted = [f"{name} {' or '.join(labels)}" for name, labels in sorted(self.attributes.items())]
        words = " or ".join(self.labels)
        return f"{words or 'objects'} with {' and '.join(wanted)}" if wanted else words

    @property
    def clip_request(self) -> ClipRequest | None:
        """The clip that an event of the rule requests, None if the rule requests no clip."""
        clip = self.clip
        return ClipRequest(**clip.model_dump()) if clip and clip.before_s + clip.after_s > 0.0 else None

    @property
    def tail_s(self) -> float:
        """Length in seconds of the past results from which a new owner of the partition rebuilds the rule's state.

        The length covers at least twice the longest setting whose name ends in ``_s``, except ``incident_gap_s``. An
        object that was present before the past results counts as new at their beginning. Because past results cover
        twice the longest setting, a dwell time or cooldown that began before them ends before the first new result.
        """
        times_s: list[float] = [value for name, value in self if name.endswith("_s") and name != "incident_gap_s"]
        return max(TAIL_S, 2 * max(times_s) + MARGIN_S)

    @property
    def track_cooldown_s(self) -> float:
        """Time in seconds after a reported situation of a track during which no other situation of this track is
        reported."""
        return self.cooldown_s

    @property
    def shape(self) -> tuple[RelativePoint, ...]:
        """The line (two points) or polygon to draw on the evidence picture; empty if there is nothing to draw."""
        return ()

    def require(self) -> None:
        """Raise ConfigError if this process lacks something that the rule needs, such as the file of a model."""

    @abc.abstractmethod
    def watch(self, width: int, height: int) -> RuleWatch[CameraRule]:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""


WHOLE_PICTURE: tuple[RelativePoint, ...] = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


class PolygonRule(CameraRule):
    """Base class of the rules that evaluate the objects inside a polygon."""

    polygon: tuple[RelativePoint, ...] = Field(min_length=3)

    @property
    def shape(self) -> tuple[RelativePoint, ...]:
        """The rule's polygon."""
        return self.polygon


class AreaRule(PolygonRule):
    """Base class of the rules that evaluate the objects inside a polygon, or in the whole picture by default."""

    polygon: tuple[RelativePoint, ...] = Field(default=WHOLE_PICTURE, min_length=3)

    @property
    def shape(self) -> tuple[RelativePoint, ...]:
        """The rule's polygon; empty for the whole picture."""
        return () if self.polygon == WHOLE_PICTURE else self.polygon


R_co = TypeVar("R_co", bound=CameraRule, covariant=True)
OUTSIDE = "outside of the polygon"
UNMET = "the rule's own condition does not hold"
"""Reason why a rule did not report a track if no more precise reason is known."""
WHOLE_SCENE = ""
"""Subject of a situation that concerns the whole picture and no single track."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneHappening(Happening):
    """A situation that a rule has recognised in a frame, and that becomes an event.

    The situation concerns one ``track``, or the whole picture. A situation of the whole picture has a unique
    ``occurrence``, such as the name of the frame in which the situation began, and may have the ``label`` of the
    objects involved. All situations of one track form one incident. Each ``occurrence`` of a situation of the whole
    picture is a separate incident.
    """

    track: SceneTrack | None = None
    occurrence: str = ""
    label: str = ""
    since_ns: int | None = None
    """Capture time in Unix ns since which the camera's condition has held, for a rule that joins a sensor."""

    @property
    def subject(self) -> str:
        """The track's name, or ``WHOLE_SCENE`` if the situation concerns the whole picture."""
        return self.track.name if self.track else WHOLE_SCENE


class RuleWatch(abc.ABC, Generic[R_co]):
    """State of one rule during one epoch (capture run). ``shape`` is the rule's line or polygon, in pixels of the
    epoch's first picture.

    A subclass implements ``step``. A rule's watch class that keeps state also overrides ``settle`` and ``forget``.
    The base class numbers the situations of each track, and applies the cooldown. RuleWatch also leaves out
    situations whose events were already written by an earlier owner of the partition.
    """

    PER_TRACK: ClassVar[bool] = False
    """Whether ``step`` evaluates each track by itself, so that it can process a track of an earlier frame later."""

    def __init__(self, rule: R_co, width: int, height: int) -> None:
        self.rule = rule
        self.shape = to_pixels(rule.shape, width, height)
        self._numbers: Counter[str] = Counter()
        self._quiet_until_ns: dict[str, int] = {}

    @abc.abstractmethod
    def step(self, scene: Scene) -> Iterable[SceneHappening]:
        """Process the tracks of the next frame and return the situations to report now, at most one per track and one
        of the whole picture.

        An implementation must process a track's position in every frame. The label and score of a track only decide
        whether the rule reports the track.
        """

    def catch_up(self, scene: Scene, reported: Collection[str]) -> list[tuple[SceneHappening, int]]:
        """Process an earlier frame of a track that waited until now, and return the situations as ``observe`` does.

        ``scene`` has only this track. A rule that does not evaluate each track by itself ignores the frame.
        """
        return self.observe(scene, reported) if self.PER_TRACK else []

    def settle(self, subject: str) -> None:
        """Note that an event of ``subject`` in the present frame has already been written.

        ``observe`` calls ``settle`` after ``step``.
        """

    def resume(self, track: str) -> None:
        """Note that a track returns, which was out of sight for longer than the tracker follows an object.

        The path of the object in between is unknown. A rule about movements drops the positions before.
        """

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended. A method that overrides ``forget`` must call
        ``super().forget(track)``."""
        self._numbers.pop(track, None)
        self._quiet_until_ns.pop(track, None)

    def is_quiet(self, scene: Scene, subject: str = WHOLE_SCENE) -> bool:
        """Return whether the rule must not report the subject now.

        A rule reports nothing outside of its hours, and during the cooldown after the subject's last event.
        """
        return bool(self.quiet_reason(scene, subject))

    def quiet_reason(self, scene: Scene, subject: str = WHOLE_SCENE) -> str:
        """Return the reason why the rule must not report the subject now; empty if the rule may report it."""
        if not self.rule.in_force(scene.captured_ns):
            return "outside of its hours"
        left_ns = self._quiet_until_ns.get(subject, 0) - scene.at_ns
        return f"quiet: cooldown until {rfc3339(scene.captured_ns + left_ns)}" if left_ns > 0 else ""

    def place(self, track: SceneTrack) -> Point:
        """Return the point of a track that must be inside the rule's polygon: the centre of its box by default."""
        return track.box.centre

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return the part of the rule's own condition that a track does not meet, after ``observe``.

        Return an empty string if the rule cannot say which part of the condition is not met. The method must not
        change the rule's state of the track.
        """
        return OUTSIDE if len(self.shape) > 2 and not self.covers(self.place(track)) else ""

    def reasons(self, scene: Scene, track: SceneTrack) -> list[str]:
        """Return the reasons why the rule did not report a track of the frame that ``observe`` has just processed."""
        found = (self.rule.misfit(track), self.quiet_reason(scene, track.name), self.unmet(scene, track))
        return [reason for reason in found if reason] or [UNMET]

    def scene_reasons(self, scene: Scene) -> list[str]:
        """Return the reasons why the rule reported nothing at all, apart from the reasons of single tracks."""
        if not scene.tracks:
            return ["the frame has no confirmed track"]
        return [reason] if (reason := self.quiet_reason(scene)) else []

    def covers(self, point: Point) -> bool:
        """Return whether a point is inside the rule's polygon. A rule without a shape covers the whole picture."""
        return not self.shape or inside(self.shape, point)

    def observe(self, scene: Scene, reported: Collection[str]) -> list[tuple[SceneHappening, int]]:
        """Process the tracks of the next frame with ``step``, and return the recognised situations whose events are
        not written yet.

        Each returned pair is a situation and the situation's number within its incident, from 1. ``reported`` has the
        subjects for which an event of this frame is already written.
        """
        found = list(self.step(scene))
        for subject in reported:
            self.settle(subject)
        for subject in {*reported, *(happening.subject for happening in found)}:
            self._numbers[subject] += 1
            self._quiet_until_ns[subject] = scene.at_ns + round(self.rule.track_cooldown_s * 1e9)
        fresh = (happening for happening in found if happening.subject not in reported)
        return [(one, self._numbers[one.subject] if one.track else 1) for one in fresh]
