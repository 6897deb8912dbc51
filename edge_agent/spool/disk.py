"""The spool from the event loop: its own thread, group commits, and what is done when the disk takes nothing.

When the disk is full, what is held back is let go: what the ledger and the sender write is small and goes on, so that
room comes back. What would be promised waits, or is refused, until it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool.reserve import Reserve, Room, measure
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from ingest.site import DiskConfig

T = TypeVar("T")

_log = logs.get("edge_agent.disk")

PATIENCE_S = 2.0
"""So long a frame waits for room before it is refused. Meanwhile its capture withholds what follows by itself,
without encoding it; every now and then one comes through and tells how far the capture has come."""
RETRY_S = 1.0
"""Between looks whether the disk takes something again."""
GROUP_ROWS = 64
"""So many frames go into one commit at the most: a few MB."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The disk takes nothing: why, and since when on the monotonic clock, in seconds."""

    why: str
    text: str
    since_s: float


class Disk:
    """Runs methods of the spool in its own thread. Belongs to one event loop.

    ``notice`` makes the row that tells of something on ``status``.
    """

    def __init__(self, spool: Spool, config: DiskConfig, notice: Callable[[str], Row], clock: Clock) -> None:
        self._spool, self._config, self._notice, self._clock = spool, config, notice, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._reserve = Reserve(spool.path.with_suffix(".reserve"), config.reserve_bytes)
        self._room = asyncio.Event()
        self._room.set()
        self._notices: list[Row] = []
        self._waiting: list[tuple[Sequence[Row], asyncio.Future[None]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._giving_up = False
        self.trouble: Trouble | None = None

    async def __call__(self, method: Callable[..., T], *args: object) -> T:
        """Run a method of the spool, again and again until the disk takes it. Raise SpoolError.

        What promises something waits while there is trouble; anything else may use what was held back.
        """
        while True:
            if self.trouble and self._is_promise(method, args):
                await self._room.wait()
            try:
                return await self.attempt(method, *args)
            except SpoolUnavailable:
                if self._giving_up:
                    raise
            await asyncio.sleep(RETRY_S)

    async def attempt(self, method: Callable[..., T], *args: object) -> T:
        """Run a method of the spool. Raise SpoolUnavailable when the disk does not take it now."""
        try:
            return await self._run(method, *args)
        except SpoolUnavailable as error:
            if error.why == "mended":
                self._tell_of_mending()
            else:
                self._begin(error.why, str(error))
                if not await self._run(self._make_room) or self._is_promise(method, args):
                    raise
        return await self._run(method, *args)

    async def promise(self, rows: Sequence[Row]) -> None:
        """Keep frames, together with those of other cameras that come meanwhile.

        Wait for room for a while. Raise SpoolUnavailable when there is none.
        """
        trouble = self.trouble
        if trouble and not self._giving_up:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._room.wait()
            except TimeoutError:
                raise SpoolUnavailable(self._spool.path, trouble.why, trouble.text) from None
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, kept))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        await kept

    def give_up(self) -> None:
        """From now on nothing waits for room: what fits into what was held back is kept, the rest is refused."""
        self._giving_up = True
        self._room.set()

    async def look(self, expire: Callable[[int], int]) -> None:
        """See whether trouble is over, keep what is to be told of it, and hold the spool within its bounds.

        ``expire`` lets frames go, in the spool's thread, until so many bytes are free; it returns how many have gone.
        """
        try:
            excess = await self.attempt(self._fit, expire)
            if excess:
                self._begin("full", f"{excess} bytes over the bounds of the disk, and nothing may expire")
            elif self.trouble is not None:
                await self._see_whether_it_is_over()
            self._tell_of_mending()
            while self._notices:
                await self.attempt(self._spool.keep, self._notices[:1])
                del self._notices[0]
        except SpoolUnavailable:
            return  # it is said already

    async def _see_whether_it_is_over(self) -> None:
        if await self._run(self._reserve.fill):
            await self.attempt(self._spool.probe)
            self._end()

    async def open(self) -> None:
        """Hold some room back."""
        if not await self._run(self._reserve.fill):
            self._begin("full", f"less than {2 * self._config.reserve_bytes} bytes are free")

    async def close(self) -> None:
        """Close the spool, and end its thread."""
        if self._committing:
            await self._committing
        await self._run(self._spool.close)
        self._thread.shutdown()

    async def _commit(self) -> None:
        """Keep what waits, in as few commits as there are while it grows."""
        while self._waiting:
            group: list[tuple[Sequence[Row], asyncio.Future[None]]] = []
            rows: list[Row] = []
            while self._waiting and (not rows or len(rows) + len(self._waiting[0][0]) <= GROUP_ROWS):
                group.append(self._waiting.pop(0))
                rows += group[-1][0]
            error: Exception | None = None
            try:
                await self.attempt(self._spool.keep, rows)
            except Exception as failure:
                error = failure
            for _, kept in group:
                if not kept.done():
                    kept.set_exception(error) if error else kept.set_result(None)
        self._committing = None

    def _make_room(self) -> bool:
        """Let go of what is held back, and of the write-ahead log. Return whether there may be room now.

        Each small commit adds some KB to that log, and writing it back takes no more than the pages that are new.
        """
        released = self._reserve.release()
        try:
            self._spool.checkpoint()
        except SpoolUnavailable:
            return released
        return True

    def _is_promise(self, method: Callable[..., Any], args: Sequence[Any]) -> bool:
        """Tell whether this would take room for something new, for which what is held back is not meant."""
        keeps = method == self._spool.keep and any(row.kind != "status" for row in args[0])
        return keeps and not self._giving_up

    def _fit(self, expire: Callable[[int], int]) -> int:
        """Let frames go until the spool is within its bounds. Return by how many bytes it is still over them."""
        config = self._config
        self._give_back()
        while excess := self._measured().excess(config.max_bytes, config.min_free_bytes):
            if not expire(excess):
                break
        self._give_back()
        return excess

    def _give_back(self) -> None:
        """Give room back until enough of the disk is free, or no more can be given."""
        room, before = self._measured(), None
        while room.free < self._wanted_free() and room != before:
            self._spool.vacuum()
            room, before = self._measured(), room

    def _measured(self) -> Room:
        return Room(self._spool.used_bytes(), self._spool.unused_bytes(), measure(self._spool.path.parent))

    def _wanted_free(self) -> int:
        return max(self._config.min_free_bytes, 0 if self._reserve.held else 2 * self._config.reserve_bytes)

    def _begin(self, why: str, text: str) -> None:
        if self.trouble is None:
            self.trouble = Trouble(why, text, self._clock.monotonic())
            self._room.clear()
            if self._giving_up:
                self._room.set()
            _log.warning("disk takes nothing", why=why, error=text)
            self._notices.append(self._notice(f"disk {why}: frames are withheld as overload: {text}"))

    def _end(self) -> None:
        if self.trouble is not None:
            out_s = round(self._clock.monotonic() - self.trouble.since_s, 1)
            self.trouble = None
            self._room.set()
            _log.info("disk is back", out_for_s=out_s)
            self._notices.append(self._notice(f"disk is back after {out_s} s"))

    def _tell_of_mending(self) -> None:
        while self._spool.recoveries:
            self._notices.append(self._notice(str(self._spool.recoveries.pop(0))))

    async def _run(self, method: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, method, *args)
