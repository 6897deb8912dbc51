"""The frame record, the fields that later records copy from it, and the counts of withheld frames."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, FrameRef, Many, Name, Record, SmallMap

WITHHELD_REASONS = ("still", "rate", "schedule", "masked", "overload", "budget", "unusable", "expired", "unclean")
"""Reasons why a captured frame did not reach the log.

- ``budget``: even at its lowest quality the frame would have exceeded the camera's byte budget.
- ``unusable``: the frame could not be encoded, or was too large for a record.
- ``expired``: a full spool dropped the frame.
- ``unclean``: the capture was killed before the frame was stored in the spool.

All other reasons mean that a frame was withheld on purpose.
"""
MAX_RESTING = 16
"""Maximum number of stationary objects that one frame reports. A frame with this number of stationary objects may
have left out others."""
MAX_REASONS = 16
"""Maximum number of reasons in one interval of withheld frames: about twice the present number, because a newer agent
may have more reasons. The limit is low because all reasons travel with every batch item and result."""
MAX_PIPELINES = 256
"""Maximum number of pipelines of one frame. The pipelines' names travel with every batch item and result."""
MAX_REASON_CHARS = 200
MAX_TRACEPARENT_CHARS = 64
"""Maximum length of a trace context. A context of the W3C standard has 55 characters."""
Lane = Annotated[str, Field(max_length=64)]
"""``live``, ``late``, or the name of a replay, which has at most 56 characters."""
Reason = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,32}$")]
"""A word without a space or ``=``, because these separate the parts of the account header."""


class WithheldInterval(Record):
    """The frames withheld in an unbroken interval, counted by reason. ``counts`` sums to the interval's length.

    An interval keeps unknown reasons, which come from a newer minor version.
    """

    KIND: ClassVar[str] = "account"

    camera: Name
    epoch: Count
    first: Count
    last: Count
    counts: Annotated[dict[Reason, Count], Field(max_length=MAX_REASONS), SmallMap]

    @model_validator(mode="after")
    def _tally(self) -> Self:
        length = self.last - self.first + 1
        if length < 1:
            raise ValueError(f"interval {self.first}..{self.last} is empty: expected first <= last")
        if sum(self.counts.values()) != length:
            raise ValueError(f"counts {self.counts} do not sum to {length}, the length of {self.first}..{self.last}")
        return self

    def require_before(self, item: FrameId) -> None:
        """Raise ValueError unless the interval ends just before this frame, or this sensor reading."""
        if (self.camera, self.epoch, self.last + 1) != (item.camera, item.epoch, item.seq):
            raise ValueError(
                f"withheld interval {self.camera}/{self.epoch}/{self.first}..{self.last}: expected its end just "
                f"before {item}"
            )


class Redacted(Record):
    """Counts of the areas made unrecognisable in a picture before it was encoded.

    ``held`` counts the faces and plates that were not detected in this frame and stayed redacted where they were
    last seen. ``models`` names the detectors that ran, as ``file@sha256:`` and the first twelve digits of the hash.
    """

    KIND: ClassVar[str] = "redacted"

    masks: Count = 0
    faces: Count = 0
    plates: Count = 0
    held: Count = 0
    method: str = ""
    models: Many[str] = ()


class FrameMeta(Record):
    """Fields that a frame has from the agent to its results.

    ``captured_ns`` is Unix time in nanoseconds; ``width`` and ``height`` are in pixels. ``motion`` are the regions in
    which the gate saw motion: None when the gate did not compare the frame, empty when the gate saw no motion.
    ``resting`` are the boxes of stationary objects, the latest first: None in a frame that does not report stationary
    objects; most frames do not. ``sampled`` marks a frame that the gate would have withheld. Sampled frames are drawn
    at random to measure how often the gate misses an object.
    """

    camera: Name
    epoch: Count
    seq: Count
    captured_ns: Count
    width: Count
    height: Count
    motion: Many[Box] | None = None
    resting: Many[Box] | None = None
    sampled: bool = False

    @property
    def id(self) -> FrameId:
        """The frame's identity."""
        return FrameId(self.camera, self.epoch, self.seq)

    def fields_of(self, kind: type[FrameMeta]) -> dict[str, Any]:
        """Return the values of the fields that ``kind`` declares, to construct another record of the same frame."""
        return {name: getattr(self, name) for name in kind.model_fields}


class RoutedFrame(FrameMeta):
    """Fields that a batch item and a result share: a delivered frame and the pipelines it was routed to.

    ``source`` is the frame's own record. ``pipelines`` are all pipelines of the frame, so that the auditor knows how
    many results to expect. ``reason`` explains an outcome other than a
    classification, or a classification by another model than usual. ``withheld`` counts, by
    reason, the frames that the agent withheld just before this frame. ``motion`` and ``resting`` are None for a
    pipeline that looks at whole frames.
    """

    lane: Lane
    source: FrameRef
    pipelines: Annotated[Many[Name], Field(max_length=MAX_PIPELINES)]
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)] = ""
    withheld: Annotated[dict[Reason, Count], Field(max_length=MAX_REASONS), SmallMap] = {}
    traceparent: Annotated[str, Field(max_length=MAX_TRACEPARENT_CHARS)] = ""


class Frame(FrameMeta):
    """One kept frame. ``image`` is ``(height, width, 3)``, encoded.

    - ``account`` covers the frames withheld since the previous kept frame of this epoch.
    - ``captured_by`` is the source of the capture time: ``host`` (the clock on arrival) or ``stream``.
    - ``captured_error_ms`` is the time from a stream's capture time to the arrival by the host's clock. This time
      bounds the error of the capture time, unless the camera's clock is ahead of the host's. ``captured_error_ms`` is
      None when the error is unknown.
    - ``quality`` is the encoding quality, 0 when the quality is unknown.
    - ``scaled_from`` is the width and height before the picture was scaled down to fit a budget.
    - ``redacted`` is None when the camera redacts nothing.
    """

    KIND: ClassVar[str] = "frame"
    VERSION: ClassVar[tuple[int, int]] = (1, 2)

    site: str = ""
    captured_by: str = "host"
    captured_error_ms: float | None = None
    encoding: Literal["jpeg", "webp"] = "jpeg"
    image: bytes
    quality: Count = 0
    scaled_from: tuple[Count, Count] | None = None
    redacted: Redacted | None = None
    account: WithheldInterval | None = None

    @model_validator(mode="after")
    def _account_is_adjacent(self) -> Self:
        if self.account:
            self.account.require_before(self.id)
        return self
