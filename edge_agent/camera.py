"""One camera's life in the agent: a capture child, what it keeps, the end of its epochs, and its next start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from edge_agent.capture.messages import Ended, Kept, Message, Told, read_message
from edge_agent.exceptions import SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.spool.refused import Refused
from edge_agent.spool.schema import Depth, Row
from edge_agent.spool.spool import Spool
from edge_agent.status import ended_row
from ingest import headers as h
from ingest import logs
from ingest.backoff import Backoff
from ingest.clock import Clock
from ingest.records import Account, CameraState, CameraStatus, EpochEnd
from ingest.site import CameraConfig
from ingest.tether import tethered

__all__ = ["Camera"]

_log = logs.get("edge_agent.camera")

STOP_CHILD_S = 10.0
"""A child that was told to stop finishes its frame; one that hangs in a decoder is killed."""
HANG_S = 20.0
"""No message for so long, while a second's worth is due: the decoder hangs."""
GROUP_MESSAGES = 32
"""So many kept frames go into one commit at the most."""
_STDERR_TAIL_BYTES = 400


class Camera:
    """Keeps one camera captured until it is told to stop, or the source is over."""

    def __init__(
        self,
        config: CameraConfig,
        spool: Spool,
        on_disk: Callable[..., Any],
        *,
        promise: Callable[[Sequence[Row]], Awaitable[None]],
        instance: str,
        truth_folder: Path | None,
        on_kept: Callable[[], None],
        chance: Callable[[], float],
        clock: Clock,
        metrics: AgentMetrics,
    ) -> None:
        self.config = config
        self._spool, self._on_disk, self._promise = spool, on_disk, promise
        self._instance, self._truth_folder = instance, truth_folder
        self._on_kept, self._chance, self._clock, self._metrics = on_kept, chance, clock, metrics
        self._backoff = Backoff()
        self._stop = asyncio.Event()
        self._process: Process | None = None
        self._refused = Refused(config.name, 0)
        self.epoch = 0
        self.captured = 0
        self.kept = 0
        self.state: CameraState = "starting"
        self.reason = ""

    def stop(self) -> None:
        """Ask for a clean end of the capture."""
        self._stop.set()

    async def run(self) -> None:
        """Capture until told to stop or the source is over. Raise SpoolError when nothing can be promised."""
        while not self._stop.is_set():
            started_s = self._clock.monotonic()
            finished = await self._epoch(started_s)
            if finished or self._stop.is_set():
                break
            self._metrics.restarts.labels(self.config.name).inc()
            pause_s = self._backoff.failed(started_s, self._chance())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)
        self.state, self.reason = "ended", ""

    def status(self, depth: Sequence[Depth]) -> CameraStatus:
        """Return what a heartbeat says of this camera; ``depth`` is what waits of its epochs."""
        return CameraStatus(
            camera=self.config.name,
            epoch=self.epoch,
            state=self.state,
            reason=self.reason,
            captured=self.captured,
            kept=self.kept,
            spooled=sum(d.frames for d in depth),
            spooled_bytes=sum(d.bytes for d in depth),
        )

    async def _epoch(self, started_s: float) -> bool:
        """Run one child from its start to its end. Return whether the source is over."""
        now_s = self._clock.now_ns() // 1_000_000_000
        self.epoch = await self._on_disk(self._spool.begin_epoch, self.config.name, "frame", now_s)
        self.captured, last, self._refused = 0, -1, Refused(self.config.name, self.epoch)
        process = self._process = await self._spawn()
        stopper = asyncio.create_task(self._stop_child(process))
        saying = asyncio.create_task(_last_words(process))
        ended: Ended | None = None
        try:
            while message := await self._next(process):
                if isinstance(message, Ended):
                    ended = message
                    break
                last = max(last, await self._take(message, process, started_s))
        finally:
            stopper.cancel()
            await self._reap(process)
        reason = await saying if process.returncode else ""
        await self._close_epoch(ended, last, reason)
        return ended is not None and ended.finished

    async def _spawn(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *tethered([sys.executable, "-m", "edge_agent.capture.child"]),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=4 * 1024 * 1024,
            start_new_session=True,  # Ctrl-C is for the agent, which then stops its children in order
        )
        orders = {
            "camera": self.config.model_dump(mode="json"),
            "epoch": self.epoch,
            "truth_folder": str(self._truth_folder) if self._truth_folder else None,
        }
        assert process.stdin is not None  # noqa: S101  (narrowing: it was asked for)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            await process.stdin.drain()
        return process

    async def _next(self, process: Process) -> Message | None:
        assert process.stdout is not None  # noqa: S101  (narrowing: it was asked for)
        try:
            return await asyncio.wait_for(read_message(process.stdout), HANG_S)
        except TimeoutError:
            self.reason = f"no sign of life for {HANG_S:.0f} s"
            return None

    async def _take(self, message: Message, process: Process, started_s: float) -> int:
        """Take a message, and those that are there already, and return the highest number that was promised."""
        if isinstance(message, Told):
            self._running(message, started_s)
            return -1
        if not isinstance(message, Kept):
            return -1
        self.captured = max(self.captured, message.seq + 1)
        try:
            await self._promise([self._row(message)])
        except SpoolUnavailable as error:
            self._refused.add(message.seq, message.account)
            self.reason = f"disk {error.why}: withheld as overload"
            return -1
        self._refused.told()
        self.kept += 1
        self._metrics.kept.labels(self.config.name).inc()
        self._on_kept()
        return message.seq

    def _running(self, told: Told, started_s: float) -> None:
        self.captured = told.captured
        self._metrics.captured.labels(self.config.name).set(told.captured)
        outage_s = self._backoff.steady(started_s) if told.captured > 1 else None
        if outage_s is not None:
            _log.info("camera back", camera=self.config.name, out_for_s=round(outage_s, 1))
        self.state, self.reason = "running", told.reason

    def _row(self, kept: Kept) -> Row:
        account = self._refused.joined(kept.account)
        return Row(
            kind="frame",
            name=self.config.name,
            epoch=self.epoch,
            seq=kept.seq,
            captured_ns=kept.captured_ns,
            record=kept.record,
            traceparent=h.new_traceparent(),
            account=h.account_text(account) if account else "",
        )

    async def _close_epoch(self, ended: Ended | None, last: int, reason: str) -> None:
        last = max(last, self._refused.last)
        account = self._refused.joined(ended.tail if ended else None)
        accounts: list[Account] = [account] if account else []
        if ended is None or reason:
            self.state, self.reason = "down", reason or self.reason or "the capture died"
            if not self._backoff.out:
                _log.warning("camera lost", camera=self.config.name, reason=self.reason)
        if ended is None:
            end = EpochEnd(camera=self.config.name, epoch=self.epoch, last=last, clean=False, told=self.captured - 1)
        else:
            end = EpochEnd(camera=self.config.name, epoch=self.epoch, last=ended.last, clean=True, told=ended.last)
        row = ended_row(self._instance, [end], accounts, self._clock)
        await self._on_disk(self._spool.end_epoch, self.config.name, self.epoch, [row])
        self._on_kept()

    async def _stop_child(self, process: Process) -> None:
        """End the child's input when the camera is told to stop, and kill it when it does not end then."""
        await self._stop.wait()
        if process.stdin:
            process.stdin.close()
        await asyncio.sleep(STOP_CHILD_S)
        process.kill()

    async def _reap(self, process: Process) -> None:
        """Wait until the child has gone; kill it when it does not go by itself."""
        if process.stdin:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_CHILD_S if self._stop.is_set() else 1.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _last_words(process: Process) -> str:
    """Read what a child says on standard error, to its end, so that it never waits; return the last line.

    Decoders are talkative: a pipe that nobody reads is full after 64 KiB, and the capture would hang on it.
    """
    tail = b""
    while process.stderr and (said := await process.stderr.read(4096)):
        tail = (tail + said)[-_STDERR_TAIL_BYTES:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ended by signal or status {process.returncode}"
