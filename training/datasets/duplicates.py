"""Perceptual fingerprints of pictures, and a search for near-duplicates. Pure.

The fingerprint is a difference hash (N. Krawetz, "Kind of like that", 2013) of 16 × 16 differences between cells.
A difference sets its bit only above ``MARGIN`` levels of brightness, because noise would otherwise set the bits of a
flat area. As a fixed camera shows the same background in every frame, two whole frames are near-duplicates only if
their objects are at the same places as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box, Pixels
from stream.labels.candidates import CandidateObject

MARGIN = 3
"""Difference of two neighbouring cells above which a fingerprint's bit is set, in levels of brightness from 0 to
255."""
MAX_BITS = 24
"""Maximum number of different bits, of 256, between the fingerprints of two near-duplicates. In a video of a road,
whole frames of the fixed camera differ by 21 bits in the median, and crops of different cars by at least 54 bits."""
SAME_PLACE = 0.6
"""Minimum intersection over union of two boxes that count as the same place."""
_CELLS = 16
_WORDS = 4
_FIRST_ROOM = 256

Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class PictureFingerprint:
    """The fingerprint of a picture: its bits, ``(4,)`` uint64, and the objects of a whole frame; None for a crop."""

    bits: Bits
    objects: tuple[tuple[str, Box], ...] | None = None


def fingerprint(picture: Pixels, objects: Sequence[CandidateObject] | None = None) -> PictureFingerprint:
    """Return the fingerprint of a picture ``(height, width, 3)`` uint8, BGR. The objects of a whole frame are a part
    of its fingerprint."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    cells = cv2.resize(grey, (_CELLS + 1, _CELLS), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits(cells[:, 1:] - cells[:, :-1] > MARGIN)
    named = None if objects is None else tuple((one.label, one.box) for one in objects)
    return PictureFingerprint(bits.view(np.uint64), named)


class NearDuplicates:
    """The fingerprints of the pictures added so far, numbered from 0."""

    def __init__(self, max_bits: int = MAX_BITS) -> None:
        self._max_bits = max_bits
        self._bits: Bits = np.zeros((_FIRST_ROOM, _WORDS), np.uint64)
        self._prints: list[PictureFingerprint] = []

    def __len__(self) -> int:
        return len(self._prints)

    def add(self, one: PictureFingerprint) -> int:
        """Add the fingerprint of a picture, and return its number."""
        count = len(self._prints)
        if count == len(self._bits):
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
        self._bits[count] = one.bits
        self._prints.append(one)
        return count

    def of(self, one: PictureFingerprint) -> Iterator[int]:
        """Yield the numbers of the added pictures that are near-duplicates of a picture."""
        distances = np.bitwise_count(self._bits[: len(self._prints)] ^ one.bits).sum(axis=1)
        for number in np.flatnonzero(distances <= self._max_bits):
            if _same_objects(one.objects, self._prints[number].objects):
                yield int(number)


def _same_objects(one: tuple[tuple[str, Box], ...] | None, other: tuple[tuple[str, Box], ...] | None) -> bool:
    if one is None or other is None:
        return True
    if len(one) != len(other):
        return False
    left = list(other)
    for _, box in one:
        partner = next((each for each in left if each[1].iou(box) >= SAME_PLACE), None)
        if partner is None:
            return False
        left.remove(partner)
    return True
