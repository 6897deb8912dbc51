"""Video files, through PyAV."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edge_agent.capture.decode import Decoder, open_video
from edge_agent.capture.pace import Pace
from edge_agent.capture.source import Captured
from edge_agent.exceptions import SourceEnded, SourceUnusable
from ingest.clock import Clock

__all__ = ["FileSource"]


class FileSource:
    """A video file, played at a pace, once or for ever. Packets that cannot be decoded are passed over."""

    def __init__(self, path: Path, fps: float, clock: Clock, *, loop: bool = False, pace: Pace | None = None) -> None:
        self._path, self._clock, self._loop = path, clock, loop
        self._pace = pace or Pace(fps, clock)
        self._decoder = Decoder()
        self._container: InputContainer | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._waiting: deque[VideoFrame] = deque()

    def open(self) -> None:
        """Open the file. Raise SourceUnusable."""
        self.close()
        try:
            self._container, video = open_video(str(self._path), {})
        except (av.FFmpegError, OSError, ValueError, SourceUnusable) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise SourceUnusable(f"{self._path}: expected a video file that FFmpeg can read: {why}") from None
        self._frames = _frames(self._container, video)

    def read(self) -> Captured | None:
        """Return the next frame when it is due. Raise SourceEnded at the end of a file that is not looped."""
        if self._container is None:
            raise SourceUnusable(f"{self._path} is not open")
        if not self._waiting:
            self._waiting.append(self._next())
        if not self._pace.ready():
            return None
        frame = self._waiting.popleft()
        return Captured(self._decoder.image(frame), self._clock.now_ns(), luma=self._decoder.luma(frame))

    def close(self) -> None:
        """Close the file."""
        self._frames = iter(())
        self._waiting.clear()
        if self._container is not None:
            self._container.close()
            self._container = None

    def _next(self) -> VideoFrame:
        frame = next(self._frames, None)
        if frame is None and self._loop:
            self.open()
            frame = next(self._frames, None)
            if frame is None:
                raise SourceUnusable(f"{self._path}: it has no frame that can be decoded")
        if frame is None:
            raise SourceEnded(f"{self._path} is over")
        return frame


def _frames(container: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """Yield what can be decoded, to the end of the file or to where it is broken beyond reading."""
    packets = container.demux(video)
    while True:
        try:
            yield from _decoded(next(packets))
        except (StopIteration, av.FFmpegError, OSError):
            return


def _decoded(packet: Packet[VideoStream]) -> list[VideoFrame]:
    try:
        return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
    except (av.FFmpegError, MemoryError):
        return []
