"""What moves now, held against what moved in the last frame that was sent. Pure but for remembering that."""

from __future__ import annotations

import numpy as np

from edge_agent.gate.parts import Parts

_GONE = 2.0
"""What leaves the picture is told less quickly than what comes: at this many times the share."""


class Progress:
    """Tells whether a frame shows something that the last one that was sent did not.

    Something has come or moved on when a part covers new ground with at least ``share`` of its pixels, and with at
    least ``min_area`` of the picture. What has gone uncovers ground instead.
    """

    def __init__(self, share: float, min_area: float) -> None:
        self._share, self._min_area = share, min_area
        self._sent: Parts | None = None

    def sent(self, parts: Parts | None) -> None:
        """Note what moves in a frame that is sent; None for nothing."""
        self._sent = parts

    def is_news(self, parts: Parts | None) -> bool:
        """Tell whether something has come, moved on or gone since."""
        if parts is None or self._sent is None or parts.labels.shape != self._sent.labels.shape:
            return parts is not self._sent
        least_px = self._min_area * parts.labels.size
        come = _uncovered(parts, self._sent, self._share, least_px)
        return come or _uncovered(self._sent, parts, self._share * _GONE, least_px)


def _uncovered(parts: Parts, other: Parts, share: float, least_px: float) -> bool:
    """Tell whether so much of any of these parts lies beside the others."""
    beside = np.bincount(parts.labels[other.labels == 0], minlength=len(parts.areas))
    return bool(np.any((parts.areas > 0) & (beside >= least_px) & (beside >= share * parts.areas)))
