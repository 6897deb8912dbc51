"""Events out of what the rules recognise in a camera's results. Pure."""

from __future__ import annotations

from ingest.identity import is_late
from ingest.records import Event, EventData, Overlay, Result
from ingest.site import LineRule, ZoneRule
from stream.analyse.tracker import Track
from stream.events import event_id, rfc3339

__all__ = ["line_event", "zone_event"]


def line_event(
    rule: LineRule, result: Result, track: Track, direction: str, count: int, overlay: Overlay, site: str
) -> Event:
    """Return the event of a track that has crossed a line, for the ``count``-th time."""
    summary = f"{track.label} crossed {rule.name} going {direction}"
    return _event("sightline.line.crossed", rule, result, track, count, summary, overlay, site, direction)


def zone_event(
    rule: ZoneRule, result: Result, track: Track, lasted_s: float, count: int, overlay: Overlay, site: str
) -> Event:
    """Return the event of a track that is in a zone, for the ``count``-th time."""
    stayed = f" for {lasted_s:.1f} s" if rule.dwell_s else ""
    summary = f"{track.label} in {rule.name}{stayed}"
    return _event("sightline.zone.entered", rule, result, track, count, summary, overlay, site)


def _event(
    kind: str,
    rule: LineRule | ZoneRule,
    result: Result,
    track: Track,
    count: int,
    summary: str,
    overlay: Overlay,
    site: str,
    direction: str = "",
) -> Event:
    incident = event_id(result.camera, rule.name, result.lane, track.name)
    return Event(
        id=event_id(incident, count),
        source=f"/{site}/{result.camera}" if site else f"/{result.camera}",
        type=kind,
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
            summary=summary,
            label=track.label,
            score=track.score,
            track=track.name,
            direction=direction,
            epoch=result.epoch,
            seq=result.seq,
            captured_ns=result.captured_ns,
            frame=result.source,
            overlay=overlay,
        ),
    )
