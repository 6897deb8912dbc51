"""What agents and services say about themselves."""

from __future__ import annotations

from typing import ClassVar, Literal

from ingest.contract.records.base import Count, Name, Record
from ingest.contract.records.frame import Account

CameraState = Literal["starting", "running", "frozen", "black", "tampered", "stalled", "down", "ended"]
"""``frozen``, ``black`` and ``tampered`` are running: frames come, and do not show what they should."""


class CameraStatus(Record):
    """How one camera is doing. ``captured`` counts frames of this epoch so far; ``spooled`` those still to send."""

    KIND: ClassVar[str] = "camera-status"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    camera: Name
    epoch: Count
    state: CameraState
    reason: str = ""
    captured: Count = 0
    kept: Count = 0
    spooled: Count = 0
    spooled_bytes: Count = 0


class SensorStatus(Record):
    """How one sensor is doing. ``captured`` counts readings of this epoch so far, ``kept`` those promised.

    ``spooled`` counts records that still wait, each of many readings. ``stalled`` is one whose connection is well,
    and which is silent.
    """

    KIND: ClassVar[str] = "sensor-status"

    sensor: Name
    epoch: Count
    state: CameraState
    reason: str = ""
    captured: Count = 0
    kept: Count = 0
    spooled: Count = 0
    spooled_bytes: Count = 0


class EpochEnd(Record):
    """A capture is over. ``last`` is its last accounted frame, -1 when it had none.

    After a kill, ``clean`` is false and ``told`` is the highest sequence number that a heartbeat had told: frames
    between ``last`` and ``told`` were in memory only, never promised, and are reported apart as unclean.
    """

    KIND: ClassVar[str] = "epoch-end"

    camera: Name
    epoch: Count
    last: int
    clean: bool
    told: int = -1


class Waiting(Record):
    """Frames that an agent has promised and not delivered yet: all of ``[first, last]`` that has not come."""

    KIND: ClassVar[str] = "waiting"

    camera: Name
    epoch: Count
    first: Count
    last: Count


class SensorLedger(Record):
    """What the ledger has of sensors that no record of theirs carries.

    The intervals are as for cameras, apart so that a camera and a sensor may have one name: ``camera`` in them is the
    sensor's. ``waiting`` is None in a record that does not tell.
    """

    KIND: ClassVar[str] = "sensor-ledger"

    accounts: tuple[Account, ...] = ()
    ended: tuple[EpochEnd, ...] = ()
    waiting: tuple[Waiting, ...] | None = None


class Heartbeat(Record):
    """A sign of life on ``status``, with the ledger intervals that no frame can carry.

    ``waiting`` is what an agent's spool holds, None in a record that does not tell.
    """

    KIND: ClassVar[str] = "heartbeat"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    service: str
    instance: str
    at_ns: Count
    state: Literal["starting", "running", "draining", "stopped", "failed"] = "running"
    reason: str = ""
    cameras: tuple[CameraStatus, ...] = ()
    accounts: tuple[Account, ...] = ()
    ended: tuple[EpochEnd, ...] = ()
    waiting: tuple[Waiting, ...] | None = None
    sensors: tuple[SensorStatus, ...] = ()
    readings: SensorLedger = SensorLedger()
    figures: dict[str, float] = {}
