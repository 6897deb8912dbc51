"""One frame as a camera sent it, and the account of the frames withheld before it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, FrameRef, Name, Record

WITHHELD_REASONS = ("still", "rate", "schedule", "masked", "overload", "budget", "unusable", "expired", "unclean")
"""Why a captured frame did not reach the log. ``budget`` would have cost more bytes than the camera may send, even at
its lowest quality; ``unusable`` could not be encoded, or was too large for a record; ``expired`` left a full spool;
``unclean`` was lost to a kill before it was promised. The rest were withheld on purpose."""
MAX_RESTING = 16
"""A frame that names so many places where something rests may have left others out."""
MAX_REASONS = 16
"""Twice as many as there are: a newer agent may have more. All of them travel with every item and result."""
Reason = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,32}$")]
"""A word that the account's header, its separators being spaces and ``=``, can carry."""


class Account(Record):
    """The fate of an unbroken interval of captured frames: ``counts`` sums to its length.

    A reason that this code does not know is taken as it is, from a newer minor version.
    """

    KIND: ClassVar[str] = "account"

    camera: Name
    epoch: Count
    first: Count
    last: Count
    counts: Annotated[dict[Reason, Count], Field(max_length=MAX_REASONS)]

    @model_validator(mode="after")
    def _tally(self) -> Self:
        length = self.last - self.first + 1
        if length < 1:
            raise ValueError(f"interval {self.first}..{self.last} is empty")
        if sum(self.counts.values()) != length:
            raise ValueError(f"counts {self.counts} do not sum to {length}, the length of {self.first}..{self.last}")
        return self

    def require_before(self, item: FrameId) -> None:
        """Raise ValueError unless the interval ends just before this frame, or this sensor reading."""
        if (self.camera, self.epoch, self.last + 1) != (item.camera, item.epoch, item.seq):
            raise ValueError(
                f"account {self.camera}/{self.epoch}/{self.first}..{self.last} does not end just before {item}"
            )


class Redacted(Record):
    """What was made unrecognisable in a picture before it was encoded.

    ``held`` of the faces and plates were not found in this frame, and stayed redacted where they had been.
    ``models`` are the detectors that looked, as ``file@sha256:hash``, the hash's first twelve digits.
    """

    KIND: ClassVar[str] = "redacted"

    masks: Count = 0
    faces: Count = 0
    plates: Count = 0
    held: Count = 0
    method: str = ""
    models: tuple[str, ...] = ()


class FrameMeta(Record):
    """Fields that a frame keeps from the agent to its results.

    ``captured_ns`` is Unix time in nanoseconds; ``width`` and ``height`` are in pixels. ``motion`` are the regions in
    which the gate saw motion: None when the gate did not look, empty when it saw none. ``resting`` are the boxes of
    stationary objects, the latest first: None in a frame that does not report them, as most do not. ``sampled`` marks
    a frame that the gate would have withheld, and that was drawn at random to measure how much the gate misses.
    """

    camera: Name
    epoch: Count
    seq: Count
    captured_ns: Count
    width: Count
    height: Count
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
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
    many results to expect. ``reason`` explains an outcome other than a classification. ``withheld`` counts, by
    reason, the frames that the agent withheld just before this one. ``motion`` and ``resting`` are None for a
    pipeline that looks at whole frames.
    """

    lane: str
    source: FrameRef
    pipelines: tuple[Name, ...]
    reason: str = ""
    withheld: dict[str, Count] = {}
    traceparent: str = ""


class Frame(FrameMeta):
    """One kept frame. ``image`` is ``(height, width, 3)``, encoded.

    ``account`` covers the frames withheld since the previous kept frame of this epoch.
    ``captured_by`` says where the time came from: ``host`` (clock on arrival) or ``stream``. ``captured_error_ms``
    is, for a stream's time, what lies between it and the arrival by the host's clock: how far off it may be, as long
    as the camera's clock is not ahead of the host's; None where nothing is known. ``quality`` is what the picture was
    encoded with, 0 when that is not known; ``scaled_from`` the width and height that it had before it was scaled down
    to fit a budget. ``redacted`` is None when the camera redacts nothing.
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
    account: Account | None = None

    @model_validator(mode="after")
    def _account_is_adjacent(self) -> Self:
        if self.account:
            self.account.require_before(self.id)
        return self
