"""Sites of `sightline demo`: simulated cameras, or the user's video files and model. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edge_agent.sources.simulated import COUNTING_LINES, RESTRICTED_ZONE
from engines.repository.manifest import Manifest
from ingest.exceptions import ConfigError
from ingest.site import CameraConfig, GateConfig, PipelineConfig, ReceiverConfig, SensorConfig, Site
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.sense.rules.threshold import ThresholdRule

SITE = "demo"


def pipeline_for(manifest: Manifest, *, regions: bool) -> PipelineConfig:
    """Return the pipeline that prepares frames as a model's manifest requires.

    A classifier gets each region that moved. A detector gets the whole frame, fitted to its input size.
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
    """Return the site with a road, a yard, a conveyor and a temperature sensor, and a rule for each.

    The rules use the lines and the zone of the scenes, so that events can be compared with the ground truth.
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
        receivers=(receiver,),
    )


def video_site(videos: Sequence[Path], manifest: Manifest, *, receiver: ReceiverConfig, regions: bool) -> Site:
    """Return the site with one looping camera per video file, each with a line across the middle of the picture."""
    names = [_camera_name(path, number) for number, path in enumerate(videos)]
    cameras = tuple(
        CameraConfig(name=name, source=str(path.resolve()), site=SITE, fps=_frame_rate(path), loop=True)
        for name, path in zip(names, videos, strict=True)
    )
    rules = tuple(
        LineRule(name=f"{name}-middle", camera=name, pipeline=manifest.name, start=(0.0, 0.5), end=(1.0, 0.5))
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
