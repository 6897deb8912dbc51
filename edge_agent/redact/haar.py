"""Face detector that uses Haar cascades (Viola and Jones, CVPR 2001). OpenCV contains several trained Haar cascades.

Haar cascades find well-lit faces from the front and from the side, but miss many other faces. The cascades are meant
for installations that have no model file. ``benchmarks/redact.py`` measures the share of missed faces.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from edge_agent.exceptions import RedactionFailed
from edge_agent.redact.cover import Image
from edge_agent.redact.history import ScoredBox
from ingest.contract.records import Box
from ingest.site import DetectorConfig

_DEFAULT = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")
_ONE_SIDED = "profile"
"""Word in the file name of a cascade that finds only faces that look to one side, left or right. A one-sided cascade
is also run on the mirrored picture, to find faces that look to the opposite side."""
_SCALE_STEP = 1.1
_NEIGHBOURS = 3
"""Minimum number of overlapping detections that OpenCV requires for a face (``minNeighbors``). With fewer required
detections, OpenCV finds more faces, but also gives more false detections."""
_MIN_PX = 20
"""Width and height in px of the faces with which the cascades were trained. A smaller face is found only if the
picture is enlarged."""


class HaarDetector:
    """Face detector with one or several Haar cascades. Cascades give no scores, so all boxes have score 1."""

    def __init__(self, config: DetectorConfig) -> None:
        self._width, files = config.width, list[Path]()
        for name in (config.model,) if config.model else _DEFAULT:
            places = Path(name), Path(cv2.__file__).parent / "data" / name
            found = next((path for path in places if path.is_file()), None)
            if found is None:
                raise RedactionFailed(f"model {name}: no such file, and OpenCV ships no cascade of that name")
            files.append(found)
        self._cascades = [(_load(file), _ONE_SIDED in file.name) for file in files]
        data = b"".join(file.read_bytes() for file in files)
        self.name = f"{'+'.join(f.stem for f in files)}@sha256:{hashlib.sha256(data).hexdigest()[:12]}"

    def find(self, image: Image, min_score: float) -> list[ScoredBox]:
        """Run every cascade on the picture and return all boxes."""
        try:
            scale = image.shape[1] / self._width
            small = cv2.resize(
                image, (self._width, max(1, round(image.shape[0] / scale))), interpolation=cv2.INTER_AREA
            )
            grey = np.asarray(cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)), np.uint8)
            boxes = []
            for cascade, one_sided in self._cascades:
                boxes += _find(cascade, grey)
                if one_sided:
                    mirrored = _find(cascade, np.ascontiguousarray(grey[:, ::-1]))
                    boxes += [Box(self._width - b.right, b.top, self._width - b.left, b.bottom) for b in mirrored]
        except cv2.error as error:
            raise RedactionFailed(f"model {self.name} failed on a picture: {error.err}") from None
        return [ScoredBox(box.scaled(scale, scale), 1.0) for box in boxes]


def _load(file: Path) -> cv2.CascadeClassifier:
    try:
        cascade = cv2.CascadeClassifier(str(file))
    except (cv2.error, SystemError):  # OpenCV raises SystemError for a file that is not XML
        cascade = cv2.CascadeClassifier()
    if cascade.empty():
        raise RedactionFailed(f"model {file}: expected a cascade that OpenCV can read")
    return cascade


def _find(cascade: cv2.CascadeClassifier, grey: Image) -> list[Box]:
    boxes = cascade.detectMultiScale(
        grey, scaleFactor=_SCALE_STEP, minNeighbors=_NEIGHBOURS, minSize=(_MIN_PX, _MIN_PX)
    )
    return [Box(x, y, x + w, y + h) for x, y, w, h in np.asarray(boxes, np.float64).reshape(-1, 4).tolist()]
