"""One frame as a camera sent it, and the account of the frames withheld before it."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from ingest.identity import FrameId
from ingest.records.base import Box, Count, Name, Record

__all__ = ["WITHHELD_REASONS", "Account", "Frame"]

WITHHELD_REASONS = ("still", "rate", "schedule", "masked", "overload", "unusable", "expired", "unclean")
"""Why a captured frame did not reach the log. ``unusable`` could not be encoded, or was too large for a
record; ``expired`` left a full spool; ``unclean`` was lost to a kill before it was promised. The rest were withheld
on purpose."""


class Account(Record):
    """The fate of an unbroken interval of captured frames: ``counts`` sums to its length."""

    KIND: ClassVar[str] = "account"

    camera: Name
    epoch: Count
    first: Count
    last: Count
    counts: dict[str, Count]

    @model_validator(mode="after")
    def _tally(self) -> Self:
        length = self.last - self.first + 1
        if length < 1:
            raise ValueError(f"interval {self.first}..{self.last} is empty")
        if sum(self.counts.values()) != length:
            raise ValueError(f"counts {self.counts} do not sum to {length}, the length of {self.first}..{self.last}")
        return self


class Frame(Record):
    """One kept frame. ``image`` is ``(height, width, 3)``, encoded; ``captured_ns`` is Unix time in ns.

    ``motion`` are the regions that the gate saw moving: ``None`` when it did not look, empty when it looked and
    saw nothing. ``account`` covers the frames withheld since the previous kept frame of this epoch.
    ``captured_by`` says where the time came from: ``host`` (clock on arrival) or ``stream``. ``captured_error_ms`` is
    how far off it may be: for a stream's time, what lies between it and the arrival by the host's clock; None where
    nothing is known.
    """

    KIND: ClassVar[str] = "frame"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

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
    motion: tuple[Box, ...] | None = None
    account: Account | None = None

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
