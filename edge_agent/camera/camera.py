"""Supervisor of one camera: starts the capture process, spools its frames, and restarts the process after a
failure."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.camera.children import clean_up, kill, last_stderr_line, start_capture
from edge_agent.camera.messages import (
    CaptureEnd,
    CaptureProgress,
    KeptFrame,
    Message,
    Notice,
    ViewCondition,
    read_message,
)
from edge_agent.exceptions import SourceError, SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.spool.expiry import merged
from edge_agent.spool.schema import Depth, Row
from edge_agent.spool.spool import Spool
from ingest.contract import headers as h
from ingest.contract.records import CameraState, CameraStatus, EpochEnd, WithheldInterval
from ingest.runtime import logs
from ingest.runtime.backoff import STEADY_S, Backoff
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig, mask_secrets

_log = logs.get("edge_agent.camera.camera")

STOP_CHILD_S = 10.0
"""Time for a capture process to finish its last frame after a stop request, in seconds. The agent kills a capture
process that still runs ``STOP_CHILD_S`` after the stop request."""
END_CHILD_S = 1.0
"""Time for a capture process to exit after its last message or after a fault, in seconds. A capture process that has
sent its last message or has failed has no work left."""
START_S = 8.0
"""Time for a capture process to start on a busy machine and to try UDP before TCP, in seconds."""
LONG_CAP_S = 60.0
"""Maximum pause between two starts of a capture process, in seconds.

Each start of a capture process costs half a second of one core. Fifty unreachable cameras that are restarted every
ten seconds would use two or three cores.
"""
_STALLS = 2
"""Maximum wait for the first frame of a starting source, in multiples of ``watch.stall_s``: one to open the source,
and one for the frame."""


class Camera:
    """Supervisor of one camera, which captures frames until ``stop`` is called or the camera's source ends."""

    def __init__(
        self,
        config: CameraConfig,
        spool: Spool,
        *,
        truth_folder: Path | None,
        on_kept: Callable[[], None],
        chance: Callable[[], float],
        clock: Clock,
        metrics: AgentMetrics,
        state_folder: Path | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.config = config
        self._spool, self._truth_folder, self._state_folder = spool, truth_folder, state_folder
        self._on_kept, self._chance, self._clock, self._metrics = on_kept, chance, clock, metrics
        self._backoff = backoff or Backoff(long_cap_s=LONG_CAP_S)
        self._hang_s = START_S + _STALLS * config.watch.stall_s
        self._stop = asyncio.Event()
        self._process: Process | None = None
        self._refused: list[WithheldInterval] = []
        """Intervals of the frames that were withheld since the last frame that the spool stored.

        A frame that the disk could not store counts as withheld with the reason ``overload``, because the agent never
        promised to deliver the frame.
        """
        self.epoch = 0
        self.captured = 0
        self.kept = 0
        self.state: CameraState = "starting"
        self.reason = ""
        self._frames_from_s: float | None = None
        """Monotonic time of the first progress report from the current capture process; None before that report."""
        self._fault = ""
        """Reason why the supervisor stopped the current capture process; empty if the supervisor did not stop the
        process."""
        self._view = ViewCondition()
        self._view_from_s = 0.0

    def stop(self) -> None:
        """Ask ``run`` to end the capture cleanly."""
        self._stop.set()

    async def run(self) -> None:
        """Capture frames until ``stop`` is called or the source ends. Raise SpoolError when the spool is unusable."""
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
        """Return the camera's status for the heartbeat. ``depth`` counts the frames of this camera in the spool."""
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
        """Run one capture process from its start to its exit.

        Return whether the source has no more frames.
        """
        self.epoch = await self._spool.begin_epoch(self.config.name, "frame")
        self.captured, last, self._refused = 0, -1, []
        self._frames_from_s, self._fault = None, ""
        try:
            process = self._process = await start_capture(
                self.config, self.epoch, self._truth_folder, self._state_folder
            )
        except OSError as error:  # limit of processes, files or memory: a later start may succeed
            reason = f"the capture process cannot be started: {error.strerror}"
            await self._close_epoch(CaptureEnd(-1, None, finished=False), -1, reason)
            return False
        stopper = asyncio.create_task(self._stop_child(process))
        stderr_reader = asyncio.create_task(last_stderr_line(process))
        ended: CaptureEnd | None = None
        try:
            while message := await self._next(process):
                if isinstance(message, CaptureEnd):
                    ended = message
                    break
                last = max(last, await self._take(message))
        finally:
            stopper.cancel()
            await clean_up(process, stderr_reader, STOP_CHILD_S if self._stop.is_set() else END_CHILD_S)
        await self._close_epoch(
            ended, last, self._fault or _exit_reason(process.returncode or 0, await stderr_reader, ended)
        )
        return ended is not None and ended.finished

    async def _next(self, process: Process) -> Message | None:
        assert process.stdout is not None  # noqa: S101  (narrowing: stdout is a pipe)
        try:
            async with asyncio.timeout(self._hang_s):
                return await read_message(process.stdout)
        except TimeoutError:
            self._fault = f"no message from the capture process for {self._hang_s:.0f} s"
        except SourceError as error:
            self._fault = str(error)
        return None

    async def _take(self, message: Message) -> int:
        """Handle one message from the capture process.

        Return the sequence number of a frame that the spool stored, and -1 for any other message.
        """
        match message:
            case CaptureProgress():
                self._progressed(message)
            case ViewCondition():
                self._view_changed(message)
            case Notice():
                _log.warning("camera_notice", camera=self.config.name, text=message.text)
        if not isinstance(message, KeptFrame):
            return -1
        self.captured = max(self.captured, message.seq + 1)
        try:
            await self._spool.keep([self._row(message)])
        except SpoolUnavailable as error:
            counts = {"overload": 1}
            frame = WithheldInterval(
                camera=self.config.name, epoch=self.epoch, first=message.seq, last=message.seq, counts=counts
            )
            self._refused = merged([*self._refused, message.account, frame])
            self.reason = f"disk {error.why}: withheld as overload"
            return -1
        self._refused.clear()
        self.kept += 1
        self._metrics.kept.labels(self.config.name).inc()
        self._on_kept()
        return message.seq

    def _progressed(self, progress: CaptureProgress) -> None:
        self.captured = progress.captured
        self._metrics.captured.labels(self.config.name).set(progress.captured)
        now_s = self._clock.monotonic()
        self._frames_from_s = now_s if self._frames_from_s is None else self._frames_from_s
        # reset the back-off only after a steady time; otherwise the pauses of a flapping camera would stay short
        outage_s = self._backoff.steady(self._frames_from_s) if now_s - self._frames_from_s >= STEADY_S else None
        if outage_s is not None:
            _log.info("camera_reconnected", camera=self.config.name, down_s=round(outage_s, 1))
        self.state = self._view.state or "running"
        self.reason = progress.reason or self._view.reason

    def _view_changed(self, view: ViewCondition, event: str = "camera_view_recovered") -> None:
        """Store the new condition of the camera's view.

        Log when the view becomes frozen, black or tampered, and when the view recovers.
        """
        before, now_s = self._view, self._clock.monotonic()
        if before.state:
            length_s = round(now_s - self._view_from_s, 1)
            _log.info(event, camera=self.config.name, state=before.state, bad_s=length_s)
        if view.state:
            _log.warning("camera_view_bad", camera=self.config.name, state=view.state, reason=view.reason)
        self._view, self._view_from_s = view, now_s

    def _row(self, kept: KeptFrame) -> Row:
        # every frame number is in a message or in an interval, so the intervals are adjacent and merge into one
        accounts = merged([*self._refused, kept.account])
        return Row(
            kind="frame",
            name=self.config.name,
            epoch=self.epoch,
            seq=kept.seq,
            captured_ns=kept.captured_ns,
            record=kept.record,
            traceparent=h.new_traceparent(),
            account=h.account_text(accounts[-1]) if accounts else "",
        )

    async def _close_epoch(self, ended: CaptureEnd | None, last: int, reason: str) -> None:
        self._view_changed(ViewCondition(), "camera_view_unwatched")
        last = max([last, *(account.last for account in self._refused)])
        accounts = merged([*self._refused, ended.tail if ended else None])
        if ended is None or reason:
            self.state, self.reason = "down", reason or "the capture process died"
            if not self._backoff.out:
                _log.warning("camera_lost", camera=self.config.name, reason=self.reason)
        if ended is None:
            end = EpochEnd(
                camera=self.config.name, epoch=self.epoch, last=last, clean=False, reported=self.captured - 1
            )
        else:
            end = EpochEnd(
                camera=self.config.name, epoch=self.epoch, last=ended.last, clean=True, reported=ended.last
            )
        await self._spool.end_epoch("frame", end, accounts)
        self._on_kept()

    async def _stop_child(self, process: Process) -> None:
        """Wait for a stop request, close the standard input of the capture process, and kill the process if it does
        not exit in time."""
        await self._stop.wait()
        if process.stdin:
            process.stdin.close()
        await asyncio.sleep(STOP_CHILD_S)
        kill(process)


def _exit_reason(status: int, last_line: str, ended: CaptureEnd | None) -> str:
    """Return why the capture process exited: its signal or exit status, and its last output line with passwords
    masked.

    Return an empty string if the capture process ended normally.
    """
    last_line = str(mask_secrets(last_line))
    if not status or (ended and (last_line or ended.finished)):
        return last_line if status else ""
    if status > 0:
        return last_line or f"the capture process exited with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"the capture process was killed by {name}" + (f": {last_line}" if last_line else "")
