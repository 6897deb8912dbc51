"""The newest picture of each camera with the objects that were detected in it."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import ClassVar

from console.live.view import TopicView
from ingest.contract.codec import decode
from ingest.contract.identity import LIVE, FrameId
from ingest.contract.records import Frame, Result
from ingest.contract.topics import FRAMES, RESULTS
from ingest.kafka.log import LogRecord

MAX_FRAMES, MAX_BYTES = 12, 4 * 1024 * 1024
"""Maximum number and size of the frames that wait for their results, for each camera: about a second at ten frames
per second."""
WAIT_NS = 1_000_000_000
"""Longest time for which a picture waits for its results, in ns of capture time. If the results do not come in time,
the picture is shown without boxes."""
MAX_CAMERAS = 2000
MAX_SHOWN = 200
"""Maximum number of boxes of one picture that are sent to browsers."""
_LABEL_CHARS = 100


@dataclass(frozen=True)
class LivePicture:
    """One picture with its results. ``version`` grows with each picture of the camera."""

    version: int
    frame: Frame
    results: tuple[Result, ...]
    message: bytes = field(repr=False)
    """The picture as browsers get it: the length of a JSON header as 4 bytes, big-endian, the header, and the encoded
    picture as the camera's agent wrote it. All viewers share this message."""


class CameraStream:
    """The recent frames and results of one camera, in the order of capture. Pure."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._results: dict[FrameId, dict[str, Result]] = {}
        self._bytes = 0
        self._shown: tuple[FrameId, int] | None = None
        self._version = 0
        self.picture: LivePicture | None = None

    def add_frame(self, frame: Frame) -> None:
        """Add a frame. A frame that is not newer than the last frame is ignored."""
        if self._frames and frame.id <= self._frames[-1].id:
            return
        self._frames.append(frame)
        self._bytes += len(frame.image)
        while len(self._frames) > 1 and (len(self._frames) > MAX_FRAMES or self._bytes > MAX_BYTES):
            old = self._frames.popleft()
            self._bytes -= len(old.image)
            self._results.pop(old.id, None)
        self._choose()

    def add_result(self, result: Result) -> None:
        """Add a result. If the frame of a result has not come yet, the result is kept until its frame comes."""
        if self._frames and result.id < self._frames[0].id:
            return
        self._results.setdefault(result.id, {})[result.pipeline] = result
        while len(self._results) > 2 * MAX_FRAMES:
            del self._results[min(self._results)]
        self._choose()

    def _choose(self) -> None:
        """Choose the newest picture that has all its results; if that picture is much older than the newest picture,
        choose the newest one."""
        if not self._frames:
            return
        newest = self._frames[-1]
        chosen = next((frame for frame in reversed(self._frames) if self._is_complete(frame.id)), newest)
        if newest.captured_ns - chosen.captured_ns > WAIT_NS:
            chosen = newest
        results = self._results.get(chosen.id, {})
        shown = chosen.id, len(results)
        if shown != self._shown and (self._shown is None or shown >= self._shown):
            self._shown = shown
            self._version += 1
            found = tuple(results.values())
            self.picture = LivePicture(self._version, chosen, found, message_of(chosen, found))

    def _is_complete(self, frame: FrameId) -> bool:
        results = self._results.get(frame, {})
        return bool(results) and all(results.keys() >= set(one.pipelines) for one in results.values())


def message_of(frame: Frame, results: tuple[Result, ...]) -> bytes:
    """Return a picture with its boxes as browsers get it."""
    boxes = [
        [*map(round, detection.box), detection.label[:_LABEL_CHARS], round(detection.score, 2)]
        for result in results
        for detection in result.detections
    ]
    header = {
        "camera": frame.camera,
        "frame": str(frame.id),
        "captured_ms": frame.captured_ns // 1_000_000,
        "width": frame.width,
        "height": frame.height,
        "type": f"image/{frame.encoding}",
        "boxes": boxes[:MAX_SHOWN],
        "analysed": bool(results),
    }
    encoded = json.dumps(header).encode()
    return struct.pack(">I", len(encoded)) + encoded + frame.image


class Cameras:
    """The streams of all cameras. ``viewers`` is the number of people who look at live pictures."""

    def __init__(self) -> None:
        self.viewers = 0
        self._streams: OrderedDict[str, CameraStream] = OrderedDict()

    def stream(self, camera: str) -> CameraStream:
        """Return the stream of a camera. If there are too many cameras, forget the camera whose stream was not used
        for the longest time."""
        found = self._streams.setdefault(camera, CameraStream())
        self._streams.move_to_end(camera)
        while len(self._streams) > MAX_CAMERAS:
            self._streams.popitem(last=False)
        return found

    def picture(self, camera: str) -> LivePicture | None:
        """Return the newest picture of a camera, None if there is none."""
        found = self._streams.get(camera)
        return found.picture if found else None


class LivePictureView(TopicView):
    """A topic that is read while someone looks at live pictures."""

    backlog: ClassVar[int] = 30

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras

    def wanted(self) -> bool:
        """Return whether someone looks at live pictures."""
        return self._cameras.viewers > 0


class LiveFrameView(LivePictureView):
    """Live frames."""

    topic: ClassVar[str] = FRAMES

    def apply(self, record: LogRecord) -> None:
        """Add a frame."""
        frame = decode(Frame, record.value)
        self._cameras.stream(frame.camera).add_frame(frame)


class LiveResultView(LivePictureView):
    """Results of live frames."""

    topic: ClassVar[str] = RESULTS

    def apply(self, record: LogRecord) -> None:
        """Add a result of the live lane."""
        result = decode(Result, record.value)
        if result.lane == LIVE:
            self._cameras.stream(result.camera).add_result(result)
