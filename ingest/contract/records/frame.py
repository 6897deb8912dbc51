"""One frame as a camera sent it, and the account of the frames withheld before it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, Name, Record

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


class Frame(Record):
    """One kept frame. ``image`` is ``(height, width, 3)``, encoded; ``captured_ns`` is Unix time in ns.

    ``motion`` are the regions that the gate saw moving: ``None`` when it did not look, empty when it looked and
    saw nothing. ``resting`` are the places where something has stopped and not gone since, the latest first: ``None``
    when this frame does not tell, as most do not. ``sampled`` marks a frame that would have been withheld, and was
    drawn to see whether the gate misses anything. ``account`` covers the frames withheld since the previous kept
    frame of this epoch.
    ``captured_by`` says where the time came from: ``host`` (clock on arrival) or ``stream``. ``captured_error_ms``
    is, for a stream's time, what lies between it and the arrival by the host's clock: how far off it may be, as long
    as the camera's clock is not ahead of the host's; None where nothing is known. ``quality`` is what the picture was
    encoded with, 0 when that is not known; ``scaled_from`` the width and height that it had before it was scaled down
    to fit a budget. ``redacted`` is None when the camera redacts nothing.
    """

    KIND: ClassVar[str] = "frame"
    VERSION: ClassVar[tuple[int, int]] = (1, 2)

    camera: Name
    epoch: Count
    seq: Count
    site: str = ""
    captured_ns: Count
    captured_by: str = "host"
    captured_error_ms: float | None = None
    width: Count
    height: Count
    encoding: Literal["jpeg", "webp"] = "jpeg"
    image: bytes
    quality: Count = 0
    scaled_from: tuple[Count, Count] | None = None
    redacted: Redacted | None = None
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
    account: Account | None = None
    sampled: bool = False

    @property
    def id(self) -> FrameId:
        """The frame's identity."""
        return FrameId(self.camera, self.epoch, self.seq)

    @model_validator(mode="after")
    def _account_is_adjacent(self) -> Self:
        a = self.account
        if a and (a.camera, a.epoch, a.last + 1) != (self.camera, self.epoch, self.seq):
            raise ValueError(f"account {a.camera}/{a.epoch}/{a.first}..{a.last} does not end just before {self.id}")
        return self
