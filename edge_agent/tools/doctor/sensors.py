"""Try the sensors of one connection for a few seconds."""

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


class _Sink:
    """Counts what a source gives."""

    def __init__(self) -> None:
        self.last: dict[str, Reading] = {}
        self.count: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.reason: dict[str, str] = {}
        self.others: Counter[str] = Counter()

    def opened(self) -> None:
        """Take note of nothing: readings tell more."""

    def take(self, sensor: str, reading: Reading) -> None:
        """Count a reading."""
        self.last[sensor] = reading
        self.count[sensor] += 1
        self.unusable[sensor] += reading.value is None

    def lost(self, sensor: str, reason: str) -> None:
        """Remember why a sensor does not answer."""
        self.reason[sensor] = reason

    def unclaimed(self, name: str) -> None:
        """Remember what nobody wants."""
        self.others[name or "something that cannot be read"] += 1


async def look_at_sensors(source: SensorSource, sensors: Sequence[SensorConfig], seconds: float) -> list[Finding]:
    """Read for some seconds, longer if the first reading takes long to come. Nothing is kept."""
    sink, why = _Sink(), ""  # ``why`` the source has ended by itself, if it has
    try:
        async with asyncio.timeout(max(seconds, OPEN_S)):
            running = asyncio.create_task(source.run(sink))
            try:
                await _enough(running, sink, [sensor.name for sensor in sensors], seconds)
                why = "it has ended" if running.done() else ""
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
    except SourceError as error:
        why = str(error)
    except TimeoutError:
        pass
    return [_judged(sensor, sink, why) for sensor in sensors]


async def _enough(running: asyncio.Task[None], sink: _Sink, names: Sequence[str], seconds: float) -> None:
    await asyncio.wait({running}, timeout=seconds)
    while not running.done() and not all(sink.count[name] for name in names):
        await asyncio.wait({running}, timeout=0.1)


def _judged(sensor: SensorConfig, sink: _Sink, why: str) -> Finding:
    what, name = f"sensor {sensor.name}", sensor.name
    if not sink.count[name]:
        seen = why or sink.reason.get(name, "") or "no reading came"
        if sink.others:
            seen += f"; others came: {', '.join(sorted(sink.others)[:5])}"
        return bad(what, seen, f"check source = {sensor.source!r} and its options")
    last = sink.last[name]
    if last.value is None:
        return bad(what, f"it cannot be read: {last.problem}", "check path, column or type in its options")
    text = f"{sink.count[name]} readings, the last {last.value:g} {sensor.unit}"
    if why:
        return poor(what, f"{text}; then it was lost: {why}", f"see why {sensor.source!r} does not go on")
    if last.quality & STALE:
        return poor(what, f"{text}, which the broker had retained", "see that its device still publishes")
    if sink.unusable[name]:
        return poor(what, f"{text}; {sink.unusable[name]} cannot be read", "check what its device says meanwhile")
    if not sensor.low <= last.value <= sensor.high:
        return poor(what, text, f"check low = {sensor.low:g} and high = {sensor.high:g}")
    return good(what, text)
