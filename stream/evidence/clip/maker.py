"""Make the clips of an alert from its frames, with only one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ingest import picture
from ingest.contract.identity import FrameId
from ingest.contract.records import Clip, Detection, Frame
from ingest.exceptions import PictureError
from stream.alerts.pictures import draw_box
from stream.evidence.clip.encoder import MAX_BYTES, ClipEncoder
from stream.evidence.clip.window import NOT_IN_LOG, ClipWindow

Boxes = Mapping[FrameId, Sequence[Detection]]
NO_FRAMES = "the log has no frame of the interval"


class MadeClips(NamedTuple):
    """The encoded clips by kind, and the facts about their frames. If the log has no frame, ``clips`` is empty."""

    clips: dict[str, bytes]
    facts: Clip


def make_clips(
    frames: Iterable[Frame], window: ClipWindow, *, expired: bool = False, boxes: Boxes | None = None
) -> MadeClips:
    """Encode the frames of a window as the clip ``clip``; with ``boxes``, also encode a clip ``clip-boxes`` in which
    the boxes are drawn.

    ``frames`` are frames of one camera in the order of the log. Reading ends at the first frame after the window.
    """
    plain, drawn = ClipEncoder(), ClipEncoder() if boxes is not None else None
    for frame in frames:
        if window.takes(frame):
            _encode(frame, window, plain, drawn, boxes or {})
        if window.passed or plain.full:
            break
    if not plain.frames:
        return MadeClips({}, window.facts(expired, NO_FRAMES))
    clips = {"clip": plain.finish()}
    if drawn:
        clips["clip-boxes"] = drawn.finish()
    rest = f"the clip has reached {MAX_BYTES} bytes" if plain.full else NOT_IN_LOG
    return MadeClips(clips, window.facts(expired, rest=rest))


def _encode(frame: Frame, window: ClipWindow, plain: ClipEncoder, drawn: ClipEncoder | None, boxes: Boxes) -> None:
    size = frame.width, frame.height
    try:
        picture.check(frame.image, frame.encoding, size)
        image = picture.pixels(frame.image, frame.encoding, size)
    except PictureError:
        window.reject()
        return
    plain.add(image, frame.captured_ns)
    if drawn:
        for found in boxes.get(frame.id, ()):
            draw_box(image, found.box, f"{found.label} {found.score:.2f}")
        drawn.add(image, frame.captured_ns)
