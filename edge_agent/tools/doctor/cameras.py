"""Check of a camera: capture, redact and encode its frames for a few seconds in a capture process."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from dataclasses import dataclass, field

from edge_agent.camera.children import clean_up, last_stderr_line, start_capture
from edge_agent.camera.messages import CaptureProgress, KeptFrame, Message, Notice, ViewCondition, read_message
from edge_agent.exceptions import SourceError
from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from ingest.contract.codec import decode
from ingest.contract.records import Frame
from ingest.site import CameraConfig, GateConfig, mask_secrets

OPEN_S = 15.0
"""Maximum time until a camera has connected and sent its first picture, in seconds. The seconds of the check begin
after the first picture."""
LASTING = 2
"""Minimum number of seconds with unusable frames for which the check reports a problem. One second with unusable
frames is normal, because a stream may begin with unusable frames."""
SLOW_SHARE = 0.7
"""Minimum share of the configured frame rate that a camera must deliver. The check reports a problem if a camera
delivers a smaller share of the configured frame rate."""


@dataclass
class _Observed:
    """Messages that the capture process has sent during a check."""

    frames: list[Frame] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    view: str = ""
    reasons: list[str] = field(default_factory=list)
    """Reasons why frames were unusable, at most one reason for each second of the check."""

    def take(self, message: Message) -> None:
        match message:
            case KeptFrame():
                self.frames.append(decode(Frame, message.record))
            case Notice():
                self.notices.append(message.text)
            case CaptureProgress() if message.reason:
                self.reasons.append(message.reason)
            case ViewCondition() if message.state:
                self.view = f"{message.state}: {message.reason}"


async def check_camera(camera: CameraConfig, seconds: float) -> Finding:
    """Capture frames of a camera for ``seconds`` without storing or sending any, and return the finding."""
    subject, seen = f"camera {camera.name}", _Observed()
    every = camera.model_copy(update={"gate": GateConfig(motion=False, max_fps=camera.gate.max_fps)})
    try:
        process = await start_capture(every, 0)
    except OSError as error:
        return bad(
            subject, f"the capture process could not be started: {error.strerror}", "check the load of this machine"
        )
    last_line = asyncio.create_task(last_stderr_line(process))
    try:
        await _listen(process, seen, seconds)
    finally:
        await clean_up(process, last_line, 0)
    last = str(mask_secrets(await last_line))
    if not seen.frames:
        why = last or next(iter((*seen.reasons, *seen.notices)), "") or f"no picture within {OPEN_S + seconds:.0f} s"
        return bad(
            subject, why, f"check source = {mask_secrets(camera.source)!r}, its user and password, and the network"
        )
    return _judged(subject, camera, seen)


async def _listen(process: Process, seen: _Observed, seconds: float) -> None:
    assert process.stdout is not None  # noqa: S101  (narrowing: stdout is a pipe)
    with contextlib.suppress(TimeoutError, SourceError):
        async with asyncio.timeout(OPEN_S):
            while not seen.frames and (message := await read_message(process.stdout)):
                seen.take(message)
        async with asyncio.timeout(seconds):
            while message := await read_message(process.stdout):
                seen.take(message)


def _judged(subject: str, camera: CameraConfig, seen: _Observed) -> Finding:
    frames = seen.frames
    first, last = frames[0], frames[-1]
    passed_s = (last.captured_ns - first.captured_ns) / 1e9
    fps = (len(frames) - 1) / passed_s if passed_s > 0 else 0.0
    size = sum(len(f.image) for f in frames) / len(frames)
    text = f"{last.width}×{last.height}, {fps:.1f} frames/s, {size / 1000:.0f} kB each, time by {last.captured_by}"
    if last.captured_error_ms is not None:
        text += f" ± {last.captured_error_ms:.0f} ms"
    wanted = min(camera.fps, camera.gate.max_fps or camera.fps)
    if seen.view:
        return poor(subject, f"{text}; {seen.view}", "look at the camera: sightline agent preview")
    if len(seen.reasons) >= LASTING:
        return poor(
            subject, f"{text}; {seen.reasons[-1]}", "unusable frames are withheld: check the camera and the network"
        )
    if seen.notices:
        return poor(subject, f"{text}; {seen.notices[0]}", "see docs/how-to.md, connecting cameras")
    if len(frames) > 1 and fps < SLOW_SHARE * wanted and not camera.source.startswith(("rtsp", "images:")):
        return poor(subject, f"{text}, configured: {wanted:g} frames/s", "lower fps or the size of the pictures")
    return good(subject, text)
