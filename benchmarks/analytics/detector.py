"""A simulated detector: inexact boxes, and the results of the frames in which it finds objects. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ingest.contract.records import Box, Detection, FrameRef, Result


def inexact(box: Box, edge_px: float, rng: np.random.Generator) -> Box:
    """Return a box whose edges differ from the true ones at random, with a standard deviation of ``edge_px``."""
    return Box(*(np.array(box) + rng.normal(0.0, edge_px, 4)).tolist())


def result_of(
    camera: str, pipeline: str, seq: int, fps: float, size: tuple[int, int], found: Iterable[Detection]
) -> Result:
    """Return the result of the live frame ``seq`` of a camera with ``fps`` frames per second, whose first frame was
    captured at 0. ``size`` is the width and height of the picture in px."""
    at_ns = round(seq / fps * 1e9)
    return Result(
        camera=camera,
        epoch=1,
        seq=seq,
        lane="live",
        pipeline=pipeline,
        pipelines=(pipeline,),
        captured_ns=at_ns,
        finished_ns=at_ns,
        width=size[0],
        height=size[1],
        source=FrameRef("frames", 0, seq),
        outcome="classified",
        detections=tuple(found),
    )
