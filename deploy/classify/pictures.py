"""Find picture files, and capture each file as the edge agent captures a frame."""

from __future__ import annotations

import io
import queue
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from deploy.local.pictures import KNOWN_PICTURES, picture_names
from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import CaptureEnd, CaptureProgress, KeptFrame, Message
from edge_agent.exceptions import FrameUnusable
from edge_agent.sources.limits import MAX_PIXELS
from edge_agent.sources.pictures import MAX_PICTURE_BYTES, PictureDecoder
from edge_agent.sources.source import CapturedFrame, unusable
from ingest.exceptions import ConfigError
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, EncodeConfig, GateConfig

QUALITY = 95
"""JPEG quality of the sent pictures. X-rays and documents need a higher quality than the 85 of cameras, because they
have fine detail and are sent only once."""
_EVERY_PICTURE = GateConfig(motion=False, max_fps=0.0, open_fps=0.0, pre_roll_s=0.0)
_REPORT_S = 1.0
"""Seconds by which the capture's clock advances per picture. A progress report is due after each step, so every
unusable picture is reported with its reason."""


def find_pictures(named: Sequence[Path]) -> list[Path]:
    """Return the named files, and the pictures below the named folders sorted by name, without repeats.

    Raise ConfigError if a named file or folder does not exist, or if no picture is found.
    """
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += [path / name for name in picture_names(path, "classify", "PICTURE")]
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError("classify", "PICTURE", str(path), "a picture or a folder that exists")
    if not found:
        names = ", ".join(map(str, named))
        raise ConfigError("classify", "PICTURE", names, KNOWN_PICTURES)
    return list(dict.fromkeys(found))


class PictureCapture:
    """Captures picture files as frames.

    Pictures are numbered, encoded and entered in the ledger like frames of a camera.

    Pictures are not redacted, and no gate withholds pictures. Only one thread at a time may call the methods.
    """

    def __init__(self, stream: str, epoch: int) -> None:
        camera = CameraConfig(
            name=stream, source="images:", gate=_EVERY_PICTURE, encode=EncodeConfig(quality=QUALITY)
        )
        self._out = queue.Queue[Message | None]()
        self._clock = ManualClock()
        self._intake = FrameIntake(camera, epoch, self._clock, self._out)
        self._decoder = PictureDecoder()

    def take(self, picture: Path, captured_ns: int) -> KeptFrame:
        """Capture the next picture.

        Raise FrameUnusable with the reason if the picture cannot be read, decoded or encoded.

        An unusable picture also gets a sequence number, and the ledger counts the picture as withheld.
        """
        self._clock.advance(_REPORT_S)
        captured, reason = self._captured(picture, captured_ns)
        self._intake.frame(captured)
        for message in self._messages():
            if isinstance(message, KeptFrame):
                return message
            if isinstance(message, CaptureProgress):
                reason = reason or message.reason
        raise FrameUnusable(reason)

    def end(self) -> CaptureEnd:
        """End the capture.

        Return the message that ends the capture, with the interval of the last withheld pictures.
        """
        self._intake.abandon()
        (end,) = (message for message in self._messages() if isinstance(message, CaptureEnd))
        return end

    def _messages(self) -> list[Message]:
        found = [self._out.get_nowait() for _ in range(self._out.qsize())]
        return [message for message in found if message]

    def _captured(self, picture: Path, captured_ns: int) -> tuple[CapturedFrame, str]:
        """Return a decoded frame and an empty reason, or an unusable frame and the reason."""
        try:
            data = _read(picture)
            _require_size(data)
            captured = self._decoder.captured(data, captured_ns)
            captured.image  # noqa: B018  (decode now, to learn the reason of a failure)
        except FrameUnusable as error:
            return unusable(str(error), captured_ns), str(error)
        return captured, ""


def _read(picture: Path) -> bytes:
    try:
        if not picture.is_file():  # opening a pipe would block
            raise FrameUnusable("the picture is not a regular file, or was deleted")
        size = picture.stat().st_size
        if not size:
            raise FrameUnusable("the picture file is empty")
        if size > MAX_PICTURE_BYTES:
            raise FrameUnusable(
                f"the file has {size} bytes: expected at most {MAX_PICTURE_BYTES}. Save a smaller picture"
            )
        return picture.read_bytes()
    except OSError as error:
        raise FrameUnusable(error.strerror or str(error)) from None


def _require_size(data: bytes) -> None:
    """Raise FrameUnusable if the header of a picture states more pixels than a frame may have.

    The check reads only the picture's header and does not decode the picture.

    If Pillow cannot read a picture's header, this function raises no error; the decoder accepts or refuses the
    picture later.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
    except Image.DecompressionBombError as error:
        raise FrameUnusable(str(error)) from None
    except Exception:  # Pillow's parsers raise many kinds of errors for malformed files
        return
    if width * height > MAX_PIXELS:
        raise FrameUnusable(
            f"the picture has {width}×{height} pixels: expected at most {MAX_PIXELS}. Scale the picture down"
        )
