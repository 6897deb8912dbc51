"""Errors of the edge agent. Every error derives from AgentError."""

from __future__ import annotations


class AgentError(Exception):
    """Base class of all errors of the edge agent."""


class SourceError(AgentError):
    """A camera cannot be used now. The agent retries its capture for ever."""


class RedactionFailed(SourceError):
    """A picture cannot be redacted. The capture stops, so that no unredacted picture is sent."""


class SourceUnusable(SourceError):
    """A camera cannot be opened, or its address is invalid."""


class SourceStalled(SourceError):
    """A camera is open, but has sent no frame for too long."""


class SourceEnded(AgentError):
    """A source has no more frames, like a file at its end. A capture whose source has ended stops without a fault."""


class SensorSilent(AgentError):
    """One sensor of a connection does not respond, or refuses a request.

    Other sensors on the same connection may work.
    """


class FrameUnusable(AgentError):
    """A frame cannot be encoded, or is too large for a record. Later frames may be usable."""


class SpoolError(AgentError):
    """The spool cannot store rows, or the spool file cannot be used."""


class SpoolUnavailable(SpoolError):
    """The spool cannot be used for some time. The failed call has changed nothing and may be repeated later."""

    def __init__(self, path: object, why: str, cause: object) -> None:
        super().__init__(f"{path}: {cause}: check that the disk is mounted, writable and not full")
        self.why = why
        """Reason: ``full``, ``read-only`` or ``failing`` describes the disk; ``salvaged`` means that rows of a
        damaged file were salvaged."""


class WrongKey(SpoolError):
    """Rows of the spool are encrypted with a key that the site file does not name.

    The spool file is left unchanged.
    """

    def __init__(self, path: object, key_ids: object) -> None:
        super().__init__(
            f"{path}: rows are encrypted with the keys {key_ids}: give the key files as spool.key_file "
            "or spool.previous_key_files; nothing was changed"
        )


class SpoolVersionMismatch(SpoolError):
    """The spool file has tables of another version of the agent. The spool file is left unchanged."""

    def __init__(self, path: object, found: int, expected: int) -> None:
        super().__init__(
            f"{path}: spool version {found}, expected {expected}. Run the release that wrote the spool until all "
            "rows are sent, or move the file away and start again; nothing was changed"
        )
        self.found, self.expected = found, expected


class LinkError(AgentError):
    """A record was not delivered over the link."""


class LinkLost(LinkError):
    """The link is lost or does not respond. Records that were in flight may have reached Kafka."""

    def __init__(self, problem: str, retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s
        """Pause before the next attempt that the gateway asked for, in seconds."""


class RecordRefused(LinkError):
    """One record will never be accepted. Other records may be accepted."""
