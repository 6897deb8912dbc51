"""Heartbeats of agents and services, with the intervals of withheld frames that no frame record carries."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from ingest.contract.records.base import Count, Many, Name, Record, SmallMap
from ingest.contract.records.frame import WithheldInterval

CameraState = Literal["starting", "running", "frozen", "black", "tampered", "stalled", "down", "ended"]
"""A ``frozen``, ``black`` or ``tampered`` camera still delivers frames, but these frames do not show the camera's
usual view."""


class StreamStatus(Record):
    """Fields that the status of a camera and the status of a sensor have in common.

    ``captured`` counts the frames or readings of this epoch (capture run) so far, and ``kept`` the stored frames or
    readings. ``spooled`` counts the records that still wait in the spool; one record holds many readings.
    """

    epoch: Count
    state: CameraState
    reason: str = ""
    captured: Count = 0
    kept: Count = 0
    spooled: Count = 0
    spooled_bytes: Count = 0


class CameraStatus(StreamStatus):
    """The state and the counters of one camera."""

    KIND: ClassVar[str] = "camera-status"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    camera: Name


class SensorStatus(StreamStatus):
    """The state and the counters of one sensor. A ``stalled`` sensor is connected but silent."""

    KIND: ClassVar[str] = "sensor-status"

    sensor: Name


class EpochEnd(Record):
    """The end of one epoch (capture run).

    ``last`` is the sequence number of the last frame that was stored or counted as withheld, -1 if there is none. If
    the capture was killed, ``clean`` is false and ``reported`` is the highest sequence number that a heartbeat
    reported. Frames between ``last`` and ``reported`` were only in the agent's memory and never stored. The ledger
    counts the frames after ``last`` as ``unclean``.
    """

    model_config = ConfigDict(populate_by_name=True)

    KIND: ClassVar[str] = "epoch-end"

    camera: Name
    epoch: Count
    last: int
    clean: bool
    reported: int = Field(default=-1, alias="told")
    """Highest sequence number that a heartbeat reported. In the encoded record this field has its older name,
    ``told``."""


class Waiting(Record):
    """An interval of frames that an agent's spool contains.

    Frames in ``[first, last]`` that are not in the log yet are still in the spool, not lost.
    """

    KIND: ClassVar[str] = "waiting"

    camera: Name
    epoch: Count
    first: Count
    last: Count


class SensorLedger(Record):
    """Withheld intervals, ended epochs (capture runs) and spool contents of sensors, for the ledger.

    The facts about sensors are separate from the facts about cameras, so that a camera and a sensor may have the same
    name. The field ``camera`` of each interval is the sensor's name. ``waiting`` is None in a heartbeat that does not
    report the spool.
    """

    KIND: ClassVar[str] = "sensor-ledger"

    accounts: Many[WithheldInterval] = ()
    ended: Many[EpochEnd] = ()
    waiting: Many[Waiting] | None = None


class ExpiredUnread(Record):
    """Interval ``[first, last]`` of a partition's offsets whose records retention deleted before the consumer group
    read them."""

    KIND: ClassVar[str] = "expired-unread"

    group: Name
    topic: Name
    partition: Count
    first: Count
    last: Count


class Heartbeat(Record):
    """A heartbeat of a service or agent on the topic ``status``.

    The heartbeat of an agent also has the intervals of withheld frames and the ended epochs (capture runs) that no
    frame record carries.

    ``waiting`` lists the contents of an agent's spool, None in a heartbeat that does not report the spool.
    ``expired_unread`` lists the records that the service has just skipped because retention deleted them.
    """

    KIND: ClassVar[str] = "heartbeat"
    VERSION: ClassVar[tuple[int, int]] = (1, 2)

    service: str
    instance: str
    at_ns: Count
    state: Literal["starting", "running", "draining", "stopped", "failed"] = "running"
    reason: str = ""
    cameras: Many[CameraStatus] = ()
    accounts: Many[WithheldInterval] = ()
    ended: Many[EpochEnd] = ()
    waiting: Many[Waiting] | None = None
    sensors: Many[SensorStatus] = ()
    readings: SensorLedger = SensorLedger()
    figures: Annotated[dict[str, float], SmallMap] = {}
    expired_unread: Many[ExpiredUnread] = ()
