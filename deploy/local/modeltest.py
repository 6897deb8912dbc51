"""Run a model of the model repository on picture files, and draw the detected boxes into copies of the pictures.

The pictures are prepared as `sightline prepare` prepares frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from deploy.local.exceptions import PictureUnusable
from engines import backends, decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.engine import Engine
from engines.repository.manifest import Manifest, Model
from ingest.contract.records import Detection, Pixels, pad_into
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.alerts.pictures import draw_box
from stream.prepare.regions import windows

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


class DrawnPicture(NamedTuple):
    """The detections in a picture, and the path of a copy of the picture with the boxes drawn in."""

    picture: Path
    drawn: Path
    detections: Sequence[Detection]


def drawn_pictures(
    model: Model, pictures: Sequence[Path], out: Path, min_score: float, backend: str
) -> Iterator[DrawnPicture]:
    """For each picture, yield the detections, and write a copy that shows the detected boxes to the folder ``out``.

    Raise PictureUnusable, ModelLoadFailed or InferenceFailed.
    """
    manifest = model.manifest
    images = {path: read_picture(path) for path in pictures}
    out.mkdir(parents=True, exist_ok=True)
    decoder = decoders.make(manifest.decoder, DecoderOptions.of(manifest, min_score))
    engine = backends.make(backend)
    engine.load(model)
    try:
        names: list[str] = []
        for path, image in images.items():
            found = _detections(engine, decoder, manifest, image)
            for detection in reversed(found):  # the most likely one on top
                draw_box(image, detection.box, f"{detection.label} {detection.score:.2f}")
            names.append(path.stem)
            count = names.count(path.stem)  # pictures of the same name in other folders
            target = out / f"{path.stem}-{f'{count}-' if count > 1 else ''}{manifest.name}.jpg"
            target.write_bytes(cv2.imencode(".jpg", image, _QUALITY)[1].tobytes())
            yield DrawnPicture(path, target, found)
    finally:
        engine.close()


def pipeline_of(manifest: Manifest) -> PipelineConfig:
    """Return the pipeline that prepares a whole frame as the model's input."""
    spec = manifest.input
    return PipelineConfig(
        name=manifest.name,
        model=manifest.name,
        width=spec.width,
        height=spec.height,
        colour=spec.colour,
        fit=spec.fit,
        regions="motion" if manifest.decoder in decoders.CLASSIFIERS else "full",
    )


def _detections(engine: Engine, decoder: OutputDecoder, manifest: Manifest, image: Pixels) -> list[Detection]:
    pipeline, size = pipeline_of(manifest), (image.shape[1], image.shape[0])
    (window,) = windows(pipeline, size, None, 1)
    with engine.slot() as slot:
        pad_into(slot.pixels[:1], manifest.input.pad, [window.region.inner], [draw(image, window, pipeline.colour)])
        (found,) = decoder.decode(engine.run(slot, 1), [FrameRegion(window.region, *size)])
    return found


def read_picture(path: Path) -> Pixels:
    """Return the pixels of a picture file, ``(height, width, 3)`` BGR. Raise PictureUnusable."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise PictureUnusable(path, str(error)) from None
    if image is None:
        raise PictureUnusable(path, "not a picture")
    return np.asarray(image, np.uint8)
