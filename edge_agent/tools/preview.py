"""Preview of a camera's settings: one picture with outlined motion and masks, and counts of all frames.

The picture is a redacted frame that the agent would send. The preview redacts all frames that the agent would send,
in order. The redactor needs the earlier frames, because it covers the last known position of a face that the detector
misses.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge_agent.camera.intake import UNUSABLE, sized
from edge_agent.encode.encoder import Encoded, Encoder
from edge_agent.exceptions import FrameUnusable, SourceEnded, SourceUnusable
from edge_agent.gate.decision import GateDecision, NumberedFrame
from edge_agent.gate.gate import Gate
from edge_agent.redact.redactor import Redaction, Redactor
from edge_agent.sources.factory import SourceContext, make_source
from edge_agent.sources.source import CapturedFrame, Image
from ingest.contract.records import Box
from ingest.runtime.clock import Clock, Deadline
from ingest.site import CameraConfig, to_pixels

_GREEN, _YELLOW, _WHITE, _BLACK = (60, 200, 60), (40, 200, 240), (255, 255, 255), (0, 0, 0)
_BAR_PX = 22


@dataclass(frozen=True, slots=True)
class Preview:
    """Result of a preview: counts of frames, one picture, and the motion in that picture.

    ``counts`` maps ``sent`` to the number of sent frames, and each reason to the number of frames withheld for it.
    ``redacted`` is the number of regions obscured in the picture, and ``size_bytes`` is the size of the encoded
    picture.
    """

    counts: Counter[str]
    image: Image
    motion: tuple[Box, ...]
    redacted: int
    size_bytes: int


def watch(camera: CameraConfig, seconds: float, clock: Clock) -> Preview:
    """Capture frames for ``seconds`` with the camera's settings, without storing or sending frames.

    The call blocks for ``seconds``. Raise SourceError.

    The preview's picture is the sent frame with the largest moving area, or the last sent frame if nothing moves.
    """
    redactor, counts = Redactor(camera.redact), Counter[str]()
    best: Redaction | None = None
    motion, largest = tuple[Box, ...](), 0.0
    for decision in _decisions(camera, seconds, clock, redactor):
        image, moving = decision.frame.image, decision.motion or ()
        if image is None:
            counts[decision.reason] += 1
            continue
        try:
            redaction = redactor.apply(image, decision.frame.captured_ns)
        except (cv2.error, FrameUnusable):
            counts[UNUSABLE] += 1
            continue
        counts["sent"] += 1
        area = sum(box.area for box in moving)
        if best is None or area >= largest:
            best, motion, largest = redaction, moving, area
    if best is None:
        raise SourceUnusable(f"camera {camera.name}: the gate let no frame pass within {seconds:g} s")
    encoded = Encoder(camera.encode).encode(best, clock.monotonic())
    size_bytes = len(encoded.data) if isinstance(encoded, Encoded) else 0
    return Preview(counts, best.image, motion, len(best.boxes), size_bytes)


def _decisions(camera: CameraConfig, seconds: float, clock: Clock, redactor: Redactor) -> Iterator[GateDecision]:
    """Capture frames for ``seconds``, and yield the gate's decision to send or withhold each frame, in order.

    Decisions to withhold a frame have no image.
    """
    gate, seq = Gate(camera.gate, camera.name, 0), 0
    with contextlib.closing(make_source(camera, SourceContext(clock, 0))) as source:
        deadline = Deadline.after(seconds, clock)
        source.open()
        with contextlib.suppress(SourceEnded):
            while not deadline.passed:
                if captured := source.read():
                    yield from _judged(gate, redactor, camera, seq, captured)
                    seq += 1
    yield from gate.close()


def _judged(
    gate: Gate, redactor: Redactor, camera: CameraConfig, seq: int, captured: CapturedFrame
) -> list[GateDecision]:
    frame = NumberedFrame(seq, captured.captured_ns, captured.time_source, captured.error_ms)
    reason = gate.precheck(frame.captured_ns)
    if reason:
        return gate.withhold(frame, reason)
    try:
        return gate.decide(replace(frame, image=redactor.masked(sized(captured.image, camera))))
    except (cv2.error, FrameUnusable):
        return gate.withhold(frame, UNUSABLE)


def annotated(camera: CameraConfig, preview: Preview) -> Image:
    """Return the preview's picture with outlined masks, boxes around motion, and a line with the frame counts."""
    picture = preview.image.copy()
    height, width = picture.shape[:2]
    for mask in camera.gate.masks:
        points = np.rint(np.array(to_pixels(mask, width, height))).astype(np.int32)
        cv2.polylines(picture, [points], True, _YELLOW, 1, cv2.LINE_AA)
    for box in preview.motion:
        left, top, right, bottom = (round(edge) for edge in box)
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), _GREEN, 1)
    counts = ", ".join(f"{reason} {count}" for reason, count in preview.counts.most_common())
    redacted = f"; {preview.redacted} redacted" if camera.redact.faces or camera.redact.plates else ""
    text = f"{camera.name}: {counts}; {len(preview.motion)} moving{redacted}; {preview.size_bytes / 1000:.0f} kB"
    bar = np.full((_BAR_PX, width, 3), _BLACK, np.uint8)
    cv2.putText(bar, text, (4, _BAR_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _WHITE, 1, cv2.LINE_AA)
    return np.vstack([picture, bar])
