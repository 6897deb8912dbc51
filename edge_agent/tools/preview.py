"""Preview of a camera's settings: one picture with motion and masks drawn into it, and counts of all frames.

The picture is a frame that would be sent, with its redaction. All frames that would be sent are redacted, in order,
because a face that the detector misses in one frame is covered at its earlier place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from edge_agent.camera.intake import UNUSABLE, sized
from edge_agent.encode.encoder import Encoded, Encoder
from edge_agent.exceptions import FrameUnusable, SourceEnded, SourceUnusable
from edge_agent.gate.decision import GateDecision, NumberedFrame
from edge_agent.gate.gate import Gate
from edge_agent.redact.redactor import Redaction, Redactor
from edge_agent.sources.factory import SourceContext, make_source
from edge_agent.sources.source import CapturedFrame, FrameSource, Image
from ingest.contract.records import Box
from ingest.runtime.clock import Clock, Deadline
from ingest.site import CameraConfig, to_pixels

_GREEN, _YELLOW, _WHITE, _BLACK = (60, 200, 60), (40, 200, 240), (255, 255, 255), (0, 0, 0)
_BAR_PX = 22


@dataclass
class Preview:
    """Result of a preview: frame counts by reason (``sent`` without one), and the shown picture with its motion.

    ``redacted`` is the number of obscured boxes, ``size_bytes`` the size of the encoded picture.
    """

    counts: Counter[str] = field(default_factory=Counter)
    image: Image | None = None
    motion: tuple[Box, ...] = ()
    redacted: int = 0
    size_bytes: int = 0


def watch(camera: CameraConfig, seconds: float, clock: Clock, on_frame: Callable[[], None] = lambda: None) -> Preview:
    """Capture for some seconds as the agent would, without keeping frames. Blocks. Raise SourceError.

    The shown picture is the sent frame with the largest moving area, or the last sent frame if nothing moves.
    """
    source = make_source(camera, SourceContext(clock, 0))
    redactor, gate = Redactor(camera.redact), Gate(camera.gate, camera.name, 0)
    best = _Best(redactor)
    try:
        for seq, captured in enumerate(_frames(source, Deadline.after(seconds, clock))):
            on_frame()
            best.take(_judged(gate, redactor, camera, seq, captured))
    finally:
        source.close()
    best.take(gate.close())
    preview = Preview(best.counts)
    if best.redaction is None:
        raise SourceUnusable(f"camera {camera.name}: no frame would have been sent within {seconds:g} s")
    encoded = Encoder(camera.encode).encode(best.redaction, clock.monotonic())
    preview.image, preview.motion = best.redaction.image, best.motion
    preview.redacted = len(best.redaction.boxes)
    preview.size_bytes = len(encoded.data) if isinstance(encoded, Encoded) else 0
    return preview


class _Best:
    """Sent frame with the largest moving area, and counts of all frames."""

    def __init__(self, redactor: Redactor) -> None:
        self.counts: Counter[str] = Counter()
        self.redaction: Redaction | None = None
        self.motion: tuple[Box, ...] = ()
        self._redactor, self._area = redactor, 0.0

    def take(self, decisions: Iterable[GateDecision]) -> None:
        """Take decisions in the order of their frames. Raise RedactionFailed."""
        for decision in decisions:
            self.counts[self._keep(decision) if decision.keep else decision.reason] += 1

    def _keep(self, decision: GateDecision) -> str:
        image, motion = decision.frame.image, decision.motion or ()
        assert image is not None  # noqa: S101  (narrowing: a sent frame has its image)
        try:
            redaction = self._redactor.apply(image, decision.frame.captured_ns)
        except (cv2.error, FrameUnusable):
            return UNUSABLE
        area = sum(box.area for box in motion)
        if self.redaction is None or area >= self._area:
            self.redaction, self.motion, self._area = redaction, motion, area
        return "sent"


def _frames(source: FrameSource, deadline: Deadline) -> Iterator[CapturedFrame]:
    source.open()
    while not deadline.passed:
        try:
            captured = source.read()
        except SourceEnded:
            return
        if captured:
            yield captured


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
    """Return the picture with outlined masks, boxes around motion, and a line with the frame counts.

    Raise SourceUnusable if there is no picture.
    """
    if preview.image is None:
        raise SourceUnusable(f"camera {camera.name}: there is no picture to draw on")
    picture = preview.image.copy()
    height, width = picture.shape[:2]
    for mask in camera.gate.masks:
        points = np.rint(np.array(to_pixels(mask, width, height))).astype(np.int32)
        cv2.polylines(picture, [points], True, _YELLOW, 1, cv2.LINE_AA)
    for box in preview.motion:
        left, top, right, bottom = (round(edge) for edge in box)
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), _GREEN, 1)
    bar = np.full((_BAR_PX, width, 3), _BLACK, np.uint8)
    cv2.putText(bar, _line(camera, preview), (4, _BAR_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _WHITE, 1, cv2.LINE_AA)
    return np.vstack([picture, bar])


def _line(camera: CameraConfig, preview: Preview) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in preview.counts.most_common())
    redacted = f"; {preview.redacted} redacted" if camera.redact.faces or camera.redact.plates else ""
    return f"{camera.name}: {counts}; {len(preview.motion)} moving{redacted}; {preview.size_bytes / 1000:.0f} kB"
