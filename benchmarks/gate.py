"""Benchmark of the gate: share of withheld frames, CPU time, and share of detections that the kept frames still show.

``python -m benchmarks.gate`` runs the benchmark on the real footage of ``shared/data``, if present, and on simulated
scenes. On the real footage, YOLOX-nano processes every frame once; its detections are cached under ``.sightline``.
For simulated scenes, whose drawn vehicles YOLOX-nano does not recognise, the ground truth replaces its detections.

Agreement: a frame has news if it shows a new object: no box in the last kept frame overlaps the object's box by half.
An object counts as new only with a score of at least 0.5. A box in the last kept frame needs only 0.1, so that a
known object whose score varies around 0.5 does not count as new. An object that is not found again in the next frame
does not count as new. Detections of YOLOX-nano flicker, which no gate can predict: on highway.avi the F1 between two
consecutive frames is 0.87. The figure ``strict`` also counts objects as new that are found in a single frame only.
Agreement is the share of frames with new objects that were kept. If the gate misses an object, every frame until the
next kept frame counts as a miss. A frame with a new object also counts as a miss if the gate withholds the frame
because of its rate limit. Labels are not compared, because YOLOX takes cars seen from above for telephones.

Inherited detections: a withheld frame inherits the detections of the last kept frame. ``inherited_f1`` is the F1 of
the inherited detections against the frame's own detections, averaged over all frames; two boxes match if their IoU is
at least one half. F1 is 1 for a frame that has neither inherited nor own detections. Reducto (Li et al., SIGCOMM
2020) calls ``inherited_f1`` accuracy, and withholds 51 to 97 % of frames at an accuracy of 0.9.

Competitors: fixed-threshold differencing keeps a frame if the share of pixels that differ by more than 25 grey levels
from the last kept frame exceeds a threshold. A second competitor of the gate keeps every n-th frame. For each clip,
the benchmark takes the threshold that withholds most frames while agreement and inherited F1 are no worse than with
the gate. ``differencing_one_threshold`` takes one threshold for all clips: the threshold that withholds most frames
while pooled agreement and F1 are no worse than with the gate.

Cost: the benchmark measures the CPU time of the gate on each frame, and of inferences on every 24th frame, on one
thread.

The gate's constants were tuned on the three clips of ``shared/data``, so the results say little about unseen footage.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer

from benchmarks.pipeline import video_frames
from benchmarks.report import DATA, RESULTS, ROOT, Out, keep
from deploy.local.demo.site import pipeline_for
from edge_agent.gate.decision import GateDecision, NumberedFrame
from edge_agent.gate.gate import Gate
from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import KINDS, SceneConfig, SimulatedScene
from engines import backends, decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.engine import CHANNELS
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.store import Repository
from ingest.contract.records import Box, Canvas, Detection, padded_rows
from ingest.ledger.missrate import CERTAIN, SAME, shows_new_object
from ingest.picture import draw
from ingest.site import GateConfig
from stream.prepare.regions import windows

CLIPS = (("car-detection.mp4", 12.5), ("one-by-one-person-detection.mp4", 10.0), ("highway.avi", 25.0))
WANTED = {
    "one-by-one-person-detection.mp4": {"person"},
    "highway.avi": {"car", "truck", "bus", "motorcycle", "bicycle", "person"},
}
"""Labels of interest by file name of a clip. All labels are of interest in a clip that is not listed."""
FAINT = 0.1
SCENE_FRAMES = 400
"""Number of frames of a scene: two cycles of traffic and of no traffic."""
PROFILES = {
    "defaults": GateConfig(sample=0.0),
    "every frame looked at": GateConfig(sample=0.0, max_fps=0.0),
    "coarse": GateConfig(sample=0.0, min_change=0.6),
}
TURN_FRAMES, INFERENCES = 24, 6
THRESHOLDS = (0.0, *np.geomspace(1e-4, 0.3, 40).tolist())
"""Thresholds of frame differencing, as shares of the picture's pixels."""
_DIFFERENT = 25
"""Difference in grey levels from which a pixel counts as changed: the usual value of motion detection tutorials."""

Image = np.ndarray
Found = tuple[Detection, ...]


@dataclass
class Footage:
    """A clip or scene whose frames can be read repeatedly, and the detections in each frame."""

    name: str
    fps: float
    frames: Callable[[], Iterator[Image]]
    seen: list[Found]


class Yolox:
    """Detector that runs YOLOX-nano on one thread, on whole frames."""

    def __init__(self) -> None:
        repository = Repository(ROOT / ".sightline" / "models")
        self._model = adopt(DATA / "yolox-nano.onnx", repository, AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
        self._spec = self._model.manifest.input
        self._pipeline = pipeline_for(self._model.manifest, regions=False)
        self._engine = backends.make("onnxruntime")
        self._engine.load(self._model)
        self._engine.warm_up()
        options = DecoderOptions(self._model.manifest.labels, self._spec.width, self._spec.height, min_score=FAINT)
        self._decoder = decoders.make("yolox", options)
        self.took_s: list[float] = []

    def look(self, image: Image) -> Found:
        """Return the detections in a picture.

        Record the CPU time of the inference, without preparation and decoding.
        """
        (window,) = windows(self._pipeline, (image.shape[1], image.shape[0]), None, 1)
        canvas = Canvas(self._spec.height, self._spec.width, CHANNELS)
        tensor = padded_rows(
            canvas, self._spec.pad, [window.region.inner], [draw(image, window, self._pipeline.colour)]
        )
        started_s = time.thread_time()
        outputs = self._engine.infer(tensor)
        self.took_s.append(time.thread_time() - started_s)
        (found,) = self._decoder.decode(outputs, [FrameRegion(window.region, image.shape[1], image.shape[0])])
        return tuple(found)

    def look_at_all(self, path: Path) -> list[Found]:
        """Return the detections in each frame of a clip, from the cache if the clip was classified before."""
        name = hashlib.sha256(path.read_bytes() + (DATA / "yolox-nano.onnx").read_bytes()).hexdigest()[:16]
        cache = ROOT / ".sightline" / "bench-gate" / f"{path.stem}-{name}.json"
        if not cache.exists():
            found = [[d.model_dump() for d in self.look(image)] for image in video_frames(path)]
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(found))
        wanted = WANTED.get(path.name)
        kept = [[d for d in each if wanted is None or d["label"] in wanted] for each in json.loads(cache.read_text())]
        return [tuple(Detection(**{**d, "box": Box(*d["box"])}) for d in each) for each in kept]


def clips(yolox: Yolox) -> list[Footage]:
    """Return the clips in ``shared/data``."""
    return [
        Footage(name, fps, lambda path=DATA / name: video_frames(path), yolox.look_at_all(DATA / name))  # type: ignore[misc]
        for name, fps in CLIPS
    ]


def scenes() -> Iterator[Footage]:
    """Yield the simulated scenes by day and night, dry and in rain."""
    for kind, light, rain in itertools.product(KINDS, ("day", "night"), (False, True)):
        scene = SimulatedScene(SceneConfig(kind, seed=11, light=light, rain=rain))  # type: ignore[arg-type]
        rendered = [scene.render(index) for index in range(SCENE_FRAMES)]
        seen = [
            tuple(Detection(box=Box(*o.box), label=o.label, class_id=0, score=1.0) for o in frame.objects)
            for frame in rendered
        ]
        name = f"{kind}, {light}{', rain' if rain else ''}"
        yield Footage(name, 10.0, lambda rendered=rendered: (f.image for f in rendered), seen)  # type: ignore[misc]


@dataclass
class GateRun:
    """Gate decisions on one piece of footage, and the CPU seconds of each decision."""

    kept: list[int]
    reasons: Counter[str]
    looked_at: int
    took_s: list[float]


def gated(footage: Footage, config: GateConfig, yolox: Yolox | None = None) -> GateRun:
    """Send footage through a gate, and return the decisions. On every 24th frame, also run and time inferences."""
    gate, decisions = Gate(config, "bench", 1), list[GateDecision]()
    run = GateRun([], Counter(), 0, [])
    for index, image in enumerate(footage.frames()):
        at_ns = round(index * 1e9 / footage.fps)
        started_s = time.thread_time()
        reason = gate.precheck(at_ns)
        if reason:
            decisions += gate.withhold(NumberedFrame(index, at_ns), reason)
        else:
            decisions += gate.decide(NumberedFrame(index, at_ns, image=image))
        run.took_s.append(time.thread_time() - started_s)
        run.looked_at += not reason
        for _ in range(INFERENCES if yolox and index % TURN_FRAMES == 0 else 0):
            yolox.look(image)  # type: ignore[union-attr]
    decisions += gate.close()
    run.kept = [decision.frame.seq for decision in decisions if decision.keep]
    run.reasons = Counter(decision.reason for decision in decisions if not decision.keep)
    return run


def agreement(kept: Sequence[int], seen: Sequence[Found], lasting: Sequence[Found]) -> dict[str, Any]:
    """Return agreement and inherited F1, as described in the module docstring."""
    keep, before = set(kept), kept[0]
    news, strict, inherited = [0, 0], [0, 0], 0.0
    for index, now in enumerate(seen):
        if index > kept[0]:
            for counts, shown in ((news, lasting[index]), (strict, now)):
                if shows_new_object(shown, seen[before]):
                    counts[0] += 1
                    counts[1] += index in keep
        before = index if index in keep else before
        inherited += _f1(now, seen[before])
    return {
        "withheld": round(1 - len(keep) / len(seen), 3),
        "frames_with_news": news[0],
        "agreement": _share(news),
        "strict": {"frames_with_news": strict[0], "agreement": _share(strict)},
        "inherited_f1": round(inherited / len(seen), 3),
    }


def lasting(seen: Sequence[Found]) -> list[Found]:
    """Return for each frame the objects that are found again in the next frame."""
    pairs = itertools.zip_longest(seen, seen[1:], fillvalue=seen[-1])
    return [
        tuple(d for d in now if any(o.score >= CERTAIN and d.box.iou(o.box) >= SAME for o in then))
        for now, then in pairs
    ]


def _f1(own: Found, inherited: Found) -> float:
    mine, theirs = _certain(own), _certain(inherited)
    if not mine and not theirs:
        return 1.0
    left, hits = list(theirs), 0
    for box in mine:
        best = max(left, key=lambda other: box.iou(other), default=None)
        if best is not None and box.iou(best) >= SAME:
            left.remove(best)
            hits += 1
    return 2 * hits / (len(mine) + len(theirs))


def _certain(found: Found) -> list[Box]:
    return [d.box for d in found if d.score >= CERTAIN]


def _share(counts: Sequence[int]) -> float | None:
    return round(counts[1] / counts[0], 3) if counts[0] else None


def differenced(smalls: Sequence[Image], threshold: float) -> list[int]:
    """Return the frames that fixed-threshold differencing keeps."""
    kept, last = [0], smalls[0]
    for index, small in enumerate(smalls):
        if np.count_nonzero(cv2.absdiff(small, last) > _DIFFERENT) > threshold * small.size:
            kept.append(index)
            last = small
    return kept


def _smalls(footage: Footage) -> list[Image]:
    return [cv2.cvtColor(cv2.resize(image, (160, 90)), cv2.COLOR_BGR2GRAY) for image in footage.frames()]


def rivals(footage: Footage, ours: dict[str, Any], steady: Sequence[Found]) -> dict[str, Any]:
    """Return the best results of frame differencing, and of keeping every n-th frame.

    Ignore thresholds, and values of n, whose agreement or F1 is worse than the gate's.
    """
    smalls = _smalls(footage)
    by_threshold = [agreement(differenced(smalls, t), footage.seen, steady) for t in THRESHOLDS]
    by_number = [agreement(list(range(0, len(smalls), n)), footage.seen, steady) for n in range(1, 30)]
    return {"differencing": _best(by_threshold, ours), "every_nth": _best(by_number, ours)}


def one_threshold(footage: Sequence[Footage], ours: dict[str, Any]) -> dict[str, Any] | None:
    """Return the results of frame differencing with a single threshold for all clips.

    Among the thresholds whose pooled figures are no worse than the gate's, take the one that withholds most frames.
    """
    prepared = [(_smalls(each), each.seen, lasting(each.seen)) for each in footage]
    tried = [
        {
            "threshold": round(t, 5),
            **pooled(
                [{"frames": len(s), **agreement(differenced(s, t), seen, steady)} for s, seen, steady in prepared]
            ),
        }
        for t in THRESHOLDS
    ]
    return _best(tried, ours)


def _best(tried: Iterable[dict[str, Any]], ours: dict[str, Any]) -> dict[str, Any] | None:
    equal = [
        one
        for one in tried
        if (one["agreement"] is None or one["agreement"] >= (ours["agreement"] or 0.0))
        and one["inherited_f1"] >= ours["inherited_f1"]
    ]
    return max(equal, key=lambda one: one["withheld"], default=None)


def measured(footage: Footage, config: GateConfig, yolox: Yolox | None) -> dict[str, Any]:
    """Return all figures of one piece of footage."""
    steady = lasting(footage.seen)
    if yolox:
        yolox.took_s.clear()
    run = gated(footage, config, yolox)
    figures = {
        "footage": footage.name,
        "frames": len(footage.seen),
        **agreement(run.kept, footage.seen, steady),
        "reasons": dict(run.reasons),
    }
    figures["quiet_withheld"] = _quiet_withheld(run, footage)
    figures |= rivals(footage, figures, steady)
    gate_ms = 1e3 * float(np.mean(run.took_s))
    figures["gate_ms_per_frame"] = round(gate_ms, 3)
    if yolox:
        inference_ms = 1e3 * float(np.mean(yolox.took_s))
        figures["inference_ms"] = round(inference_ms, 3)
        figures["cost_share"] = round(gate_ms / inference_ms, 4)
        figures["cost_share_of_a_look"] = round(gate_ms * len(footage.seen) / run.looked_at / inference_ms, 4)
    return figures


def _quiet_withheld(run: GateRun, footage: Footage) -> float | None:
    """Return the share of withheld frames, among the frames that have shown no object for two seconds."""
    lull = round(2 * footage.fps)
    quiet = [i for i in range(lull, len(footage.seen)) if not any(footage.seen[i - lull : i + 1])]
    return round(1 - len(set(quiet) & set(run.kept)) / len(quiet), 3) if quiet else None


def pooled(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the combined figures of several pieces of footage."""
    frames = sum(f["frames"] for f in figures)
    news = sum(f["frames_with_news"] for f in figures)
    hits = sum(f["frames_with_news"] * (f["agreement"] or 0.0) for f in figures)
    return {
        "frames": frames,
        "withheld": round(sum(f["withheld"] * f["frames"] for f in figures) / frames, 3),
        "frames_with_news": news,
        "agreement": round(hits / news, 3) if news else None,
        "inherited_f1": round(sum(f["inherited_f1"] * f["frames"] for f in figures) / frames, 3),
    }


def stationary(fps: float = 10.0) -> dict[str, float]:
    """Return how many seconds a parked car, and its empty area after the car has left, count as motion."""
    road = SimulatedScene(SceneConfig("road", seed=4, noise_sigma=0.0)).render(180).image.astype(np.float32)
    rng, detector, moving = np.random.default_rng(0), MotionDetector(GateConfig().min_area), list[float]()
    parks_s, leaves_s, ends_s = 5.0, 25.0, 40.0
    for index in range(round(ends_s * fps)):
        image = road.copy()
        if parks_s <= index / fps < leaves_s:
            image[200:250, 250:350], image[210:240, 290:320] = (40, 30, 30), 150
        noisy = (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
        if detector.detect(noisy, round(index * 1e9 / fps)).boxes:
            moving.append(index / fps)
    parked, gone = [s for s in moving if s < leaves_s], [s for s in moving if s >= leaves_s]
    return {
        "parked_car_is_motion_s": round(max(parked, default=parks_s) - parks_s + 1 / fps, 2),
        "ghost_is_motion_s": round(max(gone, default=leaves_s - 1 / fps) - leaves_s + 1 / fps, 2),
    }


def main(out: Out = RESULTS) -> None:
    """Measure the gate, and print and save the results with date and machine."""
    cv2.setNumThreads(1)
    yolox = Yolox() if (DATA / "yolox-nano.onnx").is_file() else None
    report: dict[str, Any] = {"opencv": cv2.__version__, "stationary": stationary()}
    footage = clips(yolox) if yolox else []
    for name, config in PROFILES.items():
        real = [measured(each, config, yolox) for each in footage]
        drawn = [measured(each, config, None) for each in scenes()]
        report[name] = {"clips": real, "clips_pooled": pooled(real) if real else None}
        report[name]["differencing_one_threshold"] = one_threshold(footage, pooled(real)) if real else None
        report[name] |= {"scenes": drawn, "scenes_pooled": pooled(drawn)}
    typer.echo(json.dumps(keep("gate", report, out), indent=2))


if __name__ == "__main__":
    typer.run(main)
