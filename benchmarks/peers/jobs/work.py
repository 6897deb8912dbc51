"""Options of the peers' programs, and the function that makes the value of a result from the value and headers of a
frame."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

import cv2
import orjson

from benchmarks.peers.framejob import FrameJob
from benchmarks.peers.jobs import MOTION
from ingest.contract import headers as h
from ingest.contract.records import Box
from ingest.site import PipelineConfig


def read_options() -> Namespace:
    """Return the options of a peer's program."""
    parser = ArgumentParser()
    for name in ("bootstrap", "source", "target", "group", "pipeline"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    return parser.parse_args()


class PeerWork:
    """Classifies frames. Several threads may call a PeerWork at the same time."""

    def __init__(self, options: Namespace) -> None:
        cv2.setNumThreads(1)
        self._job = FrameJob(options.model, PipelineConfig.model_validate_json(options.pipeline))

    def __call__(self, jpeg: bytes, headers: Mapping[str, bytes]) -> bytes:
        """Return the result of one frame as JSON."""
        motion = tuple(Box(*box) for box in orjson.loads(headers[MOTION]))
        found = self._job.detections(jpeg, motion)
        detections = [{"label": d.label, "score": d.score, "box": list(d.box)} for d in found]
        value: bytes = orjson.dumps({"id": headers[h.FRAMES].decode(), "detections": detections})
        return value
