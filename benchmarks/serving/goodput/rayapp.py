"""Ray Serve server for a model folder, run as a script in Ray's own environment.

Ray runs on this machine only, without dashboard. Ray's HTTP proxy and each replica run in separate processes. At most
``--queue`` requests wait; further requests get the status 503.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.framejob import PreparedFrame
from benchmarks.serving.goodput.detector import PeerDetector, server_options


class DetectorReplica:
    """One replica of the deployment, which batches its requests."""

    def __init__(self, folder: str, pipeline: str, batch: int, wait_s: float) -> None:
        self._detector = PeerDetector(Path(folder), pipeline)
        self._detect.set_max_batch_size(batch)
        self._detect.set_batch_wait_timeout_s(wait_s)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def _detect(self, frames: Sequence[PreparedFrame]) -> list[list[dict[str, Any]]]:
        return self._detector.detect(frames)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Return the JSON body of the response to a request."""
        frame = self._detector.frame(await request.body())
        return {"detections": await self._detect(frame)}


def main() -> None:
    """Serve until terminated."""
    parser = server_options()
    parser.add_argument("--queue", type=int, required=True)
    options = parser.parse_args()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=options.port))
    deployment = serve.deployment(
        num_replicas=options.workers,
        max_ongoing_requests=2 * options.batch,
        max_queued_requests=options.queue,
        ray_actor_options={"num_cpus": 1},
    )(DetectorReplica)
    serve.run(
        deployment.bind(str(options.model), options.pipeline, options.batch, options.wait_s), route_prefix="/predict"
    )
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
