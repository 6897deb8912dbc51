"""What becomes of each frame of a camera, in the capture child: frame, gated, encoded, put into a record.

When the agent is slow and the queue is full, the frame is withheld as ``overload``, and the camera is never blocked.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from edge_agent.camera.messages import CaptureEnd, CaptureProgress, KeptFrame, Message
from edge_agent.camera.tally import Tally
from edge_agent.encode.buckets import CarriedBudget
from edge_agent.encode.encoder import Encoded, Encoder, OverBudget
from edge_agent.exceptions import FrameUnusable, SourceEnded
from edge_agent.gate.decision import GateDecision, NumberedFrame
from edge_agent.gate.gate import Gate
from edge_agent.redact.redactor import Redaction, Redactor
from edge_agent.sources.source import CapturedFrame, FrameSource, Image
from ingest.contract.codec import MAX_RECORD_BYTES, encode
from ingest.contract.records import Account, Box, Frame, Redacted
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig

MAX_IMAGE_BYTES = MAX_RECORD_BYTES - 64 * 1024
"""What else a record holds, with as many motion boxes as the gate finds, is far less than the rest."""
TELL_EVERY_S = 1.0
UNUSABLE = "unusable"


class FrameIntake:
    """Numbers, masks, gates, redacts and encodes the frames of one camera, and puts messages into a queue.

    Raise RedactionFailed when the camera is to be redacted and cannot be.
    """

    def __init__(
        self,
        camera: CameraConfig,
        epoch: int,
        clock: Clock,
        out: queue.Queue[Message | None],
        *,
        redactor: Redactor | None = None,
        carried: CarriedBudget | None = None,
    ) -> None:
        self._camera, self._epoch, self._clock, self._out = camera, epoch, clock, out
        self._tally = Tally(camera.name, epoch)
        self._gate = Gate(camera.gate, camera.name, epoch)
        self._redactor, self._encoder = redactor or Redactor(camera.redact), Encoder(camera.encode, carried)
        self._told_s = -TELL_EVERY_S
        self._reason = ""
        self._taking, self._over = threading.Lock(), False
        """Held while a number is given or has its decision: whoever waits for a source does not hold it."""

    def run(self, source: FrameSource, stop: threading.Event) -> None:
        """Read a source until it ends or ``stop`` is set. Raise SourceError when it fails, or what else went wrong.

        However it ends, every number that was given is accounted for.
        """
        finished, failure = False, None
        try:
            self._read(source, stop)
        except SourceEnded:
            finished = True
        except Exception as error:
            failure = error
        with self._taking:
            if self._over:
                return
            failure = self._end(finished) or failure
        if failure:
            raise failure

    def abandon(self) -> bool:
        """Account for every number while ``run`` still waits for its source. Called by another thread.

        Return False when that is done already; otherwise ``run`` takes nothing more, should it come back.
        """
        with self._taking:
            if self._over:
                return False
            self._end(finished=False)
            return True

    def _read(self, source: FrameSource, stop: threading.Event) -> None:
        try:
            source.open()
            while not stop.is_set():
                captured = source.read()
                with self._taking:
                    if self._over:
                        return
                    self.frame(captured) if captured else self._tell()
        finally:
            source.close()

    def _end(self, finished: bool) -> Exception | None:
        """Give what has none its decision, and say that this is all. Return what went wrong with it."""
        self._over, failure = True, None
        try:
            self._settle(self._gate.close())
        except Exception as error:
            failure = error
        self._tally.give_up(UNUSABLE)
        self._out.put(CaptureEnd(self._tally.captured - 1, self._tally.tail(), finished))
        return failure

    def frame(self, captured: CapturedFrame) -> None:
        """Take one frame: number it, and settle what its coming settles, itself or frames before it."""
        frame = NumberedFrame(self._tally.number(), captured.captured_ns, captured.time_source, captured.error_ms)
        self._settle(self._judged(frame, captured))
        self._tell()

    def _judged(self, frame: NumberedFrame, captured: CapturedFrame) -> list[GateDecision]:
        reason = self._gate.precheck(frame.captured_ns)
        if reason:
            return self._gate.withhold(frame, reason)
        try:
            return self._gate.decide(replace(frame, image=self._redactor.masked(sized(captured.image, self._camera))))
        except (cv2.error, FrameUnusable) as error:  # this frame's trouble; the next one may be well
            self._reason = f"a frame cannot be looked at: {error}"
            return self._gate.withhold(frame, UNUSABLE)
        except Exception:  # it cannot be masked, say, and ends the capture: its number has a decision all the same
            self._settle(self._gate.withhold(frame, UNUSABLE))
            raise

    def _settle(self, decisions: Sequence[GateDecision]) -> None:
        """Give each frame its decision, also those behind one that fails, and raise what that failed with."""
        failure: Exception | None = None
        for decision in decisions:
            if not decision.keep:
                self._tally.withhold(decision.reason)
            elif failure:
                self._tally.withhold(UNUSABLE)
            elif self._out.full():
                self._tally.withhold("overload")
            else:
                failure = self._tried(decision)
        if failure:
            raise failure

    def _tried(self, decision: GateDecision) -> Exception | None:
        """Keep a frame. Return what ends the capture: then the frame is withheld."""
        try:
            self._keep(decision)
        except Exception as error:
            self._tally.withhold(UNUSABLE)
            return error
        return None

    def _keep(self, decision: GateDecision) -> None:
        image = decision.frame.image
        assert image is not None  # noqa: S101  (narrowing: the gate keeps nothing without its image)
        try:
            redaction = self._redactor.apply(image, decision.frame.captured_ns)
            encoded = self._encoded(redaction)
        except (cv2.error, FrameUnusable) as error:
            self._reason = f"a frame of shape {image.shape} is unusable: {error}"
            self._tally.withhold(UNUSABLE)
            return
        if isinstance(encoded, OverBudget):
            self._reason = f"over its budget even at the floor: {encoded.left_bytes} bytes may be spent now"
            self._tally.withhold("budget")
            return
        record = encode(self._record(decision, encoded, redaction.redacted, self._tally.withheld))
        self._out.put(KeptFrame(decision.frame.seq, decision.frame.captured_ns, record, self._tally.account()))

    def _encoded(self, redaction: Redaction) -> Encoded | OverBudget:
        encoded = self._encoder.encode(redaction, self._clock.monotonic())
        if isinstance(encoded, Encoded) and len(encoded.data) > MAX_IMAGE_BYTES:
            raise FrameUnusable(f"{len(encoded.data)} bytes encoded, at most {MAX_IMAGE_BYTES} go into a record")
        return encoded

    def _record(
        self, decision: GateDecision, encoded: Encoded, redacted: Redacted | None, account: Account | None
    ) -> Frame:
        return Frame(
            camera=self._camera.name,
            epoch=self._epoch,
            seq=decision.frame.seq,
            site=self._camera.site,
            captured_ns=decision.frame.captured_ns,
            captured_by=decision.frame.time_source,
            captured_error_ms=decision.frame.error_ms,
            width=encoded.width,
            height=encoded.height,
            encoding=encoded.encoding,
            image=encoded.data,
            quality=encoded.quality,
            scaled_from=encoded.scaled_from,
            redacted=redacted,
            motion=_scaled(encoded, decision.motion),
            resting=_scaled(encoded, decision.resting),
            account=account,
            sampled=decision.sampled,
        )

    def _tell(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S and not self._out.full():
            self._told_s = now_s
            self._out.put(CaptureProgress(self._tally.captured, "running", self._reason))
            self._reason = ""


def _scaled(encoded: Encoded, boxes: tuple[Box, ...] | None) -> tuple[Box, ...] | None:
    return boxes if boxes is None else tuple(map(encoded.scaled, boxes))


def sized(image: Image, camera: CameraConfig) -> Image:
    """Return a picture in the size that its camera is set to, if that is."""
    size = camera.width, camera.height
    if not all(size) or image.shape[1::-1] == size:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
