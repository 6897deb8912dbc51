"""Sensor readings in columns, with the interval of the readings withheld just before the first reading."""

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
- ``STALE``: the value is older than its time of arrival, for example because it is a retained MQTT message.

A reading without a flag has the quality ``GOOD``.
"""

BY_HOST = 0
BY_SOURCE = 1
BY_HOST_INSTEAD = 2
"""The clock of a reading's time: ``BY_HOST`` is the host's clock on arrival, and ``BY_SOURCE`` the source's clock.
``BY_HOST_INSTEAD`` is the host's clock because the source's time was implausible."""

WITHHELD_READING_REASONS = ("unusable", "overload", "outage", "expired", "unclean")
"""Reasons why a reading did not reach the log.

- ``unusable``: the value was not a finite number.
- ``overload``: readings came faster than the disk can store them.
- ``outage``: the device was gone or silent; one outage of any length counts as one reading.
- ``expired``: a full spool dropped the reading.
- ``unclean``: the agent was killed before the reading was stored in the spool.
"""


AnyFloat = Annotated[float, Field(allow_inf_nan=True)]
"""A value that a device reported, perhaps infinite or NaN. Consumers drop only a value that is not finite, and use
the other values of the record."""


class Readings(Record):
    """Consecutive readings of one sensor, as parallel columns of equal length with at least one reading.

    ``seq`` is the sequence number of the first reading; the numbers of the next readings follow without gaps.
    ``unit`` is a UCUM symbol such as ``Cel``. ``timed_by`` gives the clock of each reading's time, and is empty when
    all times come from the host's clock. ``account`` is the interval of the readings withheld since the previous
    record of the same epoch (capture run). The field ``account.camera`` has the sensor's
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
        """The identity (sensor, epoch, sequence number) of the first reading."""
        return FrameId(self.sensor, self.epoch, self.seq)

    @property
    def last_seq(self) -> int:
        """The sequence number of the last reading."""
        return self.seq + len(self.values) - 1

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        count = len(self.times_ns)
        if not 0 < count == len(self.values) == len(self.quality) or (self.timed_by and len(self.timed_by) != count):
            columns = (self.times_ns, self.values, self.quality, self.timed_by or self.times_ns)
            lengths = sorted({len(one) for one in columns})
            raise ValueError(f"the columns of readings have lengths {lengths}: expected equal lengths above 0")
        if self.account:
            self.account.require_before(self.first)
        return self
