"""Interfaces between the agent and the devices that give readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ingest.contract.records import GOOD


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading as the device gives it. ``value`` is None if the value is unreadable; ``problem`` says why.

    ``at_ns`` is the device's own Unix time in ns, None if the device gives no time. The receiver decides whether the
    time is plausible. ``quality`` holds the quality flags of the device.
    """

    value: float | None
    at_ns: int | None = None
    quality: int = GOOD
    problem: str = ""


class Sink(Protocol):
    """Receiver of a source's readings. Its methods do not block, and belong to the event loop's thread."""

    def opened(self) -> None:
        """Note that the device answers. May be called repeatedly."""

    def take(self, sensor: str, reading: Reading) -> None:
        """Take a reading of a sensor, by the sensor's name in the site file."""

    def lost(self, sensor: str, reason: str) -> None:
        """Note that one sensor does not answer, although its connection may work, until its next reading."""

    def limited(self, limit: str) -> None:
        """Note a limit of this connection, such as an old version of its protocol. May be called repeatedly."""

    def unclaimed(self, name: str) -> None:
        """Note a reading that no configured sensor claims, by the device's name for it.

        ``name`` is empty if the device gives no name, and for unreadable data that may belong to any sensor.
        """


class SensorSource(Protocol):
    """Connection to a device, which may feed several sensors.

    A source belongs to one event loop and never blocks the loop. It gives readings in the order of their arrival.
    """

    async def run(self, sink: Sink) -> None:
        """Connect and give readings until cancelled. A source may be run again after this method has ended.

        Raise SourceError if the device is gone or does not answer. Return if the device has no more readings. In
        every case, leave no process, thread, task or connection behind.
        """
