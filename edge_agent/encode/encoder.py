"""From a redacted picture to bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.encode.budget import Budget
from edge_agent.encode.ladder import Rung
from edge_agent.encode.purse import Purse
from edge_agent.exceptions import FrameUnusable
from edge_agent.redact.redactor import Redaction
from ingest.contract.records import Box
from ingest.site import EncodeConfig

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]

_QUALITY = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's bytes, and what was done. ``scaled_from`` is None when the size is the picture's own, in px."""

    data: bytes
    encoding: Literal["jpeg", "webp"]
    quality: int
    width: int
    height: int
    scaled_from: Size | None

    def scaled(self, box: Box) -> Box:
        """Return a box of the picture as it was in pixels of the picture as it is."""
        if self.scaled_from is None:
            return box
        return box.scaled(self.width / self.scaled_from[0], self.height / self.scaled_from[1])


@dataclass(frozen=True, slots=True)
class OverBudget:
    """The frame is to be withheld as ``budget``: only ``left_bytes`` may be spent now."""

    left_bytes: int


class Encoder:
    """Encodes the pictures of one camera, in order, within its budget. Belongs to one thread.

    ``purse`` remembers for the next capture what this one has left.
    """

    def __init__(self, config: EncodeConfig, purse: Purse | None = None) -> None:
        self._config, self._purse = config, purse
        self._budget = Budget(config)
        if purse:
            purse.fill(self._budget.buckets)

    def encode(self, redaction: Redaction, now_s: float) -> Encoded | OverBudget:
        """Encode a picture at ``now_s`` on the monotonic clock. Raise FrameUnusable when it cannot be.

        When it is too large for what may be spent now, it is tried once more at the floor of quality and size.
        """
        rung = self._budget.rung(now_s)
        while rung is not None:
            encoded = self._at(redaction.image, rung)
            if self._budget.spend(len(encoded.data)):
                if self._purse:
                    self._purse.keep(self._budget.buckets)
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
            raise FrameUnusable(f"it could not be encoded: {error.err}") from None
        if not done:
            raise FrameUnusable(f"it could not be encoded as {encoding}")
        return Encoded(data.tobytes(), encoding, rung.quality, *size, own if size != own else None)
