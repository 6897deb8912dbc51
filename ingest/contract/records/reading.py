"""Sensor readings in columns, and the interval of the readings withheld before these readings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Count, Many, Name, Record
from ingest.contract.records.frame import WithheldInterval

GOOD = 0
SUSPECT = 1
OUT_OF_RANGE = 2
STALE = 4
"""Quality flags of a reading. The quality of a reading is the sum of its flags.

- ``SUSPECT``: the device itself doubts the value.
- ``OUT_OF_RANGE``: the value is outside the sensor's physical range.
- ``STALE``: the value is older than its arrival suggests, such as a broker's retained message.

A reading without a flag is good.
"""

BY_HOST = 0
BY_SOURCE = 1
BY_HOST_INSTEAD = 2
"""The clock of a reading's time: the host's clock on arrival, the source's clock, or the host's clock because the
source's time was implausible."""

WITHHELD_READING_REASONS = ("unusable", "overload", "outage", "expired", "unclean")
"""Reasons why a reading did not reach the log.

- ``unusable``: the value was not a finite number.
- ``overload``: readings came faster than the disk can store them.
- ``outage``: the device was gone or silent; one outage of any length counts as one reading.
- ``expired`` and ``unclean``: the same meaning as for frames.
"""


AnyFloat = Annotated[float, Field(allow_inf_nan=True)]
"""A value that a device reported. A value that is not finite is dropped alone, and the rest of its column is kept."""


class Readings(Record):
    """A run of readings of one sensor: parallel columns of equal length, at least one row.

    ``seq`` is the number of the first reading; the numbers of the next readings follow without holes. ``unit`` is a
    UCUM symbol, e.g. ``Cel``. ``timed_by`` is the clock of each time, empty when all times are of the host's clock.
    ``account`` covers the readings withheld since the previous run of this epoch; its ``camera`` is the sensor's
    name.
    """

    KIND: ClassVar[str] = "readings"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    sensor: Name
    epoch: Count
    seq: Count
    site: str = ""
    quantity: str
    unit: str
    times_ns: Many[Count]
    values: Many[AnyFloat]
    quality: Many[Count]
    timed_by: Many[Count] = ()
    account: WithheldInterval | None = None

    @property
    def first(self) -> FrameId:
        """The identity of the first reading."""
        return FrameId(self.sensor, self.epoch, self.seq)

    @property
    def last_seq(self) -> int:
        """The number of the last reading."""
        return self.seq + len(self.values) - 1

    @model_validator(mode="after")
    def _columns_are_parallel(self) -> Self:
        lengths = {len(self.times_ns), len(self.values), len(self.quality)}
        if self.timed_by:
            lengths.add(len(self.timed_by))
        if len(lengths) != 1 or not self.times_ns:
            raise ValueError(f"columns have lengths {sorted(lengths)}: expected one length, at least 1")
        return self

    @model_validator(mode="after")
    def _account_is_adjacent(self) -> Self:
        if self.account:
            self.account.require_before(self.first)
        return self
