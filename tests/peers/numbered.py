"""Pictures that carry their number, so that a test can tell when each was sent and what it should look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Frame

__all__ = ["LIKE_DB", "Clip", "Sent", "marked"]

Image = npt.NDArray[np.uint8]

BITS, SIDE_PX = 10, 16
"""The number is in black and white squares at the lower left, as large as a codec's blocks are."""
LIKE_DB = 35.0
"""What is left of a sound picture after a JPEG of the usual quality is more; with damage that one can see, less."""
EARLY_NS = 1_000_000_000
"""A frame's time may be earlier than the one at which it was sent by less than this."""


def marked(picture: Image, number: int) -> Image:
    """Return a picture with its number on it."""
    out = picture.copy()
    for bit in range(BITS):
        out[-SIDE_PX:, bit * SIDE_PX : (bit + 1) * SIDE_PX] = 255 * (number >> bit & 1)
    return out


def _number(picture: Image) -> int:
    """Read a number. Of a damaged picture it may be any."""
    inner = SIDE_PX // 4
    rows = picture[-SIDE_PX + inner : -inner]
    columns = [rows[:, bit * SIDE_PX + inner : (bit + 1) * SIDE_PX - inner] for bit in range(BITS)]
    return sum(int(column.mean() > 127) << bit for bit, column in enumerate(columns))


@dataclass(frozen=True, slots=True)
class Sent:
    """What is known of a kept frame: when it was sent in Unix ns, and its likeness to what was sent, in dB."""

    at_ns: int
    psnr_db: float

    @property
    def sound(self) -> bool:
        """Tell whether the picture is what was sent."""
        return self.psnr_db >= LIKE_DB


class Clip:
    """An encoded film of numbered pictures that is sent in a loop."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as video:
            self._pictures = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
            rate = video.streams.video[0].average_rate
        assert rate is not None
        self._interval_ns = round(1e9 / rate)

    def sent(self, frames: Sequence[Frame], begun_ns: Sequence[int]) -> list[Sent]:
        """Find out about one epoch's frames, from when the server has begun to send to its clients.

        From one sound frame to the next must be less than the length of the film.
        """
        if not frames:
            return []
        begun = max(at for at in begun_ns if at <= frames[0].captured_ns + EARLY_NS)
        place, found = 0, []
        for frame in frames:
            number, alike = self._look(frame)
            there = place + (number - place) % len(self._pictures)
            found.append(Sent(begun + there * self._interval_ns, alike))
            place = there if found[-1].sound else place
        return found

    def _look(self, frame: Frame) -> tuple[int, float]:
        picture = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        number = _number(np.asarray(picture, np.uint8))
        return number, cv2.PSNR(self._pictures[number], picture) if number < len(self._pictures) else 0.0
