"""The sender: the spool's rows to Kafka, live before late, each lane in order, forgotten once acknowledged.

A row's lane is settled, on disk, before it is offered for the first time. When a send fails, the producer is made
anew and everything in doubt is offered again on its lane, from the oldest on, before anything newer: whoever reads
the topic recognises the repeat by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from edge_agent.metrics import AgentMetrics
from edge_agent.send.window import Window
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from ingest import headers as h
from ingest import kafka, logs
from ingest.backoff import Backoff
from ingest.clock import Clock
from ingest.exceptions import ConfigError
from ingest.identity import LATE, LIVE, FrameId
from ingest.kafka import KafkaSettings
from ingest.kafkawriter import stop
from ingest.topics import FRAMES, FRAMES_LATE, READINGS, STATUS, partition_for

__all__ = ["Sender"]

T = TypeVar("T")

_log = logs.get("edge_agent.send")

CHUNK_ROWS = 64
"""Rows read from the spool at once: a few MB."""
IDLE_S = 0.25
"""How long the sender waits for something new when nothing waits; a kept frame wakes it at once."""
STOP_S = 2.0
"""A link that works takes what is left at once; one that does not is not waited for."""
ACK_TIMEOUT_S = 20.0
"""No acknowledgement for so long while rows are in flight: the link is gone. The producer's own limit is 30 s."""


class Sender:
    """Sends until it is cancelled. ``on_disk`` runs a spool method in the spool's thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        spool: Spool,
        on_disk: Callable[..., Any],
        *,
        late_after_s: float,
        pins: dict[str, int],
        clock: Clock,
        metrics: AgentMetrics,
        client_id: str,
    ) -> None:
        self._settings, self._spool, self._on_disk = settings, spool, on_disk
        self._late_after_ns = round(late_after_s * 1e9)
        self._pins, self._clock, self._metrics, self._client_id = pins, clock, metrics, client_id
        self._wake = asyncio.Event()
        self._backoff = Backoff()
        self._window = Window()
        self._cursors: dict[str, int] = {}
        self._partitions: dict[str, int] = {}
        self._acked: list[int] = []
        self._broken: BaseException | None = None
        self._progress_s = clock.monotonic()
        self._producer: AIOKafkaProducer | None = None
        self.connected = False

    def wake(self) -> None:
        """Say that there is something new in the spool."""
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Tell whether nothing is on its way."""
        return not self._window and not self._acked

    async def run(self, chance: Callable[[], float]) -> None:
        """Send for ever. A link that is gone is tried again after growing, jittered pauses."""
        while True:
            started_s = self._clock.monotonic()
            try:
                await self._session()
            except (KafkaError, OSError, TimeoutError, ConfigError) as error:  # a secret's file may be written anew
                if not self._backoff.out:
                    _log.warning("link lost", broker=self._settings.bootstrap, error=repr(error))
                self.connected = False
                await asyncio.sleep(self._backoff.failed(started_s, chance()))

    async def publish(self, topic: str, value: bytes, key: bytes) -> None:
        """Send something that need not arrive, such as a heartbeat; dropped while the link is gone."""
        if self.connected and self._producer:
            with contextlib.suppress(KafkaError):
                await self._producer.send(self._settings.topic(topic), value, key=key, partition=0)

    async def _session(self) -> None:
        """One producer's life: from the oldest row in doubt on."""
        self._window, self._cursors, self._acked, self._broken = Window(), {}, [], None
        producer = self._producer = kafka.producer(self._settings, self._client_id)
        try:
            await producer.start()
            self._partitions = {
                t: len(await producer.partitions_for(self._settings.topic(t))) for t in (FRAMES, READINGS)
            }
            self._connected()
            while True:
                moved = await self._round(producer)
                await self._settle_acks()
                self._check()
                if not moved:
                    await self._pause()
        finally:
            self.connected = False
            # what is in flight is in doubt anyway; waiting for a broker that is gone would hold everything up
            with contextlib.suppress(KafkaError):
                await stop(producer, STOP_S)

    def _connected(self) -> None:
        self.connected = True
        self._progress_s = self._clock.monotonic()
        outage_s = self._backoff.steady(self._clock.monotonic())
        if outage_s is not None:
            _log.info("link back", broker=self._settings.bootstrap, out_for_s=round(outage_s, 1))

    async def _round(self, producer: AIOKafkaProducer) -> bool:
        """Offer what may be offered now. Return whether anything was."""
        now_ns = self._clock.now_ns()
        young_ns = now_ns - self._late_after_ns
        moved = await self._offer(
            producer, await self._disk(self._spool.others, self._cursor("others"), CHUNK_ROWS), "others"
        )
        for lane, settle in ((LIVE, self._spool.settle_live), (LATE, self._spool.settle_late)):
            if not (self._window.room if lane == LIVE else self._window.late_room):
                continue
            rows = await self._disk(self._spool.offered, lane, self._cursor(lane), CHUNK_ROWS)
            if not rows:
                rows = await self._disk(settle, young_ns, CHUNK_ROWS if lane == LIVE else CHUNK_ROWS // 8)
            moved |= await self._offer(producer, rows, lane)
        return moved

    async def _offer(self, producer: AIOKafkaProducer, rows: Sequence[Row], lane: str) -> bool:
        for row in rows:
            future = await producer.send(**self._arguments(row, lane))
            if not self._window:
                self._progress_s = self._clock.monotonic()
            self._window.add(row.id, row.size, late=lane == LATE)
            self._cursors[lane] = max(self._cursor(lane), row.id)
            future.add_done_callback(functools.partial(self._answered, row.id))
        return bool(rows)

    def _arguments(self, row: Row, lane: str) -> dict[str, Any]:
        topic, partition, headers = STATUS, 0, {}
        if row.kind == "frame":
            topic = FRAMES_LATE if lane == LATE else FRAMES
            partition = partition_for(row.name, self._partitions[FRAMES], self._pins)
            headers = h.frame_headers([FrameId(row.name, row.epoch, row.seq)], lane, row.traceparent)
            if row.account:
                headers[h.ACCOUNT] = row.account.encode()
        elif row.kind == "readings":
            topic, partition = READINGS, partition_for(row.name, self._partitions[READINGS])
        return {
            "topic": self._settings.topic(topic),
            "value": row.record,
            "key": row.name.encode(),
            "partition": partition,
            "headers": list(headers.items()),
        }

    def _answered(self, row_id: int, future: asyncio.Future[Any]) -> None:
        self._window.done(row_id)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._acked.append(row_id)
            self._progress_s = self._clock.monotonic()
        else:
            self._broken = self._broken or error
        self._wake.set()

    async def _settle_acks(self) -> None:
        acked, self._acked = self._acked, []
        if acked:
            await self._disk(self._spool.remove, acked)
            self._metrics.sent.inc(len(acked))

    def _check(self) -> None:
        if self._broken:
            raise self._broken
        if self._window and self._clock.monotonic() - self._progress_s > ACK_TIMEOUT_S:
            raise TimeoutError(f"no acknowledgement for {ACK_TIMEOUT_S:.0f} s")

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), IDLE_S)
        self._wake.clear()

    def _cursor(self, lane: str) -> int:
        return self._cursors.get(lane, 0)

    async def _disk(self, method: Callable[..., T], *args: Any) -> T:
        result: T = await self._on_disk(method, *args)
        return result
