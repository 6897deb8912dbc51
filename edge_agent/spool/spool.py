"""Asynchronous interface of the spool: group commits, expiry of old rows, and operation on a full disk.

On a full disk, the spool deletes its reserve file. The freed space lets the agent store status rows and delete rows
that Kafka has acknowledged, which frees more space. New frames and readings wait until the disk has space again, or
are refused after a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.spool.expiry import EXPIRED_AT_ONCE
from edge_agent.spool.schema import Depth, Kind, Row
from edge_agent.spool.space import SpoolSpace
from edge_agent.spool.store import READ_BYTES, SpoolStore
from ingest.contract.records import EpochEnd, WithheldInterval
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from ingest.site import DiskConfig, SpoolConfig

T = TypeVar("T")

_log = logs.get("edge_agent.spool")

PATIENCE_S = 2.0
"""Maximum time that a frame waits for room on a full disk before the frame is refused, in seconds. While a frame
waits, its capture process withholds new frames without encoding them. Because the wait is limited, the capture
process still offers a frame now and then, which reports the number of withheld frames."""
RETRY_S = 1.0
"""Time to wait before the spool repeats a write that the disk has refused, in seconds."""
GROUP_ROWS = 64
"""Maximum number of rows in one group commit. With frames, 64 rows have a few MB."""
IN_FLIGHT_DIVISOR = 4
"""The sender reads more rows only while less than a quarter of the smallest spool is in flight. One read from the
spool has at most another quarter, so that half of each spool can hold newer rows."""


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """Rows to store and ids of acknowledged rows to delete, which wait for the next group commit.

    ``done`` is the future that the caller awaits until the rows and ids are committed.
    """

    rows: Sequence[Row]
    acked: Sequence[int]
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class DiskTrouble:
    """Period in which the disk refuses writes: kind of failure, error text, and monotonic start time in seconds."""

    why: str
    text: str
    since_s: float


class Spool:
    """Store of frames, readings and status rows until they are delivered over the link.

    All methods must be called in one event loop. The spool calls all methods of ``store`` in a thread of its own.
    ``close`` closes the store. Methods raise SpoolError. A method whose docstring does not mention SpoolUnavailable
    repeats a refused write until the disk accepts the write. A method that repeats a refused write may use the disk
    space of the reserve file.
    """

    def __init__(
        self,
        store: SpoolStore,
        config: DiskConfig,
        *,
        clock: Clock,
        metrics: AgentMetrics,
        patience_s: float = PATIENCE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._store, self._config, self._clock, self._metrics = store, config, clock, metrics
        self._patience_s, self._retry_s = patience_s, retry_s
        self._space = SpoolSpace(store, config)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._room = asyncio.Event()
        self._room.set()
        self._notices: list[str] = []
        self._pending: list[PendingCommit] = []
        self._live_room: Callable[[], int] | None = None
        self._live: list[Row] = []
        self._committing: asyncio.Task[None] | None = None
        self._giving_up = False
        self._bounds: dict[Kind, dict[str, SpoolConfig]] = {"frame": {}, "readings": {}}
        self.trouble: DiskTrouble | None = None
        self.backlog: dict[Kind, list[Depth]] = {"frame": [], "readings": []}
        """Waiting rows of each epoch (capture run), by row kind, as found by the last call of ``maintain``."""

    async def open(self) -> None:
        """Create the reserve file, which holds disk space for a full disk."""
        if not await self._run(self._space.reserve.fill):
            self._begin_trouble("full", f"less than {2 * self._config.reserve_bytes} bytes of the disk are free")

    async def close(self) -> None:
        """Close the store, and end the thread."""
        if self._committing:
            await self._committing
        await self._run(self._store.close)
        self._thread.shutdown()

    def give_up(self) -> None:
        """Stop waiting for space on a full disk.

        After this call, a row that does not fit on the disk, even with the space of the reserve file, is refused at
        once.
        """
        self._giving_up = True
        self._room.set()

    def set_bounds(self, cameras: Mapping[str, SpoolConfig], sensors: Mapping[str, SpoolConfig]) -> None:
        """Set the limits of age and size for the rows of cameras and sensors, by name.

        A name that is not in the map keeps its present limits.

        The limits of a removed camera stay in force, because rows of the camera may still wait to be sent. Rows of a
        camera or sensor that never had limits in this run of the agent get the default limits.
        """
        self._bounds["frame"] |= cameras
        self._bounds["readings"] |= sensors
        self._store.late_after({name: config.late_after_s for name, config in self._bounds["frame"].items()})
        self._store.read_bytes = min(READ_BYTES, self.in_flight_bytes or READ_BYTES)

    async def keep(self, rows: Sequence[Row], *, wait_for_room: bool = False) -> None:
        """Store frames or readings. Concurrent calls share one commit to the disk.

        If the disk is full, wait for ``patience_s``, then raise SpoolUnavailable. If ``wait_for_room`` is true, wait
        without a time limit.
        """
        while True:
            await self._wait_for_room(None if wait_for_room else self._patience_s)
            try:
                return await self._join_commit(rows=rows)
            except SpoolUnavailable:
                if not wait_for_room or self._giving_up:
                    raise
            await asyncio.sleep(self._retry_s)

    async def begin_epoch(self, name: str, kind: Kind) -> int:
        """Store and return the number of a new epoch (capture run), larger than all earlier numbers of the camera or
        sensor."""
        return await self._retry(self._store.begin_epoch, name, kind, self._clock.now_ns() // 1_000_000_000)

    async def end_epoch(self, kind: Kind, end: EpochEnd, accounts: Sequence[WithheldInterval] = ()) -> None:
        """Mark an epoch (capture run) as ended, and store the status row that reports the end and the intervals of
        withheld frames (``accounts``)."""
        await self._retry(self._store.end_epoch, kind, end, accounts)

    async def unfinished(self, kind: Kind) -> list[EpochEnd]:
        """Return an end record for each epoch (capture run) that was still open when the last agent process was
        killed.

        The record is marked unclean and has the last stored sequence number.
        """
        return await self._retry(self._store.unfinished, kind)

    async def note_reported(self, reported: Sequence[tuple[str, int, int]]) -> None:
        """Store the last sequence numbers that a heartbeat has reported, as (camera or sensor name, epoch, seq).

        Raise SpoolUnavailable if the disk refuses the write.
        """
        await self._attempt(self._store.note_reported, reported)

    async def offered(self, lane: str, after_id: int, limit: int) -> list[Row]:
        """Return the frames marked with ``lane`` that were neither acknowledged nor refused, oldest first."""
        return await self._retry(self._store.offered, lane, after_id, limit)

    async def settle_live(self, limit: int) -> list[Row]:
        """Set ``lane`` to ``live`` in the rows of unsent frames that are not late.

        Return the changed rows, oldest first.
        """
        return await self._retry(self._store.settle_live, self._clock.now_ns(), limit)

    async def settle_late(self, limit: int) -> list[Row]:
        """Set ``lane`` to ``late`` in the rows of unsent frames that are late.

        Return the changed rows, oldest first.
        """
        return await self._retry(self._store.settle_late, self._clock.now_ns(), limit)

    def claim_live(self, room: Callable[[], int] | None) -> None:
        """From now on, give each new frame the lane ``live`` when it is stored, so that ``take_live`` returns it.

        ``room`` returns the number of bytes that the link has room for. If ``room`` is None, new frames get no lane
        until ``settle_live`` or ``settle_late`` gives them one. ``offered`` also returns the live frames that
        ``take_live`` has not returned yet.
        """
        self._live_room = room
        self._live.clear()

    def take_live(self) -> list[Row]:
        """Return the live frames that were stored since the last call, oldest first, without reading the disk."""
        rows, self._live = self._live, []
        return rows

    @property
    def in_flight_bytes(self) -> int | None:
        """Maximum number of bytes in flight, for the smallest spool of a camera or sensor; None if there is no spool.

        A row that was sent never expires. With more bytes in flight, the rows that were sent when the link failed
        would fill a small spool, and newer rows would expire in their place.
        """
        limits = (config.max_bytes for bounds in self._bounds.values() for config in bounds.values())
        smallest = min(limits, default=None)
        return None if smallest is None else smallest // IN_FLIGHT_DIVISOR

    @property
    def unsent_frames(self) -> bool:
        """Return whether the spool may have frames that have no lane yet, and so wait for ``settle_live`` or
        ``settle_late``."""
        return self._store.unsent_frames

    @property
    def unsent_others(self) -> bool:
        """Return whether the spool may have readings or status rows that wait for ``others``."""
        return self._store.unsent_others

    async def others(self, after_id: int, limit: int) -> list[Row]:
        """Return waiting readings and status rows, oldest first."""
        return await self._retry(self._store.others, after_id, limit)

    async def remove(self, ids: Sequence[int]) -> None:
        """Delete rows that Kafka has acknowledged."""
        try:
            await self._join_commit(acked=ids)  # shares a commit with new rows
        except SpoolUnavailable:
            await self._retry(self._store.remove, ids)  # needs less of the disk than new rows

    async def park(self, row_id: int, notice: str = "") -> None:
        """Mark a row that was permanently refused as parked, so that the agent does not send the row again.

        Store a status row with the text ``notice``, unless the text is empty.
        """
        await self._retry(self._store.park, row_id, notice)

    async def depth(self, kind: Kind = "frame") -> list[Depth]:
        """Return the number, bytes and sequence numbers of the waiting rows of each epoch (capture run).

        Raise SpoolUnavailable if the disk cannot be read.
        """
        return await self._attempt(self._store.depth, kind)

    async def empty(self) -> bool:
        """Return whether no row waits to be sent.

        Rows that Kafka or the gateway has refused permanently do not count.
        """
        return await self._retry(lambda: self._store.empty)

    async def maintain(self) -> None:
        """Check the disk, expire rows that exceed the limits, and update ``backlog`` and the metrics.

        Call this method once per heartbeat. If the disk refuses a write, the next call repeats the failed step.
        """
        await self._check_disk()
        with contextlib.suppress(SpoolUnavailable):  # already logged and noted as trouble
            for kind, bounds in self._bounds.items():
                for name in sorted({*bounds, *(depth.name for depth in self.backlog[kind])}):
                    config = bounds.get(name, SpoolConfig())
                    bound = kind, name, config.max_bytes, self._clock.now_ns() - round(config.max_age_s * 1e9)
                    while await self._attempt(self._store.expire, *bound) == EXPIRED_AT_ONCE:
                        pass  # short transactions, so that other writes come between
                self.backlog[kind] = await self.depth(kind)
        self._publish_metrics()

    async def _check_disk(self) -> None:
        """Expire rows that exceed the disk limits, detect that the disk accepts writes again, and store status rows
        about these events."""
        with contextlib.suppress(SpoolUnavailable):
            evidence = [name for name, bounds in self._bounds["frame"].items() if bounds.evidence]
            excess = await self._attempt(self._space.fit, evidence)
            if excess:
                self._begin_trouble("full", f"the spool is {excess} bytes over its disk limit, and no row may expire")
            elif self.trouble is not None and await self._run(self._space.reserve.fill):
                await self._attempt(self._store.probe)
                self._end_trouble()
            self._report_recoveries()
            while self._notices:
                await self._attempt(self._store.keep_notice, self._notices[0])
                del self._notices[0]

    def _publish_metrics(self) -> None:
        for name, rows in list(self._store.expired.items()):
            self._metrics.expired.labels(name).inc(rows)
            _log.warning("rows_expired", name=name, rows=rows)
        self._store.expired.clear()
        self._metrics.disk_trouble.set(self.trouble is not None)
        frames = self.backlog["frame"]
        for name in {*self._bounds["frame"], *(depth.name for depth in frames)}:
            self._metrics.spooled.labels(name).set(sum(depth.bytes for depth in frames if depth.name == name))

    async def _wait_for_room(self, patience_s: float | None) -> None:
        trouble = self.trouble
        if trouble is None or self._giving_up:
            return
        try:
            async with asyncio.timeout(patience_s):
                await self._room.wait()
        except TimeoutError:
            raise SpoolUnavailable(self._store.path, trouble.why, trouble.text) from None

    async def _join_commit(self, rows: Sequence[Row] = (), acked: Sequence[int] = ()) -> None:
        """Store ``rows`` or delete the rows with the ids ``acked`` in the next group commit.

        Raise SpoolUnavailable if the disk refuses the commit.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append(PendingCommit(rows, acked, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        await done

    async def _commit(self) -> None:
        """Commit the pending rows and deletions in groups, until none are left."""
        while self._pending:
            group: list[PendingCommit] = []
            rows: list[Row] = []
            while self._pending and (not rows or len(rows) + len(self._pending[0].rows) <= GROUP_ROWS):
                group.append(self._pending.pop(0))
                rows += group[-1].rows
            acked = [row_id for pending in group for row_id in pending.acked]
            live_bytes = self._live_room() - sum(row.size for row in self._live) if self._live_room else 0
            keep = partial(self._store.keep, rows, acked=acked, live_bytes=live_bytes)
            error: Exception | None = None
            try:
                live = await self._attempt(keep, is_promise=bool(rows))
                if self._live_room:
                    self._live += live
            except Exception as failure:
                error = failure
            for pending in group:
                if not pending.done.done():
                    pending.done.set_exception(error) if error else pending.done.set_result(None)
        self._committing = None

    async def _retry(self, method: Callable[..., T], *args: object) -> T:
        """Call a method of the store, and repeat the call until the disk accepts its write."""
        while True:
            try:
                return await self._attempt(method, *args)
            except SpoolUnavailable:
                if self._giving_up:
                    raise
            await asyncio.sleep(self._retry_s)

    async def _attempt(self, method: Callable[..., T], *args: object, is_promise: bool = False) -> T:
        """Call a method of the store.

        If the disk refuses the write, delete the reserve file and repeat the call once. Raise SpoolUnavailable if the
        repeated call fails too. If the refused write is a commit of new rows (``is_promise``), repeat it only after
        ``give_up``. Until ``give_up`` is called, the space of the reserve file is left to status rows and deletions.
        """
        call = partial(method, *args)
        try:
            return await self._run(call)
        except SpoolUnavailable as error:
            if error.why == "salvaged":
                self._report_recoveries()
            else:
                self._begin_trouble(error.why, str(error))
                if not await self._run(self._space.release) or (is_promise and not self._giving_up):
                    raise
        return await self._run(call)

    def _begin_trouble(self, why: str, text: str) -> None:
        if self.trouble is None:
            self.trouble = DiskTrouble(why, text, self._clock.monotonic())
            if not self._giving_up:
                self._room.clear()
            _log.warning("spool_disk_refuses_writes", why=why, error=text)
            self._notices.append(f"disk {why}: frames are withheld as overload: {text}")

    def _end_trouble(self) -> None:
        if self.trouble is not None:
            outage_s = round(self._clock.monotonic() - self.trouble.since_s, 1)
            self.trouble = None
            self._room.set()
            _log.info("spool_disk_accepts_writes_again", outage_s=outage_s)
            self._notices.append(f"disk is back after {outage_s} s")

    def _report_recoveries(self) -> None:
        while self._store.recoveries:
            self._notices.append(str(self._store.recoveries.pop(0)))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
