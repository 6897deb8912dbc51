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

from benchmarks.serving.goodput.detector import PeerDetector, server_options
from engines.engine import Images


class DetectorApi(ls.LitAPI):  # type: ignore[misc]
    """One LitServe worker."""

    def __init__(self, folder: Path, batch: int, wait_s: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait_s)
        self._folder = folder

    def setup(self, device: str) -> None:
        """Load the model."""
        self._detector = PeerDetector(self._folder)

    def decode_request(self, request: Request) -> Images:
        """Return the pixels of a request."""
        return self._detector.picture(request["pixels"].file.read())

    def batch(self, inputs: Sequence[Images]) -> Sequence[Images]:
        """Return the pictures unchanged, because the detector stacks the pictures itself."""
        return inputs

    def predict(self, pictures: Sequence[Images]) -> Any:
        """Return the detections of each picture of a batch."""
        return self._detector.detect(pictures)

    def unbatch(self, output: Any) -> Any:
        """Return the detections unchanged: they are already one list per picture."""
        return output

    def encode_response(self, output: Any) -> Any:
        """Return the JSON body of a response."""
        return {"detections": output}


def main() -> None:
    """Serve until terminated."""
    parser = server_options()
    parser.add_argument("--timeout-s", type=float, required=True)
    options = parser.parse_args()
    api = DetectorApi(options.model, options.batch, options.wait_s)
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
