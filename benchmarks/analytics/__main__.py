"""Line crossings in real clips, compared with counts by eye: ``python -m benchmarks.analytics [--keep]``."""

from __future__ import annotations

import typer

from benchmarks.analytics.clips import CLIPS, CountedClip
from benchmarks.report import DATA, ROOT, KeepIt, conclude, log_progress
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.store import Repository


def main(keep_it: KeepIt = False) -> None:
    """Count the line crossings in the clips, and exit with 1 if a crossing is missed or an event is false."""
    models = ROOT / ".sightline" / "models"
    adopt(DATA / "yolox-nano.onnx", Repository(models), AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    counts, wrong = [], []
    for name in CLIPS:
        log_progress(name)
        clip = CountedClip.of(name)
        found = clip.compared(clip.analyse(DATA, models).events)
        counts.append({"clip": name, **found})
        wrong += [name] if found["missed"] or found["false"] else []
    conclude("analytics", {"clips": counts}, wrong, keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
