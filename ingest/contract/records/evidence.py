"""Records of the topic ``evidence``: files of alerts, facts about their clips, and tombstones of deleted files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ingest.contract.records.base import Count, Id, Many, Name, Record
from ingest.contract.records.event import Evidence, Text

MAX_GAPS = 100
"""Maximum number of gaps that the facts of one clip list."""


class ClipGap(Record):
    """A part of a clip's interval without frames, in Unix ns, and the reason."""

    KIND: ClassVar[str] = "clip-gap"

    from_ns: Count
    to_ns: Count
    reason: Text


class Clip(Record):
    """The facts about a clip: its requested interval, the frames in it, and its gaps.

    ``first_ns`` and ``last_ns`` are the capture times of the first and last frame, 0 without frames. ``missing`` has
    the reason why there is no clip; empty if there is one. All times are Unix ns by the clock of the agent that
    captured the frames.
    """

    KIND: ClassVar[str] = "clip"

    from_ns: Count
    to_ns: Count
    first_ns: Count = 0
    last_ns: Count = 0
    frames: Count = 0
    unreadable: Count = 0
    gaps: Annotated[Many[ClipGap], Field(max_length=MAX_GAPS)] = ()
    missing: Text = ""


class EvidenceRecord(Record):
    """The evidence of an alert that was stored (``stored``), or files that were deleted (``deleted``, a tombstone).

    A ``stored`` record lists all files of the alert: its pictures, and its clip if the rule requests one. ``missing``
    has the reason if a picture is missing. A ``deleted`` record lists the names of files of one event in ``deleted``,
    with the reason and the user that deleted them. ``event`` is empty if no event id can be read from the names of
    the files.
    """

    KIND: ClassVar[str] = "evidence-record"

    state: Literal["stored", "deleted"]
    subject: Name | None = None
    event: Id | Literal[""] = ""
    alert: Id | Literal[""] = ""
    incident: Id | Literal[""] = ""
    captured_ns: Count = 0
    at_ns: Count
    files: Many[Evidence] = ()
    clip: Clip | None = None
    missing: Text = ""
    deleted: Many[str] = ()
    deleted_bytes: Count = 0
    reason: Text = ""
    by: Text = ""
