"""What becomes of each frame of a camera, in the capture child: numbered, gated, encoded, put into a record.

When the agent is slow and the queue is full, the frame is withheld as ``overload``, and the camera is never blocked.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.capture.messages import Ended, Kept, Message, Told
from edge_agent.capture.source import Captured, FrameSource
from edge_agent.capture.tally import Tally
from edge_agent.exceptions import FrameUnusable, SourceEnded, SourceError
from edge_agent.gate.gate import Gate, Verdict
from ingest.clock import Clock
from ingest.codec import MAX_RECORD_BYTES, encode
from ingest.records import Account, Frame
from ingest.site import CameraConfig

__all__ = ["Intake"]

MAX_IMAGE_BYTES = MAX_RECORD_BYTES - 64 * 1024
"""What else a record holds, with as many motion boxes as the gate finds, is far less than the rest."""
TELL_EVERY_S = 1.0


class Intake:
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
                captured = source.read()
                if captured:
                    self.frame(captured)
                else:
                    self._tell()
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
            self._reason = f"a frame of shape {captured.shape} is unusable: {error}"
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
            captured_error_ms=captured.error_ms,
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
