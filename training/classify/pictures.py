"""Read labelled pictures as a pipeline prepares them for a model, and keep the pixels in a temporary file.

A picture that cannot be used is skipped with its reason. A picture with the same bytes as another picture is also
skipped, because a copy in another part of the data would make the measured accuracy too high.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from engines.repository.manifest import InputSpec
from ingest.contract.records import Canvas, padded_rows
from ingest.exceptions import ConfigError
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.prepare.regions import windows
from training.classify.folders import PARTS, LabelledFile, LabelledFolder, Part

Begin = Callable[[str, int], Callable[[], None]]
"""Function that begins a step with a title and a number of parts. The function returns another function, to call
after each part of the step."""

_CHANNELS = 3


class SkippedFile(NamedTuple):
    """A picture file that is left out, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """Pictures ``(N, height, width, 3)`` uint8 in the form that a model takes, with the class of each picture."""

    labels: tuple[str, ...]
    files: tuple[LabelledFile, ...]
    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    skipped: tuple[SkippedFile, ...]
    sha256: str
    """SHA-256 of the parts, labels and contents of all pictures, in their order."""

    def indices(self, part: Part) -> npt.NDArray[np.intp]:
        """Return the indices of the pictures of a part: training, validation or test."""
        return np.flatnonzero([file.part == part for file in self.files])


def read_pictures(
    folder: LabelledFolder, spec: InputSpec, labels: tuple[str, ...], begin: Begin, command: str
) -> LabelledPictures:
    """Decode and prepare the pictures of a folder. ``labels`` has the labels in the order of the class indices.

    Raise ConfigError for a folder whose name is no label.
    """
    if unknown := sorted(set(folder.labels) - set(labels)):
        raise ConfigError(command, "DATA", unknown[0], f"folders with the names of labels: {', '.join(labels)}")
    advance = begin("reading pictures", len(folder.files))
    kept: list[LabelledFile] = []
    skipped: list[SkippedFile] = []
    seen: dict[bytes, LabelledFile] = {}
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as store:
        for file in folder.files:
            found = _prepared(file, spec, seen)
            if isinstance(found, str):
                skipped.append(SkippedFile(file.path, found))
            else:
                content, image = found
                seen[content] = file
                kept.append(file)
                store.write(image.tobytes())
                digest.update(f"{file.part}/{file.label} ".encode() + content)
            advance()
        store.flush()
        shape = (len(kept), spec.height, spec.width, _CHANNELS)
        images = np.memmap(store, np.uint8, "r", shape=shape) if kept else np.zeros(shape, np.uint8)
    classes = np.array([labels.index(file.label) for file in kept], np.int64)
    return LabelledPictures(labels, tuple(kept), images, classes, tuple(skipped), digest.hexdigest())


def require_every_label(pictures: LabelledPictures, data: Path, command: str) -> None:
    """Raise ConfigError if a part has no usable picture of a label."""
    for part in PARTS:
        have = {file.label for file in pictures.files if file.part == part}
        for label in pictures.labels:
            if label in have:
                continue
            total = sum(file.label == label for file in pictures.files)
            raise ConfigError(
                command,
                "DATA",
                str(data),
                f"at least one usable picture of {label!r} for {part}, found 0 of {total} there. Add pictures of "
                f"this label, or sort all pictures into the folders {', '.join(PARTS)} yourself",
            )


def _prepared(
    file: LabelledFile, spec: InputSpec, seen: dict[bytes, LabelledFile]
) -> tuple[bytes, npt.NDArray[np.uint8]] | str:
    """Return the hash and the pixels of a picture, or the reason to skip the picture."""
    try:
        data = file.path.read_bytes()
        content = hashlib.sha256(data).digest()
        if (same := seen.get(content)) is not None:
            other = "" if same.label == file.label else f", which has the label {same.label}"
            return f"same bytes as {same.path}{other}"
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (OSError, cv2.error) as error:
        return str(error)
    if image is None:
        return "not a picture" if data else "the file is empty"
    return content, fitted(np.asarray(image, np.uint8), spec)


def fitted(image: npt.NDArray[np.uint8], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Return a picture ``(height, width, 3)`` BGR as the input of a model, cropped and scaled like a whole frame."""
    pipeline = PipelineConfig(
        name="pictures", model="pictures", width=spec.width, height=spec.height, colour=spec.colour, fit=spec.fit
    )
    (window,) = windows(pipeline, (image.shape[1], image.shape[0]), None, 1)
    canvas = Canvas(spec.height, spec.width, _CHANNELS)
    rows = padded_rows(canvas, spec.pad, [window.region.inner], [draw(image, window, spec.colour)])
    return np.asarray(rows[0])
