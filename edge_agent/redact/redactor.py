"""Redaction of one camera's pictures, and the type that says that it was done.

Only a ``Redaction`` can be encoded (``edge_agent.encode``), and only ``Redactor.apply`` makes one: there is no way
from a captured picture to bytes around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.exceptions import FrameUnusable, RedactionFailed
from edge_agent.redact.detector import Detector, make_detector
from edge_agent.redact.hold import Held, Hold
from edge_agent.redact.masks import Masks
from edge_agent.redact.obscure import obscure
from ingest.contract.records import Box, Redacted
from ingest.site import DetectorConfig, RedactConfig

Image = npt.NDArray[np.uint8]

_MADE_HERE = object()


@dataclass(frozen=True, slots=True)
class Redaction:
    """A picture ``(height, width, 3)`` uint8 in which nothing is left that must not be seen.

    ``told`` is what the frame's record says of it, None when the camera redacts nothing. ``boxes`` are what was
    obscured, in pixels, for tests and measurements. Made by ``Redactor.apply`` only.
    """

    image: Image
    told: Redacted | None
    boxes: tuple[Box, ...]
    seal: object

    def __post_init__(self) -> None:
        if self.seal is not _MADE_HERE:
            raise RedactionFailed("a Redaction is made by Redactor.apply only")


class _Kind:
    """Faces or plates: a detector, and what it found lately."""

    def __init__(self, config: DetectorConfig, detector: Detector, hold_s: float) -> None:
        self.detector, self._grow = detector, config.grow
        self._hold = Hold(config.min_score, hold_s)

    def boxes(self, image: Image, at_ns: int) -> list[Held]:
        found = self.detector.find(image, self._hold.least_score)
        return [Held(h.box.widened(self._grow), h.seen_ns, h.held) for h in self._hold.step(found, at_ns)]


class Redactor:
    """Masks, and obscures what is found. Belongs to one thread; its detectors remember the frames before.

    Models are loaded and tried here. Raise RedactionFailed when one cannot be: the camera then sends nothing.
    """

    def __init__(
        self,
        config: RedactConfig,
        folder: Path = Path(),
        make: Callable[[DetectorConfig, Path], Detector] = make_detector,
    ) -> None:
        self._config = config
        self._masks = Masks(config)
        kinds = {"faces": config.faces, "plates": config.plates}
        self._kinds = {n: _Kind(c, make(c, folder), config.hold_s) for n, c in kinds.items() if c is not None}
        self._models = tuple(kind.detector.name for kind in self._kinds.values())

    def masked(self, image: Image) -> Image:
        """Return the picture with its masks filled, for the gate and everything after it.

        In place when the picture can be written to, else a copy. Raise FrameUnusable when it is no picture of
        ``(height, width, 3)`` uint8, RedactionFailed when a mask cannot be applied.
        """
        if not self._masks.count:
            return image
        mine = _writable(image)
        try:
            self._masks.fill(mine)
        except (cv2.error, ValueError) as error:
            raise RedactionFailed(f"masks cannot be applied to a picture {image.shape}: {error}") from None
        return mine

    def apply(self, image: Image, captured_ns: int = 0) -> Redaction:
        """Mask a picture and obscure what is found in it. Frames come in the order of their capture.

        The result's picture is the one given when that can be written to, else a copy: use the result's only.
        Raise FrameUnusable and RedactionFailed as ``masked`` does, and RedactionFailed when a detector fails.
        """
        if not self._masks.count and not self._kinds:
            return Redaction(image, None, (), _MADE_HERE)
        mine = self.masked(_writable(image))
        try:
            found = {name: kind.boxes(mine, captured_ns) for name, kind in self._kinds.items()}
            done = {
                name: [h for h in held if obscure(mine, h.box, self._config.method)] for name, held in found.items()
            }
        except (cv2.error, ValueError) as error:
            raise RedactionFailed(f"a picture {image.shape} could not be redacted: {error}") from None
        return Redaction(mine, self._told(done), tuple(h.box for held in done.values() for h in held), _MADE_HERE)

    def _told(self, done: dict[str, list[Held]]) -> Redacted:
        return Redacted(
            masks=self._masks.count,
            faces=len(done.get("faces", ())),
            plates=len(done.get("plates", ())),
            held=sum(h.held for held in done.values() for h in held),
            method=self._config.method if self._kinds else "",
            models=self._models,
        )


def _writable(image: Image) -> Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise FrameUnusable(f"a picture {image.shape} of {image.dtype}: expected (height, width, 3) uint8")
    usable = image.flags.writeable and image.flags.c_contiguous
    return image if usable else image.copy()
