"""The sender: the spool's rows over the link, live before late, each lane in order, forgotten once acknowledged.

A row's lane is settled, on disk, before it is offered for the first time. When a send fails, the link is opened anew
and everything in doubt is offered again on its lane, from the oldest on, before anything newer: whoever reads the
topic recognises the repeat by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence

from edge_agent.clockoffset import ClockEstimate
from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.metrics import AgentMetrics
from edge_agent.send.link import Link, OutboundRecord
from edge_agent.send.parcels import OTHERS, parcel
from edge_agent.send.refusals import Refusals
from edge_agent.send.window import BacklogPace, InFlightWindow
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from ingest.contract.identity import LATE, LIVE
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.runtime.backoff import STEADY_S, Backoff
from ingest.runtime.clock import Clock
from ingest.site import LinkConfig

_log = logs.get("edge_agent.send")

CHUNK_ROWS = 64
"""Rows read from the spool at once: a few MB."""
LATE_CHUNK_ROWS = 8
"""Of the backlog: a live frame that comes meanwhile waits until these are read and handed over."""
IDLE_S = 0.25
"""How long the sender waits for something new when nothing waits; a kept frame wakes it at once."""
ACK_TIMEOUT_S = 20.0
"""No acknowledgement for so long while rows are in flight: the link is gone. The producer's own limit is 30 s."""
PATIENT_TRIES = 3
"""Tries in a row that took nothing have so long once, twice and so on, up to this often: 400 kB take 50 s on a mobile
uplink that is throttled to 64 kbit/s, and what waits behind them would wait for ever."""


class Sender:
    """Sends until it is cancelled."""

    def __init__(
        self,
        link: Link,
        spool: Spool,
        config: LinkConfig,
        *,
        clock: Clock,
        metrics: AgentMetrics,
    ) -> None:
        self._link, self._spool, self._config = link, spool, config
        self._clock, self._metrics = clock, metrics
        self._wake = asyncio.Event()
        self._backoff = Backoff()
        self._window = self._new_window()
        self._pace = BacklogPace(config.late_bytes_per_s)
        self._refusals = Refusals(clock)
        self._cursors: dict[str, int] = {}
        self._acked: list[int] = []
        self._broken: BaseException | None = None
        self._took = False
        self._progress_s = clock.monotonic()
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
            except (LinkLost, TimeoutError, ConfigError) as error:  # a secret's file may be written anew
                if not self._backoff.out:
                    _log.warning("link lost", to=self._link.address, error=str(error))
                self.connected = False
                asked_s = error.retry_after_s if isinstance(error, LinkLost) else 0.0
                await asyncio.sleep(max(asked_s, self._backoff.failed(started_s, chance())))

    @property
    def clock(self) -> ClockEstimate | None:
        """How far the log's clock is ahead of ours, None while that is not known."""
        return self._link.clock.estimate

    async def publish(self, topic: str, value: bytes, key: str) -> None:
        """Send something that need not arrive, such as a heartbeat; dropped while the link is gone."""
        if self.connected:
            await self._link.publish(OutboundRecord(topic, key, value))

    async def _session(self) -> None:
        """One connection's life: from the oldest row in doubt on."""
        # what the last one has learned comes first: a row that was refused, or is in the log, is in doubt no more
        await self._settle_answers()
        self._window, self._cursors, self._broken = self._new_window(), {}, None
        try:
            await self._link.open()
            self.connected, self._took = True, False
            opened_s = self._progress_s = self._clock.monotonic()
            while True:
                moved = await self._round()
                await self._settle_answers()
                self._check()
                self._well(opened_s)
                if not moved:
                    await self._pause()
        finally:
            self.connected = False
            await self._link.close()

    def _well(self, opened_s: float) -> None:
        """End an outage once the link has taken something, or has stood for a while with nothing to take.

        One that opens and then fails is not back: its pauses would not grow, and each try repeats what is in flight.
        """
        now_s = self._clock.monotonic()
        stands = not self._window and now_s - opened_s >= STEADY_S
        if self._backoff.out and (self._took or stands):
            outage_s = self._backoff.steady(now_s) or 0.0
            _log.info("link back", to=self._link.address, out_for_s=round(outage_s, 1))

    async def _round(self) -> bool:
        """Offer rows while the window has room, rows in doubt before new ones. Return whether any were offered."""
        moved = False
        if self._window.room:
            moved = await self._offer(await self._spool.others(self._cursor(OTHERS), CHUNK_ROWS), OTHERS)
            live = await self._spool.offered(LIVE, self._cursor(LIVE), CHUNK_ROWS)
            live = live or await self._spool.settle_live(CHUNK_ROWS)
            if live:
                self._pace.live(self._clock.monotonic())
            moved |= await self._offer(live, LIVE)
        if self._window.late_room and not self._pace.wait_s(self._clock.monotonic()):
            late = await self._spool.offered(LATE, self._cursor(LATE), LATE_CHUNK_ROWS)
            late = late or await self._spool.settle_late(LATE_CHUNK_ROWS)
            self._pace.spend(sum(row.size for row in late))
            moved |= await self._offer(late, LATE)
        return moved

    async def _offer(self, rows: Sequence[Row], lane: str) -> bool:
        for row in rows:
            sent = await self._link.send(parcel(row, lane))
            if not self._window:
                self._progress_s = self._clock.monotonic()
            self._window.add(row.id, row.size, late=lane == LATE)
            self._cursors[lane] = max(self._cursor(lane), row.id)
            sent.add_done_callback(functools.partial(self._answered, row))
        return bool(rows)

    def _answered(self, row: Row, sent: asyncio.Future[None]) -> None:
        self._window.done(row.id)
        error = LinkLost("given up") if sent.cancelled() else sent.exception()
        if error is None:
            self._took = True
            self._acked.append(row.id)
        elif isinstance(error, RecordRefused):
            self._refusals.add(row, str(error))
        else:
            self._broken = self._broken or error
            self._wake.set()
            return
        self._progress_s = self._clock.monotonic()
        self._wake.set()

    async def _settle_answers(self) -> None:
        acked, self._acked = self._acked, []
        if acked:
            await self._spool.remove(acked)
            self._metrics.sent.inc(len(acked))
        for row_id, notice in self._refusals.take():
            await self._spool.park(row_id, notice)
            self._metrics.refused.inc()

    def _check(self) -> None:
        if self._broken:
            raise self._broken
        patience_s = ACK_TIMEOUT_S * min(1 + self._backoff.failures, PATIENT_TRIES)
        if self._window and self._clock.monotonic() - self._progress_s > patience_s:
            raise TimeoutError(f"no acknowledgement for {patience_s:.0f} s")

    async def _pause(self) -> None:
        wait_s = min(IDLE_S, self._pace.wait_s(self._clock.monotonic()) or IDLE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):  # `wait_for` may swallow a cancellation that comes with the wake
                await self._wake.wait()
        self._wake.clear()

    def _cursor(self, lane: str) -> int:
        return self._cursors.get(lane, 0)

    def _new_window(self) -> InFlightWindow:
        config = self._config
        return InFlightWindow(config.max_in_flight_bytes, round(config.max_in_flight_bytes * config.late_share))
