"""Errors of a stream processor. Every error in this module derives from StreamError.

StreamError
├── RunnerError             the runner cannot go on; the process ends and its supervisor restarts it
│   ├── UnknownOffset       a stage finishes a record that it did not get, or finishes a record twice
│   ├── NotWritten          the broker did not accept a record
│   ├── RecordsLost         a fetched record did not arrive
│   ├── TopicCreatedAgain   the topic was deleted and created again while the stage read it
│   └── Stuck               records wait without progress
├── FrameError              one frame cannot be prepared; the frame becomes a dead letter
│   ├── Undecodable         the data is no picture
│   ├── CutShort            the picture is truncated
│   ├── TooLarge            the picture exceeds the limit of pixels
│   ├── TooManyScans        the picture would take hours to decode
│   ├── WrongSize           the picture's size differs from its record
│   ├── HeaderMismatch      the header of the record names another frame than its body
│   └── UnknownLane         the header of the record names an unknown lane
├── EvidenceMissing         the picture of an event is not available; the event becomes a dead letter
├── StoreFailed             the evidence store cannot write or read; the event waits and is tried again
└── UnusableName            the name of a picture leads out of the store; the event becomes a dead letter
"""

from __future__ import annotations


class StreamError(Exception):
    """Base of every error that a stream processor raises."""


class RunnerError(StreamError):
    """The runner cannot go on. The process ends, and the supervisor restarts the process."""


class UnknownOffset(RunnerError):
    """A stage finishes a record that it did not get, or finishes a record twice."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"offset {offset} is finished but not open: a stage must finish each record exactly once")
        self.offset = offset


class NotWritten(RunnerError):
    """The broker did not accept a record."""

    def __init__(self, topic: str, partition: int, cause: BaseException) -> None:
        super().__init__(f"a record for {topic}[{partition}] was not written: {cause!r}")
        self.topic = topic
        self.partition = partition


class RecordsLost(RunnerError):
    """A fetched record did not arrive at its partition loop.

    The process ends, because a later commit would skip the record.
    """

    def __init__(self, due: int, came: int) -> None:
        super().__init__(f"fetched record number {came} arrived instead of number {due}: a record was lost")
        self.due = due
        self.came = came


class TopicCreatedAgain(RunnerError):
    """The topic was deleted and created again.

    After a restart, the process reads the new topic from its beginning.
    """

    def __init__(self, topic: str, partition: int, expected: int, found: int) -> None:
        super().__init__(
            f"{topic}[{partition}] came with offset {found} instead of {expected} or more: the topic was created "
            "again. The restart reads it from its beginning"
        )


class Stuck(RunnerError):
    """Records wait, but the process makes no progress. The process must be restarted."""


class FrameError(StreamError):
    """One frame cannot be prepared. The frame becomes a dead letter, and the stream goes on."""


class Undecodable(FrameError):
    """The data of a frame is no picture."""

    def __init__(self, encoding: str, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes are no {encoding} picture: check the camera's or the agent's encoder")
        self.encoding = encoding
        self.size_bytes = size_bytes


class CutShort(FrameError):
    """The picture is truncated. A truncated picture may still decode, with its lower part grey."""

    def __init__(self, encoding: str, size_bytes: int) -> None:
        super().__init__(f"{encoding} picture of {size_bytes} bytes has no end: it was truncated on its way")
        self.encoding = encoding
        self.size_bytes = size_bytes


class TooLarge(FrameError):
    """The picture has more pixels than the limit."""

    def __init__(self, size: tuple[int, int], limit: int) -> None:
        super().__init__(f"picture of {size[0]}×{size[1]} is over the limit of {limit} pixels: send a smaller one")
        self.size = size
        self.limit = limit


class TooManyScans(FrameError):
    """The picture is a progressive JPEG with so many scans that decoding takes hours although the file is small."""

    def __init__(self, scans: int, limit: int) -> None:
        super().__init__(f"picture of {scans} scans is over the limit of {limit}: send it as baseline JPEG")
        self.scans = scans
        self.limit = limit


class WrongSize(FrameError):
    """The picture's size differs from the size in its record, so boxes and zones would not fit the picture."""

    def __init__(self, found: tuple[int, int], declared: tuple[int, int]) -> None:
        super().__init__(
            f"picture is {found[0]}×{found[1]}, but its record declares {declared[0]}×{declared[1]}: "
            "the agent must declare the size of the picture that it sends"
        )
        self.found = found
        self.declared = declared


class HeaderMismatch(FrameError):
    """The header of a record names another frame than the body of the record."""

    def __init__(self, header: str, body: str) -> None:
        super().__init__(f"header names {header or 'no frame'}, body is {body}: the producer mixed up two records")
        self.header = header
        self.body = body


class UnknownLane(FrameError):
    """The header of the record names an unknown lane."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"lane {lane[:64]!r}: expected live, late or replay-RUN")
        self.lane = lane


class EvidenceMissing(StreamError):
    """The picture of an event is not available. The event becomes a dead letter."""

    reason = "evidencemissing"


class StoreFailed(StreamError):
    """The evidence store cannot write or read a picture. The event waits until the evidence store works again."""


class UnusableName(StreamError):
    """The name of a picture is a path outside of the evidence store. The event becomes a dead letter."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:200]!r}: expected a path inside the store, without `..`")
