"""A LitServe server of a model folder. Its own environment runs this file as a script.

A request is a multipart form, because LitServe accepts no other binary body. Requests that have waited longer than
``--timeout-s`` get an error instead of a late answer. LitServe reads the annotation of ``decode_request``, so this
file does not postpone the evaluation of annotations.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve as ls
from fastapi import Request

from benchmarks.serving.goodput.detector import PeerDetector
from engines.engine import Images


class DetectorApi(ls.LitAPI):  # type: ignore[misc]
    """One worker of the server."""

    def __init__(self, folder: Path, batch: int, wait_s: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait_s)
        self._folder = folder

    def setup(self, device: str) -> None:
        """Load the model, and run it once."""
        self._detector = PeerDetector(self._folder)

    def decode_request(self, request: Request) -> Images:
        """Return the pixels of a request."""
        return self._detector.picture(request["pixels"].file.read())

    def batch(self, inputs: Sequence[Images]) -> Sequence[Images]:
        """Return the pictures unchanged: the detector stacks them."""
        return inputs

    def predict(self, pictures: Sequence[Images]) -> Any:
        """Return the detections of a batch of several pictures or one."""
        return self._detector.detect(pictures)

    def unbatch(self, output: Any) -> Any:
        """Return the detections of each picture."""
        return output

    def encode_response(self, output: Any) -> Any:
        """Return the body of a response."""
        return {"detections": output}


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--wait-s", type=float, required=True)
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
