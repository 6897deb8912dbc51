"""What can go wrong next to a camera.

AgentError
├── SourceError          a camera cannot be used; the capture is tried again for ever
│   ├── RedactionFailed  what must not be seen cannot be made unrecognisable; no picture is sent
│   ├── SourceUnusable   it cannot be opened, or what it is called by makes no sense
│   └── SourceStalled    it is open, and no frame has come for too long
├── SourceEnded          it is over, as a file is
├── FrameUnusable        one frame cannot be made into a record; the next one may be well
└── SpoolError           the spool cannot keep what it is given
"""

from __future__ import annotations

__all__ = [
    "AgentError",
    "FrameUnusable",
    "RedactionFailed",
    "SourceEnded",
    "SourceError",
    "SourceStalled",
    "SourceUnusable",
    "SpoolError",
]


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


class FrameUnusable(AgentError):
    """A frame cannot be encoded, or is too large for a record."""


class SpoolError(AgentError):
    """The spool cannot keep what it is given: the disk is full, read-only or gone."""
