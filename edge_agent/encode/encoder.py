"""Encoder from a redacted picture to JPEG or WebP bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2

from edge_agent.encode.buckets import CarriedBudget
from edge_agent.encode.budget import Budget, Rung
from edge_agent.exceptions import FrameUnusable
from edge_agent.redact.cover import Image
from edge_agent.redact.redactor import Redaction
from ingest.contract.records import Box
from ingest.site import EncodeConfig

Size = tuple[int, int]

_QUALITY = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded picture and the settings of its encoding.

    ``scaled_from`` is the width and height of the picture before scaling, in px; None if the picture was not scaled.
    """

    data: bytes
    encoding: Literal["jpeg", "webp"]
    quality: int
    width: int
    height: int
    scaled_from: Size | None

    def scaled(self, box: Box) -> Box:
        """Convert a box from pixels of the original picture to pixels of the encoded picture."""
        if self.scaled_from is None:
            return box
        return box.scaled(self.width / self.scaled_from[0], self.height / self.scaled_from[1])


@dataclass(frozen=True, slots=True)
class OverBudget:
    """Result for a frame that exceeds the byte budget. The frame is withheld with the reason ``budget``.

    ``left_bytes`` is the number of bytes that remain in the budget.
    """

    left_bytes: int


class Encoder:
    """Encoder of one camera's pictures within the camera's byte budget.

    Only one thread may call ``encode``, with the pictures in the order of their capture. ``carried`` is the file that
    hands the remaining budget to the next capture process.
    """

    def __init__(self, config: EncodeConfig, carried: CarriedBudget | None = None) -> None:
        self._config, self._carried = config, carried
        self._budget = Budget(config)
        if carried:
            carried.restore(self._budget.buckets)

    def encode(self, redaction: Redaction, now_s: float) -> Encoded | OverBudget:
        """Encode a picture within the byte budget; ``now_s`` is the time on the monotonic clock.

        Raise FrameUnusable if the picture cannot be encoded. If the encoded picture exceeds the budget, encode the
        picture once more at minimum quality and size.
        """
        rung = self._budget.rung(now_s)
        while rung is not None:
            encoded = self._at(redaction.image, rung)
            if self._budget.spend(len(encoded.data)):
                if self._carried:
                    self._carried.save(self._budget.buckets)
                return encoded
            rung = self._budget.floor()
        return OverBudget(self._budget.left)

    def _at(self, image: Image, rung: Rung) -> Encoded:
        encoding, own = self._config.encoding, (image.shape[1], image.shape[0])
        size = max(1, round(own[0] * rung.scale)), max(1, round(own[1] * rung.scale))
        try:
            scaled = image if size == own else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            done, data = cv2.imencode(f".{encoding}", scaled, [_QUALITY[encoding], rung.quality])
        except cv2.error as error:
            raise FrameUnusable(f"encoding failed: {error.err}") from None
        if not done:
            raise FrameUnusable(f"encoding as {encoding} failed")
        return Encoded(data.tobytes(), encoding, rung.quality, *size, own if size != own else None)
