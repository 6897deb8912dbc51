"""The clip of an event, or the reason why the event has no clip. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from console.evidence import CLIP_TYPE, evidence_of
from console.live.happenings import ReviewItem
from ingest.contract.records import Clip, Evidence
from stream.evidence.clip.window import SETTLE_S

WAIT_S = 600.0
"""Time in seconds for which a page still waits for a clip that should have been made already."""


@dataclass(frozen=True, slots=True)
class NumberedFile:
    """A file of evidence with its number in the addresses ``/events/ID/evidence/NUMBER``."""

    number: int
    evidence: Evidence

    @property
    def title(self) -> str:
        """Title of a clip for a person."""
        return "Clip with boxes" if self.evidence.name.endswith("-clip-boxes.mp4") else "Clip"


@dataclass(frozen=True, slots=True)
class ClipState:
    """The clips of an event.

    ``facts`` has the interval of the clips and their gaps; None before a clip was made. ``missing`` is the reason why
    there is no clip, empty if there is one. ``pending`` says that the clip may still come soon.
    """

    files: tuple[NumberedFile, ...] = ()
    facts: Clip | None = None
    missing: str = ""
    pending: bool = False


def clip_of(item: ReviewItem, now_ns: int, *, worker_runs: bool) -> ClipState:
    """Return the clips of an event at ``now_ns``, in Unix ns. ``worker_runs`` says that an evidence worker has lately
    sent a heartbeat."""
    event, stored = item.event, item.evidence.stored
    if event.data.camera is None:
        return ClipState(missing="a sensor has no pictures, so its events have no clips")
    files = tuple(
        NumberedFile(number, one) for number, one in enumerate(evidence_of(item)) if one.media_type == CLIP_TYPE
    )
    facts = stored.clip if stored else None
    if left := tuple(one for one in files if one.evidence.name not in item.evidence.deleted):
        return ClipState(left, facts)
    if files:
        return ClipState(facts=facts, missing=f"it was deleted: {item.evidence.deleted[files[0].evidence.name]}")
    if facts and facts.missing:
        return ClipState(facts=facts, missing=facts.missing)
    if event.data.clip is None:
        fix = "set `clip` for the rule, or at the top of the site file"
        return ClipState(missing=f"the rule {event.data.rule} requests none: {fix}")
    return _not_made(item, now_ns, event.data.clip.after_s + SETTLE_S, worker_runs=worker_runs)


def _not_made(item: ReviewItem, now_ns: int, after_s: float, *, worker_runs: bool) -> ClipState:
    age_s = (now_ns - item.at_ns) / 1e9
    if not item.alerts:
        return ClipState(missing="a clip belongs to an alert, and this event has none yet", pending=age_s < WAIT_S)
    if not worker_runs:
        reason = "no evidence worker runs: start `sightline evidence run`"
    elif age_s < after_s:
        reason = f"it is made {after_s:.0f} s after the event"
    else:
        reason = "the evidence worker has not made it yet"
    return ClipState(missing=reason, pending=age_s < after_s + WAIT_S)
