"""Redactor of one camera's pictures, and the type ``Redaction``, which proves that a picture was redacted.

The encoder (``edge_agent.encode``) accepts only a ``Redaction``, and only ``Redactor.apply`` makes a ``Redaction``,
so that no picture can be encoded without redaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edge_agent.exceptions import FrameUnusable, RedactionFailed
from edge_agent.redact.cover import Image, PrivacyMasks, obscure
from edge_agent.redact.detector import Detector, make_detector
from edge_agent.redact.history import BoxHistory
from ingest.contract.records import Box, Redacted
from ingest.site import DetectorConfig, RedactConfig

_MADE_HERE = object()


@dataclass(frozen=True, slots=True)
class Redaction:
    """Redacted picture ``(height, width, 3)`` uint8, made only by ``Redactor.apply``.

    ``redacted`` is the summary for the frame's record; None if the camera's configuration redacts nothing. ``boxes``
    has the obscured boxes in pixels, for tests and measurements.
    """

    image: Image
    redacted: Redacted | None
    boxes: tuple[Box, ...]
    seal: object

    def __post_init__(self) -> None:
        if self.seal is not _MADE_HERE:
            raise RedactionFailed(
                "a Redaction was made outside Redactor.apply: expected only redactions made by Redactor.apply"
            )


class Redactor:
    """Redactor of one camera: fills masks and obscures detected faces and plates. Only one thread may use a redactor.

    The redactor remembers boxes of earlier frames. The constructor loads all detection models and runs each model
    once. The constructor raises RedactionFailed if a model fails, and the camera then sends no frames.
    """

    def __init__(self, config: RedactConfig, make: Callable[[DetectorConfig], Detector] = make_detector) -> None:
        self._config = config
        self._masks = PrivacyMasks(config)
        kinds = {"faces": config.faces, "plates": config.plates}
        self._detectors = {kind: make(wanted) for kind, wanted in kinds.items() if wanted}
        self._histories = {
            kind: BoxHistory(wanted.min_score, config.hold_s, wanted.grow) for kind, wanted in kinds.items() if wanted
        }

    def masked(self, image: Image) -> Image:
        """Paint the privacy masks over a picture and return the result, which the gate and all later stages use.

        A writable picture is changed in place; a read-only picture is copied. Raise FrameUnusable if the picture is
        not ``(height, width, 3)`` uint8. Raise RedactionFailed if the masks cannot be painted.
        """
        if not self._masks.count:
            return image
        writable = _writable(image)
        try:
            self._masks.fill(writable)
        except (cv2.error, ValueError) as error:
            raise RedactionFailed(
                f"privacy masks could not be drawn on a picture of shape {image.shape}: {error}"
            ) from None
        return writable

    def apply(self, image: Image, captured_ns: int = 0) -> Redaction:
        """Paint the privacy masks over a picture, and obscure the picture's faces and plates.

        Pass pictures in the order of capture, because the redactor remembers boxes of earlier frames. After the call,
        use only ``Redaction.image``: a writable picture was changed in place, and a read-only picture was copied.
        Raise FrameUnusable if the picture is not ``(height, width, 3)`` uint8. Raise RedactionFailed if the masks
        cannot be painted or a detector fails.
        """
        if not self._masks.count and not self._detectors:
            return Redaction(image, None, (), _MADE_HERE)
        writable = self.masked(_writable(image))
        try:
            found = {
                kind: history.step(self._detectors[kind].find(writable, history.min_score), captured_ns)
                for kind, history in self._histories.items()
            }
            done = {
                kind: [covered for covered in boxes if obscure(writable, covered.box, self._config.method)]
                for kind, boxes in found.items()
            }
        except (cv2.error, ValueError) as error:
            raise RedactionFailed(f"redaction of a picture of shape {image.shape} failed: {error}") from None
        obscured = [covered for boxes in done.values() for covered in boxes]
        summary = Redacted(
            masks=self._masks.count,
            faces=len(done.get("faces", ())),
            plates=len(done.get("plates", ())),
            held=sum(covered.held for covered in obscured),
            method=self._config.method if self._detectors else "",
            models=tuple(detector.name for detector in self._detectors.values()),
        )
        return Redaction(writable, summary, tuple(covered.box for covered in obscured), _MADE_HERE)


def _writable(image: Image) -> Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise FrameUnusable(f"picture of shape {image.shape}, {image.dtype}: expected (height, width, 3) uint8")
    usable = image.flags.writeable and image.flags.c_contiguous
    return image if usable else image.copy()
