"""Events, and candidate events of rules that also need a sensor, from the situations that rules recognise in a frame.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ingest.contract.identity import is_late
from ingest.contract.records import Event, JoinCandidate, JoinSignal, Overlay, Result
from ingest.contract.records.event import DetailValue
from ingest.site import CameraConfig, to_pixels
from stream.analyse.geometry import Scale
from stream.analyse.rule import CameraRule, SceneHappening, SceneTrack
from stream.events import make_event

Numbered = tuple[SceneHappening, int]
"""A recognised situation, and its number within its incident, from 1."""


@dataclass(frozen=True, slots=True)
class FrameEvents:
    """Makes the events of one frame. ``scale`` converts pixels of the frame to pixels of the epoch's first picture,
    in which situations are given."""

    result: Result
    scale: Scale
    camera: CameraConfig | None

    def events(self, rule: CameraRule, found: Iterable[Numbered]) -> Iterator[Event]:
        """Yield the events of the situations that a rule has recognised."""
        for happening, number in found:
            yield self._event(rule, happening, number)

    def candidates(self, rule: CameraRule, found: Iterable[Numbered]) -> list[JoinCandidate]:
        """Return the candidate events of a rule that also needs a sensor's readings."""
        captured_ns = self.result.captured_ns
        return [
            JoinCandidate(
                since_ns=captured_ns if happening.since_ns is None else happening.since_ns,
                event=self._event(rule, happening, number),
            )
            for happening, number in found
        ]

    def signal(self, rule: CameraRule, candidates: Sequence[JoinCandidate]) -> JoinSignal:
        """Return the signal of the frame for a rule that also needs a sensor's readings."""
        result = self.result
        return JoinSignal(
            rule=rule.name,
            camera=result.camera,
            lane=result.lane,
            epoch=result.epoch,
            seq=result.seq,
            at_ns=result.captured_ns,
            candidates=tuple(candidates),
        )

    def _event(self, rule: CameraRule, happening: SceneHappening, number: int) -> Event:
        result, track, camera = self.result, happening.track, self.camera
        details = {**_attribute_details(track), **happening.details} if track else happening.details
        return make_event(
            rule,
            replace(happening, details=details),
            result.camera,
            (result.lane, track.name if track else happening.occurrence),
            result.captured_ns,
            number=number,
            site=camera.site if camera else "",
            place=camera.place if camera else None,
            camera=result.camera,
            lane=result.lane,
            late=is_late(result.lane),
            label=track.label if track else happening.label,
            score=track.score if track else 0.0,
            track=track.name if track else "",
            epoch=result.epoch,
            seq=result.seq,
            frame=result.source,
            clip=rule.clip_request,
            overlay=Overlay(
                shape=to_pixels(rule.shape, result.width, result.height),
                box=self.scale.back(track.box) if track else None,
                trail=self.scale.trail_back(track.trail) if track else (),
            ),
        )


def _attribute_details(track: SceneTrack) -> dict[str, DetailValue]:
    """Return a track's labels from second-stage models, chosen by votes, as details of an event, such as
    ``attributes.type``."""
    found: dict[str, DetailValue] = {}
    for name, voted in track.attributes.items():
        found[f"attributes.{name}"] = voted.label
        found[f"attributes.{name}.score"] = round(voted.score, 3)
    return found
