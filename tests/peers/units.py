"""Encoded video as complete access units, for ``rtsp_server.py``."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

HEAD, UNIT = struct.Struct(">4sIQ"), struct.Struct(">IQ")
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}


def encode(path: Path, pictures: Iterable[npt.NDArray[np.uint8]], fps: int, codec: str = "h264") -> Path:
    """Encode BGR pictures into a video file with a camera's usual settings: no B-frames, one key frame a second."""
    with av.open(str(path), "w") as video:
        stream: VideoStream | None = None
        for picture in pictures:
            if stream is None:
                stream = cast("VideoStream", video.add_stream(_ENCODERS[codec], rate=fps))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(fps)}
                if codec == "hevc":
                    stream.options |= {"x265-params": "log-level=none:pools=1"}
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        assert stream is not None
        video.mux(stream.encode())
    return path


def units(video: Path, out: Path) -> Path:
    """Write the unchanged access units of an H.264 or H.265 file with their times."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        to_bytes = BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
        packets = [p for packet in container.demux(stream) if packet.size for p in to_bytes.filter(packet)]
        base, fps = stream.time_base, stream.average_rate
    assert base is not None
    assert fps is not None
    times = [p.pts for p in packets if p.pts is not None]
    first = min(times)
    body = b"".join(
        UNIT.pack(p.size, round((pts - first) * base * 10**9)) + bytes(p)
        for p, pts in zip(packets, times, strict=True)
    )
    out.write_bytes(HEAD.pack(codec.encode(), len(packets), round(len(packets) / fps * 10**9)) + body)
    return out
