"""What can go wrong in a stream processor.

StreamError
├── RunnerError             the loop cannot go on; the process ends and its supervisor starts it again
│   ├── UnknownOffset       a stage says it is done with a record that it was not fed
│   ├── NotWritten          the broker did not take a record
│   ├── RecordsLost         records were fetched and did not arrive
│   └── Stuck               records wait, and nothing moves
└── FrameError              one frame cannot be prepared; it becomes a dead letter, the stream goes on
    ├── Undecodable         the picture is no picture
    ├── CutShort            the picture ends too early
    ├── TooLarge            the picture has more pixels than are decoded
    ├── TooManyScans        the picture would take forever to decode
    ├── WrongSize           the picture has another size than its record says
    ├── HeaderMismatch      the record's header names another frame than its body
    └── UnknownLane         the record's header names a lane that there is not
"""

from __future__ import annotations


class StreamError(Exception):
    """Base of every error that a stream processor raises."""


class RunnerError(StreamError):
    """The loop cannot go on; the process ends and its supervisor starts it again."""


class UnknownOffset(RunnerError):
    """A stage says it is done with a record that it was not fed, or says it twice."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"offset {offset} is done but not open: a stage must finish each record exactly once")
        self.offset = offset


class NotWritten(RunnerError):
    """The broker did not take a record."""

    def __init__(self, topic: str, partition: int, cause: BaseException) -> None:
        super().__init__(f"{topic}[{partition}] was not written: {cause!r}")
        self.topic = topic
        self.partition = partition


class RecordsLost(RunnerError):
    """Records were fetched and did not arrive: to go on would commit past them."""

    def __init__(self, due: int, came: int) -> None:
        super().__init__(f"of the records fetched of this partition, number {came} came where {due} was due")
        self.due = due
        self.came = came


class Stuck(RunnerError):
    """Records wait, and nothing moves: the process must be started again."""


class FrameError(StreamError):
    """One frame cannot be prepared; it becomes a dead letter, the stream goes on."""


class Undecodable(FrameError):
    """The picture is no picture."""

    def __init__(self, encoding: str, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes are no {encoding} picture: check the camera's or the agent's encoder")
        self.encoding = encoding
        self.size_bytes = size_bytes


class CutShort(FrameError):
    """The picture ends too early; what is there may still decode, with its lower part grey."""

    def __init__(self, encoding: str, size_bytes: int) -> None:
        super().__init__(f"{encoding} picture of {size_bytes} bytes has no end: it was cut on its way")
        self.encoding = encoding
        self.size_bytes = size_bytes


class TooLarge(FrameError):
    """The picture has more pixels than are decoded."""

    def __init__(self, size: tuple[int, int], limit: int) -> None:
        super().__init__(f"picture of {size[0]}×{size[1]} is over the limit of {limit} pixels: send a smaller one")
        self.size = size
        self.limit = limit


class TooManyScans(FrameError):
    """A progressive JPEG in which each pixel is told so often that its few bytes take hours to decode."""

    def __init__(self, scans: int, limit: int) -> None:
        super().__init__(f"picture of {scans} scans is over the limit of {limit}: send it as baseline JPEG")
        self.scans = scans
        self.limit = limit


class WrongSize(FrameError):
    """The picture has another size than its record says; boxes and zones would not fit it."""

    def __init__(self, found: tuple[int, int], declared: tuple[int, int]) -> None:
        super().__init__(
            f"picture is {found[0]}×{found[1]}, its record says {declared[0]}×{declared[1]}: "
            "the agent must declare the size of the picture it sends"
        )
        self.found = found
        self.declared = declared


class HeaderMismatch(FrameError):
    """The record's header names another frame than its body."""

    def __init__(self, header: str, body: str) -> None:
        super().__init__(f"header names {header or 'no frame'}, body is {body}: the producer mixed two records up")
        self.header = header
        self.body = body


class UnknownLane(FrameError):
    """The record's header names a lane that there is not."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"lane {lane[:64]!r}: expected live, late or replay-RUN")
        self.lane = lane
