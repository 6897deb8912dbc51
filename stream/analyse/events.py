"""Events out of what the rules recognise in a camera's results. Pure."""

from __future__ import annotations

from ingest.contract.identity import is_late
from ingest.contract.records import Event, EventData, Overlay, Point, Result
from ingest.site import LineRule, ZoneRule, to_pixels
from stream.analyse.rules import Happening
from stream.analyse.tracking.tracker import Track
from stream.events import event_id, rfc3339


def shape_of(rule: LineRule | ZoneRule, result: Result) -> tuple[Point, ...]:
    """Return a rule's line or polygon in pixels of a result's picture."""
    points = rule.polygon if isinstance(rule, ZoneRule) else (rule.start, rule.end)
    return to_pixels(points, result.width, result.height)


def event_of(
    rule: LineRule | ZoneRule, result: Result, track: Track, happening: Happening, overlay: Overlay, site: str
) -> Event:
    """Return the event of a track that has crossed a line, or is in a zone."""
    incident = event_id(result.camera, rule.name, result.lane, track.name)
    line = isinstance(rule, LineRule)
    return Event(
        id=event_id(incident, happening.number),
        source=f"/{site}/{result.camera}" if site else f"/{result.camera}",
        type="sightline.line.crossed" if line else "sightline.zone.entered",
        subject=result.camera,
        time=rfc3339(result.captured_ns),
        data=EventData(
            incident=incident,
            rule=rule.name,
            severity=rule.severity,
            site=site,
            camera=result.camera,
            lane=result.lane,
            late=is_late(result.lane),
            summary=_summary(rule, track, happening),
            label=track.label,
            score=track.score,
            track=track.name,
            direction=str(happening.what) if line else "",
            epoch=result.epoch,
            seq=result.seq,
            captured_ns=result.captured_ns,
            frame=result.source,
            overlay=overlay,
        ),
    )


def _summary(rule: LineRule | ZoneRule, track: Track, happening: Happening) -> str:
    if isinstance(rule, LineRule):
        return f"{track.label} crossed {rule.name} going {happening.what}"
    stayed = f" for {happening.what:.1f} s" if rule.dwell_s else ""
    return f"{track.label} in {rule.name}{stayed}"
