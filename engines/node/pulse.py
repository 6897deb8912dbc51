"""The node's heartbeat on ``status``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from ingest.contract.codec import encode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import STATUS
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Log, Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock

_log = logs.get("engines.node.pulse")

BEAT_S = 2.0


class Pulse:
    """Tells how the node is doing. A heartbeat that is not written says as much: the node goes on."""

    def __init__(self, log: Log, instance: str, clock: Clock, figures: Callable[[], dict[str, float]]) -> None:
        self._log, self._instance, self._clock, self._figures = log, instance, clock, figures

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.tell("running" if self._figures()["partitions"] else "starting")
            await asyncio.sleep(BEAT_S)

    async def tell(self, state: Literal["starting", "running", "stopped"]) -> None:
        """Write one heartbeat, or log why not."""
        beat = Heartbeat(
            service="engine",
            instance=self._instance,
            at_ns=self._clock.now_ns(),
            state=state,
            figures=self._figures(),
        )
        try:
            await self._log.produce(Outgoing(STATUS, 0, encode(beat), key=self._instance.encode()))
        except LogUnavailable as error:
            _log.warning("heartbeat not written", error=str(error))
