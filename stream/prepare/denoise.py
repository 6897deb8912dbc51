"""Take sensor noise out of a camera's frames, where there is some.

The noise level is estimated from the mask of J. Immerkær, "Fast Noise Variance Estimation", Computer Vision and Image
Understanding 64 (1996), with the median absolute deviation (F. R. Hampel, 1974) in place of its mean, so that edges
do not count as noise. Still texture does look like noise in one frame, but not between two: the lower of the two
estimates is taken.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from stream.prepare.decode import DeliveredFrame

Image = npt.NDArray[np.uint8]
DenoiseKind = Literal["none", "median", "auto"]

NOISY = 1.5
"""Standard deviation of the luma, in grey levels, from which on filtering gains more than it costs: footage in good
light has 0.2 to 0.5 after JPEG; at 1.5 the median already gains 3 dB (the tests measure both)."""
MEDIAN_PX = 3
"""Side of the median's window: removes single wrong pixels, keeps lines two pixels wide."""
MEMORY = 0.75
"""Weight of the past where nothing moved: noise falls to √((1-m)/(1+m)) = 38 %, within about four frames."""
MOVED_SIGMAS = 1.5
"""A 3×3 mean that differs from the past by more is movement: its own noise is a third of a pixel's, so this is over
four of its standard deviations."""
LEAST_STEP = 2.0
"""Grey levels: smaller steps are rounding."""

MAX_DENOISER_BYTES = 128 * 1024 * 1024
"""Per partition: 4 noisy 4K cameras at 27 MB each or 170 at 640×360, as many as one core can prepare, and thousands
that are not noisy, of which only a quarter of the luma is kept."""
_ENTRY_BYTES = 1024
"""Counted for each beside its pixels, so that a million cameras of one pixel are bounded too."""

_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Immerkær's mask: the difference of two Laplacians, blind to edges' slopes. The sum of its squares is 36."""
_MAD = 0.6745
"""Median absolute deviation of a normal distribution with a standard deviation of 1."""
_OF_ROUGH = _MAD * 6.0
_OF_STEP = _MAD * 2**0.5
"""What the medians of the mask's answers and of the steps between two frames are, for noise of 1."""


class Denoiser(Protocol):
    """One camera's frames, one after another, on one lane. Not thread-safe; never blocks on anything but the CPU.

    What is given is ``(H, W, 3)`` uint8 and is not changed; what is returned has the same shape, and may be the very
    same array. The size may change from one frame to the next.
    """

    @property
    def held_bytes(self) -> int:
        """How many bytes of pixels it keeps for the next frame; 0 for one that remembers nothing."""
        ...

    def denoise(self, frame: Image) -> Image:
        """Return the frame with less noise."""
        ...


class NoDenoiser:
    """Leaves frames as they are."""

    held_bytes = 0

    def denoise(self, frame: Image) -> Image:
        """Return the frame."""
        return frame


class MedianDenoiser:
    """Replaces each pixel by its neighbourhood's median, always."""

    held_bytes = 0

    def denoise(self, frame: Image) -> Image:
        """Return the frame with single wrong pixels taken out."""
        return _median(frame)


class AutoDenoiser:
    """Filters noisy frames only: over time where nothing moved, by the median where something did."""

    def __init__(self) -> None:
        self._middle: Image | None = None
        self._past: Image | None = None

    @property
    def held_bytes(self) -> int:
        """The middle of the last frame, in grey, and while the camera is noisy the last filtered frame."""
        return sum(image.nbytes for image in (self._middle, self._past) if image is not None)

    def denoise(self, frame: Image) -> Image:
        """Return the frame itself if it is clean, else a filtered copy."""
        middle = _grey(_middle(frame))  # noise is looked for nowhere else, and most cameras have none
        before = self._middle if self._middle is not None and self._middle.shape == middle.shape else None
        self._middle = middle
        sigma = _noise(middle, before)
        if sigma is None:
            self._past = None
            return frame
        if self._past is None or self._past.shape != frame.shape:
            self._past = _median(frame)
        else:
            self._past = _blend(self._past, frame, sigma)
        return self._past


def denoiser(kind: DenoiseKind) -> Denoiser:
    """Make the denoiser of one camera's lane."""
    if kind == "median":
        return MedianDenoiser()
    return AutoDenoiser() if kind == "auto" else NoDenoiser()


class DenoiserCache:
    """The denoisers of one partition, one per camera, lane and kind; the one used longest ago is forgotten first.

    A camera that was forgotten is still denoised: it finds its level again within a few frames.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, DenoiseKind], Denoiser] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What all of them take."""
        return self._held_bytes

    def denoise(self, frame: DeliveredFrame, kind: DenoiseKind) -> Image:
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

    def _keep(self, key: tuple[str, str, DenoiseKind], chosen: Denoiser) -> None:
        self._known[key] = chosen
        self._held_bytes += _size(chosen)
        while self._held_bytes > MAX_DENOISER_BYTES and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._held_bytes -= _size(forgotten)


def noise_sigma(grey: Image, before: Image | None = None) -> float:
    """Estimate the noise's standard deviation, in grey levels, from a ``(H, W)`` picture and the one before it.

    Looks at the middle of the picture, a quarter of its area: overlays and black bars are at its borders.
    """
    middle = _middle(grey)
    return _sigma(_rough(middle), None if before is None else cv2.absdiff(middle, _middle(before)))


def _noise(middle: Image, before: Image | None) -> float | None:
    """Return the noise's standard deviation if it is ``NOISY``; None, in an eighth of the time, if it is not."""
    step = None if before is None else cv2.absdiff(middle, before)
    if step is not None and _median_is_below(step, NOISY * _OF_STEP):
        return None
    rough = _rough(middle)
    return None if _median_is_below(rough, NOISY * _OF_ROUGH) else _sigma(rough, step)


def _sigma(rough: cv2.typing.MatLike, step: cv2.typing.MatLike | None) -> float:
    sigma = _median_level(rough) / _OF_ROUGH
    return sigma if step is None else min(sigma, _median_level(step) / _OF_STEP)


def _rough(middle: Image) -> cv2.typing.MatLike:
    """Return how far each pixel is off what its neighbours let expect."""
    return cv2.convertScaleAbs(cv2.filter2D(middle, cv2.CV_16S, _LAPLACIANS))


def _blend(past: Image, frame: Image, sigma: float) -> Image:
    step = cv2.absdiff(cv2.blur(_grey(frame), (3, 3)), cv2.blur(_grey(past), (3, 3)))
    _, moved = cv2.threshold(step, max(LEAST_STEP, MOVED_SIGMAS * sigma), 255, cv2.THRESH_BINARY)
    blended = cv2.addWeighted(past, MEMORY, frame, 1.0 - MEMORY, 0.0)
    if cv2.countNonZero(moved):
        cv2.copyTo(_median(frame), moved, blended)
    return _image(blended)


def _median_level(levels: cv2.typing.MatLike) -> float:
    """Return the median of a picture's levels, interpolated within its level."""
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()
    below = np.cumsum(counts)
    half = below[-1] / 2
    level = int(np.searchsorted(below, half))
    under = below[level - 1] if level else 0.0
    return max(0.0, float(level - 0.5 + (half - under) / counts[level]))


def _median_is_below(levels: cv2.typing.MatLike, limit: float) -> bool:
    """Tell whether ``_median_level`` is below a positive limit, without counting every level."""
    level = int(limit + 0.5)
    under, half = np.count_nonzero(levels < level), levels.size / 2
    if under >= half:
        return True
    return bool(under + np.count_nonzero(levels == level) * (limit - level + 0.5) > half)


def _median(frame: Image) -> Image:
    return _image(cv2.medianBlur(frame, MEDIAN_PX))


def _grey(frame: Image) -> Image:
    return _image(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def _middle(picture: Image) -> Image:
    height, width = picture.shape[:2]
    return picture[height // 4 : height - height // 4, width // 4 : width - width // 4]


def _image(array: cv2.typing.MatLike) -> Image:
    """Narrow OpenCV's type: its functions keep uint8 where they were given it."""
    return array  # type: ignore[return-value]


def _size(one: Denoiser) -> int:
    return one.held_bytes + _ENTRY_BYTES
