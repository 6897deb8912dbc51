"""Files and V4L2 devices, through OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_agent.capture.pace import Pace
from edge_agent.capture.source import Captured
from edge_agent.exceptions import SourceEnded, SourceStalled, SourceUnusable
from ingest.clock import Clock

__all__ = ["DeviceSource", "FileSource"]


class FileSource:
    """A video file, played at a pace, once or for ever."""

    def __init__(self, path: Path, fps: float, clock: Clock, *, loop: bool = False, pace: Pace | None = None) -> None:
        self._path, self._clock, self._loop = path, clock, loop
        self._pace = pace or Pace(fps, clock)
        self._video: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Open the file. Raise SourceUnusable."""
        self._video = cv2.VideoCapture(str(self._path))
        if not self._path.is_file() or not self._video.isOpened():
            self.close()
            raise SourceUnusable(f"{self._path}: expected a video file that OpenCV can read")

    def read(self) -> Captured:
        """Return the next frame when it is due. Raise SourceEnded at the end of a file that is not looped."""
        if self._video is None:
            raise SourceUnusable(f"{self._path} is not open")
        self._pace.next()
        found, image = self._video.read()
        if not found and self._loop:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
            found, image = self._video.read()
        if not found:
            raise SourceEnded(f"{self._path} is over")
        return Captured(np.asarray(image, np.uint8), self._clock.now_ns())

    def close(self) -> None:
        """Close the file."""
        if self._video is not None:
            self._video.release()
            self._video = None


class DeviceSource:
    """A V4L2 camera by its number. The device sets the pace."""

    def __init__(self, number: int, fps: float, clock: Clock, *, width: int = 0, height: int = 0) -> None:
        self._number, self._fps, self._clock = number, fps, clock
        self._size = (width, height)
        self._video: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Open the device and ask for its pace and size. Raise SourceUnusable."""
        self._video = cv2.VideoCapture(self._number, cv2.CAP_V4L2)
        if not self._video.isOpened():
            self.close()
            raise SourceUnusable(f"device {self._number}: no V4L2 camera answers; `ls /dev/video*` lists them")
        self._video.set(cv2.CAP_PROP_FPS, self._fps)
        for key, value in zip((cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT), self._size, strict=True):
            if value:
                self._video.set(key, value)

    def read(self) -> Captured:
        """Return the next frame. Raise SourceStalled when the device gives none."""
        if self._video is None:
            raise SourceUnusable(f"device {self._number} is not open")
        found, image = self._video.read()
        if not found:
            raise SourceStalled(f"device {self._number} gave no frame")
        return Captured(np.asarray(image, np.uint8), self._clock.now_ns())

    def close(self) -> None:
        """Let the device go."""
        if self._video is not None:
            self._video.release()
            self._video = None
