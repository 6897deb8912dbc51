"""Interfaces between the agent and the devices that deliver readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ingest.contract.records import GOOD


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading as the device delivers it.

    If the device's value is unreadable, ``value`` is None and ``problem`` says why. ``at_ns`` is the Unix time in ns
    by the device's clock, or None if the device sends no time. The receiver of the reading decides whether ``at_ns``
    is plausible. ``quality`` holds the quality flags of the device.
    """

    value: float | None
    at_ns: int | None = None
    quality: int = GOOD
    problem: str = ""


class Sink(Protocol):
    """Receiver of a source's readings.

    The methods of a sink do not block, and must be called in the thread of the event loop.
    """

    def opened(self) -> None:
        """Record that the device answers. A source may call this method repeatedly."""

    def take(self, sensor: str, reading: Reading) -> None:
        """Receive a reading of a sensor. ``sensor`` is the sensor's name in the site file."""

    def lost(self, sensor: str, reason: str) -> None:
        """Record that one sensor does not answer, although the connection to its device may still work.

        The sensor counts as silent until its next reading.
        """

    def limited(self, limit: str) -> None:
        """Report a limitation of this connection, such as an old version of its protocol.

        A source may call this method repeatedly.
        """

    def unclaimed(self, name: str) -> None:
        """Report a reading that belongs to no configured sensor.

        ``name`` is the device's name for the reading. ``name`` is empty if the device gives no name, or if unreadable
        data may belong to any sensor.
        """


class SensorSource(Protocol):
    """Connection to a device. One connection may feed several sensors.

    A source belongs to one event loop and never blocks the loop. A source delivers readings in the order of their
    arrival.
    """

    async def run(self, sink: Sink) -> None:
        """Connect and pass readings to ``sink`` until cancelled.

        ``run`` may be called again after an earlier call of ``run`` has ended. Raise SourceError if the device is
        gone or does not answer. Return if the device has no more readings. However this method ends, leave no
        process, thread, task or connection behind.
        """
