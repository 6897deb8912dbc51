"""What can go wrong next to a camera.

AgentError
├── SourceError           a camera cannot be used; the capture is tried again for ever
│   ├── RedactionFailed   what must not be seen cannot be made unrecognisable; no picture is sent
│   ├── SourceUnusable    it cannot be opened, or what it is called by makes no sense
│   └── SourceStalled     it is open, and no frame has come for too long
├── SourceEnded           it is over, as a file is
├── SensorSilent          one sensor of a connection does not answer; the others may be well
├── FrameUnusable         one frame cannot be made into a record; the next one may be well
├── SpoolError            the spool cannot keep what it is given
│   ├── SpoolUnavailable  not now: the disk is full, read-only or failing, or the file had to be mended
│   ├── SpoolVersionMismatch  the file has tables of another version
│   └── WrongKey          rows are encrypted with a key that was not given
└── LinkError             something did not go over the link
    ├── LinkLost          the link is gone: what was in flight is in doubt
    └── RecordRefused     one record will never be accepted
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error of the edge agent."""


class SourceError(AgentError):
    """A camera cannot be used now."""


class RedactionFailed(SourceError):
    """What must not be seen cannot be made unrecognisable. The capture stops rather than send the picture."""


class SourceUnusable(SourceError):
    """A camera cannot be opened, or what it is called by makes no sense."""


class SourceStalled(SourceError):
    """A camera is open, and no frame has come for too long."""


class SourceEnded(AgentError):
    """A source is over: there will be no more frames. No failure."""


class SensorSilent(AgentError):
    """One sensor of a connection does not answer, or is refused."""


class FrameUnusable(AgentError):
    """A frame cannot be encoded, or is too large for a record."""


class SpoolError(AgentError):
    """The spool cannot keep what it is given: the disk is full, read-only or gone."""


class SpoolUnavailable(SpoolError):
    """The spool cannot be used now, and may be soon. Nothing is half done: the same call may be tried again."""

    def __init__(self, path: object, why: str, cause: object) -> None:
        super().__init__(f"{path}: {cause}: check that the disk is there, writable and not full")
        self.why = why
        """``full``, ``read-only``, ``failing`` or ``mended``."""


class WrongKey(SpoolError):
    """Rows of the spool are encrypted with a key that was not given. They stay as they are."""

    def __init__(self, path: object, key_ids: object) -> None:
        super().__init__(
            f"{path}: rows are encrypted with the keys {key_ids}: give their files as spool.key_file "
            "or spool.previous_key_files; nothing was changed"
        )


class SpoolVersionMismatch(SpoolError):
    """The spool's file has tables of another version of the agent. It stays as it is."""

    def __init__(self, path: object, found: int, expected: int) -> None:
        super().__init__(
            f"{path}: spool version {found}, expected {expected}. Run the release that wrote it until its rows are "
            "sent, or move the file away and start again; nothing was changed"
        )
        self.found, self.expected = found, expected


class LinkError(AgentError):
    """Something did not go over the link."""


class LinkLost(LinkError):
    """The link is gone, or does not answer: what was in flight is in doubt."""

    def __init__(self, problem: str, retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s
        """The other side asked not to be tried again before that."""


class RecordRefused(LinkError):
    """One record will never be taken as it is; the others go on."""
