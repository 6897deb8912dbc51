"""The capture child: one camera, in a process of its own, so that a decoder that crashes takes nothing with it.

``python -m edge_agent.capture.child`` reads its orders, one JSON object, from the first line of its standard input,
and writes messages to its standard output. End of input means stop. A thread of its own writes to the pipe, so that a
slow agent does not block the camera.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import cv2

from edge_agent.capture.factory import Surroundings, make_source
from edge_agent.capture.limits import limit_memory
from edge_agent.capture.messages import Message, write_message
from edge_agent.capture.viewmemory import ViewMemory
from edge_agent.capture.watch import Teller, Watched
from edge_agent.exceptions import SourceError
from edge_agent.intake import Intake
from edge_agent.redact.masks import Masks
from ingest.clock import SystemClock
from ingest.site import CameraConfig

__all__ = ["main"]

QUEUE_FRAMES = 16
"""What is in memory only, and not yet promised, is at most this, what the gate holds back, and what is in the pipe
and read ahead from it, some 200 KB: a few seconds when the disk is slow, and next to nothing while it keeps up."""
EXIT_SOURCE = 3
"""The source failed; the last line on standard error says how."""
EXIT_MEMORY = 4
"""The capture took more memory than it may."""


def main() -> int:
    """Capture as the first line of standard input says, until it ends. Return the exit status."""
    cv2.setNumThreads(1)  # a camera is one core's work at the most, and there are many of them
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    camera = CameraConfig.model_validate(orders["camera"])
    limit_memory(camera.stream.memory_mb)
    stop, out = threading.Event(), queue.Queue[Message | None](maxsize=QUEUE_FRAMES)
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    writer = threading.Thread(target=_write_all, args=(sys.stdout.buffer, out, stop))
    writer.start()
    try:
        _capture(camera, orders, out, stop)
    except SourceError as error:
        return _end(EXIT_SOURCE, f"{error}")
    except MemoryError:
        return _end(EXIT_MEMORY, f"more than memory_mb = {camera.stream.memory_mb} was asked for")
    finally:
        out.put(None)
        writer.join()
    return 0


def _capture(
    camera: CameraConfig, orders: dict[str, Any], out: queue.Queue[Message | None], stop: threading.Event
) -> None:
    clock, teller = SystemClock(), Teller(out)
    folders = (orders.get(name) for name in ("truth_folder", "state_folder"))
    truth, state = (Path(folder) if folder else None for folder in folders)
    source = make_source(camera, Surroundings(clock, orders["epoch"], truth, state, teller.say))
    memory = ViewMemory(state / f"{camera.name}.png") if state else None
    watched = Watched(source, camera.watch, clock, teller, memory, Masks(camera.redact))
    Intake(camera, orders["epoch"], clock, out).run(watched, stop)


def _end(status: int, why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return status


def _stop_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _write_all(pipe: BinaryIO, out: queue.Queue[Message | None], stop: threading.Event) -> None:
    try:
        while (message := out.get()) is not None:
            write_message(pipe, message)
    except BrokenPipeError:
        stop.set()  # the agent has gone, and the kernel is about to take this process with it
        while out.get() is not None:
            pass


if __name__ == "__main__":
    sys.exit(main())
