"""Heartbeats of a service on the topic ``status``."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ingest.contract.codec import encode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import STATUS
from ingest.kafka.log import Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock

_log = logs.get("ingest.heartbeat")

INTERVAL_S = 2.0
"""Pause between two heartbeats, in seconds. The pause is short, so that the console shows within a few seconds that a
service is dead."""

State = Literal["starting", "running", "stopped"]


def instance_name() -> str:
    """Return a name that distinguishes this process from other instances of its service: host name and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass
class HeartbeatWriter:
    """Writer of one service's heartbeats.

    ``produce`` writes a record to Kafka, like ``Log.produce``. ``figures`` returns the numbers that a heartbeat
    carries. If heartbeats cannot be written, the writer only logs the error of the first one, because a missing
    heartbeat already signals trouble.
    """

    service: str
    produce: Callable[[Outgoing], Awaitable[Any]]
    figures: Callable[[], dict[str, float]]
    clock: Clock = field(default_factory=SystemClock)
    instance: str = field(default_factory=instance_name)
    _failing: bool = field(default=False, init=False)

    async def run(self, state: Callable[[], State | None]) -> None:
        """Write a heartbeat every ``INTERVAL_S`` until cancelled, except while ``state()`` returns None."""
        while True:
            current = state()
            if current is not None:
                await self.write(current)
            await asyncio.sleep(INTERVAL_S)

    async def write(self, state: State) -> None:
        """Write one heartbeat."""
        try:
            heartbeat = Heartbeat(
                service=self.service,
                instance=self.instance,
                at_ns=self.clock.now_ns(),
                state=state,
                figures=self.figures(),
            )
            await self.produce(Outgoing(STATUS, 0, encode(heartbeat), key=self.instance.encode()))
        except Exception as error:
            if not self._failing:
                _log.warning("heartbeat_not_written", service=self.service, error=repr(error))
            self._failing = True
        else:
            self._failing = False
