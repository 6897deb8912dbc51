"""A thermometer and its readings."""

from __future__ import annotations

from ingest.contract.records import GOOD, Readings
from ingest.site import SensorConfig

SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="Cel", low=-40, high=100)
STEP_NS = 100_000_000


def readings(
    seq: int,
    values: list[float],
    quality: list[int] | None = None,
    epoch: int = 1,
    sensor: str = "t",
    first_ns: int | None = None,
    step_ns: int = STEP_NS,
) -> Readings:
    """Return a record whose first reading has the number ``seq`` and the time ``first_ns``."""
    begin_ns = seq * step_ns if first_ns is None else first_ns
    return Readings(
        sensor=sensor,
        epoch=epoch,
        seq=seq,
        quantity="temperature",
        unit="Cel",
        times_ns=tuple(begin_ns + i * step_ns for i in range(len(values))),
        values=tuple(values),
        quality=tuple(quality or [GOOD] * len(values)),
    )
