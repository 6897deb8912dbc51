"""Start a capture child."""

from __future__ import annotations

import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from edge_agent.camera.children import start
from edge_agent.sources.limits import MAX_PIXELS
from ingest.runtime.tether import tethered
from ingest.site import CameraConfig

CHILD_ENVIRONMENT = {
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
    "OPENBLAS_NUM_THREADS": "1",  # nothing here multiplies matrices, and each thread would cost its buffers
    "MALLOC_ARENA_MAX": "2",  # an arena per thread keeps what frames of one size have left behind
}

READ_AHEAD_BYTES = 64 * 1024
"""What an agent reads of a child before it has promised what came first: up to twice this, and one record. It is in
memory only. While the disk is slow, frames wait in the child, which withholds those that follow."""


async def spawn(
    camera: CameraConfig, epoch: int, truth_folder: Path | None = None, state_folder: Path | None = None
) -> Process:
    """Start a child and give it its orders. It dies with this process, and ends when its input is closed.

    Raise OSError when no process can be had.
    """
    process = await start(
        tethered([sys.executable, "-m", "edge_agent.camera.child"]),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=READ_AHEAD_BYTES,
        env=os.environ | CHILD_ENVIRONMENT,
        start_new_session=True,  # Ctrl-C is for the agent, which then stops its children in order
    )
    orders = {
        "camera": camera.model_dump(mode="json"),
        "epoch": epoch,
        "truth_folder": str(truth_folder) if truth_folder else None,
        "state_folder": str(state_folder) if state_folder else None,
    }
    assert process.stdin is not None  # noqa: S101  (narrowing: it was asked for)
    # no wait for it to be read: whoever is cancelled there would leave a child that nobody knows
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    return process
