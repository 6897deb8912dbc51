"""One camera's life in the agent: a capture child, what it keeps, the end of its epochs, and its next start."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

from edge_agent.camera.children import clear_up, kill, last_words
from edge_agent.camera.messages import (
    CaptureEnd,
    CaptureProgress,
    KeptFrame,
    Message,
    Notice,
    ViewChange,
    read_message,
)
from edge_agent.camera.spawn import spawn
from edge_agent.exceptions import SourceError, SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.spool.refused import Refused
from edge_agent.spool.schema import Depth, Row
from edge_agent.spool.spool import Spool
from edge_agent.status import ended_row
from ingest.contract import headers as h
from ingest.contract.records import Account, CameraState, CameraStatus, EpochEnd
from ingest.runtime import logs
from ingest.runtime.backoff import STEADY_S, Backoff
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig, mask_secrets

_log = logs.get("edge_agent.camera.camera")

STOP_CHILD_S = 10.0
"""A child that was told to stop finishes its frame; one that hangs in a decoder is killed."""
END_CHILD_S = 1.0
"""A child that has told its end, or that is given up, has nothing left to finish."""
START_S = 8.0
"""For a child to start on a busy machine, and to try UDP before TCP."""
LONG_CAP_S = 60.0
"""A start costs half a second of a core: for fifty cameras that are away, behind one switch perhaps, a start every
ten seconds would be two or three cores for as long as that lasts."""
_STALLS = 2
"""A source may wait for the time of a stall to open, and again for its first frame, before it says that it fails."""


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
        state_folder: Path | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.config = config
        self._spool, self._on_disk, self._promise = spool, on_disk, promise
        self._instance, self._truth_folder, self._state_folder = instance, truth_folder, state_folder
        self._on_kept, self._chance, self._clock, self._metrics = on_kept, chance, clock, metrics
        self._backoff = backoff or Backoff(long_cap_s=LONG_CAP_S)
        self._hang_s = START_S + _STALLS * config.watch.stall_s
        self._stop = asyncio.Event()
        self._process: Process | None = None
        self._refused = Refused(config.name, 0)
        self.epoch = 0
        self.captured = 0
        self.kept = 0
        self.state: CameraState = "starting"
        self.reason = ""
        self._frames_from_s: float | None = None
        """When this epoch's first frames were told."""
        self._fault = ""
        """Why this epoch's child was given up."""
        self._view = ViewChange("")
        self._view_from_s = 0.0

    def stop(self) -> None:
        """Ask for a clean end of the capture."""
        self._stop.set()

    async def run(self) -> None:
        """Capture until told to stop or the source is over. Raise SpoolError when nothing can be promised."""
        while not self._stop.is_set():
            finished = await self._epoch()
            if finished or self._stop.is_set():
                break
            self._metrics.restarts.labels(self.config.name).inc()
            pause_s = self._backoff.failed(self._clock.monotonic(), self._chance())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()
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

    async def _epoch(self) -> bool:
        """Run one child from its start to its end. Return whether the source is over."""
        now_s = self._clock.now_ns() // 1_000_000_000
        self.epoch = await self._on_disk(self._spool.begin_epoch, self.config.name, "frame", now_s)
        self.captured, last, self._refused = 0, -1, Refused(self.config.name, self.epoch)
        self._frames_from_s, self._fault = None, ""
        try:
            process = self._process = await spawn(self.config, self.epoch, self._truth_folder, self._state_folder)
        except OSError as error:  # too many processes or files, or no memory: others may end
            nothing, why = CaptureEnd(-1, None, finished=False), f"no capture can be started: {error.strerror}"
            await self._close_epoch(nothing, -1, why)
            return False
        stopper = asyncio.create_task(self._stop_child(process))
        saying = asyncio.create_task(last_words(process))
        ended: CaptureEnd | None = None
        try:
            while message := await self._next(process):
                if isinstance(message, CaptureEnd):
                    ended = message
                    break
                last = max(last, await self._take(message))
        finally:
            stopper.cancel()
            await clear_up(process, saying, STOP_CHILD_S if self._stop.is_set() else END_CHILD_S)
        await self._close_epoch(ended, last, self._fault or _reason(process.returncode or 0, await saying, ended))
        return ended is not None and ended.finished

    async def _next(self, process: Process) -> Message | None:
        assert process.stdout is not None  # noqa: S101  (narrowing: it was asked for)
        try:
            async with asyncio.timeout(self._hang_s):
                return await read_message(process.stdout)
        except TimeoutError:
            self._fault = f"no sign of life for {self._hang_s:.0f} s"
        except SourceError as error:
            self._fault = str(error)
        return None

    async def _take(self, message: Message) -> int:
        """Take a message and return the number that was promised by it, -1 for none."""
        match message:
            case CaptureProgress():
                self._running(message)
            case ViewChange():
                self._saw(message)
            case Notice():
                _log.warning("camera says", camera=self.config.name, text=message.text)
        if not isinstance(message, KeptFrame):
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

    def _running(self, told: CaptureProgress) -> None:
        self.captured = told.captured
        self._metrics.captured.labels(self.config.name).set(told.captured)
        now_s = self._clock.monotonic()
        self._frames_from_s = now_s if self._frames_from_s is None else self._frames_from_s
        # one that comes and goes is not back: its pauses would never grow
        outage_s = self._backoff.steady(self._frames_from_s) if now_s - self._frames_from_s >= STEADY_S else None
        if outage_s is not None:
            _log.info("camera back", camera=self.config.name, out_for_s=round(outage_s, 1))
        self.state = cast("CameraState", self._view.state or "running")
        self.reason = told.reason or self._view.reason

    def _saw(self, seen: ViewChange, end: str = "camera view well") -> None:
        """Take note of how the view is: once when it turns bad, once when that ends."""
        before, now_s = self._view, self._clock.monotonic()
        if before.state:
            length_s = round(now_s - self._view_from_s, 1)
            _log.info(end, camera=self.config.name, was=before.state, for_s=length_s)
        if seen.state:
            _log.warning("camera view bad", camera=self.config.name, state=seen.state, reason=seen.reason)
        self._view, self._view_from_s = seen, now_s

    def _row(self, kept: KeptFrame) -> Row:
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

    async def _close_epoch(self, ended: CaptureEnd | None, last: int, reason: str) -> None:
        self._saw(ViewChange(""), "camera view not watched any more")
        last = max(last, self._refused.last)
        account = self._refused.joined(ended.tail if ended else None)
        accounts: list[Account] = [account] if account else []
        if ended is None or reason:
            self.state, self.reason = "down", reason or "the capture died"
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
        kill(process)


def _reason(status: int, words: str, ended: CaptureEnd | None) -> str:
    """Return why a child ended, without passwords: how it went, and what it said last. Empty if it just ended."""
    words = str(mask_secrets(words))
    if not status or (ended and (words or ended.finished)):
        return words if status else ""
    if status > 0:
        return words or f"the capture ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"the capture was ended by {name}" + (f": {words}" if words else "")
