"""Cascades of simple features (Viola and Jones, CVPR 2001), some of which OpenCV brings along.

They find faces from the front and the side that are well lit, and miss many. They are for where no model can be
brought; what they miss is measured in benchmarks/redact.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.exceptions import RedactionFailed
from edge_agent.redact.hold import Found
from ingest.contract.records import Box
from ingest.site import DetectorConfig

Image = npt.NDArray[np.uint8]

_DEFAULT = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")
_ONE_SIDED = "profile"
"""Such a cascade knows faces that look to one side; the other one is looked for in the mirrored picture."""
_SCALE_STEP = 1.1
_NEIGHBOURS = 3
"""So many windows must agree. Fewer find more, also where there is nothing."""
_MIN_PX = 20
"""The windows that these cascades were trained with: a smaller face is found in a larger picture only."""


class HaarDetector:
    """One or several cascades. A cascade gives no score: what it finds is certain."""

    def __init__(self, config: DetectorConfig, folder: Path) -> None:
        self._width = config.width
        shipped = Path(cv2.__file__).parent / "data"
        files = [self._file(folder, shipped, name) for name in ((config.model,) if config.model else _DEFAULT)]
        self._cascades = [(_load(file), _ONE_SIDED in file.name) for file in files]
        data = b"".join(file.read_bytes() for file in files)
        self.name = f"{'+'.join(f.stem for f in files)}@sha256:{hashlib.sha256(data).hexdigest()[:12]}"

    def find(self, image: Image, least_score: float) -> list[Found]:
        """Run every cascade over the picture."""
        try:
            scale = image.shape[1] / self._width
            small = cv2.resize(
                image, (self._width, max(1, round(image.shape[0] / scale))), interpolation=cv2.INTER_AREA
            )
            grey = np.asarray(cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)), np.uint8)
            boxes = [box for cascade, one_sided in self._cascades for box in _look(cascade, grey, one_sided)]
        except cv2.error as error:
            raise RedactionFailed(f"model {self.name}: {error.err}") from None
        return [Found(box.scaled(scale, scale), 1.0) for box in boxes]

    @staticmethod
    def _file(folder: Path, shipped: Path, name: str) -> Path:
        found = next((path for path in (folder / name, shipped / name) if path.is_file()), None)
        if found is None:
            raise RedactionFailed(f"model {folder / name}: no such file, and OpenCV brings none of that name along")
        return found


def _load(file: Path) -> cv2.CascadeClassifier:
    try:
        cascade = cv2.CascadeClassifier(str(file))
    except (cv2.error, SystemError):  # OpenCV raises the latter for what is no XML
        cascade = cv2.CascadeClassifier()
    if cascade.empty():
        raise RedactionFailed(f"model {file}: expected a cascade that OpenCV can read")
    return cascade


def _look(cascade: cv2.CascadeClassifier, grey: Image, one_sided: bool) -> list[Box]:
    found = [Box(x, y, x + w, y + h) for x, y, w, h in _detect(cascade, grey)]
    if one_sided:
        width, mirrored = grey.shape[1], np.ascontiguousarray(grey[:, ::-1])
        found += [Box(width - x - w, y, width - x, y + h) for x, y, w, h in _detect(cascade, mirrored)]
    return found


def _detect(cascade: cv2.CascadeClassifier, grey: Image) -> list[list[float]]:
    boxes = cascade.detectMultiScale(
        grey, scaleFactor=_SCALE_STEP, minNeighbors=_NEIGHBOURS, minSize=(_MIN_PX, _MIN_PX)
    )
    return np.asarray(boxes, np.float64).reshape(-1, 4).tolist()
