"""Errors of the edge agent. Every error in this module derives from AgentError.

AgentError
├── SourceError           a camera cannot be used now; its capture is retried for ever
│   ├── RedactionFailed   a picture cannot be redacted and is not sent
│   ├── SourceUnusable    the camera cannot be opened, or its address is invalid
│   └── SourceStalled     the camera is open, but has sent no frame for too long
├── SourceEnded           the source has no more frames, like a file at its end
├── SensorSilent          one sensor of a connection does not respond; the others may work
├── FrameUnusable         one frame cannot be made into a record; later frames may be usable
├── SpoolError            the spool cannot keep its rows
│   ├── SpoolUnavailable  temporary: the disk is full, read-only or failing, or the file was just salvaged
│   ├── SpoolVersionMismatch  the spool file has tables of another version
│   └── WrongKey          spool rows are encrypted with a key that was not given
└── LinkError             a record was not delivered over the link
    ├── LinkLost          the link is lost; records in flight may have arrived
    └── RecordRefused     one record will never be accepted; other records may be
"""

from __future__ import annotations


class AgentError(Exception):
    """Base class of all errors of the edge agent."""


class SourceError(AgentError):
    """A camera or sensor source cannot be used now. The agent keeps retrying the source."""


class RedactionFailed(SourceError):
    """A picture cannot be redacted. The capture stops, so that no unredacted picture is sent."""


class SourceUnusable(SourceError):
    """A camera or sensor source cannot be opened, or its configuration is invalid."""


class SourceStalled(SourceError):
    """A camera is open, but has sent no frame for longer than the stall timeout."""


class SourceEnded(AgentError):
    """A source has no more frames; for example, a video file has ended.

    A capture whose source has ended stops without a failure.
    """


class SensorSilent(AgentError):
    """One sensor on a shared connection does not respond, or rejects a request.

    Other sensors on the same connection may work.
    """


class FrameUnusable(AgentError):
    """A frame cannot be encoded, or is too large for a Kafka record. Later frames may be usable."""


class SpoolError(AgentError):
    """The spool cannot store rows, or its file cannot be used."""


class SpoolUnavailable(SpoolError):
    """The spool cannot be used at present, for example because the disk is full.

    The failed call has changed nothing, and the caller may repeat the call later.
    """

    def __init__(self, path: object, why: str, cause: object) -> None:
        super().__init__(f"{path}: {cause}: check that the disk is mounted, writable and not full")
        self.why = why
        """Reason for the error: the disk is ``full``, ``read-only`` or ``failing``, or rows of a damaged file were
        ``salvaged``."""


class WrongKey(SpoolError):
    """The spool contains rows that are encrypted with a key that the site file does not name.

    This error leaves the spool file unchanged.
    """

    def __init__(self, path: object, key_ids: object) -> None:
        super().__init__(
            f"{path}: rows are encrypted with the keys {key_ids}: give the key files as spool.key_file "
            "or spool.previous_key_files; nothing was changed"
        )


class SpoolVersionMismatch(SpoolError):
    """The tables in the spool file were made by an incompatible version of the agent.

    This error leaves the spool file unchanged.
    """

    def __init__(self, path: object, found: int, expected: int) -> None:
        super().__init__(
            f"{path}: spool version {found}, expected {expected}. Run the release that wrote the spool until all "
            "rows are sent, or move the file away and start again; nothing was changed"
        )
        self.found, self.expected = found, expected


class LinkError(AgentError):
    """A record was not delivered over the link to Kafka or to the gateway."""


class LinkLost(LinkError):
    """The link to Kafka or to the gateway is lost or does not respond.

    Records that were in flight may have reached Kafka.
    """

    def __init__(self, problem: str, retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s
        """Pause that the gateway requested before the next attempt, in seconds."""


class RecordRefused(LinkError):
    """The link refuses one record permanently. The link may still accept other records."""
