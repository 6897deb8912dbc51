"""LitServe server for a model folder, run as a script in LitServe's own environment.

A request body is a multipart form, because LitServe accepts no other binary body. A request that has waited longer
than ``--timeout-s`` gets an error instead of a late response. LitServe evaluates the annotations of
``decode_request``, so this file has no ``from __future__ import annotations``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve as ls
from fastapi import Request

from benchmarks.peers.framejob import PreparedFrame
from benchmarks.serving.goodput.detector import PeerDetector, server_options


class DetectorApi(ls.LitAPI):  # type: ignore[misc]
    """One LitServe worker."""

    def __init__(self, folder: Path, pipeline: str, batch: int, wait_s: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait_s)
        self._folder, self._pipeline = folder, pipeline

    def setup(self, device: str) -> None:
        """Load the model."""
        self._detector = PeerDetector(self._folder, self._pipeline)

    def decode_request(self, request: Request) -> PreparedFrame:
        """Decode and resize the frame of a request."""
        return self._detector.frame(request["frame"].file.read())

    def batch(self, inputs: Sequence[PreparedFrame]) -> Sequence[PreparedFrame]:
        """Return the frames unchanged, because the detector stacks their images itself."""
        return inputs

    def predict(self, frames: Sequence[PreparedFrame]) -> Any:
        """Return the detections of each frame of a batch."""
        return self._detector.detect(frames)

    def unbatch(self, output: Any) -> Any:
        """Return the detections unchanged: they are already one list per frame."""
        return output

    def encode_response(self, output: Any) -> Any:
        """Return the JSON body of a response."""
        return {"detections": output}


def main() -> None:
    """Serve until terminated."""
    parser = server_options()
    parser.add_argument("--timeout-s", type=float, required=True)
    options = parser.parse_args()
    api = DetectorApi(options.model, options.pipeline, options.batch, options.wait_s)
    server = ls.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=options.workers,
        timeout=options.timeout_s,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1", port=options.port, num_api_servers=1, generate_client_file=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
