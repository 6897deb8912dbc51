"""The work of LitServe and Ray Serve on one request: decode, resize, inference, detections.

LitServe and Ray Serve use the same functions and session options as the engine node. The environments of LitServe and
Ray Serve have the versions of ONNX Runtime, NumPy and OpenCV in requirements.lock.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.framejob import FrameJob, PreparedFrame
from ingest.site import PipelineConfig


class PeerDetector:
    """A model that classifies whole frames. ``pipeline`` is the pipeline's configuration, as JSON."""

    def __init__(self, folder: Path, pipeline: str) -> None:
        self._job = FrameJob(folder, PipelineConfig.model_validate_json(pipeline))

    def frame(self, jpeg: bytes) -> PreparedFrame:
        """Decode and resize the frame of one request."""
        return self._job.prepare(jpeg, ())

    def detect(self, frames: Sequence[PreparedFrame]) -> list[list[dict[str, Any]]]:
        """Return the detections of each frame, as values that JSON can encode."""
        return [[detection.model_dump() for detection in frame] for frame in self._job.detect(frames)]


def server_options() -> ArgumentParser:
    """Return a parser of the options that the servers of LitServe and Ray Serve share."""
    parser = ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--wait-s", type=float, required=True)
    return parser
