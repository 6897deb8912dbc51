"""Sender of the spool's rows over the link. Live frames are sent before late frames, which are the backlog.

The sender deletes acknowledged rows from the spool. Whether a frame is live or late is stored on disk before the
frame is sent for the first time. When a send fails, the sender opens the link again. After a reconnect, the sender
first repeats all rows that were sent without an acknowledgement, oldest first. Consumers of the topic recognise a
repeated frame by its sequence number.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Sequence

from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.metrics import AgentMetrics
from edge_agent.send.link import Link, OutboundRecord, outbound_record
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
"""Maximum number of rows in one read from the spool; 64 rows of frames have a few MB."""
LATE_CHUNK_ROWS = 8
"""Maximum number of late frames in one read from the spool. The number is low, because a new live frame waits until
all late frames of the read were passed to the link."""
IDLE_S = 0.25
"""Pause of the sender when there is no row to send, in seconds. A new row in the spool ends the pause at once."""
ACK_TIMEOUT_S = 20.0
"""Time in seconds after which a link counts as lost, if rows are in flight and none is acknowledged. The Kafka
producer alone would wait for up to 30 s."""
PATIENT_TRIES = 3
"""Maximum factor by which ``ACK_TIMEOUT_S`` is multiplied. The timeout is not multiplied at first; each failure of
the link increases the factor by one. A record of 400 kB takes 50 s on a mobile uplink throttled to 64 kbit/s. With a
fixed timeout of 20 s, a record that takes 50 s would fail for ever and block all later rows."""
REPORT_EVERY_S = 10.0
"""Minimum time between two reports of refused records on the topic ``status``, in seconds. Without it, a gateway that
refuses every record would cause a report for each record."""
_MAX_NAMES = 10
OTHERS = "others"
"""Name of the group of rows that are not frames: readings and status rows."""


class Refusals:
    """Collects refused rows until the spool marks the rows as refused, and writes reports about refused rows for the
    topic ``status``.

    Pure. A refused row stays in the spool, and is not sent again. One report may name many refused rows.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: list[tuple[Row, str]] = []
        self._unreported: list[str] = []
        self._reported_s: float | None = None

    def add(self, row: Row, reason: str) -> None:
        """Add a refused row, and the reason why the gateway or Kafka refused the row."""
        self._rows.append((row, reason))

    def take(self) -> list[tuple[int, str]]:
        """Remove all collected rows. Return, for each removed row, its id and the text that reports the row on
        ``status``.

        The text is empty if the agent wrote a report less than ``REPORT_EVERY_S`` ago.
        """
        rows, self._rows = self._rows, []
        return [(row.id, self._notice(row, reason)) for row, reason in rows]

    def _notice(self, row: Row, reason: str) -> str:
        now_s, name = self._clock.monotonic(), f"{row.kind} {row.name}/{row.epoch}/{row.seq}"
        self._unreported.append(name)
        if self._reported_s is not None and now_s - self._reported_s < REPORT_EVERY_S:
            return ""
        self._reported_s = now_s
        names = ", ".join(self._unreported[:_MAX_NAMES])
        text = f"refused records that stay in the spool: {len(self._unreported)} ({names}): {reason}"
        self._unreported.clear()
        _log.warning("record_refused", record=name, reason=reason)
        return text


class Sender:
    """Sends the rows of one spool over one link, until the task is cancelled."""

    def __init__(self, link: Link, spool: Spool, config: LinkConfig, *, clock: Clock, metrics: AgentMetrics) -> None:
        self._link, self._spool, self._config = link, spool, config
        self._clock, self._metrics = clock, metrics
        self._wake = asyncio.Event()
        self._backoff = Backoff()
        self._window = InFlightWindow(*self._limits())
        self._pace = BacklogPace(config.late_bytes_per_s)
        self._refusals = Refusals(clock)
        self._cursors: Counter[str] = Counter()
        self._unrepeated = {LIVE, LATE}
        """Lanes (live or late) on which an earlier connection may have sent frames that this connection has not
        repeated yet."""
        self._look = True
        """Whether the next look into the spool reads rows of all kinds, even if the spool reports no unsent rows."""
        self._acked: list[int] = []
        self._broken: BaseException | None = None
        self._accepted = False
        self._progress_s = clock.monotonic()
        self.connected = False

    def wake(self) -> None:
        """End a pause of the sender, because the spool has a new row."""
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Return whether no row is in flight."""
        return not self._window and not self._acked

    async def run(self, chance: Callable[[], float]) -> None:
        """Send rows for ever.

        When the link is lost, open the link again after a pause. The pauses grow with each failure and are jittered
        by ``chance``.
        """
        while True:
            started_s = self._clock.monotonic()
            try:
                await self._session()
            except (LinkLost, TimeoutError, ConfigError) as error:  # a bad secret file may be replaced
                if not self._backoff.out:
                    _log.warning("link_lost", address=self._link.address, error=str(error))
                self.connected = False
                pause_s = error.retry_after_s if isinstance(error, LinkLost) else 0.0
                await asyncio.sleep(max(pause_s, self._backoff.failed(started_s, chance())))

    async def publish(self, topic: str, value: bytes, key: str) -> None:
        """Send a record that may get lost, such as a heartbeat. Drop the record if the link is lost."""
        if self.connected:
            await self._link.publish(OutboundRecord(topic, key, value))

    async def _session(self) -> None:
        """Open the link and send rows until the link fails.

        Rows that the previous connection sent without an acknowledgement are sent again first.
        """
        # rows that the last connection acknowledged or refused are no longer in doubt
        await self._settle_answers()
        self._window, self._cursors, self._broken = InFlightWindow(*self._limits()), Counter(), None
        self._unrepeated, self._look = {LIVE, LATE}, True
        try:
            await self._link.open()
            self.connected, self._accepted = True, False
            self._spool.claim_live(lambda: self._window.free_bytes)
            opened_s = self._progress_s = self._clock.monotonic()
            while True:
                moved = await self._round()
                await self._settle_answers()
                self._check()
                self._end_outage(opened_s)
                if not moved:
                    await self._pause()
        finally:
            self.connected = False
            self._spool.claim_live(None)
            await self._link.close()

    def _end_outage(self, opened_s: float) -> None:
        """End an outage once the link has accepted a record, or has been open for ``STEADY_S`` without rows in
        flight.

        A link that opens and then fails does not end the outage. During an outage, the pauses between connection
        attempts keep growing, because each attempt sends all rows in flight again.
        """
        now_s = self._clock.monotonic()
        steady = not self._window and now_s - opened_s >= STEADY_S
        if self._backoff.out and (self._accepted or steady):
            outage_s = self._backoff.steady(now_s) or 0.0
            _log.info("link_restored", address=self._link.address, outage_s=round(outage_s, 1))

    async def _round(self) -> bool:
        """Pass rows to the link while the in-flight limit allows more rows. Repeat old rows before new rows are sent.

        Return whether a row was passed to the link.
        """
        moved, look = False, self._look
        self._look = False
        self._window.max_bytes, self._window.max_late_bytes = self._limits()  # the cameras may have changed
        if self._window.room:
            if look or self._spool.unsent_others:
                moved = await self._offer(await self._spool.others(self._cursors[OTHERS], CHUNK_ROWS), OTHERS)
            live = await self._next_live(look)
            if live:
                self._pace.live(self._clock.monotonic())
            moved |= await self._offer(live, LIVE)
        if self._window.late_room and not self._pace.wait_s(self._clock.monotonic()):
            late = await self._next_late(look)
            self._pace.spend(sum(row.size for row in late))
            moved |= await self._offer(late, LATE)
        return moved

    async def _next_live(self, look: bool) -> list[Row]:
        """Return the next live frames, oldest first: first the frames that an earlier connection sent."""
        if LIVE in self._unrepeated or look:
            if rows := await self._spool.offered(LIVE, self._cursors[LIVE], CHUNK_ROWS):
                return rows
            self._unrepeated.discard(LIVE)
        rows = await self._spool.settle_live(CHUNK_ROWS) if look or self._spool.unsent_frames else []
        rows = sorted([*self._spool.take_live(), *rows], key=lambda row: row.id)
        return [row for row in rows if row.id > self._cursors[LIVE]]  # the others were repeated

    async def _next_late(self, look: bool) -> list[Row]:
        """Return the next late frames, oldest first: first the frames that an earlier connection sent."""
        if LATE in self._unrepeated or look:
            if rows := await self._spool.offered(LATE, self._cursors[LATE], LATE_CHUNK_ROWS):
                return rows
            self._unrepeated.discard(LATE)
        return await self._spool.settle_late(LATE_CHUNK_ROWS) if look or self._spool.unsent_frames else []

    async def _offer(self, rows: Sequence[Row], lane: str) -> bool:
        nothing_in_flight = not self._window
        for row in rows:  # before the first send, which may block: meanwhile the spool uses the room for new frames
            self._window.add(row.id, row.size, late=lane == LATE)
        for row in rows:
            sent = await self._link.send(outbound_record(row, lane))
            if nothing_in_flight:
                self._progress_s, nothing_in_flight = self._clock.monotonic(), False
            self._cursors[lane] = max(self._cursors[lane], row.id)
            sent.add_done_callback(functools.partial(self._answered, row))
        return bool(rows)

    def _answered(self, row: Row, sent: asyncio.Future[None]) -> None:
        self._window.done(row.id)
        error = LinkLost("the link cancelled the send") if sent.cancelled() else sent.exception()
        if error is None:
            self._accepted = True
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
            raise TimeoutError(f"the link sent no acknowledgement within {patience_s:.0f} s")

    async def _pause(self) -> None:
        wait_s = min(IDLE_S, self._pace.wait_s(self._clock.monotonic()) or IDLE_S)
        try:
            async with asyncio.timeout(wait_s):  # `wait_for` may swallow a cancellation that comes with the wake
                await self._wake.wait()
        except TimeoutError:
            self._look = True
        self._wake.clear()

    def _limits(self) -> tuple[int, int]:
        """Return the maximum number of bytes in flight, and how many of them may be late frames."""
        most = min(self._config.max_in_flight_bytes, self._spool.in_flight_bytes or self._config.max_in_flight_bytes)
        return most, round(most * self._config.late_share)
