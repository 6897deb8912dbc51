"""Frame pipeline of the capture process: numbers, gates, redacts and encodes each frame, and makes the frame's
record.

A slow agent never blocks the camera: while the queue to the agent is full, new frames are withheld with the reason
``overload``.
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
from edge_agent.redact.redactor import Redactor
from edge_agent.sources.source import CapturedFrame, FrameSource, Image
from ingest.contract.codec import MAX_RECORD_BYTES, encode
from ingest.contract.records import Box, Frame, Redacted, WithheldInterval
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig

MAX_IMAGE_BYTES = MAX_RECORD_BYTES - 64 * 1024
"""Maximum size of an encoded picture, in bytes. A record has room for 64 KiB besides the picture, far more than the
other fields of a frame need."""
REPORT_EVERY_S = 1.0
"""Interval between two progress reports to the agent, in seconds."""
UNUSABLE = "unusable"


class FrameIntake:
    """Pipeline for one camera's frames: number, mask, gate, redact, encode, and queue each frame as a message.

    Raise RedactionFailed when the configured redaction is impossible, for example because a model cannot be loaded.
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
        self._reported_s = -REPORT_EVERY_S
        self._reason = ""
        self._taking, self._over = threading.Lock(), False
        """``_taking`` is a lock that is held while a frame gets its number and gate decision, and is free while the
        source is read. ``_over`` is true after the capture has ended."""

    def run(self, source: FrameSource, stop: threading.Event) -> None:
        """Capture the frames of a source until the source ends or ``stop`` is set.

        Raise the error that ended the capture. Record every numbered frame as kept or withheld, even after an error.
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
        """End the capture while ``run`` is blocked in a read from its source.

        Only a thread other than the thread of ``run`` may call this method. Record every numbered frame as kept or
        withheld. After this call, ``run`` ignores all further frames of the source. Return False if the capture had
        already ended.
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
                    self.frame(captured) if captured else self._report()
        finally:
            source.close()

    def _end(self, finished: bool) -> Exception | None:
        """Record the gate's decisions on all buffered frames, and send ``CaptureEnd`` to the agent.

        Return the first error that occurred, or None.
        """
        self._over, failure = True, None
        try:
            self._record_decisions(self._gate.close())
        except Exception as error:
            failure = error
        self._tally.give_up(UNUSABLE)
        self._out.put(CaptureEnd(self._tally.captured - 1, self._tally.tail(), finished))
        return failure

    def frame(self, captured: CapturedFrame) -> None:
        """Assign a sequence number to a captured frame, and let the gate examine it.

        Record the gate decisions that this frame makes final. The final decision may be about this frame or about
        earlier frames in the gate's pre-roll buffer.
        """
        frame = NumberedFrame(
            self._tally.number(), captured.captured_ns, captured.time_source, captured.error_ms, view=captured.view
        )
        self._record_decisions(self._decide(frame, captured))
        self._report()

    def _decide(self, frame: NumberedFrame, captured: CapturedFrame) -> list[GateDecision]:
        reason = self._gate.precheck(frame.captured_ns)
        if reason:
            return self._gate.withhold(frame, reason)
        try:
            return self._gate.decide(replace(frame, image=self._redactor.masked(sized(captured.image, self._camera))))
        except (cv2.error, FrameUnusable) as error:  # this error affects only this frame
            self._reason = f"a frame cannot be examined: {error}"
            return self._gate.withhold(frame, UNUSABLE)
        except Exception:  # for example, a mask fails. The capture ends, but this frame still needs a decision
            self._record_decisions(self._gate.withhold(frame, UNUSABLE))
            raise

    def _record_decisions(self, decisions: Sequence[GateDecision]) -> None:
        """Keep or withhold each frame as the gate has decided.

        If a frame fails, withhold all remaining frames of the list and raise the error.
        """
        failure: Exception | None = None
        for decision in decisions:
            if not decision.keep:
                self._tally.withhold(decision.reason)
            elif failure:
                self._tally.withhold(UNUSABLE)
            elif self._out.full():
                self._tally.withhold("overload")
            else:
                try:
                    self._keep(decision)
                except Exception as error:
                    self._tally.withhold(UNUSABLE)
                    failure = error
        if failure:
            raise failure

    def _keep(self, decision: GateDecision) -> None:
        image = decision.frame.image
        assert image is not None  # noqa: S101  (narrowing: the gate keeps no frame without its image)
        try:
            redaction = self._redactor.apply(image, decision.frame.captured_ns)
            encoded = self._encoder.encode(redaction, self._clock.monotonic())
            if isinstance(encoded, Encoded) and len(encoded.data) > MAX_IMAGE_BYTES:
                raise FrameUnusable(
                    f"the encoded picture of {len(encoded.data)} bytes exceeds the limit of {MAX_IMAGE_BYTES}"
                )
        except (cv2.error, FrameUnusable) as error:
            self._reason = f"a frame of shape {image.shape} is unusable: {error}"
            self._tally.withhold(UNUSABLE)
            return
        if isinstance(encoded, OverBudget):
            self._reason = f"the frame exceeds the byte budget at the lowest quality: {encoded.left_bytes} bytes left"
            self._tally.withhold("budget")
            return
        record = encode(self._frame(decision, encoded, redaction.redacted, self._tally.withheld))
        self._out.put(KeptFrame(decision.frame.seq, decision.frame.captured_ns, record, self._tally.account()))

    def _frame(
        self, decision: GateDecision, encoded: Encoded, redacted: Redacted | None, account: WithheldInterval | None
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
            view=decision.frame.view,
        )

    def _report(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._reported_s >= REPORT_EVERY_S and not self._out.full():
            self._reported_s = now_s
            self._out.put(CaptureProgress(self._tally.captured, self._reason))
            self._reason = ""


def _scaled(encoded: Encoded, boxes: tuple[Box, ...] | None) -> tuple[Box, ...] | None:
    return boxes if boxes is None else tuple(map(encoded.scaled, boxes))


def sized(image: Image, camera: CameraConfig) -> Image:
    """Return the picture, scaled to ``camera.width`` and ``camera.height`` if both are configured."""
    size = camera.width, camera.height
    if not all(size) or image.shape[1::-1] == size:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
