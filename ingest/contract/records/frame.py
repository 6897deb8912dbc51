"""The frame record, the fields that batch items and results copy from a frame, and the counts of withheld frames."""

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

All reasons without an explanation here mean that the agent withheld the frame on purpose.
"""
MAX_RESTING = 16
"""Maximum number of stationary objects that one frame reports. If a frame reports ``MAX_RESTING`` stationary objects,
further stationary objects may be missing from the report."""
MAX_REASONS = 16
"""Maximum number of reasons in one interval of withheld frames. The limit is about twice the number of today's
reasons, because a newer agent may have more reasons. The limit is low because every batch item and result carries the
counts of all reasons."""
MAX_PIPELINES = 256
"""Maximum number of pipelines of one frame. The number is limited because every batch item and result carries the
names of all pipelines of its frame."""
MAX_FRAME_PIXELS = 7680 * 4320
"""Maximum number of pixels of a frame that a stage decodes: 8K UHD, 100 MB when decoded."""
MAX_REASON_CHARS = 200
MAX_VIEW_CHARS = 32
MAX_TRACEPARENT_CHARS = 64
"""Maximum length of a trace context, in characters. A trace context of the W3C standard has 55 characters."""
Lane = Annotated[str, Field(max_length=64)]
"""Name of a lane: ``live``, ``late``, or a replay's lane, whose name has at most 55 characters."""
Reason = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,32}$")]
"""A reason for withholding: a word without a space or ``=``, because these characters separate the parts of the
``sightline-account`` header."""


class WithheldInterval(Record):
    """An unbroken interval of withheld frames, counted by reason.

    The numbers of frames in ``counts`` add up to the number of frames in the interval. A reader keeps reasons that it
    does not know, because a newer minor version may add reasons.
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
            raise ValueError(f"interval {self.first}..{self.last} of frame numbers is empty: expected first <= last")
        if sum(self.counts.values()) != length:
            raise ValueError(
                f"counts {self.counts} do not sum to {length}, the length of the interval {self.first}..{self.last}"
            )
        return self

    def require_before(self, item: FrameId) -> None:
        """Raise ValueError unless this interval ends just before ``item``, which is a frame or a sensor reading."""
        if (self.camera, self.epoch, self.last + 1) != (item.camera, item.epoch, item.seq):
            raise ValueError(
                f"withheld interval {self.camera}/{self.epoch}/{self.first}..{self.last}: expected an interval "
                f"that ends just before {item}"
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
    """Fields that a frame record, its batch items and its results have in common.

    ``captured_ns`` is Unix time in nanoseconds; ``width`` and ``height`` are in pixels. ``motion`` holds the regions
    in which the agent's motion gate saw motion: None when the gate did not examine the frame, empty when the gate saw
    no motion. ``resting`` holds the boxes of stationary objects, in which the object that stopped last comes first.
    ``resting`` is None in most frames, because only some frames report stationary objects. ``sampled`` marks a frame
    that the gate would have withheld, and that is sent to measure how often the gate misses an object. Sampled frames
    are drawn at random. ``view`` is the state of the camera's view: empty for a good view, else ``frozen``, ``black``
    or ``tampered``. A program that does not know a value of ``view`` passes it on
    unchanged.
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
    view: Annotated[str, Field(max_length=MAX_VIEW_CHARS)] = ""

    @property
    def id(self) -> FrameId:
        """The frame's identity."""
        return FrameId(self.camera, self.epoch, self.seq)

    def fields_of(self, kind: type[FrameMeta]) -> dict[str, Any]:
        """Return the values of the fields that ``kind`` declares, to construct another record of the same frame."""
        return {name: getattr(self, name) for name in kind.model_fields}


class RoutedFrame(FrameMeta):
    """Fields that a batch item and a result share: a delivered frame and the pipelines it was routed to.

    ``source`` is the position of the frame's record. ``pipelines`` names all pipelines that the frame was routed to,
    so that the auditor knows how many results to expect. ``reason`` explains an outcome other than a classification,
    or a classification by another model than usual. ``withheld`` counts, by reason, the frames that the agent
    withheld just before this frame. ``motion`` and ``resting`` are None for a pipeline that classifies whole frames.
    """

    lane: Lane
    source: FrameRef
    pipelines: Annotated[Many[Name], Field(max_length=MAX_PIPELINES)]
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)] = ""
    withheld: Annotated[dict[Reason, Count], Field(max_length=MAX_REASONS), SmallMap] = {}
    traceparent: Annotated[str, Field(max_length=MAX_TRACEPARENT_CHARS)] = ""


class Frame(FrameMeta):
    """One kept frame. ``image`` is the encoded picture, which decodes to an array ``(height, width, 3)``.

    - ``account`` covers the frames withheld since the previous kept frame of this epoch.
    - ``captured_by`` is the clock of the capture time: ``host`` (the host's clock on arrival) or ``stream`` (the
      camera's clock).
    - ``captured_error_ms`` is the absolute difference in ms between the capture time and the arrival time by the
      host's clock; while the capture changes to the stream's clock, the larger of the differences from both clocks.
      The error of the capture time is at most ``captured_error_ms``, unless the camera's clock is ahead of the host's
      clock. ``captured_error_ms`` is None when the error is unknown.
    - ``quality`` is the encoding quality, 0 when the quality is unknown.
    - ``scaled_from`` is the picture's width and height before scaling it down to the byte budget, None without
      scaling.
    - ``redacted`` is None when redaction is off for the camera.
    """

    KIND: ClassVar[str] = "frame"
    VERSION: ClassVar[tuple[int, int]] = (1, 3)

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
