"""Decode and validate frame records."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ingest import picture
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import LATE, LIVE, is_replay
from ingest.contract.records import Frame, Pixels
from ingest.kafka.log import LogRecord
from stream.exceptions import HeaderMismatch, UnknownLane


@dataclass
class DeliveredFrame:
    """A frame, and the record that delivered the frame. The pixels are decoded at their first use.

    ``pipeline`` is the pipeline that the record's header names, empty for a frame of a camera. A frame whose header
    names a pipeline is a single picture: it goes to this pipeline only, and its tracks do not continue those of
    earlier frames.
    """

    frame: Frame
    record: LogRecord
    lane: str
    traceparent: str
    pipeline: str = ""
    _image: Pixels | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frame.width, self.frame.height

    def image(self, reduction: int = 1) -> Pixels:
        """Return the pixels, ``(height, width, 3)`` uint8, BGR, with the sides divided by ``reduction``.

        Raise PictureError.
        """
        if reduction > 1:
            return picture.pixels(self.frame.image, self.frame.encoding, self.size, reduction)
        if self._image is None:
            self._image = picture.pixels(self.frame.image, self.frame.encoding, self.size)
        return self._image


def read_frame(record: LogRecord) -> DeliveredFrame:
    """Read a record of ``frames`` or ``frames.late``.

    Raise CodecError for a malformed record, FrameError for a wrong header, and PictureError for a wrong picture. A
    record without a frame header is identified by its body. Reject a record whose header and body name different
    frames, because the ledger counts the record under the name in the header.
    """
    frame = decode(Frame, record.value)
    header = record.headers.get(h.FRAMES)
    if header is not None and h.frames_of(record.headers) != (frame.id,):
        raise HeaderMismatch(header.decode(errors="replace"), str(frame.id))
    lane = h.lane_of(record.headers, record.topic)
    if lane not in (LIVE, LATE) and not is_replay(lane):
        raise UnknownLane(lane)
    picture.check(frame.image, frame.encoding, (frame.width, frame.height))
    pipeline = h.pipeline_of(record.headers)
    return DeliveredFrame(frame, record, lane, h.traceparent_of(record.headers), pipeline)


def with_frame_header(record: LogRecord) -> LogRecord:
    """Return the record with a header that names the record's frame, for the record's dead letter.

    Return the record unchanged if its header already names the frame, or if the frame cannot be decoded.

    The ledger counts a delivered frame under the name in the record's header; a record without a header counts under
    the name in the body. The ledger must count the dead letter of a frame under the same name as the delivered frame.
    Raise no error, even for a malformed record, because malformed records are the reason for dead letters.
    """
    try:
        if len(h.frames_of(record.headers)) == 1:
            return record
        frame = decode(Frame, record.value)
        lane = h.lane_of(record.headers, record.topic)
        return replace(record, headers={**record.headers, **h.frame_headers([frame.id], lane)})
    except MemoryError:
        raise
    except Exception:
        return record
