"""Benchmark of redaction: share of covered faces, and CPU time: ``python -m benchmarks.redact``.

The ground truth is thirty face profiles of three people, labelled by hand (see ``benchmarks/data/faces.json``). A
face counts as covered if at least nine tenths of its label's area are covered. The clip is also shown at half and a
third of its size within a grey picture, to simulate a more distant camera. The redactor gets every frame in order, as
in an agent without a gate, because the redactor also covers areas where it detected a face shortly before. Pictures
of the labelled frames are written to ``.sightline/redaction`` for a human to check.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import typer

from benchmarks.pipeline import video_frames
from benchmarks.report import DATA, RESULTS, ROOT, Out, keep
from edge_agent.redact.redactor import Redactor
from ingest.contract.records import Box
from ingest.site import DetectorConfig, RedactConfig

Image = npt.NDArray[np.uint8]

LABELS = ROOT / "benchmarks" / "data" / "faces.json"
PICTURES = ROOT / ".sightline" / "redaction"
FPS = 10
COVERED = 0.9
"""Share of a labelled face's area that must be covered. The uncovered edge of a profile identifies nobody."""
SCALES = (1.0, 0.5, 1 / 3)
LEAD_FRAMES = 15
"""Number of frames sent to the redactor before each labelled face. The frames last longer than ``hold_s``, so that
earlier detections take effect as in operation."""
LEAD_NONE_FRAMES = 3
"""Number of frames sent to the redactor before each frame without a face: enough to show occasional false
detections."""
ULTRAFACE = str(DATA / "ultraface-rfb-320.onnx")


@dataclass(frozen=True)
class Labels:
    """Face boxes by frame number, and the numbers of frames without faces."""

    faces: dict[int, Box]
    none: tuple[int, ...]

    @classmethod
    def read(cls) -> Labels:
        """Read the labels from ``benchmarks/data/faces.json``."""
        values = json.loads(LABELS.read_text())
        return cls({int(n): Box(*box) for n, box in values["faces"].items()}, tuple(values["none"]))


@dataclass
class RedactionMeasure:
    """Measurements of one redaction setting at one picture scale."""

    covered: list[float] = field(default_factory=list)
    needless: list[int] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Return the figures."""
        whole = sum(share >= COVERED for share in self.covered)
        return {
            "faces": len(self.covered),
            "covered": whole,
            "recall": round(whole / len(self.covered), 3),
            "half_covered": sum(share >= 0.5 for share in self.covered),
            "frames_without_faces": len(self.needless),
            "of_these_redacted": sum(map(bool, self.needless)),
            "cpu_ms_median": round(statistics.median(self.cpu_ms), 2),
            "cpu_ms_p99": round(statistics.quantiles(self.cpu_ms, n=100)[98], 2),
        }


def _settings() -> dict[str, RedactConfig]:
    """Return the compared redaction settings by name.

    UltraFace runs with several input sizes, minimum scores and times ``hold_s``. OpenCV's cascades, YOLOX-nano on
    whole people, and masks alone are the other settings.
    """

    def ultraface(width: int, height: int, score: float = 0.5, hold_s: float = 1.0, levels: int = 1) -> RedactConfig:
        model = DetectorConfig(model=ULTRAFACE, width=width, height=height, min_score=score, levels=levels)
        return RedactConfig(faces=model, hold_s=hold_s)

    people = DetectorConfig(
        model=str(DATA / "yolox-nano.onnx"),
        decoder="yolox",
        width=416,
        height=416,
        classes=(0,),
        min_score=0.3,
        grow=0.1,
    )
    return {
        "masks only": RedactConfig(masks=(((0.0, 0.0), (0.3, 0.0), (0.3, 0.4), (0.0, 0.4)),)),
        "ultraface 320×192": ultraface(320, 192),
        "ultraface 320×192, without memory": ultraface(320, 192, hold_s=0.0),
        "ultraface 320×192, min_score 0.3": ultraface(320, 192, 0.3),
        "ultraface 320×256": ultraface(320, 256),
        "ultraface 640×384": ultraface(640, 384),
        "ultraface 640×384, 2 levels": ultraface(640, 384, levels=2),
        "ultraface 640×384, 2 levels, without memory": ultraface(640, 384, hold_s=0.0, levels=2),
        "ultraface 960×544, 2 levels": ultraface(960, 544, levels=2),
        "haar at 320, front and side": RedactConfig(faces=DetectorConfig(decoder="haar")),
        "yolox-nano 416×416, whole people": RedactConfig(faces=people),
    }


def _clip(wanted: Container[int]) -> Iterator[tuple[int, Image]]:
    for number, image in enumerate(video_frames(DATA / "one-by-one-person-detection.mp4")):
        if number in wanted:
            yield number, np.asarray(image, np.uint8)


def _further(image: Image, scale: float) -> tuple[Image, tuple[int, int]]:
    """Return a grey picture with the scaled-down picture in its middle, and the corner of that middle part in px."""
    if scale == 1.0:
        return image.copy(), (0, 0)
    height, width = image.shape[:2]
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    left, top = (width - small.shape[1]) // 2, (height - small.shape[0]) // 2
    canvas = np.full_like(image, 200)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas, (left, top)


def _share(label: Box, boxes: Sequence[Box]) -> float:
    """Return the share of a label's area that all boxes together cover."""
    left, top, right, bottom = map(round, label)
    seen = np.zeros((bottom - top, right - left), bool)
    for box in boxes:
        a, b = max(0, int(box.left) - left), max(0, int(box.top) - top)
        seen[b : max(b, int(np.ceil(box.bottom)) - top), a : max(a, int(np.ceil(box.right)) - left)] = True
    return float(seen.mean())


@dataclass
class RedactionRun:
    """Run of one redaction setting at one picture scale, with its measurements."""

    name: str
    scale: float
    redactor: Redactor
    measure: RedactionMeasure = field(default_factory=RedactionMeasure)

    def see(self, number: int, frame: Image, labels: Labels) -> None:
        """Redact and measure the next frame."""
        image, corner = _further(frame, self.scale)
        began_s = time.thread_time()
        done = self.redactor.apply(image, number * 1_000_000_000 // FPS)
        self.measure.cpu_ms.append((time.thread_time() - began_s) * 1e3)
        if number in labels.faces:
            sides = zip(labels.faces[number], corner * 2, strict=True)
            self.measure.covered.append(
                _share(Box(*(side * self.scale + offset for side, offset in sides)), done.boxes)
            )
        elif number in labels.none:
            self.measure.needless.append(len(done.boxes))
        if self.scale == 1.0 and (number in labels.faces or number in labels.none):
            folder = PICTURES / self.name.replace(" ", "-").replace(",", "")
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number:04d}.jpg"), done.image)

    def report(self) -> dict[str, Any]:
        """Return the figures with the setting and the scale."""
        return {"setting": self.name, "scale": round(self.scale, 2), **self.measure.report()}


def _sides() -> list[RedactionRun]:
    return [
        RedactionRun(name, scale, Redactor(config))
        for name, config in _settings().items()
        for scale in (SCALES if config.faces else SCALES[:1])
    ]


def main(out: Out = RESULTS) -> None:
    """Measure all settings, and print and save the results with date and machine."""
    if not Path(ULTRAFACE).is_file():
        typer.echo(f"skipped: {DATA} is not there")
        return
    cv2.setNumThreads(1)  # as in the capture process
    labels, sides = Labels.read(), _sides()
    wanted = {n for at in labels.faces for n in range(at - LEAD_FRAMES, at + 1)}
    wanted |= {n for at in labels.none for n in range(at - LEAD_NONE_FRAMES, at + 1)}
    for number, frame in _clip(wanted):
        for side in sides:
            side.see(number, frame, labels)
    measured = [side.report() for side in sides]
    for figures in measured:
        typer.echo(json.dumps(figures, ensure_ascii=False))
    report = {
        "opencv": cv2.__version__,
        "label_height_px": {
            round(s, 2): round(statistics.median(b.height for b in labels.faces.values()) * s) for s in SCALES
        },
        "measured": measured,
    }
    keep("redact", report, out)


if __name__ == "__main__":
    typer.run(main)
