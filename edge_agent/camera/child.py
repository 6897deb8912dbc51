"""Capture process of one camera, so that a crash in a video decoder affects no other camera.

``python -m edge_agent.camera.child`` reads the camera's configuration as a JSON object from the first line of
standard input. The process writes only messages to the agent on standard output; output of libraries goes to standard
error. The process stops when its standard input is closed. A separate thread writes the messages to the agent, so
that a slow agent does not block the camera.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import cv2

from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import Message, Notice, write_message
from edge_agent.camera.watch import Outbox, ViewMemory, WatchedSource
from edge_agent.encode.buckets import CarriedBudget
from edge_agent.exceptions import SourceError
from edge_agent.redact.cover import PrivacyMasks
from edge_agent.sources.factory import SourceContext, make_source
from edge_agent.sources.limits import leave_no_core, limit_memory
from ingest.runtime.clock import SystemClock
from ingest.site import CameraConfig

QUEUE_FRAMES = 16
"""Maximum number of messages that wait for the pipe to the agent.

If the process is killed, the frames in the queue to the agent, in the gate's pre-roll buffer, and in the pipe and its
reader (about 200 KB) are lost. A kill loses a few seconds of video while the disk is slow, and almost no video while
the disk is fast enough.
"""
ABANDON_S = 3.0
"""Maximum time that a stop request waits for a blocked source, in seconds. Without a limit, a stop could take as long
as the stall timeout of the source."""
EXIT_SOURCE = 3
"""Exit status of the capture process after a failure of its source. The process writes the reason of the failure as
the last line on standard error."""
EXIT_MEMORY = 4
"""Exit status of a capture process that exceeded its memory limit."""


def main() -> int:
    """Capture frames with the configuration from standard input, until the source ends or the agent requests a stop.

    Return the exit status of the process.
    """
    cv2.setNumThreads(1)  # one camera needs at most one core, and a host has many cameras
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    camera = CameraConfig.model_validate(orders["camera"])
    leave_no_core()
    limit_memory(camera.stream.memory_mb)
    stop, out = threading.Event(), queue.Queue[Message | None](maxsize=QUEUE_FRAMES)
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    writer = threading.Thread(target=_write_all, args=(_own_output(), out, stop))
    writer.start()
    try:
        _capture(camera, orders, out, stop, writer)
    except SourceError as error:
        return _end(EXIT_SOURCE, f"{error}")
    except MemoryError:
        limit = f"stream.memory_mb = {camera.stream.memory_mb}"
        return _end(
            EXIT_MEMORY, f"the capture exceeded its memory limit, {limit}: raise stream.memory_mb in the site file"
        )
    finally:
        out.put(None)
        writer.join()
    return 0


def _capture(
    camera: CameraConfig,
    orders: dict[str, Any],
    out: queue.Queue[Message | None],
    stop: threading.Event,
    writer: threading.Thread,
) -> None:
    clock, outbox = SystemClock(), Outbox(out)
    folders = (orders.get(name) for name in ("truth_folder", "state_folder"))
    truth, state = (Path(folder) if folder else None for folder in folders)
    context = SourceContext(clock, orders["epoch"], truth, state, lambda text: outbox.send(Notice(text)))
    source = make_source(camera, context)
    watched = WatchedSource(source, camera.watch, clock, outbox, _memory(camera, state), PrivacyMasks(camera.redact))
    carried = CarriedBudget(state / f"{camera.name}.budget", clock) if state else None
    intake, over = FrameIntake(camera, orders["epoch"], clock, out, carried=carried), threading.Event()
    threading.Thread(target=_abandon_when_stopped, args=(stop, over, intake, out, writer), daemon=True).start()
    try:
        intake.run(watched, stop)
    finally:
        over.set()


def _memory(camera: CameraConfig, state: Path | None) -> ViewMemory | None:
    """Return the file that stores the camera's usual view; None if the camera redacts faces or plates.

    The stored picture is an average of unredacted frames, so it could show a face or a plate.
    """
    memory = ViewMemory(state / f"{camera.name}.png") if state else None
    if memory and (camera.redact.faces or camera.redact.plates):
        memory.forget()
        return None
    return memory


def _abandon_when_stopped(
    stop: threading.Event,
    over: threading.Event,
    intake: FrameIntake,
    out: queue.Queue[Message | None],
    writer: threading.Thread,
) -> None:
    """After a stop request, end the process cleanly even if its main thread is blocked in a read from the camera."""
    stop.wait()
    if not over.wait(ABANDON_S) and intake.abandon():
        out.put(None)
        writer.join()
        os._exit(0)


def _own_output() -> BinaryIO:
    """Reserve standard output for messages to the agent, and redirect all other output to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


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
        stop.set()  # the agent has exited, and the kernel is about to kill this process
        while out.get() is not None:
            pass


if __name__ == "__main__":
    sys.exit(main())
