"""What can go wrong with the contract.

IngestError
├── CodecError              a record cannot be read or written
│   ├── Truncated           the bytes end too early, or are no msgpack or JSON at all
│   ├── Oversize            more bytes than the topic allows
│   ├── UnknownVersion      a major version that this code does not know
│   ├── WrongKind           another record than the one expected
│   └── WrongType           a field is missing or has the wrong type
├── ConfigError             a configuration value cannot be used
├── TopicMismatch           topics on the broker differ from the contract
├── LogUnavailable          the log did not answer within the deadline
├── Fenced                  a newer owner of the same partition has taken over
└── LedgerError             an interval account contradicts itself
"""

from __future__ import annotations

_SHOWN_CHARS = 200
"""Of a value that cannot be used: enough to find it."""


class IngestError(Exception):
    """Base of every error that the contract raises."""


class CodecError(IngestError):
    """A record cannot be read or written."""

    @property
    def reason(self) -> str:
        """The name under which this error is counted and filed, e.g. ``truncated``."""
        return type(self).__name__.lower()


class Truncated(CodecError):
    """The bytes end too early, or are no msgpack or JSON at all."""


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
    """A record was written under a major version that this code does not know."""

    def __init__(self, kind: str, version: object) -> None:
        super().__init__(f"{kind} has version {version!r}: upgrade this consumer, then replay the dead letter")
        self.kind = kind
        self.version = version


class WrongKind(CodecError):
    """A record is of another kind than the topic holds."""

    def __init__(self, expected: str, found: object) -> None:
        super().__init__(f"expected a {expected} record, found {found!r}: check the producer's topic")
        self.expected = expected
        self.found = found


class WrongType(CodecError):
    """A field is missing or has the wrong type."""

    def __init__(self, kind: str, problems: str) -> None:
        super().__init__(f"{kind}: {problems}")
        self.kind = kind
        self.problems = problems


class ConfigError(IngestError):
    """A configuration value cannot be used; the text names where, key, value and what was expected."""

    def __init__(self, where: str, key: str, value: object, expected: str) -> None:
        super().__init__(f"{where}: {key} = {_shown(value)}: expected {expected}")
        self.where = where
        self.key = key
        self.value = value
        self.expected = expected


def _shown(value: object) -> str:
    """Return a value as a line can have it: whoever wrote it chose its length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"


class TopicMismatch(IngestError):
    """Topics on the broker differ from the contract; the text lists each difference and its mend."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__("topics differ from the contract: " + "; ".join(differences))
        self.differences = differences


class LogUnavailable(IngestError):
    """The log did not answer within the deadline."""


class Fenced(IngestError):
    """A newer owner of the same partition has taken over; this process must let go of it."""


class LedgerError(IngestError):
    """An interval account contradicts itself."""
