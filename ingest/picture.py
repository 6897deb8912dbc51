"""Check and decode encoded pictures, and crop regions for a model.

The stage ``prepare`` and the engine node crop with the same functions, so that a model gets the same pixels whether
a batch carries pixels or the encoded picture. This is the only module of ``ingest`` that imports OpenCV.

The size of a picture is read from its header before the pixels are decoded, so that a small file cannot make the
decoder allocate gigabytes. JPEG follows ITU-T T.81 (B.1, marker segments), WebP follows RFC 9649.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.crop import CropWindow
from ingest.contract.records import MAX_FRAME_PIXELS, Lens, Optics, Pixels
from ingest.exceptions import CutShort, TooLarge, TooManyScans, Undecodable, WrongSize

MAX_SCANS = 64
"""Maximum number of scans of a progressive JPEG; encoders write about ten. Decoding takes a pass over the whole
picture for each scan, and a hostile record has room for a million scans of 16 bytes."""
MAX_MAP_BYTES = 64 * 1024 * 1024
"""Maximum memory of the maps of undistorted frames in a process, in bytes, apart from the newest map. A map takes 6
bytes per pixel: 1.4 MB at 640×360, 12 MB at 1080p, and 3 MB for a 1080p frame that is decoded at half of its size."""
_END_WITHIN_BYTES = 64
"""Number of bytes at the end of a JPEG file in which the end marker may lie. Some cameras pad the file to a block
size. The compressed data of a scan never contains the end marker."""

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_NOWHERE = -10_000.0
"""Coordinate in pixels that lies outside of every frame."""
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_NO_FRAME_HEADER = {0xC4, 0xC8, 0xCC}
"""JPEG markers in the range SOF0..SOF15 that do not begin a frame header: DHT, JPG and DAC."""
_SCAN = 0xDA
_START_OF_SCAN = int.from_bytes(b"\xff\xda", "little")
"""The JPEG marker before each scan. The compressed data of a scan never contains the marker, but an embedded
thumbnail has start-of-scan markers of its own."""

Size = tuple[int, int]
"""Width and height in pixels."""


def check(data: bytes, encoding: str, declared: Size) -> None:
    """Check a picture without decoding it. Raise Undecodable, CutShort, TooLarge, TooManyScans or WrongSize.

    WrongSize means that the picture's size differs from ``declared``. TooLarge and TooManyScans mean that decoding
    would take too much memory or time. Only ``pixels`` detects damage inside a picture.
    """
    found = _jpeg_size(data) if encoding == "jpeg" else _webp_size(data)
    if found is None or 0 in found:
        raise Undecodable(encoding, len(data))
    if not _is_whole(data, encoding):
        raise CutShort(encoding, len(data))
    if found != declared:
        raise WrongSize(found, declared)
    if found[0] * found[1] > MAX_FRAME_PIXELS:
        raise TooLarge(found, MAX_FRAME_PIXELS)
    if encoding == "jpeg" and (scans := _scans(data)) > MAX_SCANS:
        raise TooManyScans(scans, MAX_SCANS)


def pixels(data: bytes, encoding: str, declared: Size, reduction: int = 1) -> Pixels:
    """Decode a picture that passed ``check`` to ``(height, width, 3)`` uint8, BGR. Raise Undecodable or WrongSize.

    With a ``reduction`` of 2, 4 or 8, width and height are divided by ``reduction`` and rounded up. The orientation
    tag is ignored, because boxes and zones are in the coordinates of the stored picture.
    """
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Undecodable(encoding, len(data))
    if (image.shape[1], image.shape[0]) != (-(-declared[0] // reduction), -(-declared[1] // reduction)):
        raise WrongSize((image.shape[1], image.shape[0]), declared)
    return image  # type: ignore[return-value]  # the type in OpenCV is wider: a colour picture is uint8


def reduction_for(windows: Sequence[CropWindow], encoding: str, size: Size) -> int:
    """Return the reduction at which to decode a picture of ``size`` for its crop windows: 1, 2, 4 or 8.

    The reduced picture has at least as many pixels as the model's input, and the edges of all windows are whole
    pixels in it. A JPEG decoder averages pixels when it reduces, and takes half of the time at 1080p.
    """
    if encoding != "jpeg":
        return 1  # other decoders decode the whole picture first
    return next((n for n in (8, 4, 2) if all(_allows(window, n, size) for window in windows)), 1)


def _allows(window: CropWindow, reduction: int, size: Size) -> bool:
    left, top, right, bottom = window.region.inner
    return (
        window.right - window.left >= (right - left) * reduction
        and window.bottom - window.top >= (bottom - top) * reduction
        and window.left % reduction == window.top % reduction == 0
        and (window.right % reduction == 0 or window.right == size[0])
        and (window.bottom % reduction == 0 or window.bottom == size[1])
    )


def draw(image: Pixels, window: CropWindow, colour: str, *, reduction: int = 1, into: Pixels | None = None) -> Pixels:
    """Return a window of a BGR image as a uint8 array with the channel order ``colour``, resized to the size of the
    rectangle ``window.region.inner``.

    ``image`` is a picture that ``pixels`` decoded with ``reduction``. ``into`` is an array to write to, for example a
    part of an engine's input buffer; if it is None, a new contiguous array is returned.
    """
    wide, high = -(-window.right // reduction), -(-window.bottom // reduction)
    part = image[window.top // reduction : high, window.left // reduction : wide]
    left, top, right, bottom = window.region.inner
    # Bilinear at every scale: models are trained with bilinear scaling, and area averaging costs ten times as much.
    drawn = cv2.resize(part, (right - left, bottom - top), dst=into, interpolation=cv2.INTER_LINEAR)
    if colour == "rgb":
        drawn = cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB, dst=drawn)
    return drawn  # type: ignore[return-value]  # the type in OpenCV is wider: uint8 input stays uint8


def undistorted(image: Pixels, lens: Lens, reduction: int = 1) -> Pixels:
    """Return the undistorted picture of a frame, with the shape of ``image``, black where the frame shows nothing.

    ``image`` is a picture that ``pixels`` decoded with ``reduction``.
    """
    coarse, fine = _maps.get(lens, (image.shape[1], image.shape[0]), reduction)
    return cv2.remap(image, coarse, fine, cv2.INTER_LINEAR)  # type: ignore[return-value]  # uint8 stays uint8


_Map = tuple[cv2.typing.MatLike, cv2.typing.MatLike]
"""The pixels of a frame from which an undistorted picture takes its pixels, in the fixed-point form of OpenCV: whole
pixels, and the index of the weights of their neighbours."""


class MapCache:
    """The maps of undistorted frames, one for each lens, size and reduction. Any thread may call ``get``.

    If all maps together exceed ``max_bytes``, the least recently used map is dropped, and made again when it is used.
    """

    def __init__(self, max_bytes: int = MAX_MAP_BYTES) -> None:
        self._max_bytes = max_bytes
        self._known: OrderedDict[tuple[Lens, Size, int], _Map] = OrderedDict()
        self._lock = threading.Lock()
        self.held_bytes = 0
        """Memory of all maps in bytes."""

    def get(self, lens: Lens, size: Size, reduction: int) -> _Map:
        """Return the map for a picture of ``size`` (width, height), whose sides are divided by ``reduction``."""
        key = lens, size, reduction
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = _map(lens, size, reduction)
        with self._lock:
            if key not in self._known:
                self._known[key] = made
                self.held_bytes += _size_of(made)
            while self.held_bytes > self._max_bytes and len(self._known) > 1:
                self.held_bytes -= _size_of(self._known.popitem(last=False)[1])
        return made


_maps = MapCache()


def _map(lens: Lens, size: Size, reduction: int) -> _Map:
    optics = lens.optics
    inside, outside = (_matrix(each, reduction) for each in (optics, lens))
    coefficients = np.array(optics.distortion)
    if optics.model == "fisheye":
        xs, ys = cv2.fisheye.initUndistortRectifyMap(inside, coefficients, np.eye(3), outside, size, cv2.CV_32FC1)
    else:
        xs, ys = cv2.initUndistortRectifyMap(inside, coefficients, None, outside, size, cv2.CV_32FC1)
    across = (np.arange(size[0]) - outside[0, 2]) / outside[0, 0]
    down = (np.arange(size[1]) - outside[1, 2]) / outside[1, 1]
    xs[across[None, :] ** 2 + down[:, None] ** 2 > optics.limit**2] = _NOWHERE  # the distortion folds back there
    return cv2.convertMaps(xs, ys, cv2.CV_16SC2)


def _matrix(camera: Optics | Lens, reduction: int) -> npt.NDArray[np.float64]:
    """Return the camera matrix of OpenCV, which counts pixels from the centre of the first pixel."""
    x, y = camera.cx / reduction - 0.5, camera.cy / reduction - 0.5
    return np.array([[camera.fx / reduction, 0.0, x], [0.0, camera.fy / reduction, y], [0.0, 0.0, 1.0]])


def _size_of(made: _Map) -> int:
    return made[0].nbytes + made[1].nbytes


def _is_whole(data: bytes, encoding: str) -> bool:
    if encoding == "jpeg":
        return _EOI in data[-_END_WITHIN_BYTES:]
    return len(data) >= int.from_bytes(data[4:8], "little") + 8


def _jpeg_size(data: bytes) -> Size | None:
    """Return the size in the frame header of a JPEG, or None if the data has no frame header."""
    if data[:2] != _SOI:
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker == _SCAN:
            return None
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER:
            return _pair(data, ">HH", at + 5, swapped=True)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _scans(data: bytes) -> int:
    """Return the total number of start-of-scan markers, which may lie at even or odd offsets.

    NumPy finds the markers in a third of the time of ``bytes.count``.
    """
    pairs = [np.frombuffer(data, "<u2", (len(data) - first) // 2, first) for first in (0, 1)]
    return sum(int(np.count_nonzero(each == _START_OF_SCAN)) for each in pairs)


def _webp_size(data: bytes) -> Size | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        size = _pair(data, "<HH", 26)
        return (size[0] & 0x3FFF, size[1] & 0x3FFF) if size else None
    return None


def _pair(data: bytes, form: str, at: int, *, swapped: bool = False) -> Size | None:
    if at + 4 > len(data):
        return None
    first, second = struct.unpack_from(form, data, at)
    return (second, first) if swapped else (first, second)
