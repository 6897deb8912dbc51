"""What is remembered of cameras: their denoisers, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict

from stream.prepare.decode import Delivered
from stream.prepare.denoise import Denoiser, Image, Kind, denoiser

MAX_DENOISER_BYTES = 128 * 1024 * 1024
"""Per partition: 4 noisy 4K cameras at 27 MB each or 170 at 640×360, as many as one core can prepare, and thousands
that are not noisy, of which only a quarter of the luma is kept."""
_ENTRY_BYTES = 1024
"""Counted for each beside its pixels, so that a million cameras of one pixel are bounded too."""

_Key = tuple[str, str, Kind]


class Denoisers:
    """The denoisers of one partition, one per camera, lane and kind; the one used longest ago is forgotten first.

    A camera that was forgotten is still denoised: it finds its level again within a few frames.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, Denoiser] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What all of them take."""
        return self._held_bytes

    def denoise(self, frame: Delivered, kind: Kind) -> Image:
        """Return a frame's pixels with less noise. Raise FrameError when they cannot be decoded."""
        image = frame.image()
        key = (frame.frame.camera, frame.lane, kind)
        chosen = self._known.pop(key, None)
        if chosen is None:
            chosen = denoiser(kind)
        else:
            self._held_bytes -= _size(chosen)
        clean = chosen.denoise(image)
        if chosen.held_bytes:
            self._keep(key, chosen)
        return clean

    def _keep(self, key: _Key, chosen: Denoiser) -> None:
        self._known[key] = chosen
        self._held_bytes += _size(chosen)
        while self._held_bytes > MAX_DENOISER_BYTES and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._held_bytes -= _size(forgotten)


def _size(one: Denoiser) -> int:
    return one.held_bytes + _ENTRY_BYTES
