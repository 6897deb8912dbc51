"""A log with the frames and results of two cameras that see objects with random textures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ingest.contract.codec import encode
from ingest.contract.headers import frame_headers
from ingest.contract.identity import LIVE
from ingest.contract.records import Box, Detection, Frame, FrameRef, Pixels, Result, ShadowDifference, ShadowRecord
from ingest.contract.topics import FRAMES, RESULTS, SHADOW
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig
from ingest.site.topic.view import Config
from training.datasets.export import export
from training.datasets.request import DatasetRequest

WIDTH, HEIGHT = 160, 96
BEGIN_S = 1_780_000_200
"""Unix time of the first frame in seconds, at the begin of a block of 600 s."""
EVERY_S = 120
"""Time between two frames in seconds."""
LABELS = ("car", "person")
GATE = CameraConfig(name="gate", source="device:0", site="north")
YARD = CameraConfig(name="yard", source="device:1", site="north")


def texture(seed: int, height: int, width: int) -> Pixels:
    """Return a picture of random blobs."""
    cells = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def picture(camera: str, *objects: tuple[int, Box]) -> bytes:
    """Return a frame of a camera as JPEG, with objects of given textures."""
    canvas = texture(1000 + len(camera) + ord(camera[0]), HEIGHT, WIDTH).copy()
    for seed, (left, top, right, bottom) in objects:
        part = round(top), round(bottom), round(left), round(right)
        canvas[part[0] : part[1], part[2] : part[3]] = texture(seed, part[1] - part[0], part[3] - part[2])
    return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def box(n: int) -> Box:
    """Return the box of the object in frame ``n``."""
    left, top = 8.0 + 37 * n % 90, 8.0 + 23 * n % 40
    return Box(left, top, left + 40.0, top + 36.0)


class Footage:
    """Writes frames and results to a log. Frame ``n`` of a camera shows one object with texture ``n``."""

    def __init__(self) -> None:
        self.clock = ManualClock(BEGIN_S * 10**9)
        self.log = MemoryLog(partitions=2, clock=self.clock)
        self._partitions = {"gate": 0, "yard": 1}

    def write(
        self, camera: str, n: int, *, shows: int | None = None, label: str = "", score: float = 0.9, **fields: Any
    ) -> Result:
        """Write frame ``n`` of a camera and its result.

        ``shows`` is the number of the object, by default ``n``: it determines texture and place. ``fields`` are
        further fields of the frame.
        """
        shown = n if shows is None else shows
        captured_ns = (BEGIN_S + EVERY_S * n) * 10**9
        image = picture(camera, (shown, box(shown)))
        common = {
            "camera": camera,
            "epoch": 1,
            "seq": n,
            "captured_ns": captured_ns,
            "width": WIDTH,
            "height": HEIGHT,
        }
        frame = Frame(**{**common, "image": image, **fields})
        partition = self._partitions[camera]
        headers = frame_headers([frame.id], LIVE)
        offset = self._produce(Outgoing(FRAMES, partition, encode(frame), headers=headers))
        found = Detection(box=box(shown), label=label or LABELS[n % 2], class_id=0, score=score)
        result = Result(
            **common,
            lane=LIVE,
            source=FrameRef(FRAMES, partition, offset),
            pipelines=("p",),
            pipeline="p",
            finished_ns=captured_ns,
            outcome="classified",
            model="m@1",
            detections=(found,),
        )
        self._produce(Outgoing(RESULTS, partition, encode(result), headers=headers))
        return result

    def disagree(self, result: Result, other_label: str) -> None:
        """Write a comparison in which a candidate gave the object of a result another label."""
        (found,) = result.detections
        difference = ShadowDifference(
            form="label",
            box=found.box,
            label=found.label,
            score=found.score,
            other_label=other_label,
            other_score=0.8,
        )
        record = ShadowRecord(
            pipeline="p",
            served="m@1",
            candidate="m@2",
            written_ns=0,
            camera=result.camera,
            epoch=result.epoch,
            seq=result.seq,
            captured_ns=result.captured_ns,
            source=result.source,
            differences=(difference,),
        )
        self._produce(Outgoing(SHADOW, 0, encode(record)))

    def _produce(self, record: Outgoing) -> int:
        self.clock.advance(0.001)
        return asyncio.run(self.log.produce(record)).offset


def request(**options: Any) -> DatasetRequest:
    """Return the request for all frames of both cameras."""
    usual: dict[str, Any] = {"cameras": ("gate", "yard"), "since_ns": BEGIN_S * 10**9, "until_ns": 2 * 10**18}
    return DatasetRequest(**{**usual, **options})


def exported(footage: Footage, out: Path, *cameras: CameraConfig, **options: Any) -> dict[str, Any]:
    """Export a data set and return its datasheet."""
    config = Config({one.key: one for one in (GATE, YARD, *cameras)})
    return asyncio.run(export(footage.log, request(**options), config, out, by="ada", at_ns=BEGIN_S * 10**9))
