"""Estimate of a site's network traffic, disk space for an outage, disk wear and Kafka partitions.

All functions are pure.

The estimated picture size comes from measurements of real footage. Depending on the scene, pictures have between half
and twice the estimated size. The user supplies the share of time with motion. Once the site runs, measurements
replace the estimated picture size and the share of time with motion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.site import CameraConfig, Site, WeeklyHours

_DAY_S = 86_400
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN = 24 * 60
_WEEK_MIN = 7 * _DAY_MIN
BITS_PER_PIXEL = {
    "jpeg": ((40, 0.45), (60, 0.61), (75, 0.82), (85, 1.16), (95, 2.26)),
    "webp": ((40, 0.22), (60, 0.34), (75, 0.46), (85, 0.79), (95, 1.63)),
}
"""Measured picture sizes: encoding -> pairs of quality and bits per pixel. A value is the geometric mean over three
surveillance clips and two rendered scenes (2026-11-24); single clips lie between half and twice the mean."""
SPREAD = 2.0
"""Factor by which a picture may be larger or smaller than the estimate."""
RECORD_BYTES = 700
"""Size of a Kafka record without its picture, in bytes: fields, headers, names, and a share of the batch header."""
WRITTEN_PER_BYTE = 2.0
"""Bytes written to the disk for each byte of a 40 kB frame that is stored, sent and removed in separate commits.
SQLite writes more bytes than a frame has, because SQLite writes whole pages, both to the write-ahead log and to the
database. For a 10 kB frame, the measured factor is 4.5; for a 40 kB frame in an outage, the factor is 2.5 (``python
-m benchmarks.wear``, 2026-11-24)."""
CARD_BYTES = 32e9
CARD_CYCLES = 1000
"""Number of times that a small memory card with TLC cells can be overwritten completely. An industrial card can be
overwritten three times as often as a small TLC card."""
FPS_PER_PARTITION = 50.0
"""Frames a second that one Kafka partition can carry: half of the throughput that the whole pipeline reached on two
cores. Frames of one partition are processed one at a time, to keep their order."""
LEAST_PARTITIONS = 6
"""Minimum number of partitions of a topic. Spare partitions give work to engine nodes that are added later, without
the command `topics grow`."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Assumed values that the estimate needs and a site file does not contain.

    ``width`` and ``height``, in px, apply to cameras without a configured size.
    """

    moving_share: float = 0.15
    """Share of a camera's armed time in which objects move."""
    moved_on_share: float = 0.5
    """Share of the frames examined during motion that the gate sends because an object has moved since the last sent
    frame. Frames that are sent because an object has moved may exceed the rate ``open_fps``."""
    outage_s: float = 8 * 3600.0
    width: int = 1280
    height: int = 720


@dataclass(frozen=True, slots=True)
class CameraCost:
    """Estimated network traffic and disk use of one camera.

    Mean values are averages over a whole week, including the hours in which the camera is not armed. Peak values are
    the values while objects move in front of the camera.
    """

    camera: str
    bytes_per_frame: float
    mean_fps: float
    busy_fps: float
    spool_bytes: int

    @property
    def bytes_per_day(self) -> float:
        """Mean number of bytes that the camera sends in a day."""
        return self.mean_fps * self.bytes_per_frame * _DAY_S

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes a second that the camera sends while objects move."""
        return self.busy_fps * self.bytes_per_frame

    def outage_bytes(self, outage_s: float, *, busy: bool) -> float:
        """Return how many bytes an outage of ``outage_s`` leaves in the spool.

        Use the peak rate if ``busy`` is true, else the mean rate.
        """
        return (self.busy_fps if busy else self.mean_fps) * self.bytes_per_frame * outage_s

    @property
    def spool_lasts_s(self) -> float:
        """Time in seconds until an outage fills the spool at the mean rate; infinite at rate 0."""
        rate = self.mean_fps * self.bytes_per_frame
        return self.spool_bytes / rate if rate else math.inf


@dataclass(frozen=True, slots=True)
class SiteCost:
    """Estimated network traffic, disk use and partitions of all cameras of a site."""

    cameras: tuple[CameraCost, ...]

    @property
    def bytes_per_day(self) -> float:
        """Mean number of bytes that all cameras send in a day.

        Each replica of the topic ``frames`` needs the same number of bytes for each day of retention.
        """
        return sum(camera.bytes_per_day for camera in self.cameras)

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes a second that all cameras send together while objects move in front of every camera."""
        return sum(camera.peak_bytes_per_s for camera in self.cameras)

    @property
    def written_per_day(self) -> float:
        """Bytes a day written to the agent's disk."""
        return self.bytes_per_day * WRITTEN_PER_BYTE

    @property
    def card_years(self) -> float:
        """Lifetime in years of a memory card with ``CARD_BYTES`` and ``CARD_CYCLES``; infinite without writes."""
        return CARD_BYTES * CARD_CYCLES / (self.written_per_day * 365) if self.written_per_day else math.inf

    @property
    def partitions(self) -> int:
        """Number of partitions that the peak frame rate of the site needs."""
        return max(LEAST_PARTITIONS, math.ceil(sum(c.busy_fps for c in self.cameras) / FPS_PER_PARTITION))


def cost_of(site: Site, assumed: Assumptions) -> SiteCost:
    """Return the estimated network traffic, disk use and partitions of a site's cameras."""
    return SiteCost(tuple(_camera(camera, assumed) for camera in site.cameras))


def _camera(camera: CameraConfig, assumed: Assumptions) -> CameraCost:
    gate, encode = camera.gate, camera.encode
    looked = min(camera.fps, gate.max_fps or math.inf)
    busy = max(min(looked, gate.open_fps or math.inf), looked * assumed.moved_on_share) if gate.motion else looked
    moving = assumed.moving_share if gate.motion else 1.0
    still = min(busy, (1.0 / gate.keep_alive_s if gate.keep_alive_s else 0.0) + gate.sample * looked)
    width, height = camera.width or assumed.width, camera.height or assumed.height
    size = width * height * bits_per_pixel(encode.encoding, encode.quality) / 8 + RECORD_BYTES
    if encode.bytes_per_s:
        busy = min(busy, encode.bytes_per_s / size)
    mean = armed_share(gate.armed) * (moving * busy + (1.0 - moving) * min(still, busy))
    if encode.bytes_per_day:
        mean = min(mean, encode.bytes_per_day / size / _DAY_S)
    return CameraCost(camera.name, size, mean, busy, camera.spool.max_bytes)


def bits_per_pixel(encoding: str, quality: int) -> float:
    """Return the expected bits per pixel: the geometric interpolation between the two nearest measured qualities."""
    known = BITS_PER_PIXEL[encoding]
    (low, _), (high, _) = known[0], known[-1]
    at = min(max(quality, low), high)
    above = next(i for i, (step, _) in enumerate(known) if step >= at)
    (left, small), (right, large) = known[max(0, above - 1)], known[above]
    share = (at - left) / (right - left) if right > left else 0.0
    return float(small * (large / small) ** share)


def armed_share(armed: Sequence[WeeklyHours]) -> float:
    """Return the share of a week in which a camera is armed. Minutes that are in several armed periods count once."""
    if not armed:
        return 1.0
    minutes = set[int]()
    for hours in armed:
        start, end = (at.hour * 60 + at.minute for at in (hours.start, hours.end))
        length = end - start if end > start else end - start + _DAY_MIN
        for day in hours.days:
            first = _DAYS.index(day) * _DAY_MIN + start
            minutes.update(minute % _WEEK_MIN for minute in range(first, first + length))
    return len(minutes) / _WEEK_MIN
