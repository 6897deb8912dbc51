"""Encoded video as whole access units, for ``rtsp_server.py``."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext

HEAD, UNIT = struct.Struct(">4sIQ"), struct.Struct(">IQ")
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}


def encode(path: Path, pictures: Iterable[npt.NDArray[np.uint8]], fps: int, codec: str = "h264") -> Path:
    """Encode BGR pictures into a video file, as a camera would: no B-frames, a key frame each second."""
    with av.open(str(path), "w") as video:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = video.add_stream(_ENCODERS[codec], rate=fps)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(fps)}
                if codec == "hevc":
                    stream.options |= {"x265-params": "log-level=none:pools=1"}
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        video.mux(stream.encode())
    return path


def units(video: Path, out: Path) -> Path:
    """Write the access units of a video file of H.264 or H.265 as they are, with their times."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        to_bytes = BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
        packets = [p for packet in container.demux(stream) if packet.size for p in to_bytes.filter(packet)]
        base: Fraction = stream.time_base
        fps = stream.average_rate
    first = min(p.pts for p in packets)
    body = b"".join(UNIT.pack(p.size, round((p.pts - first) * base * 10**9)) + bytes(p) for p in packets)
    out.write_bytes(HEAD.pack(codec.encode(), len(packets), round(len(packets) / fps * 10**9)) + body)
    return out
