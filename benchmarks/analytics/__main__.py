"""Accuracy of counts, dwell times, speeds and levels of service: ``python -m benchmarks.analytics [--keep]``.

Counts lines in the clips of ``shared/data`` against counts by eye, and measures simulated scenes of each kind,
weather and density against their truth. ``--trackers`` compares the trackers whose libraries are installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from benchmarks.analytics.clips import CLIPS, CountedClip
from benchmarks.analytics.othertrackers import installed
from benchmarks.analytics.scenes import SceneRun, detected, identities, moving, scenes
from benchmarks.report import DATA, ROOT, KeepIt, conclude, log_progress
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.store import Repository
from stream.analyse.tracking.tracker import Tracker

Trackers = Annotated[bool, typer.Option("--trackers", help="Compare the installed trackers on the simulated scenes.")]
LEAST = 0.98
"""Least recall and precision of crossings in a scene with a detector."""
DWELL_ERROR_S, SPEED_ERROR_PERCENT = 0.3, 5.0
USUAL_DENSITY = 1.0


def main(keep_it: KeepIt = False, trackers: Trackers = False) -> None:
    """Measure, and exit with 1 unless all counts in clips are equal and all scenes with a detector are accurate."""
    if trackers:
        runs = [detected(scene) for scene in scenes()]
        compared = [{"tracker": name, **_tracked(runs, make)} for name, make in installed().items()]
        conclude("trackers", {"trackers": compared}, [], keep_it=keep_it)
        return
    counts = _clips()
    found = []
    for scene in scenes():
        found.append(detected(scene).figures())
        log_progress(f"detector: {found[-1]['scene']}")
    regions = []
    for scene in scenes(density=(USUAL_DENSITY,)):
        regions.append(moving(scene).figures())
        log_progress(f"moving regions: {regions[-1]['scene']}")
    wrong = [one["clip"] for one in counts if one["missed"] or one["false"]]
    wrong += [one["scene"] for one in found if not _is_accurate(one)]
    conclude("analytics", {"clips": counts, "detector": found, "regions": regions}, wrong, keep_it=keep_it)


def _clips() -> list[dict[str, Any]]:
    models = Repository(ROOT / ".sightline" / "models")
    if "yolox-nano" not in models.names():
        adopt(DATA / "yolox-nano.onnx", models, AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    clips = [CountedClip.of(name) for name in CLIPS]
    return [{"clip": clip.name, **clip.compared(clip.analyse(DATA, models.root).events)} for clip in clips]


def _is_accurate(figures: dict[str, Any]) -> bool:
    exact = min(figures["recall"], figures["precision"]) >= LEAST
    return (
        exact
        and figures["dwell_error_s"] <= DWELL_ERROR_S
        and figures["speed_error_percent"] <= SPEED_ERROR_PERCENT
        and figures.get("level_of_service") == figures.get("true_level_of_service")
    )


def _tracked(runs: list[SceneRun], make: Callable[[float], Tracker]) -> dict[str, Any]:
    """Return the identity switches of a tracker in scenes, and the CPU time that it and the analyser take."""
    began_s = time.process_time()
    switches = sum(identities(run, make).switches for run in runs)
    frames = sum(len(run.results) for run in runs)
    per_frame_ms = 1e3 * (time.process_time() - began_s) / frames
    return {"identity_switches": switches, "ms_per_frame": round(per_frame_ms, 3)}


if __name__ == "__main__":
    typer.run(main)
