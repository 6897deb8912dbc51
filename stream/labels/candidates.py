"""Frames and objects that may become examples of a training data set, with the reasons to prefer them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Box, FrameRef, LabelDecision, Result, ShadowDifference, ShadowRecord
from ingest.contract.records.label import Verdict
from ingest.ledger.missrate import MissCounter
from stream.events import event_id

MAX_CANDIDATES = 100_000
"""Maximum number of frames in a pool of candidates, which take about 200 MB with two objects each."""


@dataclass(frozen=True, slots=True)
class CandidateObject:
    """An object that a model has found in a frame, with the model's label.

    ``disagreement`` is the weight, 0..1, of the difference between two models about this object; 0 if the models
    agree or have not been compared.
    """

    id: str
    box: Box
    label: str
    score: float
    model: str
    disagreement: float = 0.0


@dataclass(frozen=True, slots=True)
class CandidateFrame:
    """A classified frame with its objects, which may become an example of a data set.

    ``missed`` is true if the motion gate would have withheld the frame although the frame shows a new object.
    """

    id: FrameId
    source: FrameRef
    captured_ns: int
    width: int
    height: int
    pipeline: str
    model: str
    objects: tuple[CandidateObject, ...] = ()
    missed: bool = False

    @property
    def key(self) -> str:
        """Text that identifies the frame."""
        return str(self.id)

    @property
    def disagreement(self) -> float:
        """Sum of the weights of all differences between two models in this frame."""
        return sum(one.disagreement for one in self.objects)

    @property
    def score(self) -> float:
        """The lowest score of the frame's objects; 1 for a frame without objects."""
        return min((one.score for one in self.objects), default=1.0)

    @property
    def served(self) -> tuple[CandidateObject, ...]:
        """The objects that the served model found, without objects that only a candidate model found."""
        return tuple(one for one in self.objects if one.model == self.model)

    def examples(self) -> list[CandidateExample]:
        """Return one candidate example for each object of the frame."""
        return [CandidateExample(self, one) for one in self.objects]


@dataclass(frozen=True, slots=True)
class CandidateExample:
    """One object of a frame, which may become an example of a classifier's data set."""

    frame: CandidateFrame
    object: CandidateObject

    @property
    def key(self) -> str:
        """Text that identifies the object."""
        return self.object.id

    @property
    def disagreement(self) -> float:
        """Weight of the difference between two models about the object."""
        return self.object.disagreement

    @property
    def score(self) -> float:
        """The score of the object."""
        return self.object.score

    @property
    def missed(self) -> bool:
        """Whether the motion gate would have missed the frame."""
        return self.frame.missed

    def decision(self, verdict: Verdict, by: str, at_ns: int, corrected: str = "") -> LabelDecision:
        """Return a person's decision on the object, as a record. Raise ValueError if the decision is a correction
        without a label."""
        return LabelDecision.model_validate(
            {
                "object": self.object.id,
                "verdict": verdict,
                "corrected": corrected,
                "by": by,
                "at_ns": at_ns,
                "camera": self.frame.id.camera,
                "epoch": self.frame.id.epoch,
                "seq": self.frame.id.seq,
                "captured_ns": self.frame.captured_ns,
                "width": self.frame.width,
                "height": self.frame.height,
                "source": self.frame.source,
                "pipeline": self.frame.pipeline,
                "model": self.object.model,
                "box": self.object.box,
                "label": self.object.label,
                "score": self.object.score,
            }
        )


def object_id(frame: FrameId, pipeline: str, box: Box) -> str:
    """Return the id of an object, computed from its frame, its pipeline, and its box in whole pixels."""
    return event_id("object", frame, pipeline, *map(round, box))


def decided_example(decision: LabelDecision) -> CandidateExample:
    """Return the object that a decision is about, with the label that the person decided."""
    frame = CandidateFrame(
        decision.frame,
        decision.source,
        decision.captured_ns,
        decision.width,
        decision.height,
        decision.pipeline,
        decision.model,
    )
    found = CandidateObject(decision.object, decision.box, decision.decided, decision.score, decision.model)
    return CandidateExample(frame, found)


def share_of(key: str) -> float:
    """Return a number in 0..1 that depends on ``key`` alone, for a random choice that can be repeated."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


@dataclass(slots=True)
class Disagreements:
    """The differences between the results of served and candidate models, by pipeline and frame.

    If there are more than ``most`` comparisons with a difference, the oldest comparisons are dropped.
    """

    most: int = MAX_CANDIDATES
    _found: dict[tuple[str, FrameId], ShadowRecord] = field(default_factory=dict)

    def add(self, record: ShadowRecord) -> None:
        """Add a comparison. A comparison without a difference is ignored."""
        frame = record.frame
        if frame is None or not record.differences:
            return
        self._found[record.pipeline, frame] = record
        if len(self._found) > self.most:
            del self._found[next(iter(self._found))]

    def has(self, frame: CandidateFrame) -> bool:
        """Return whether the served and the candidate model differ in a frame."""
        return (frame.pipeline, frame.id) in self._found

    def mark(self, frame: CandidateFrame) -> CandidateFrame:
        """Return the frame with the weights of the differences about its objects, and with the objects that only the
        candidate model found."""
        record = self._found.get((frame.pipeline, frame.id))
        if record is None:
            return frame
        objects = [replace(one, disagreement=_weight(one, record.differences)) for one in frame.objects]
        objects += [
            CandidateObject(
                object_id(frame.id, frame.pipeline, one.box),
                one.box,
                one.label,
                one.score,
                record.candidate,
                one.weight,
            )
            for one in record.differences
            if one.form == "extra"
        ]
        return replace(frame, objects=_without_repeats(objects))


def _weight(found: CandidateObject, differences: Iterable[ShadowDifference]) -> float:
    own = [d.weight for d in differences if d.form != "extra" and d.label == found.label and d.box == found.box]
    return max(own, default=0.0)


def _without_repeats(objects: Iterable[CandidateObject]) -> tuple[CandidateObject, ...]:
    """Return the objects without repeated ids. If several objects have the same id, the object with the highest score
    is kept."""
    found: dict[str, CandidateObject] = {}
    for one in sorted(objects, key=lambda one: -one.score):
        found.setdefault(one.id, one)
    return tuple(found.values())


class CandidatePool:
    """Collects candidate frames for a data set from results, in the order of the log.

    A pool holds at most ``most`` candidate frames. If the results have more frames, the pool keeps a random sample of
    the frames without a reason to be preferred, chosen by a hash of the frame's id.
    """

    def __init__(self, misses: MissCounter, disagreements: Disagreements, most: int = MAX_CANDIDATES) -> None:
        self._misses, self._disagreements, self._most = misses, disagreements, most
        self._frames: dict[tuple[str, FrameId], CandidateFrame] = {}
        self._kept_share = 1.0
        self.seen = 0
        """Number of different frames that were added to the pool."""

    def __iter__(self) -> Iterator[CandidateFrame]:
        """Yield the candidate frames, with the weights of the differences between models that are known so far."""
        return map(self._disagreements.mark, list(self._frames.values()))

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def kept_share(self) -> float:
        """Share, 0..1, of the frames without a reason to be preferred that the pool keeps."""
        return self._kept_share

    def add(self, result: Result, *, wanted: bool = True) -> None:
        """Add a result. Add the frame of a result; the results of each camera must come in the order of the log.

        A result that is not ``wanted`` is only used to find out which later frames the motion gate missed.
        """
        missed = self._misses.add(result)
        key = (result.pipeline, result.id)
        if not wanted or result.outcome != "classified" or is_replay(result.lane) or key in self._frames:
            return
        self.seen += 1
        frame = frame_of(result, missed=missed)
        if self._is_preferred(frame) or share_of(frame.key) < self._kept_share:
            self._frames[key] = frame
        while len(self._frames) > self._most:
            self._thin()

    def forget_before(self, captured_ns: int) -> None:
        """Drop the candidate frames that were captured before a time in Unix ns."""
        self._frames = {key: one for key, one in self._frames.items() if one.captured_ns >= captured_ns}

    def _thin(self) -> None:
        self._kept_share /= 2
        kept = {
            key: one
            for key, one in self._frames.items()
            if self._is_preferred(one) or share_of(one.key) < self._kept_share
        }
        if len(kept) > self._most:  # almost all frames are preferred: the oldest ones go
            kept = dict(list(kept.items())[-self._most :])
        self._frames = kept

    def _is_preferred(self, frame: CandidateFrame) -> bool:
        return frame.missed or self._disagreements.has(frame)


def frame_of(result: Result, *, missed: bool = False) -> CandidateFrame:
    """Return a classified frame with its objects as a candidate for a data set. Detections whose boxes are equal in
    whole pixels become one object."""
    objects = (
        CandidateObject(object_id(result.id, result.pipeline, one.box), one.box, one.label, one.score, result.model)
        for one in result.detections
    )
    return CandidateFrame(
        result.id,
        result.source,
        result.captured_ns,
        result.width,
        result.height,
        result.pipeline,
        result.model,
        _without_repeats(objects),
        missed,
    )
