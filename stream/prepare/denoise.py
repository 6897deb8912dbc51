"""Remove sensor noise from the frames of a camera.

The noise level is estimated with the filter mask of Immerkær ("Fast Noise Variance Estimation", Computer Vision and
Image Understanding 64, 1996). The estimate uses the median absolute deviation (Hampel, 1974) instead of the mean, so
that edges do not count as noise. The texture of an unmoved surface looks like noise within one frame, but cancels out
in the difference of two frames. The noise level is the lower of two estimates: from one frame, and from the
difference of two frames.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, Protocol

import cv2
import numpy as np

from ingest.contract.records import Pixels as Image
from stream.prepare.decode import DeliveredFrame

DenoiseKind = Literal["none", "median", "bilateral", "temporal", "auto"]

NOISY = 2.0
"""Minimum standard deviation of the luma noise, in grey levels, at which ``auto`` filters a frame. JPEG removes weak
noise: the estimate is 0 to 1.3 for footage in good light, and 0.5 to 2.0 after noise of 5 grey levels was added.
Below 2.0, filters remove detail from small pictures, and a detector finds no more objects than without them: decision
20."""
STRONG = 9.0
"""Standard deviation of the luma noise, in grey levels, from which ``auto`` and ``temporal`` replace a moving pixel
by the median. If the noise is weaker, ``auto`` and ``temporal`` move the pixel halfway to the median, which keeps
detail of small pictures."""
MEDIAN_PX = 3
"""Side of the median's window, in pixels. A median of 3×3 pixels removes single wrong pixels and keeps lines two
pixels wide."""
BILATERAL_PX = 5
"""Side of the bilateral filter's window, in pixels. A window of 7 pixels would take six times as long."""
RANGE_SIGMAS = 4.0
"""Difference between two colours, in standard deviations of the noise, at which the bilateral filter gives the
neighbour 61 % of the weight of an equal colour."""
MIN_RANGE = 10.0
"""Minimum colour difference, in grey levels, at which the bilateral filter gives the neighbour 61 % of the weight of
an equal colour. With the minimum, the filter removes JPEG artefacts, and in measurements the PSNR of no clean frame
fell."""
SPACE_PX = 2.0
"""Distance in pixels at which the bilateral filter gives a neighbour 61 % of the weight of the pixel itself."""
MEDIAN_NS = 2.5
TEMPORAL_NS = 6.5
"""CPU time of the temporal filter in ns per pixel, including the noise estimate. ``MEDIAN_NS`` is the CPU time of the
median filter. ``benchmarks/denoise.py`` measures the CPU times of the temporal and the median filter."""
MEMORY = 0.75
"""Weight m of the past frames in the average over time of a pixel without motion. The average reduces noise to
√((1-m)/(1+m)) = 38 % within about four frames."""
MOVED_SIGMAS = 1.5
"""A pixel counts as moving if its 3×3 mean differs from the past 3×3 mean by more than this number of standard
deviations of the pixel noise. A 3×3 mean has a third of the noise of one pixel, so the threshold is 4.5 standard
deviations of the mean."""
MIN_STEP = 2.0
"""Minimum difference between two 3×3 means that counts as motion, in grey levels. Differences below ``MIN_STEP`` can
come from rounding."""

CHECK_FRAMES = 8
"""If a camera had no noise so far, the noise of every ``CHECK_FRAMES``-th frame is estimated. Each estimate needs a
decoded frame. Decoding takes 20 times as much CPU time as the noise estimate: 1 ms at 768×432, and 6 ms at 1080p."""
CHECK_NS = 1_000_000_000
"""Maximum time from capture to capture, in ns, between two estimates of a camera's noise. At low frame rates, the
noise of every frame is estimated."""

MAX_DENOISER_BYTES = 128 * 1024 * 1024
"""Maximum memory of the denoisers of one partition, in bytes. The limit allows 4 noisy 4K cameras of 27 MB each or
170 noisy cameras at 640×360; one core cannot prepare the frames of more cameras. For a camera without noise, only the
central quarter of the grey picture is kept, so thousands of such cameras fit."""
_ENTRY_BYTES = 1024
"""Bytes counted for each denoiser in addition to its pixels. The addition limits the number of denoisers to 131,072,
even if each picture has only one pixel."""

_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Immerkær's mask: the difference of two Laplacian masks. The mask does not respond to the slopes of edges. The
squares of the mask's values sum to 36, so the mask's response to noise has 6 times the standard deviation of the
noise."""
_MAD = 0.6745
"""Median absolute deviation of a normal distribution with a standard deviation of 1."""
_MEDIAN_RESPONSE = _MAD * 6.0
_MEDIAN_STEP = _MAD * 2**0.5
"""Median absolute difference between two frames, for noise with a standard deviation of 1. ``_MEDIAN_RESPONSE`` is
the median absolute response of Immerkær's mask to noise with a standard deviation of 1."""


class Denoiser(Protocol):
    """A filter for the successive frames of one camera on one lane.

    A filter is not thread-safe, uses the CPU and does no I/O. The input is ``(H, W, 3)`` uint8 and is not changed.
    The output has the shape of the input and may be the input array itself. The size of a frame may differ from the
    size of the previous frame.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels that the filter keeps for the next frame; 0 for a filter that keeps no pixels."""

    def needs(self, captured_ns: int) -> bool:
        """Return whether the filter needs the pixels of the next frame. If this method returns False, the next frame
        stays unchanged."""

    def denoise(self, frame: Image) -> Image:
        """Return the frame with less noise."""


class NoDenoiser:
    """A filter that returns every frame unchanged."""

    held_bytes = 0

    def needs(self, captured_ns: int) -> bool:
        """Return False."""
        return False

    def denoise(self, frame: Image) -> Image:
        """Return the frame unchanged."""
        return frame


class MedianDenoiser:
    """A filter that replaces every pixel by the median of its neighbourhood."""

    held_bytes = 0

    def needs(self, captured_ns: int) -> bool:
        """Return True."""
        return True

    def denoise(self, frame: Image) -> Image:
        """Return the frame without single wrong pixels."""
        return _median(frame)


class BilateralDenoiser:
    """A filter that averages each pixel with the neighbours of a similar colour (Tomasi and Manduchi, 1998).

    The range of similar colours follows from the noise of the frame, so the filter hardly changes a clean frame.
    """

    held_bytes = 0

    def needs(self, captured_ns: int) -> bool:
        """Return True."""
        return True

    def denoise(self, frame: Image) -> Image:
        """Return the frame with less noise and with its edges preserved."""
        sigma = noise_sigma(_grey(frame))
        return _image(cv2.bilateralFilter(frame, BILATERAL_PX, max(MIN_RANGE, RANGE_SIGMAS * sigma), SPACE_PX))


class TemporalDenoiser:
    """A filter that averages pixels without motion over time, and moves each moving pixel towards the median of its
    neighbourhood."""

    def __init__(self) -> None:
        self._middle: Image | None = None
        self._past: Image | None = None

    @property
    def held_bytes(self) -> int:
        """Size in bytes of the two pictures in memory: the middle of the last frame in grey, and the last filtered
        frame."""
        return sum(image.nbytes for image in (self._middle, self._past) if image is not None)

    def needs(self, captured_ns: int) -> bool:
        """Return True."""
        return True

    def denoise(self, frame: Image) -> Image:
        """Return the average of the frame and the past frames."""
        middle = _grey(_middle(frame))  # the noise of the centre stands for the whole picture
        before = _comparable(self._middle, middle)
        self._middle = middle
        step = None if before is None else cv2.absdiff(middle, before)
        self._past = _averaged(self._past, frame, _sigma(_response(middle), step))
        return self._past


class AutoDenoiser:
    """A filter that changes only noisy frames. The denoiser uses the temporal filter if the CPU budget allows, else
    the median filter.

    While a camera has no noise, the filter looks at the pixels of few of its frames. If a frame after skipped frames
    seems noisy, the noise is estimated again from two consecutive frames before the filter changes anything.
    ``budget_ms`` is the CPU time that a frame may take, in ms. The choice depends on the size of the frame, not on
    measured times, so that a frame that is processed again gets the same pixels.
    """

    def __init__(self, budget_ms: float = math.inf) -> None:
        self._budget_ns = budget_ms * 1e6
        self._middle: Image | None = None
        self._past: Image | None = None
        self._to_skip = 0
        self._skipped = False
        self._needed_ns = 0

    @property
    def held_bytes(self) -> int:
        """Size in bytes of the pictures in memory: the middle of the last frame in grey and, while the camera is
        filtered over time, the last filtered frame."""
        return sum(image.nbytes for image in (self._middle, self._past) if image is not None)

    def needs(self, captured_ns: int) -> bool:
        """Return True for each frame while the camera is noisy, else for every ``CHECK_FRAMES``-th frame, and for the
        first frame after ``CHECK_NS``."""
        if self._to_skip and 0 <= captured_ns - self._needed_ns < CHECK_NS:
            self._to_skip -= 1
            self._skipped = True
            return False
        self._needed_ns = captured_ns
        return True

    def denoise(self, frame: Image) -> Image:
        """Return the frame itself if its noise is below ``NOISY``, else a filtered copy."""
        allowed_ns = self._budget_ns / (frame.shape[0] * frame.shape[1])
        middle = _grey(_middle(frame))
        before = _comparable(self._middle, middle)
        after_gap, self._middle, self._skipped = self._skipped, middle, False
        sigma = _noise(middle, before)
        self._to_skip = CHECK_FRAMES - 1 if sigma is None or allowed_ns < MEDIAN_NS else 0
        if sigma is None or after_gap or allowed_ns < TEMPORAL_NS:
            self._past = None
            return (
                _softened(frame, sigma) if sigma is not None and not after_gap and allowed_ns >= MEDIAN_NS else frame
            )
        self._past = _averaged(self._past, frame, sigma)
        return self._past


def denoiser(kind: DenoiseKind, budget_ms: float = math.inf) -> Denoiser:
    """Create the denoiser of one camera on one lane. ``budget_ms`` is the CPU time that a denoiser of the kind
    ``auto`` may take per frame."""
    if kind == "auto":
        return AutoDenoiser(budget_ms)
    return _SIMPLE[kind]()


_SIMPLE: dict[DenoiseKind, Callable[[], Denoiser]] = {
    "none": NoDenoiser,
    "median": MedianDenoiser,
    "bilateral": BilateralDenoiser,
    "temporal": TemporalDenoiser,
}


_CacheKey = tuple[str, str, DenoiseKind, float]
"""Camera, lane (live, late or replay), kind of denoiser, and CPU budget in ms."""


class DenoiserCache:
    """The denoisers of one partition, one for each camera, lane, kind and budget.

    If all denoisers together exceed ``MAX_DENOISER_BYTES``, the least recently used denoiser is dropped. A camera
    whose denoiser was dropped gets a new denoiser, which estimates the noise level within a few frames.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[_CacheKey, Denoiser] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Memory of all denoisers in bytes."""
        return self._held_bytes

    def denoise(self, frame: DeliveredFrame, kind: DenoiseKind, budget_ms: float = math.inf) -> Image | None:
        """Return the pixels of a frame with less noise; None if the frame stays as it is.

        A single picture that belongs to no camera gets a new denoiser, because the previous picture shows something
        else. Raise PictureError if the pixels are needed and cannot be decoded.
        """
        if frame.pipeline:
            return _changed(denoiser(kind, budget_ms), frame)
        key = (frame.frame.camera, frame.lane, kind, budget_ms)
        chosen = self._known.pop(key, None)
        if chosen is None:
            chosen = denoiser(kind, budget_ms)
        else:
            self._held_bytes -= _size(chosen)
        clean = _changed(chosen, frame)
        if chosen.held_bytes:
            self._keep(key, chosen)
        return clean

    def _keep(self, key: _CacheKey, chosen: Denoiser) -> None:
        self._known[key] = chosen
        self._held_bytes += _size(chosen)
        while self._held_bytes > MAX_DENOISER_BYTES and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._held_bytes -= _size(forgotten)


def _changed(chosen: Denoiser, frame: DeliveredFrame) -> Image | None:
    """Return the filtered pixels of a frame; None if the filter does not change the frame."""
    if not chosen.needs(frame.frame.captured_ns):
        return None
    image = frame.image()
    clean = chosen.denoise(image)
    return None if clean is image else clean


def noise_sigma(grey: Image, before: Image | None = None) -> float:
    """Return the estimated standard deviation of the noise, in grey levels, of a ``(H, W)`` picture.

    ``before`` is the camera's previous picture. Only the central quarter of the area counts, because overlays and
    black bars lie at the borders.
    """
    middle = _middle(grey)
    return _sigma(_response(middle), None if before is None else cv2.absdiff(middle, _middle(before)))


def _noise(middle: Image, before: Image | None) -> float | None:
    """Return the standard deviation of the noise, or None if the noise is below ``NOISY``.

    A call that returns None takes an eighth of the time of a call that returns a number.
    """
    step = None if before is None else cv2.absdiff(middle, before)
    if step is not None and _median_is_below(step, NOISY * _MEDIAN_STEP):
        return None
    response = _response(middle)
    return None if _median_is_below(response, NOISY * _MEDIAN_RESPONSE) else _sigma(response, step)


def _sigma(response: cv2.typing.MatLike, step: cv2.typing.MatLike | None) -> float:
    sigma = _median_level(response) / _MEDIAN_RESPONSE
    return sigma if step is None else min(sigma, _median_level(step) / _MEDIAN_STEP)


def _response(middle: Image) -> cv2.typing.MatLike:
    """Return the absolute difference between each pixel's value and the value predicted from the neighbouring
    pixels."""
    return cv2.convertScaleAbs(cv2.filter2D(middle, cv2.CV_16S, _LAPLACIANS))


def _averaged(past: Image | None, frame: Image, sigma: float) -> Image:
    """Return the average of a frame and the past average; moving pixels come from ``_softened``."""
    if past is None or past.shape != frame.shape:
        return _softened(frame, sigma)
    step = cv2.absdiff(cv2.blur(_grey(frame), (3, 3)), cv2.blur(_grey(past), (3, 3)))
    _, moved = cv2.threshold(step, max(MIN_STEP, MOVED_SIGMAS * sigma), 255, cv2.THRESH_BINARY)
    blended = cv2.addWeighted(past, MEMORY, frame, 1.0 - MEMORY, 0.0)
    if cv2.countNonZero(moved):
        cv2.copyTo(_softened(frame, sigma), moved, blended)
    return _image(blended)


def _median_level(levels: cv2.typing.MatLike) -> float:
    """Return the median grey level of a picture as a fraction, interpolated within the histogram bin of the
    median."""
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()
    below = np.cumsum(counts)
    half = below[-1] / 2
    level = int(np.searchsorted(below, half))
    under = below[level - 1] if level else 0.0
    return max(0.0, float(level - 0.5 + (half - under) / counts[level]))


def _median_is_below(levels: cv2.typing.MatLike, limit: float) -> bool:
    """Return whether ``_median_level`` is below a positive limit, without a histogram of all levels."""
    level = int(limit + 0.5)
    under, half = np.count_nonzero(levels < level), levels.size / 2
    if under >= half:
        return True
    return bool(under + np.count_nonzero(levels == level) * (limit - level + 0.5) > half)


def _median(frame: Image) -> Image:
    return _image(cv2.medianBlur(frame, MEDIAN_PX))


def _softened(frame: Image, sigma: float) -> Image:
    """Return the median of a frame, or the mean of the frame and its median if the noise is below ``STRONG``."""
    median = _median(frame)
    return median if sigma >= STRONG else _image(cv2.addWeighted(frame, 0.5, median, 0.5, 0.0))


def _comparable(before: Image | None, now: Image) -> Image | None:
    return before if before is not None and before.shape == now.shape else None


def _grey(frame: Image) -> Image:
    return _image(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def _middle(picture: Image) -> Image:
    height, width = picture.shape[:2]
    return picture[height // 4 : height - height // 4, width // 4 : width - width // 4]


def _image(array: cv2.typing.MatLike) -> Image:
    """Narrow the static type of an OpenCV result: OpenCV functions return uint8 for uint8 input."""
    return array  # type: ignore[return-value]


def _size(one: Denoiser) -> int:
    return one.held_bytes + _ENTRY_BYTES
