"""The pictures of a data set's examples: whole frames as they are in the log, and crops cut from them."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2

from ingest.contract.records import Box, Frame, Pixels
from ingest.exceptions import PictureError
from ingest.picture import check, pixels
from ingest.site import RedactConfig
from training.datasets.request import DatasetExample

MIN_SIDE_PX = 8
"""Minimum width and height of a crop in pixels of the frame. A smaller crop does not show an object's shape."""
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
"""A crop is encoded with full colour resolution and little loss, because its frame was compressed once already."""
_ENDINGS = {"jpeg": "jpg", "webp": "webp"}


class ExamplePicture(NamedTuple):
    """The picture of an example: its encoded bytes, the ending of the file's name, and the pixels ``(height, width,
    3)`` uint8, BGR."""

    data: bytes
    ending: str
    pixels: Pixels


class PictureUnfit(Exception):
    """A frame cannot be used as an example of a data set. The exception's text is the reason that the datasheet
    shows."""


def require_private(frame: Frame, redact: RedactConfig | None) -> None:
    """Raise PictureUnfit if the camera's present privacy masks or detectors were not applied to a frame.

    Agents redact frames before sending them. If a mask was configured after the capture of a frame, the frame
    shows the masked area.
    """
    if redact is None:
        return
    done = frame.redacted
    if redact.masks and (done is None or done.masks < len(redact.masks)):
        raise PictureUnfit("captured without a present privacy mask")
    detectors = sum(one is not None for one in (redact.faces, redact.plates))
    if detectors and (done is None or len(done.models) < detectors):
        raise PictureUnfit("captured without the present redaction of faces or plates")


def whole_frame(frame: Frame) -> ExamplePicture:
    """Return a whole frame with its original bytes. Raise PictureUnfit if the frame cannot be decoded."""
    return ExamplePicture(frame.image, _ENDINGS[frame.encoding], _decoded(frame))


def crop(frame: Frame, box: Box, margin: float) -> ExamplePicture:
    """Return the part of a frame around a box, with a margin on each side as a share of the box's size, as JPEG.

    If this part is the whole frame, the original bytes of a JPEG are returned. Raise PictureUnfit.
    """
    image = _decoded(frame)
    left, top, right, bottom = box.widened(margin).clipped(frame.width, frame.height)
    edges = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    if min(edges[2] - edges[0], edges[3] - edges[1]) < MIN_SIDE_PX:
        raise PictureUnfit(f"smaller than {MIN_SIDE_PX} pixels")
    if edges == (0, 0, frame.width, frame.height) and frame.encoding == "jpeg":
        return ExamplePicture(frame.image, _ENDINGS["jpeg"], image)
    part = image[edges[1] : edges[3], edges[0] : edges[2]]
    return ExamplePicture(cv2.imencode(".jpg", part, _QUALITY)[1].tobytes(), _ENDINGS["jpeg"], part)


def picture_of(example: DatasetExample, frame: Frame, margin: float | None) -> ExamplePicture:
    """Return the picture of an example: the crop of its object, or if ``margin`` is None the whole frame."""
    return whole_frame(frame) if margin is None else crop(frame, example.objects[0].box, margin)


def _decoded(frame: Frame) -> Pixels:
    size = frame.width, frame.height
    try:
        check(frame.image, frame.encoding, size)
        return pixels(frame.image, frame.encoding, size)
    except PictureError:
        raise PictureUnfit("cannot be decoded") from None
