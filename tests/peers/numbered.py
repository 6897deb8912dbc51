"""Numbered pictures: a test can find out when each picture was sent, and compare it with the original."""

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
"""Digits of a picture's number in binary: squares at the lower left, as large as a codec's blocks."""
LIKE_DB = 35.0
"""Minimum PSNR of an intact picture. A JPEG picture of the usual quality has a higher PSNR, a visibly damaged picture
has a lower one."""
EARLY_NS = 1_000_000_000
"""Maximum time in ns by which a frame's time stamp may precede the sending of the frame."""


def marked(picture: Image, number: int) -> Image:
    """Return a copy of a picture with its number drawn on it."""
    out = picture.copy()
    for bit in range(BITS):
        out[-SIDE_PX:, bit * SIDE_PX : (bit + 1) * SIDE_PX] = 255 * (number >> bit & 1)
    return out


def _number(picture: Image) -> int:
    """Return the number in a picture. A damaged picture may yield any number."""
    inner = SIDE_PX // 4
    rows = picture[-SIDE_PX + inner : -inner]
    columns = [rows[:, bit * SIDE_PX + inner : (bit + 1) * SIDE_PX - inner] for bit in range(BITS)]
    return sum(int(column.mean() > 127) << bit for bit, column in enumerate(columns))


@dataclass(frozen=True, slots=True)
class Sent:
    """Origin of a kept frame: its sending time in Unix ns, and its PSNR against the sent picture in dB."""

    at_ns: int
    psnr_db: float

    @property
    def intact(self) -> bool:
        """Whether the picture is intact."""
        return self.psnr_db >= LIKE_DB


class Clip:
    """Encoded video of numbered pictures that a server sends in a loop."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as video:
            self._pictures = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
            rate = video.streams.video[0].average_rate
        assert rate is not None
        self._interval_ns = round(1e9 / rate)

    def sent(self, frames: Sequence[Frame], begun_ns: Sequence[int]) -> list[Sent]:
        """Return the origin of one epoch's frames, given the times at which the server began to send to clients.

        The time between two successive intact frames must be shorter than the video.
        """
        if not frames:
            return []
        begun = max(at for at in begun_ns if at <= frames[0].captured_ns + EARLY_NS)
        place, found = 0, []
        for frame in frames:
            number, alike = self._look(frame)
            there = place + (number - place) % len(self._pictures)
            found.append(Sent(begun + there * self._interval_ns, alike))
            place = there if found[-1].intact else place
        return found

    def _look(self, frame: Frame) -> tuple[int, float]:
        picture = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        number = _number(np.asarray(picture, np.uint8))
        return number, cv2.PSNR(self._pictures[number], picture) if number < len(self._pictures) else 0.0
