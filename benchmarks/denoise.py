"""Benchmark of the filters of ``prepare``: quality gained, harm to clean frames, CPU time, effect on a detector.

``python -m benchmarks.denoise`` reads three pieces of each clip in ``shared/data``, scaled to at most 640×360, at
half of the clip's frame rate. Gaussian or Poisson noise (photons) is added to the decoded frames. The frames are then
encoded as JPEG at quality 85, as agents send them. For the damage ``jpeg``, frames are encoded at a lower quality,
without added noise. A second table has frames in fog and in the dark, with the steps ``fog`` and ``low-light``. A
third table has frames that are bent by lenses, with and without the step ``distortion``.

- ``psnr_db`` and ``ssim`` (Wang et al., IEEE Transactions on Image Processing 13, 2004; luma) compare with the clean
  frame. A gain is the difference between a filtered and an unfiltered frame.
- Harm is the loss of PSNR on frames to which nothing is added.
- ``f1`` is the F1 of YOLOX-nano's detections against its detections on the clean frame. Two boxes match if their IoU
  is at least 0.5. Labels are not compared, because YOLOX takes cars seen from above for telephones.
- ``ms`` is the CPU time of one thread per frame.

Filters over time first need some frames of a piece to fill their memory, and these frames are not compared.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import typer

from benchmarks.gate import CLIPS, Found, Yolox
from benchmarks.pipeline import video_frames
from benchmarks.report import DATA, KeepIt, conclude, log_progress
from engines.optimise import judge
from ingest.contract.records import Lens
from ingest.contract.records import Pixels as Image
from ingest.picture import undistorted
from ingest.site.lens import LensConfig
from ingest.site.pipeline import LightStep
from stream.prepare.denoise import DenoiseKind, denoiser
from stream.prepare.steps import REDUCTION, Change, changes

STARTS = (0.2, 0.5, 0.8)
"""Beginning of each piece of a clip, as a share of the clip's frames."""
WARM_UP, COMPARED = 6, 4
"""Two numbers of frames of a piece of a clip: first frames that are not compared, then frames that are compared."""
SIZE = (640, 360)
MIN_SCORE = 0.3
QUALITY = 85
FOG_LEVEL = 225.0
SENSOR_SIGMA = 2.0
"""Standard deviation of the noise of dark and foggy frames, in grey levels."""
MAX_HARM_DB, MAX_MS = 0.1, 2.0


def _corrected(chosen: Sequence[LightStep], kind: DenoiseKind = "none") -> Change:
    """Return a new filter: the denoiser, then the steps that a frame needs."""
    denoise = denoiser(kind).denoise

    def correct(image: Image) -> Image:
        image = denoise(image)
        for change in changes(chosen, image[::REDUCTION, ::REDUCTION]):
            image = change(image)
        return image

    return correct


KINDS: tuple[DenoiseKind, ...] = ("none", "median", "bilateral", "temporal", "auto")
SHOWN = "gaussian 20"
LIT: dict[str, Callable[[], Change]] = {
    "no step": partial(_corrected, ()),
    "`low-light`": partial(_corrected, ("low-light",)),
    "`fog`": partial(_corrected, ("fog",)),
    "both": partial(_corrected, ("low-light", "fog")),
    "`auto` and both": partial(_corrected, ("low-light", "fog"), "auto"),
}
"""Filters for frames in bad light, by name."""
LENSES: dict[str, tuple[Literal["pinhole", "fisheye"], float, tuple[float, ...]]] = {
    "60°": ("pinhole", 0.9, (-0.15, 0.02, 0.0, 0.0)),
    "92°": ("pinhole", 0.625, (-0.3, 0.1, 0.0, 0.0, -0.015)),
    "129°, fisheye": ("fisheye", 0.453, (-0.02, 0.005, -0.002, 0.0)),
}
"""Lenses by the angle that they show: model, focal length in widths of the picture, and distortion."""
PART = np.s_[-200:, 40:300]
"""Part of a frame that the pictures show."""

Damage = Callable[[Image, np.random.Generator], Image]


def _noisy(sigma: float) -> Damage:
    return lambda image, rng: _encoded(image + rng.normal(0.0, sigma, image.shape))


def _photons(peak: float) -> Damage:
    return lambda image, rng: _encoded(rng.poisson(image * (peak / 255.0)) * (255.0 / peak))


def _foggy(light: float) -> Damage:
    fog = FOG_LEVEL * (1.0 - light)
    return lambda image, rng: _encoded(image * light + fog + rng.normal(0.0, SENSOR_SIGMA, image.shape))


def _dark(light: float) -> Damage:
    return lambda image, rng: _encoded(image * light + rng.normal(0.0, SENSOR_SIGMA, image.shape))


def _encoded(image: np.ndarray, quality: int = QUALITY) -> Image:
    whole = np.clip(np.round(image), 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # type: ignore[return-value]


DAMAGES: dict[str, Damage] = {
    "clean": lambda image, _: _encoded(image),
    **{f"gaussian {sigma}": _noisy(sigma) for sigma in (5, 10, 20)},
    **{f"poisson {peak}": _photons(peak) for peak in (1000, 250, 60)},
    **{f"jpeg {quality}": lambda image, _, quality=quality: _encoded(image, quality) for quality in (50, 30, 15)},  # type: ignore[misc]
}
"""Damages by name: standard deviation in grey levels, photons of a white pixel, or quality of the JPEG."""


LIGHTS: dict[str, Damage] = {
    "clean": DAMAGES["clean"],
    **{f"fog {light}": _foggy(light) for light in (0.5, 0.3, 0.15)},
    **{f"dark {light}": _dark(light) for light in (0.25, 0.12, 0.06)},
}
"""Damages of the light by name: the share of the scene's light that reaches the camera."""


@dataclass
class FilterFigures:
    """Figures of one filter under one damage, one value per compared frame."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    matched: list[tuple[int, int]] = field(default_factory=list)
    """Twice the number of matched boxes, and the total number of boxes in both pictures; their ratio is F1."""

    def note(self, result: Image, clean: Image, took_s: float, found: tuple[int, int]) -> None:
        """Add the figures of a frame."""
        self.psnr_db.append(cv2.PSNR(result, clean))
        self.ssim.append(ssim(result, clean))
        self.ms.append(took_s * 1e3)
        self.matched.append(found)

    def summary(self) -> dict[str, float]:
        """Return the mean PSNR, SSIM and time per frame, and the F1 of the detections over all frames."""
        hits, boxes = np.sum(self.matched, axis=0)
        means = {"psnr_db": np.mean(self.psnr_db), "ssim": np.mean(self.ssim), "f1": hits / max(boxes, 1)}
        return {key: round(float(value), 4) for key, value in (means | {"ms": np.mean(self.ms)}).items()}


def pieces(path: Path) -> list[list[Image]]:
    """Return the pieces of a clip."""
    frames = list(video_frames(path))
    starts = [int(share * len(frames)) for share in STARTS]
    return [[_scaled(frames[start + 2 * n]) for n in range(WARM_UP + COMPARED)] for start in starts]


def _scaled(frame: Image) -> Image:
    if frame.shape[1] <= SIZE[0]:
        return frame
    return cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def ssim(one: Image, other: Image) -> float:
    """Return the structural similarity of the luma of two pictures, 0..1."""
    x, y = (cv2.cvtColor(each, cv2.COLOR_BGR2GRAY).astype(np.float32) for each in (one, other))
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def _window(values: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(values, (11, 11), 1.5)


def matched(found: Found, clean: Found) -> tuple[int, int]:
    """Return two numbers whose ratio is F1: twice the number of matched boxes, and the total number of boxes in both
    pictures."""
    left, boxes = (
        [one.model_copy(update={"label": ""}) for one in each if one.score >= MIN_SCORE] for each in (clean, found)
    )
    return 2 * judge.matched(left, boxes), len(left) + len(boxes)


class FilterBench:
    """Compares filters on damaged pieces of clips."""

    def __init__(self, footage: dict[str, list[list[Image]]]) -> None:
        self._look = Yolox().look
        self._footage = footage
        self._expected = {
            (clip, number): [self._look(image) for image in piece[WARM_UP:]]
            for clip, found in footage.items()
            for number, piece in enumerate(found)
        }

    def run(self, damage: Damage, filters: Mapping[str, Callable[[], Change]]) -> dict[str, dict[str, Any]]:
        """Return the figures of each clip and filter, and of all clips together under the name ``all``."""
        qualities: defaultdict[tuple[str, str], FilterFigures] = defaultdict(FilterFigures)
        for (clip, number), expected in self._expected.items():
            piece, rng = self._footage[clip][number], np.random.default_rng(number)
            damaged = [damage(image, rng) for image in piece]
            for kind, make in filters.items():
                apply = make()
                for index, image in enumerate(damaged):
                    started_s = time.thread_time()
                    result = apply(image)
                    took_s = time.thread_time() - started_s
                    if index >= WARM_UP:
                        found = matched(self._look(result), expected[index - WARM_UP])
                        for name in (clip, "all"):
                            qualities[name, kind].note(result, piece[index], took_s, found)
        figures: dict[str, dict[str, Any]] = defaultdict(dict)
        for (name, kind), quality in qualities.items():
            figures[name][kind] = quality.summary()
        return figures

    def run_lens(self, name: str) -> dict[str, float]:
        """Return the F1 of frames that a lens bends, without and with the step ``distortion``, and the time of the
        step per frame. The scene fills the width of the bent frames."""
        counts: dict[str, list[tuple[int, int]]] = {"no step": [], "`distortion`": []}
        took_ms = []
        for (clip, number), expected in self._expected.items():
            images = self._footage[clip][number][WARM_UP:]
            size = images[0].shape[1], images[0].shape[0]
            lens = lens_of(name, *size)
            scene = straight_view(lens, *size)
            undistorted(images[0], lens)  # makes the map
            for image, clean in zip(images, expected, strict=True):
                frame = bent(image, scene)
                started_s = time.thread_time()
                straight = undistorted(frame, lens)
                took_ms.append(1e3 * (time.thread_time() - started_s))
                truth = _in_frame(clean, scene, size)
                counts["no step"].append(matched(self._look(frame), truth))
                counts["`distortion`"].append(matched(_in_frame(self._look(straight), lens, size), truth))
        f1 = {key: float(np.divide(*np.sum(found, axis=0))) for key, found in counts.items()}
        return {key: round(value, 4) for key, value in (f1 | {"ms": float(np.mean(took_ms))}).items()}


def lens_of(name: str, width: int, height: int) -> Lens:
    """Return one of ``LENSES`` for pictures of a size."""
    model, focal, distortion = LENSES[name]
    centre = {"cx": width / 2 - 0.5, "cy": height / 2 - 0.5}
    config = LensConfig(
        model=model,
        width=width,
        height=height,
        fx=focal * width,
        fy=focal * width,
        **centre,
        distortion=distortion,
    )
    return config.lens(width, height)


def straight_view(lens: Lens, width: int, height: int) -> Lens:
    """Return a lens whose undistorted picture shows the same part of the scene from left to right as the frame."""
    ray = lens.optics.to_ray((width, height / 2)) or (1.0, 0.0)
    focal = width / 2 / ray[0]
    return lens.model_copy(update={"fx": focal, "fy": focal, "cx": width / 2, "cy": height / 2})


def bent(image: Image, lens: Lens) -> Image:
    """Return the frame of a camera with a lens whose undistorted picture is ``image``, encoded as JPEG."""
    return _encoded(np.asarray(cv2.remap(image, *_places(lens, image.shape[1], image.shape[0]), cv2.INTER_LINEAR)))


@lru_cache
def _places(lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and the row of the undistorted picture that each pixel of a frame shows, ``(H, W)`` each."""
    points = ((lens.undistorted((x + 0.5, y + 0.5)) or (-1e4, -1e4)) for y in range(height) for x in range(width))
    places = np.array(list(points), np.float32).reshape(height, width, 2) - 0.5
    return places[..., 0].copy(), places[..., 1].copy()


def _in_frame(found: Found, lens: Lens, size: tuple[int, int]) -> Found:
    """Return detections of an undistorted picture with their boxes in the frame."""
    moved = (one.model_copy(update={"box": lens.distorted_box(one.box).clipped(*size)}) for one in found)
    return tuple(one for one in moved if one.box.area > 0.0)


def gains(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add to the figures of each filter its gains over the first filter, which changes nothing: ``psnr_gain`` and so
    on."""
    for found in figures.values():
        plain = dict(next(iter(found.values())))
        for one in found.values():
            for key in ("psnr_db", "ssim", "f1"):
                one[f"{key.removesuffix('_db')}_gain"] = round(one[key] - plain[key], 4)
    return figures


def light_table(report: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the F1 of all clips together with and without steps as a Markdown table."""
    lines = ["| Light | " + " | ".join(LIT) + " |", "|---" * (len(LIT) + 1) + "|"]
    for damage, figures in report.items():
        cells = [f"{one['f1']:.2f}" for one in figures["all"].values()]
        lines.append(f"| {damage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lens_table(report: dict[str, dict[str, float]]) -> str:
    """Return the F1 of frames bent by lenses, without and with the step ``distortion``, as a Markdown table."""
    lines = ["| Lens | no step | `distortion` |", "|---|---|---|"]
    lines += [f"| {name} | {found['no step']:.2f} | {found['`distortion`']:.2f} |" for name, found in report.items()]
    return "\n".join(lines)


def table(report: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the figures of all clips together as a Markdown table."""
    lines = ["| Added | Unfiltered | " + " | ".join(f"`{kind}`" for kind in KINDS[1:]) + " |", "|---" * 6 + "|"]
    for damage, figures in report.items():
        found = figures["all"]
        plain = found["none"]
        cells = [f"{plain['psnr_db']:.1f} dB, {plain['ssim']:.3f}, F1 {plain['f1']:.2f}"]
        cells += [
            f"{one['psnr_gain']:+.1f} dB, {one['ssim_gain']:+.3f}, F1 {one['f1']:.2f}"
            for kind, one in found.items()
            if kind != "none"
        ]
        lines.append(f"| {damage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_pictures(footage: dict[str, list[list[Image]]], folder: Path) -> None:
    """Write for each clip a part of a frame: clean, with Gaussian noise, and filtered by ``auto``."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip, found in footage.items():
        piece, rng, filtered = found[1], np.random.default_rng(1), denoiser("auto").denoise
        for image in piece:
            noisy = DAMAGES[SHOWN](image, rng)
            result = filtered(noisy)
        shown = [each[PART] for each in (image, noisy, result)]
        path = folder / f"denoise-{Path(clip).stem}.jpg"
        cv2.imwrite(str(path), cv2.hconcat(shown), [cv2.IMWRITE_JPEG_QUALITY, 80])


def main(
    keep_it: KeepIt = False,
    pictures: Annotated[Path | None, typer.Option(help="Folder for pictures of each clip.")] = None,
) -> None:
    """Measure the filters, print a table, and fail if ``auto`` harms clean frames or is too slow."""
    cv2.setNumThreads(1)
    footage = {clip: pieces(DATA / clip) for clip, _ in CLIPS}
    if pictures:
        draw_pictures(footage, pictures)
    bench, report, lights, lenses = FilterBench(footage), {}, {}, {}
    for name, damage in DAMAGES.items():
        log_progress(name)
        report[name] = gains(bench.run(damage, {kind: partial(_corrected, (), kind) for kind in KINDS}))
    typer.echo(table(report))
    for name, damage in LIGHTS.items():
        log_progress(name)
        lights[name] = gains(bench.run(damage, LIT))
    typer.echo(light_table(lights))
    for name in LENSES:
        log_progress(name)
        lenses[name] = bench.run_lens(name)
    typer.echo(lens_table(lenses))
    harm_db = max(-figures["auto"]["psnr_gain"] for figures in report["clean"].values())
    light_harm_f1 = max(-one["f1_gain"] for one in lights["clean"]["all"].values())
    auto_ms = max(figures["all"]["auto"]["ms"] for figures in report.values())
    wrong = [f"harm of auto = {harm_db} dB: expected at most {MAX_HARM_DB}"] * (harm_db > MAX_HARM_DB)
    wrong += [f"steps lower the F1 of clean frames by {light_harm_f1}: expected 0"] * (light_harm_f1 > 0.0)
    wrong += [f"auto takes {auto_ms} ms: expected at most {MAX_MS}"] * (auto_ms > MAX_MS)
    distortion_ms = max(found["ms"] for found in lenses.values())
    wrong += [f"distortion takes {distortion_ms} ms: expected at most {MAX_MS}"] * (distortion_ms > MAX_MS)
    figures = {
        "harm_db": harm_db,
        "light_harm_f1": light_harm_f1,
        "auto_ms": auto_ms,
        "distortion_ms": distortion_ms,
    }
    conclude(
        "denoise",
        {**figures, "clips": {"noise": report, "light": lights, "lens": lenses}},
        wrong,
        keep_it=keep_it,
        quiet="clips",
    )


if __name__ == "__main__":
    typer.run(main)
