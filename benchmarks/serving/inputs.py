"""Batches of real pictures, as the stage ``prepare`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.pipeline import PipelineCase
from engines.engine import CHANNELS, Images
from ingest.contract import headers as h
from ingest.contract.codec import encode_batch, encode_part
from ingest.contract.identity import LIVE
from ingest.contract.records import (
    BatchItem,
    Canvas,
    EncodedFrame,
    FrameRef,
    Pixels,
    Preparation,
    Region,
    padded_rows,
)
from ingest.contract.topics import BATCHES
from ingest.kafka.log import Outgoing
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.prepare.regions import windows


class PreparedRow(NamedTuple):
    """One region of a frame, cropped and resized for the model.

    ``width`` and ``height`` are the size of the whole frame in px.
    """

    width: int
    height: int
    region: Region
    pixels: Pixels


class WholeFrame(NamedTuple):
    """A frame as JPEG, which the engine node decodes and resizes. ``width`` and ``height`` are in px."""

    width: int
    height: int
    region: Region
    jpeg: bytes


class BatchPlace(NamedTuple):
    """Partition, camera, epoch and first sequence number of a batch's frames."""

    partition: int
    camera: str
    epoch: int
    first_seq: int
    captured_ns: int = 0


def prepared_rows(case: PipelineCase) -> list[PreparedRow]:
    """Return one region per picture, cropped and resized for the case's model."""
    rows = []
    for picture in case.pictures:
        image = np.asarray(cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        (window,) = windows(case.pipeline, (picture.width, picture.height), picture.motion, 1)
        rows.append(
            PreparedRow(picture.width, picture.height, window.region, draw(image, window, case.pipeline.colour))
        )
    return rows


def whole_frame(pipeline: PipelineConfig, width: int, height: int, jpeg: bytes) -> WholeFrame:
    """Return a frame that the pipeline's model examines as a whole."""
    (window,) = windows(pipeline, (width, height), None, 1)
    return WholeFrame(width, height, window.region, jpeg)


def canvas_of(pipeline: PipelineConfig) -> Canvas:
    """Return the size of the model's input as a Canvas."""
    return Canvas(pipeline.height, pipeline.width, CHANNELS)


def padded(case: PipelineCase, rows: Sequence[PreparedRow]) -> Images:
    """Pad prepared regions to the model's input size, and return a ``(N, height, width, 3)`` uint8 array."""
    inners, pictures = [row.region.inner for row in rows], [row.pixels for row in rows]
    return padded_rows(canvas_of(case.pipeline), case.model.manifest.input.pad, inners, pictures)


def batch_record(pipeline: PipelineConfig, rows: Sequence[PreparedRow | WholeFrame], place: BatchPlace) -> Outgoing:
    """Return a record of the topic ``batches`` with one frame per row."""
    jpegs = [row.jpeg if isinstance(row, WholeFrame) else b"" for row in rows]
    items = [
        BatchItem(
            camera=place.camera,
            epoch=place.epoch,
            seq=place.first_seq + number,
            captured_ns=place.captured_ns,
            width=row.width,
            height=row.height,
            lane=LIVE,
            source=FrameRef("frames", place.partition, place.first_seq + number),
            pipelines=(pipeline.name,),
            traceparent=h.new_traceparent(),
            outcome="classify",
            regions=(row.region,),
            attached=EncodedFrame("jpeg", len(jpeg)) if jpeg else None,
            cropped=not jpeg,
        )
        for number, (row, jpeg) in enumerate(zip(rows, jpegs, strict=True))
    ]
    encoded = [encode_part(item) for item in items]
    preparation = Preparation(canvas_of(pipeline), pipeline.colour, pipeline.fit)
    pictures = [row.pixels for row in rows if isinstance(row, PreparedRow)]
    value = encode_batch(pipeline.name, preparation, encoded, pictures, jpegs)
    headers = h.frame_headers([item.id for item in items], LIVE, items[0].traceparent, pipeline.name)
    return Outgoing(BATCHES, place.partition, value, headers=headers)
