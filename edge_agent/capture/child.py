"""The capture child: one camera, in a process of its own, so that a decoder that crashes takes nothing with it.

``python -m edge_agent.capture.child`` reads its orders, one JSON object, from the first line of its standard input,
and writes messages to its standard output. End of input means stop. A thread of its own writes to the pipe: when the
agent is slow and the queue is full, the frame is withheld as ``overload``, and the camera is never blocked.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.capture.factory import make_source
from edge_agent.capture.messages import Ended, Kept, Message, Told, write_message
from edge_agent.capture.source import Captured, FrameSource
from edge_agent.capture.tally import Tally
from edge_agent.exceptions import FrameUnusable, SourceEnded, SourceError
from edge_agent.gate.gate import Gate, Verdict
from ingest.clock import Clock, SystemClock
from ingest.codec import MAX_RECORD_BYTES, encode
from ingest.records import Account, Frame
from ingest.site import CameraConfig

__all__ = ["Capture", "main"]

QUEUE_FRAMES = 16
"""What is in memory only, and not yet promised, is at most this and what is in the pipe: a second or two."""
MAX_IMAGE_BYTES = MAX_RECORD_BYTES - 64 * 1024
"""What else a record holds, with as many motion boxes as the gate finds, is far less than the rest."""
TELL_EVERY_S = 1.0
EXIT_SOURCE = 3
"""The source failed; the last line on standard error says how."""


class Capture:
    """Numbers, gates and encodes the frames of one camera, and puts messages into a queue."""

    def __init__(self, camera: CameraConfig, epoch: int, clock: Clock, out: queue.Queue[Message | None]) -> None:
        self._camera, self._epoch, self._clock, self._out = camera, epoch, clock, out
        self._tally = Tally(camera.name, epoch)
        self._gate = Gate(camera.gate)
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality]
        self._told_s = -TELL_EVERY_S
        self._reason = ""

    def run(self, source: FrameSource, stop: threading.Event) -> None:
        """Read a source until it ends or ``stop`` is set. Raise SourceError when it fails.

        However it ends, every number that was given is accounted for.
        """
        finished, failure = False, None
        try:
            source.open()
            while not stop.is_set():
                self.frame(source.read())
        except SourceEnded:
            finished = True
        except SourceError as error:
            failure = error
        finally:
            source.close()
        self._out.put(Ended(self._tally.captured - 1, self._tally.tail(), finished))
        if failure:
            raise failure

    def frame(self, captured: Captured) -> None:
        """Take one frame: number it, then keep or withhold it."""
        seq = self._tally.number()
        try:
            image = self._sized(captured.image)
            verdict = self._gate.judge(image, captured.captured_ns)
            if not verdict.keep:
                self._tally.withhold(verdict.reason)
            elif self._out.full():
                self._tally.withhold("overload")
            else:
                self._keep(seq, captured, self._encoded(image), image.shape, verdict)
        except (cv2.error, FrameUnusable) as error:  # this frame's trouble; the next one may be well
            self._reason = f"a frame of shape {captured.image.shape} is unusable: {error}"
            self._tally.withhold("unusable")
        self._tell()

    def _encoded(self, image: npt.NDArray[np.uint8]) -> bytes:
        encoded, jpeg = cv2.imencode(".jpg", image, self._quality)
        if not encoded:
            raise FrameUnusable("it could not be encoded")
        if jpeg.size > MAX_IMAGE_BYTES:
            raise FrameUnusable(f"{jpeg.size} bytes as JPEG, at most {MAX_IMAGE_BYTES} go into a record")
        return jpeg.tobytes()

    def _keep(self, seq: int, captured: Captured, jpeg: bytes, shape: Sequence[int], verdict: Verdict) -> None:
        account = self._tally.account()
        record = encode(self._record(seq, captured, jpeg, shape, verdict, account))
        self._out.put(Kept(seq, captured.captured_ns, record, account))

    def _record(
        self,
        seq: int,
        captured: Captured,
        jpeg: bytes,
        shape: Sequence[int],
        verdict: Verdict,
        account: Account | None,
    ) -> Frame:
        return Frame(
            camera=self._camera.name,
            epoch=self._epoch,
            seq=seq,
            site=self._camera.site,
            captured_ns=captured.captured_ns,
            captured_by=captured.time_source,
            width=shape[1],
            height=shape[0],
            image=jpeg,
            motion=verdict.motion,
            account=account,
        )

    def _sized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        size = self._camera.width, self._camera.height
        if not all(size) or image.shape[1::-1] == size:
            return image
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _tell(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S and not self._out.full():
            self._told_s = now_s
            self._out.put(Told(self._tally.captured, "running", self._reason))
            self._reason = ""


def main() -> int:
    """Capture as the first line of standard input says, until it ends. Return the exit status."""
    cv2.setNumThreads(1)  # a camera is one core's work at the most, and there are many of them
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    camera = CameraConfig.model_validate(orders["camera"])
    folder = Path(orders["truth_folder"]) if orders.get("truth_folder") else None
    stop, out = threading.Event(), queue.Queue[Message | None](maxsize=QUEUE_FRAMES)
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    writer = threading.Thread(target=_write_all, args=(sys.stdout.buffer, out, stop))
    writer.start()
    try:
        source = make_source(camera, SystemClock(), epoch=orders["epoch"], truth_folder=folder)
        Capture(camera, orders["epoch"], SystemClock(), out).run(source, stop)
    except SourceError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_SOURCE
    finally:
        out.put(None)
        writer.join()
    return 0


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
