"""Errors of the ``ingest`` package. Every error derives from IngestError.

IngestError
├── CodecError              a record cannot be read or written
│   ├── Truncated           the bytes end too early, or are not msgpack or JSON at all
│   ├── Oversize            more bytes than the topic allows
│   ├── UnknownVersion      a major version that this code does not support
│   ├── WrongKind           a record of another kind than expected
│   └── WrongType           a field is missing or has the wrong type
├── PictureError            an encoded picture is not used; its frame becomes a dead letter
│   ├── Undecodable         the data is no picture
│   ├── CutShort            the picture is truncated
│   ├── TooLarge            the picture exceeds the limit of pixels
│   ├── TooManyScans        the picture would take hours to decode
│   └── WrongSize           the picture's size differs from its record
├── ConfigError             a configuration value is invalid
├── TopicMismatch           topics on the broker differ from the contract
├── LogUnavailable          the log did not answer within the deadline
│   └── StoppedInOutage     the process stopped while Kafka was unavailable
├── Fenced                  a newer owner of the same partition has taken over
├── MemberIdle              a group member was left without partitions; a restart assigns them anew
├── UnknownOffset           a record is finished that was not read, or is finished twice
├── HostConflict            other services prepare or classify the same frames
└── LedgerError             an interval of withheld frames contradicts itself
"""

from __future__ import annotations

_SHOWN_CHARS = 200
"""Maximum number of characters of an invalid value in an error message: enough to find the value in its file."""


class IngestError(Exception):
    """Base class of every error that this package raises."""


class CodecError(IngestError):
    """A record cannot be read or written."""

    @property
    def reason(self) -> str:
        """Name of this error in metrics and dead letters, such as ``truncated``."""
        return type(self).__name__.lower()


class Truncated(CodecError):
    """The bytes of a record end too early, or are not msgpack or JSON at all."""


class Oversize(CodecError):
    """A record is larger than its topic allows."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"record of {size_bytes} bytes is over the limit of {limit_bytes}: "
            "lower the picture's size or quality, or raise max_message_bytes of the topic"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class UnknownVersion(CodecError):
    """A record has a major version that this code does not support."""

    def __init__(self, kind: str, version: object) -> None:
        super().__init__(f"{kind} has version {version!r}: upgrade this consumer, then replay the dead letter")
        self.kind = kind
        self.version = version


class WrongKind(CodecError):
    """A record's ``kind`` is not the kind that its topic expects."""

    def __init__(self, expected: str, found: object) -> None:
        super().__init__(f"expected a {expected} record, found {found!r}: check the producer's topic")
        self.expected = expected
        self.found = found


class WrongType(CodecError):
    """A field of a record is missing or has the wrong type."""

    def __init__(self, kind: str, problems: str) -> None:
        super().__init__(f"{kind}: {problems}")
        self.kind = kind
        self.problems = problems


class PictureError(IngestError):
    """An encoded picture is damaged, too large, or has another size than its record states. The frame of the picture
    becomes a dead letter."""


class Undecodable(PictureError):
    """The data of a frame is no picture."""

    def __init__(self, encoding: str, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes are no {encoding} picture: check the camera's or the agent's encoder")
        self.encoding = encoding
        self.size_bytes = size_bytes


class CutShort(PictureError):
    """The picture is truncated. A truncated picture may still decode, with its lower part grey."""

    def __init__(self, encoding: str, size_bytes: int) -> None:
        super().__init__(f"{encoding} picture of {size_bytes} bytes has no end: it was truncated on its way")
        self.encoding = encoding
        self.size_bytes = size_bytes


class TooLarge(PictureError):
    """The picture has more pixels than the limit."""

    def __init__(self, size: tuple[int, int], limit: int) -> None:
        super().__init__(f"picture of {size[0]}×{size[1]} is over the limit of {limit} pixels: send a smaller one")
        self.size = size
        self.limit = limit


class TooManyScans(PictureError):
    """The picture is a progressive JPEG with so many scans that decoding takes hours although the file is small."""

    def __init__(self, scans: int, limit: int) -> None:
        super().__init__(f"picture of {scans} scans is over the limit of {limit}: send it as baseline JPEG")
        self.scans = scans
        self.limit = limit


class WrongSize(PictureError):
    """The picture's size differs from the size in its record, so boxes and zones would not fit the picture."""

    def __init__(self, found: tuple[int, int], declared: tuple[int, int]) -> None:
        super().__init__(
            f"picture is {found[0]}×{found[1]}, but its record declares {declared[0]}×{declared[1]}: "
            "the agent must declare the size of the picture that it sends"
        )
        self.found = found
        self.declared = declared


class ConfigError(IngestError):
    """A configuration value is invalid.

    The error message names the file, the key, the value and the expected value.
    """

    def __init__(self, where: str, key: str, value: object, expected: str) -> None:
        super().__init__(f"{where}: {key} = {_shown(value)}: expected {expected}")
        self.where = where
        self.key = key
        self.value = value
        self.expected = expected


def _shown(value: object) -> str:
    """Return a value as text shortened for an error message, because a value from a file may have any length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"


class TopicMismatch(IngestError):
    """Topics on the broker differ from the contract. The error message lists each difference and how to remove it."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__("topics differ from the contract: " + "; ".join(differences))
        self.differences = differences


class LogUnavailable(IngestError):
    """Kafka did not respond within the time limit, refused a request, or has no such topic or partition."""


class StoppedInOutage(LogUnavailable):
    """Kafka was unavailable while the process stopped, so the work of the stop was cancelled."""


class Fenced(IngestError):
    """A newer writer has the same transactional id, so this process must release the partition."""


class MemberIdle(IngestError):
    """A group member holds no partition although other members hold several, or no member holds any."""

    def __init__(self, group: str, partitions: int, idle_s: float) -> None:
        super().__init__(
            f"no partition in group {group} for {idle_s:.0f} s, although not each of its {partitions} partitions has "
            "a member of its own. The restart makes the group assign them anew"
        )


class UnknownOffset(IngestError):
    """A caller marked a record as finished that was never read, or that was already finished."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"offset {offset} is finished but not open: each record must be finished exactly once")
        self.offset = offset


class HostConflict(IngestError):
    """Services that exclude each other run on the same frames: `engine --fused` beside `prepare` or `engine`."""


class LedgerError(IngestError):
    """An interval of sequence numbers is empty or starts below 0."""
