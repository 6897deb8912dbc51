"""V4L2 cameras, read through OpenCV."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from edge_agent.exceptions import FrameUnusable, SourceStalled, SourceUnusable
from edge_agent.sources.source import CapturedFrame, Image
from ingest.runtime.clock import Clock


class DeviceSource:
    """Frame source for a V4L2 camera.

    The device may deliver another frame rate than ``fps``. Tests replace ``opens``.
    """

    def __init__(
        self,
        number: int,
        fps: float,
        clock: Clock,
        *,
        width: int = 0,
        height: int = 0,
        opens: Callable[[int], cv2.VideoCapture] = lambda number: cv2.VideoCapture(number, cv2.CAP_V4L2),
    ) -> None:
        self._number, self._fps, self._clock, self._opens = number, fps, clock, opens
        self._size = (width, height)
        self._video: cv2.VideoCapture | None = None
        self._grabbed = 0

    def open(self) -> None:
        """Open the device and request the frame rate and the picture size. Raise SourceUnusable."""
        self._video = self._opens(self._number)
        if not self._video.isOpened():
            self.close()
            raise SourceUnusable(
                f"device {self._number}: no V4L2 camera found. List the devices with `ls /dev/video*`"
            )
        self._video.set(cv2.CAP_PROP_FPS, self._fps)
        for key, value in zip((cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT), self._size, strict=True):
            if value:
                self._video.set(key, value)

    def read(self) -> CapturedFrame:
        """Wait for the next frame and return it. Raise SourceStalled when the device delivers no frame."""
        if self._video is None:
            raise SourceUnusable(f"V4L2 device {self._number} is not open")
        if not self._video.grab():
            raise SourceStalled(f"V4L2 device {self._number} delivered no frame")
        self._grabbed += 1
        return CapturedFrame(self._retrieve(self._video, self._grabbed), self._clock.now_ns())

    def close(self) -> None:
        """Release the device."""
        if self._video is not None:
            self._video.release()
            self._video = None

    def _retrieve(self, video: cv2.VideoCapture, number: int) -> Callable[[], Image]:
        def make() -> Image:
            if number != self._grabbed:
                raise FrameUnusable("the frame is lost: the V4L2 device has already captured a later frame")
            found, image = video.retrieve()
            if not found:
                raise FrameUnusable("the frame from the V4L2 device cannot be decoded")
            return np.asarray(image, np.uint8)

        return make
