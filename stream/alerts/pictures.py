"""The annotated evidence picture: the frame, with the rule's line or polygon and the object's box drawn on the
picture. Pure."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box, Event, Point
from stream.alerts.lettering import put_text, text_size
from stream.exceptions import EvidenceMissing

Image = npt.NDArray[np.uint8]

_RULE = (0, 200, 255)
_BOX = (80, 220, 80)
_TRAIL = (255, 200, 60)
_INK = (240, 240, 240)
_LABEL_PX, _SUMMARY_PX, _WHERE_PX = 13, 14, 12
"""Letter heights of the object's label, of the summary, and of the line with camera and time, in px."""
_CAPTION_PX = 44
"""Height of the caption below the picture, in px: two lines of text."""
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]
_ARROW_PX = 26


def decoded(jpeg: bytes, event: Event) -> Image:
    """Return the frame of an event as a BGR picture. Raise EvidenceMissing if the bytes cannot be decoded."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise EvidenceMissing(f"the frame of event {event.id} cannot be decoded as a picture")
    return np.asarray(image, np.uint8)


def annotated(canvas: Image, event: Event) -> bytes:
    """Draw the rule's line or polygon and the object's box and trail into a BGR picture, add a caption below the
    picture, and return a JPEG."""
    overlay = event.data.overlay
    draw_shape(canvas, overlay.shape, event.data.details.get("direction"))
    _trail(canvas, overlay.trail)
    if overlay.box:
        draw_box(canvas, overlay.box, f"{event.data.label} {event.data.score:.2f}{_attributes(event)}")
    late = "  (late)" if event.data.late else ""
    return encoded(captioned(canvas, event.data.summary, f"{event.subject}  {event.time}{late}"))


def encoded(image: Image) -> bytes:
    """Return a BGR picture as JPEG."""
    return bytes(cv2.imencode(".jpg", image, _QUALITY)[1].tobytes())


def _attributes(event: Event) -> str:
    """Return an object's labels from second-stage models as text, which is appended to the object's label from the
    main model."""
    found = sorted((key, value) for key, value in event.data.details.items() if key.startswith("attributes."))
    return "".join(f", {value}" for _, value in found if isinstance(value, str))


def draw_shape(image: Image, points: tuple[Point, ...], direction: object = None) -> None:
    """Draw the line or polygon of a rule into a BGR picture. ``direction`` adds the arrow of a crossing to a line."""
    corners = np.array(points, np.float32).round().astype(np.int32)
    if len(corners) == 2:
        cv2.line(image, corners[0].tolist(), corners[1].tolist(), _RULE, 2, cv2.LINE_AA)
        if direction:
            _arrow(image, corners, 1 if direction == "forward" else -1)
    elif len(corners) > 2:
        tint = image.copy()
        cv2.fillPoly(tint, [corners], _RULE)
        cv2.addWeighted(tint, 0.18, image, 0.82, 0, dst=image)
        cv2.polylines(image, [corners], True, _RULE, 2, cv2.LINE_AA)


def _arrow(image: Image, line: npt.NDArray[np.int32], side: int) -> None:
    """Draw an arrow that shows the direction of a crossing. ``forward`` points to the right of the line, seen from
    the line's start."""
    along = (line[1] - line[0]).astype(np.float64)
    across = np.array([-along[1], along[0]]) / max(1.0, float(np.hypot(*along))) * side
    middle = line.mean(axis=0)
    start, end = middle - across * _ARROW_PX / 2, middle + across * _ARROW_PX
    cv2.arrowedLine(image, _pixel(start), _pixel(end), _RULE, 2, cv2.LINE_AA, tipLength=0.4)


def _trail(image: Image, trail: tuple[Point, ...]) -> None:
    if len(trail) > 1:
        points = np.array(trail, np.float32).round().astype(np.int32)
        cv2.polylines(image, [points], False, _TRAIL, 2, cv2.LINE_AA)
    for x, y in trail[-1:]:
        cv2.circle(image, (round(x), round(y)), 4, _TRAIL, -1, cv2.LINE_AA)


def draw_box(image: Image, box: Box, text: str) -> None:
    """Draw a box with a label into a BGR picture."""
    left, top, right, bottom = (round(v) for v in box)
    cv2.rectangle(image, (left, top), (right, bottom), _BOX, 2)
    width, height = text_size(text, _LABEL_PX)
    above = top - height - 4 if top > height + 4 else top
    cv2.rectangle(image, (left, above), (left + width + 6, above + height + 4), _BOX, -1)
    put_text(image, (left + 3, above + 2), text, _LABEL_PX, (20, 20, 20))


def captioned(image: Image, summary: str, where: str) -> Image:
    """Return a BGR picture with two lines of text below."""
    caption = np.full((_CAPTION_PX, image.shape[1], 3), 28, np.uint8)
    put_text(caption, (8, 4), summary, _SUMMARY_PX, _INK)
    put_text(caption, (8, 25), where, _WHERE_PX, (170, 170, 170))
    return np.vstack([image, caption])


def _pixel(point: npt.NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
