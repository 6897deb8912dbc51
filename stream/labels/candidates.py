"""Frames and objects that may become examples of a data set, with the reasons to prefer them. Pure."""

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
"""Maximum number of candidates in a pool, which take about 200 MB with two objects each."""


@dataclass(frozen=True, slots=True)
class CandidateObject:
    """An object in a frame, with the label of a model.

    ``disagreement`` is the weight of the difference between two models about this object, 0..1; 0 if they agree or
    have not been compared.
    """

    id: str
    box: Box
    label: str
    score: float
    model: str
    disagreement: float = 0.0


@dataclass(frozen=True, slots=True)
class CandidateFrame:
    """A classified frame with its objects.

    ``missed`` is true if the motion gate would have withheld the frame, and the frame shows a new object.
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
        """The sum of the weights of the differences between two models in this frame."""
        return sum(one.disagreement for one in self.objects)

    @property
    def score(self) -> float:
        """The lowest score of an object; 1 for a frame without objects."""
        return min((one.score for one in self.objects), default=1.0)

    @property
    def served(self) -> tuple[CandidateObject, ...]:
        """The objects that the frame's own model found, without those that only a candidate model found."""
        return tuple(one for one in self.objects if one.model == self.model)

    def examples(self) -> list[CandidateExample]:
        """Return one example for each object."""
        return [CandidateExample(self, one) for one in self.objects]


@dataclass(frozen=True, slots=True)
class CandidateExample:
    """One object of a frame, as an example of a classifier's data set."""

    frame: CandidateFrame
    object: CandidateObject

    @property
    def key(self) -> str:
        """Text that identifies the object."""
        return self.object.id

    @property
    def disagreement(self) -> float:
        """The weight of the difference between two models about the object."""
        return self.object.disagreement

    @property
    def score(self) -> float:
        """The score of the object."""
        return self.object.score

    @property
    def missed(self) -> bool:
        """Whether the motion gate missed the frame."""
        return self.frame.missed

    def decision(self, verdict: Verdict, by: str, at_ns: int, corrected: str = "") -> LabelDecision:
        """Return the decision of a person about the object. Raise ValueError for an incomplete decision."""
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
    """Return the id of an object: it depends on its frame, its pipeline, and its box in whole pixels."""
    return event_id("object", frame, pipeline, *map(round, box))


def decided_example(decision: LabelDecision) -> CandidateExample:
    """Return the object of a decision, with the label that the person decided."""
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
    """Return a number in 0..1 that depends on the key alone, for a random choice that can be repeated."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


@dataclass(slots=True)
class Disagreements:
    """The differences between served and candidate models, by pipeline and frame."""

    _found: dict[tuple[str, FrameId], ShadowRecord] = field(default_factory=dict)

    def add(self, record: ShadowRecord) -> None:
        """Add a comparison. Ignore a comparison without a difference."""
        frame = record.frame
        if frame is None or not record.differences:
            return
        self._found[record.pipeline, frame] = record
        if len(self._found) > MAX_CANDIDATES:
            del self._found[next(iter(self._found))]

    def has(self, frame: CandidateFrame) -> bool:
        """Return whether two models differ in a frame."""
        return (frame.pipeline, frame.id) in self._found

    def mark(self, frame: CandidateFrame) -> CandidateFrame:
        """Return the frame with the weights of its objects, and with the objects that only the candidate found."""
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
    """Return the objects with different ids. Of objects with one id, keep the one with the highest score."""
    found: dict[str, CandidateObject] = {}
    for one in sorted(objects, key=lambda one: -one.score):
        found.setdefault(one.id, one)
    return tuple(found.values())


class CandidatePool:
    """Collects candidates from results, in the order of the log.

    A pool holds at most ``most`` frames. If there are more, the pool keeps a random sample of the frames that have no
    reason to be preferred; the sample depends on the names of the frames alone.
    """

    def __init__(self, misses: MissCounter, disagreements: Disagreements, most: int = MAX_CANDIDATES) -> None:
        self._misses, self._disagreements, self._most = misses, disagreements, most
        self._frames: dict[tuple[str, FrameId], CandidateFrame] = {}
        self._kept_share = 1.0
        self.seen = 0
        """Number of different frames that were added."""

    def __iter__(self) -> Iterator[CandidateFrame]:
        """Yield the frames, with the weights of the disagreements that are known by now."""
        return map(self._disagreements.mark, list(self._frames.values()))

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def kept_share(self) -> float:
        """Share of the frames without a reason to be preferred that the pool keeps, 0..1."""
        return self._kept_share

    def add(self, result: Result, *, wanted: bool = True) -> None:
        """Add a result. The results of each camera must come in the order of the log.

        A result that is not ``wanted``, of another time or model, counts only as the past of later frames.
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
        """Drop the frames that were captured before a time in Unix ns."""
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
    """Return a classified frame as a candidate. Detections whose boxes are equal in whole pixels are one object."""
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
