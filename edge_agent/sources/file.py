"""Video files, read through PyAV."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edge_agent.exceptions import SourceEnded, SourceUnusable
from edge_agent.sources.decode import Decoder, open_video, why
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.source import CapturedFrame, unusable
from ingest.runtime.clock import Clock

Decoded = VideoFrame | str
"""Decoded frame, or the reason why a packet cannot be decoded."""


class FileSource:
    """Frame source that plays a video file at a given frame rate, once or in a loop."""

    def __init__(
        self, path: Path, fps: float, clock: Clock, *, loop: bool = False, pace: FramePacer | None = None
    ) -> None:
        self._path, self._clock, self._loop = path, clock, loop
        self._pace = pace or FramePacer(fps, clock)
        self._decoder = Decoder()
        self._container: InputContainer | None = None
        self._frames: Iterator[Decoded] = iter(())
        self._waiting: deque[Decoded] = deque()
        self._has_frames = False
        """Whether a frame was decoded since the file was last opened."""

    def open(self) -> None:
        """Open the file. Raise SourceUnusable."""
        self.close()
        try:
            self._container, video = open_video(
                str(self._path.absolute()), {}
            )  # a relative name may look like an address
        except (av.FFmpegError, OSError, ValueError, SourceUnusable) as error:
            reason = f"{self._path}: expected a video file that FFmpeg can read: {why(error)}"
            raise SourceUnusable(reason) from None
        self._frames, self._has_frames = _decode_all(self._container, video), False

    def read(self) -> CapturedFrame | None:
        """Return the next frame if it is due, otherwise None.

        Raise SourceEnded at the end of a file that is not looped.
        """
        if self._container is None:
            raise SourceUnusable(f"video file {self._path} is not open")
        if not self._waiting:
            self._waiting.append(self._next())
        if not self._pace.ready():
            return None
        decoded = self._waiting.popleft()
        if isinstance(decoded, str):
            return unusable(decoded, self._clock.now_ns())
        self._has_frames = True
        return CapturedFrame(self._decoder.image(decoded), self._clock.now_ns(), luma=self._decoder.luma(decoded))

    def close(self) -> None:
        """Close the file."""
        self._frames = iter(())
        self._waiting.clear()
        if self._container is not None:
            self._container.close()
            self._container = None

    def _next(self) -> Decoded:
        found = next(self._frames, None)
        if found is None and not self._has_frames:
            raise SourceUnusable(f"video file {self._path}: no frame can be decoded")
        if found is None and self._loop:
            self.open()
            return self._next()
        if found is None:
            raise SourceEnded(f"video file {self._path} has ended")
        return found


def _decode_all(container: InputContainer, video: VideoStream) -> Iterator[Decoded]:
    """Yield the decoded frames of each packet, until the end of the file or the first read error."""
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError, OSError):
            return
        yield from _decoded(packet)


def _decoded(packet: Packet[VideoStream]) -> list[Decoded]:
    try:
        return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
    except (av.FFmpegError, MemoryError) as error:
        return [f"the packet cannot be decoded: {why(error)}"] if packet.size else []
