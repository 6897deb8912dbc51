"""Frames of a real clip with two visits, and the parts of a site that watches for people in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from ingest.contract.records import Frame, Pixels
from ingest.site import PipelineConfig, SecondModelConfig
from stream.analyse.rules.zone import ZoneRule

CLIP = "one-by-one-person-detection.mp4"
WOMAN, MAN = range(100, 188), range(270, 320)
"""Frames of the clip in which a woman in grey, and then a man in black, stand at a table."""
ANYONE = ZoneRule(
    name="anyone",
    camera="c",
    pipeline="people",
    labels=("person",),
    polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
)
_FPS = 10.0
_EVERY = 4


def people_pipeline(second: SecondModelConfig) -> PipelineConfig:
    """Return a pipeline that finds people and describes them with a second model."""
    return PipelineConfig(name="people", model="yolox-nano", width=416, height=416, fit="letterbox", then=(second,))


def frames_of(path: Path, paint: Callable[[int, Pixels], object] = lambda index, image: None) -> Iterator[Frame]:
    """Yield every fourth frame of both visits as an agent would send it, after ``paint`` has changed its pixels."""
    video, wanted = cv2.VideoCapture(str(path)), {n for visit in (WOMAN, MAN) for n in visit[::_EVERY]}
    for index in range(max(wanted) + 1):
        assert video.grab(), f"{path} ends at frame {index}"
        if index not in wanted:
            continue
        image = video.retrieve()[1]
        paint(index, image)
        yield Frame(
            camera="c",
            epoch=1,
            seq=index,
            captured_ns=10**18 + round(index / _FPS * 1e9),
            width=image.shape[1],
            height=image.shape[0],
            image=cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(),
        )
    video.release()
