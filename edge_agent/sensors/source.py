"""The seam for what readings come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ingest.contract.records import GOOD


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading as its device has it. ``value`` is None when none could be read, and ``problem`` says why.

    ``at_ns`` is the device's own Unix time in ns, or anything else that it takes for one: whoever receives the
    reading decides whether it makes sense. None when it has none. ``quality`` are the flags of the device.
    """

    value: float | None
    at_ns: int | None = None
    quality: int = GOOD
    problem: str = ""


class Sink(Protocol):
    """Where a source gives its readings to. Its methods do not block, and belong to the event loop's thread."""

    def opened(self) -> None:
        """Say that the device answers. May be said again."""
        ...

    def take(self, sensor: str, reading: Reading) -> None:
        """Give a reading of the sensor that the site calls so."""
        ...

    def lost(self, sensor: str, reason: str) -> None:
        """Say that one sensor does not answer, though the connection may be well. Its next reading ends that."""
        ...

    def unclaimed(self, name: str) -> None:
        """Say that there was a reading that no sensor is known to want; ``name`` is the device's name for it, if any.

        What cannot be read at all, and may have been any sensor's, has the empty name.
        """
        ...


class SensorSource(Protocol):
    """One connection to a device, which may feed several sensors.

    It belongs to one event loop, and never blocks it. It gives readings in the order in which they came.
    """

    async def run(self, sink: Sink) -> None:
        """Connect, and give readings until cancelled. May be called again after it has returned.

        Raise SourceError when the device is gone or does not answer; it may also return when the device has nothing
        more to say. However it ends, it leaves no process, thread, task or connection behind.
        """
        ...
