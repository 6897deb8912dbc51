"""Pictures for calibration, fine-tuning and comparison, prepared as `sightline prepare` prepares frames."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple, overload

from deploy.local.modeltest import pipeline_of, read_picture
from deploy.local.pictures import KNOWN_PICTURES, picture_names
from engines.engine import CHANNELS, Images
from engines.repository.manifest import Manifest
from ingest import picture
from ingest.contract.crop import CropWindow
from ingest.contract.records import Canvas, padded_rows
from ingest.contract.topics import FRAMES
from ingest.exceptions import CodecError, ConfigError, PictureError
from ingest.kafka.log import Log
from stream.exceptions import FrameError
from stream.prepare.decode import read_frame
from stream.prepare.regions import windows


class PictureSample(NamedTuple):
    """One picture for a model: a file, or a region of an encoded frame. ``label`` is the class of the picture, or
    empty if the class is unknown."""

    source: Path | bytes
    encoding: str = ""
    size: tuple[int, int] = (0, 0)
    window: CropWindow | None = None
    label: str = ""


class PreparedPictures(Sequence[Images]):
    """Pictures ``(1, height, width, 3)`` uint8 in the form that a model takes. Each picture is decoded only when the
    caller takes it from the sequence."""

    def __init__(self, samples: Sequence[PictureSample], manifest: Manifest) -> None:
        self._samples, self._manifest = list(samples), manifest
        self._pipeline = pipeline_of(manifest)

    @property
    def labels(self) -> list[str]:
        """Labels of the pictures, or an empty list if they have none."""
        return [sample.label for sample in self._samples] if all(sample.label for sample in self._samples) else []

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Images: ...

    @overload
    def __getitem__(self, index: slice) -> PreparedPictures: ...

    def __getitem__(self, index: int | slice) -> Images | PreparedPictures:
        if isinstance(index, slice):
            return PreparedPictures(self._samples[index], self._manifest)
        sample = self._samples[index]
        reduction = 1
        if isinstance(sample.source, Path):
            image, window = read_picture(sample.source), None
        else:
            window = sample.window
            reduction = picture.reduction_for([window], sample.encoding, sample.size) if window else 1
            image = picture.pixels(sample.source, sample.encoding, sample.size, reduction)
        if window is None:
            (window,) = windows(self._pipeline, (image.shape[1], image.shape[0]), None, 1)
        spec = self._manifest.input
        canvas = Canvas(spec.height, spec.width, CHANNELS)
        drawn = picture.draw(image, window, spec.colour, reduction=reduction)
        return padded_rows(canvas, spec.pad, [window.region.inner], [drawn])

    def halves(self) -> tuple[PreparedPictures, PreparedPictures]:
        """Split the pictures: return every second picture, and the remaining pictures. If the pictures have labels,
        split each class in half."""
        ordered = sorted(self._samples, key=lambda sample: sample.label)
        return PreparedPictures(ordered[::2], self._manifest), PreparedPictures(ordered[1::2], self._manifest)

    def spread(self, most: int) -> PreparedPictures:
        """Return at most ``most`` pictures, evenly spread over all of them."""
        step = max(1.0, len(self._samples) / most)
        return PreparedPictures(
            [self._samples[int(i * step)] for i in range(min(most, len(self._samples)))], self._manifest
        )


def from_folder(folder: Path, manifest: Manifest, option: str) -> PreparedPictures:
    """Return the pictures of a folder and its sub-folders.

    If the sub-folders have the names of labels, the pictures in them have these labels. Raise ConfigError if the
    folder has no pictures, or if only some of its sub-folders have names of labels.
    """
    names = picture_names(folder, "optimise", option)
    if not names:
        raise ConfigError("optimise", option, str(folder), KNOWN_PICTURES)
    tops = {Path(name).parts[0] if len(Path(name).parts) > 1 else "" for name in names}
    labelled = tops & set(manifest.labels)
    if labelled and (others := sorted(tops - labelled)):
        raise ConfigError(
            "optimise",
            option,
            str(folder / others[0]),
            f"each picture in a folder with the name of a label: {', '.join(manifest.labels)}",
        )
    return PreparedPictures(
        [PictureSample(folder / name, label=Path(name).parts[0] if labelled else "") for name in names], manifest
    )


async def from_log(log: Log, manifest: Manifest, count: int) -> PreparedPictures:
    """Return the regions of the newest frames of a site, about ``count`` frames, the same number from each partition.

    Frames that cannot be decoded are left out, as by `sightline prepare`. Raise ConfigError for a site without
    frames, and LogUnavailable.
    """
    pipeline, samples = pipeline_of(manifest), []
    starts, ends = await log.beginnings(FRAMES), await log.ends(FRAMES)
    share = -(-count // max(1, sum(end > starts.get(p, 0) for p, end in ends.items())))
    for partition, end in ends.items():
        start = max(starts.get(partition, 0), end - share)
        if start >= end:
            continue
        async with aclosing(log.read(FRAMES, partition, start, end)) as records:
            async for record in records:
                try:
                    delivered = read_frame(record)
                except (CodecError, FrameError, PictureError):
                    continue
                frame = delivered.frame
                if pipeline.regions == "motion" and frame.motion is not None and not frame.motion:
                    continue  # nothing moves, so that no region is classified
                chosen = windows(pipeline, delivered.size, frame.motion, pipeline.max_regions)
                samples += [PictureSample(frame.image, frame.encoding, delivered.size, window) for window in chosen]
    if not samples:
        raise ConfigError("optimise", "--from-log", str(count), "a site whose topic frames has pictures")
    return PreparedPictures(samples, manifest)
