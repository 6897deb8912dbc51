"""Configuration of the sites that `sightline demo` runs: simulated cameras, or the user's video files and model.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edge_agent.sources.simulated import COUNTING_LINES, RESTRICTED_ZONE
from engines.repository.manifest import Manifest
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.site import (
    CameraConfig,
    ClipConfig,
    GateConfig,
    LinkConfig,
    MeasureConfig,
    PipelineConfig,
    ReceiverConfig,
    SensorConfig,
    Site,
)
from ingest.site.entry import RelativePoint
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.sense.rules.threshold import ThresholdRule

SITE = "demo"
CLIP = ClipConfig(before_s=3.0, after_s=4.0)
"""Clip for each alert of the restricted zone. Other alerts have no clip, because clips of every counted vehicle would
take a processor core."""


def pipeline_for(manifest: Manifest, *, regions: bool) -> PipelineConfig:
    """Return the pipeline that prepares frames as the model's manifest requires.

    With ``regions``, the model gets each region with motion, as a classifier needs. Without ``regions``, the model
    gets the whole frame, scaled to the model's input size, as a detector needs.
    """
    return PipelineConfig(
        name=manifest.name,
        model=manifest.name,
        width=manifest.input.width,
        height=manifest.input.height,
        colour=manifest.input.colour,
        fit=manifest.input.fit,
        regions="motion" if regions else "full",
    )


def simulated_site(manifest: Manifest, receiver: ReceiverConfig) -> Site:
    """Return a site with cameras on a road, a yard and a conveyor, and a temperature sensor, with rules and measures.

    The rules and measures use the counting lines and the zone that the simulated scenes define. So events can be
    compared with the ground truth.
    """
    scenes = (("road", {"light": "day"}), ("yard", {"light": "night"}), ("conveyor", {"light": "day"}))
    cameras = tuple(
        CameraConfig(
            name=kind,
            source=f"simulated:{kind}",
            site=SITE,
            fps=10.0,
            options={"seed": 1 + number, **options},
            gate=GateConfig(keep_alive_s=5.0),
        )
        for number, (kind, options) in enumerate(scenes)
    )
    counting = tuple(
        LineRule(name=f"{kind}-line", camera=kind, pipeline=manifest.name, start=start, end=end)
        for kind, (start, end) in sorted(COUNTING_LINES.items())
    )
    intrusion = ZoneRule(
        name="restricted",
        camera="yard",
        pipeline=manifest.name,
        polygon=RESTRICTED_ZONE,
        labels=("person",),
        dwell_s=0.5,
        severity="critical",
        clip=CLIP,
    )
    measures = tuple(
        MeasureConfig(name=f"{kind}-counts", type="line", camera=kind, pipeline=manifest.name, start=start, end=end)
        for kind, (start, end) in sorted(COUNTING_LINES.items())
    )
    hot = ThresholdRule(name="too-hot", sensor="cabinet", above=60.0, window_s=2.0)
    cabinet = SensorConfig(
        name="cabinet",
        source="simulated:temperature",
        site=SITE,
        quantity="temperature",
        unit="Cel",
        low=-40.0,
        high=125.0,
        options={"seed": 1},
    )
    return Site(
        name=SITE,
        cameras=cameras,
        sensors=(cabinet,),
        pipelines=(pipeline_for(manifest, regions=True),),
        rules=(*counting, intrusion, hot),
        measures=measures,
        receivers=(receiver,),
    )


Line = tuple[RelativePoint, RelativePoint]
MIDDLE: Line = ((0.0, 0.5), (1.0, 0.5))
"""The default counting line of a video: a horizontal line through the middle of the picture."""


def parse_line(text: str) -> Line:
    """Parse a line from ``x1,y1,x2,y2``, whose values are shares of the picture's width and height.

    Raise ConfigError.
    """
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = -1.0
    if not all(0.0 <= value <= 1.0 for value in (x1, y1, x2, y2)) or (x1, y1) == (x2, y2):
        raise ConfigError(
            "demo", "--line", text, "x1,y1,x2,y2 of two points, each from 0 to 1: shares of width and height"
        )
    return (x1, y1), (x2, y2)


def with_receiver(site: Site, receiver: ReceiverConfig) -> Site:
    """Return the user's site with a link to Kafka, and with the demo's own receiver before the site's receivers.

    Raise ConfigError if the site has neither a camera nor a sensor.
    """
    if not site.cameras and not site.sensors:
        raise ConfigError("demo", "--site", site.name, "a site with a camera or a sensor")
    taken = {one.name for one in site.receivers}
    name = next(name for name in (receiver.name, f"demo-{receiver.name}", *map(str, range(9))) if name not in taken)
    own = receiver.model_copy(update={"name": name})
    return site.model_copy(update={"receivers": (own, *site.receivers), "link": LinkConfig()})


def require_models(site: Site, models: Path) -> None:
    """Raise ConfigError unless the model repository contains, for each pipeline, a model that engine nodes can load
    and that finds objects.

    Raise ManifestError for a model that cannot be opened.
    """
    repository = Repository(models)
    names = repository.names() if models.is_dir() else []

    def is_usable(name: str) -> bool:
        return name in names and repository.open(name).manifest.finds_objects

    for pipeline in site.pipelines:
        if pipeline.has_model and not is_usable(pipeline.model):
            usable = ", ".join(filter(is_usable, names)) or "no model"
            raise ConfigError(
                "demo",
                f"pipelines.{pipeline.name}.model",
                pipeline.model,
                f"one of {usable} in {models}. Add it by `sightline models add`, or name the repository with "
                "--models",
            )


def video_site(
    videos: Sequence[Path], manifest: Manifest, *, receiver: ReceiverConfig, regions: bool, line: Line = MIDDLE
) -> Site:
    """Return a site with one camera for each video file.

    Each camera plays its file in a loop, and all cameras have the same counting line.
    """
    names = [_camera_name(path, number) for number, path in enumerate(videos)]
    cameras = tuple(
        CameraConfig(name=name, source=str(path.resolve()), site=SITE, fps=_frame_rate(path), loop=True)
        for name, path in zip(names, videos, strict=True)
    )
    kind = "middle" if line == MIDDLE else "line"
    rules = tuple(
        LineRule(name=f"{name}-{kind}", camera=name, pipeline=manifest.name, start=line[0], end=line[1])
        for name in names
    )
    return Site(
        name=SITE,
        cameras=cameras,
        pipelines=(pipeline_for(manifest, regions=regions),),
        rules=rules,
        receivers=(receiver,),
    )


def require_videos(videos: Sequence[Path]) -> None:
    """Raise ConfigError unless each video exists and can be played."""
    for path in videos:
        if not path.is_file():
            raise ConfigError("demo", "--video", str(path), "a video file that exists")
        _frame_rate(path)


def _camera_name(path: Path, number: int) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:50] or "video"
    return f"{stem}-{number}" if number else stem


def _frame_rate(path: Path) -> float:
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        fps = video.get(cv2.CAP_PROP_FPS) if video.isOpened() else 0.0
    finally:
        video.release()
    if not 0.0 < fps <= 240.0:
        raise ConfigError("demo", "--video", str(path), "a video that OpenCV can open, with a frame rate")
    return float(fps)
