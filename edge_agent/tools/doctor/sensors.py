"""Check of the sensors of one connection: receive readings for a few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from edge_agent.exceptions import SourceError
from edge_agent.sensors.source import Reading, SensorSource
from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from ingest.contract.records import STALE
from ingest.site import SensorConfig

OPEN_S = 10.0


class _CountingSink:
    """Receiver that counts the readings of each sensor."""

    def __init__(self) -> None:
        self.last: dict[str, Reading] = {}
        self.count: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.reason: dict[str, str] = {}
        self.unclaimed_names: Counter[str] = Counter()
        self.limit = ""

    def opened(self) -> None:
        """Do nothing, because only readings prove that a sensor works."""

    def take(self, sensor: str, reading: Reading) -> None:
        """Count a reading."""
        self.last[sensor] = reading
        self.count[sensor] += 1
        self.unusable[sensor] += reading.value is None

    def lost(self, sensor: str, reason: str) -> None:
        """Store the reason why a sensor does not answer."""
        self.reason[sensor] = reason

    def limited(self, limit: str) -> None:
        """Store a limitation of the connection, such as an old protocol version."""
        self.limit = limit

    def unclaimed(self, name: str) -> None:
        """Count a reading that belongs to no configured sensor."""
        self.unclaimed_names[name or "unreadable data"] += 1


async def check_sensors(source: SensorSource, sensors: Sequence[SensorConfig], seconds: float) -> list[Finding]:
    """Receive readings for ``seconds`` without storing them, and return the finding for each sensor.

    If a sensor has sent no reading within ``seconds``, continue until each sensor has sent a reading, at most for
    ``OPEN_S`` in all.
    """
    sink, why = _CountingSink(), ""  # why: reason if the source has ended by itself
    try:
        async with asyncio.timeout(max(seconds, OPEN_S)):
            running = asyncio.create_task(source.run(sink))
            try:
                await asyncio.wait({running}, timeout=seconds)
                while not running.done() and not all(sink.count[sensor.name] for sensor in sensors):
                    await asyncio.wait({running}, timeout=0.1)
                why = "the source has ended" if running.done() else ""
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
    except SourceError as error:
        why = str(error)
    except TimeoutError:
        pass
    return [_judged(sensor, sink, why) for sensor in sensors]


def _judged(sensor: SensorConfig, sink: _CountingSink, why: str) -> Finding:
    subject, name = f"sensor {sensor.name}", sensor.name
    if not sink.count[name]:
        seen = why or sink.reason.get(name, "") or "no reading arrived"
        if sink.unclaimed_names:
            seen += f"; unclaimed readings: {', '.join(sorted(sink.unclaimed_names)[:5])}"
        return bad(subject, seen, f"check source = {sensor.source!r} and its options")
    last = sink.last[name]
    if last.value is None:
        return bad(subject, f"unreadable: {last.problem}", "check path, column or type in the sensor's options")
    text = f"{sink.count[name]} readings, the last {last.value:g} {sensor.unit}"
    if why:
        return poor(subject, f"{text}; then the connection was lost: {why}", f"check why {sensor.source!r} stops")
    if last.quality & STALE:
        return poor(subject, f"{text}, which the broker had retained", "check that the device still publishes")
    if sink.limit:
        text += f"; {sink.limit}"
    if sink.unusable[name]:
        return poor(subject, f"{text}; {sink.unusable[name]} unreadable", "check the output of the device")
    if not sensor.low <= last.value <= sensor.high:
        return poor(subject, text, f"check low = {sensor.low:g} and high = {sensor.high:g}")
    return good(subject, text)
