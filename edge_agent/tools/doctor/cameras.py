"""Try a camera as the agent would: in a capture child, with its redaction and its encoding, for a few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from dataclasses import dataclass, field

from edge_agent.camera.children import clean_up, last_stderr_line, start_capture
from edge_agent.camera.messages import KeptFrame, Message, Notice, ViewChange, read_message
from edge_agent.exceptions import SourceError
from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from ingest.contract.codec import decode
from ingest.contract.records import Frame
from ingest.site import CameraConfig, GateConfig, mask_secrets

OPEN_S = 15.0
"""For a camera to connect and to send its first picture, beside the seconds in which it is looked at."""
SLOW_SHARE = 0.7
"""A camera that gives fewer than so many of the frames that it is set to, does not keep its pace."""


@dataclass
class _Seen:
    frames: list[Frame] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    view: str = ""

    def take(self, message: Message) -> None:
        match message:
            case KeptFrame():
                self.frames.append(decode(Frame, message.record))
            case Notice():
                self.said.append(message.text)
            case ViewChange() if message.state:
                self.view = f"{message.state}: {message.reason}"


async def look_at_camera(camera: CameraConfig, seconds: float) -> Finding:
    """Capture for some seconds. Nothing is kept, and nothing is sent."""
    what, seen = f"camera {camera.name}", _Seen()
    every = camera.model_copy(update={"gate": GateConfig(motion=False, max_fps=camera.gate.max_fps)})
    try:
        process = await start_capture(every, 0)
    except OSError as error:
        return bad(what, f"no capture can be started: {error.strerror}", "see what else runs on this machine")
    words = asyncio.create_task(last_stderr_line(process))
    try:
        await _listen(process, seen, seconds)
    finally:
        await clean_up(process, words, 0)
    last = str(mask_secrets(await words))
    if not seen.frames:
        why = last or next(iter(seen.said), "") or f"no picture within {OPEN_S + seconds:.0f} s"
        return bad(
            what, why, f"check source = {mask_secrets(camera.source)!r}, its user and password, and the network"
        )
    return _judged(what, camera, seen)


async def _listen(process: Process, seen: _Seen, seconds: float) -> None:
    assert process.stdout is not None  # noqa: S101  (narrowing: it was asked for)
    with contextlib.suppress(TimeoutError, SourceError):
        async with asyncio.timeout(OPEN_S):
            while not seen.frames and (message := await read_message(process.stdout)):
                seen.take(message)
        async with asyncio.timeout(seconds):
            while message := await read_message(process.stdout):
                seen.take(message)


def _judged(what: str, camera: CameraConfig, seen: _Seen) -> Finding:
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
        return poor(what, f"{text}; {seen.view}", "look at the camera: sightline agent preview")
    if seen.said:
        return poor(what, f"{text}; {seen.said[0]}", "see docs/how-to.md, connecting cameras")
    if len(frames) > 1 and fps < SLOW_SHARE * wanted and not camera.source.startswith(("rtsp", "images:")):
        return poor(what, f"{text}, set to {wanted:g}", "lower fps, or the picture's size")
    return good(what, text)
