"""Scenes of 640×360 pixels for tests of camera rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ingest.contract.records import Box, Point
from stream.analyse.rule import RuleWatch, Scene, SceneHappening, SceneTrack
from stream.analyse.tracking.votes import VotedLabel

Reports = list[tuple[float, SceneHappening]]
EPOCH_NS = 1_800_000_000 * 10**9
"""Capture time of the scenes' epoch in Unix ns: Friday, 15 January 2027, 08:00 UTC."""


def track(
    x: float,
    y: float,
    name: str = "t",
    label: str = "car",
    *,
    score: float = 0.9,
    at_rest: bool = False,
    size: tuple[float, float] = (40.0, 20.0),
    trail: Sequence[Point] = (),
    moved: float = 0.0,
    **attributes: str,
) -> SceneTrack:
    """Return a track whose box has its centre at (x, y). ``attributes`` are voted labels of second models."""
    width, height = size
    box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    voted = {key: VotedLabel(value, 0.9) for key, value in attributes.items()}
    return SceneTrack(name, label, score, box, at_rest, trail or [(x, y)], voted, moved)


def scene(at_s: float, *tracks: SceneTrack, **fields: Any) -> Scene:
    """Return the scene of a classified frame, ``at_s`` seconds after the epoch began at ``EPOCH_NS``."""
    at_ns = round(at_s * 1e9)
    values: dict[str, Any] = {
        "frame": f"1-{at_ns}",
        "outcome": "classified",
        "captured_ns": EPOCH_NS + at_ns,
        **fields,
    }
    return Scene(at_ns=at_ns, width=640, height=360, tracks=tracks, **values)


def play(
    state: RuleWatch[Any], frames: Iterable[Sequence[SceneTrack]], step_s: float = 0.2, **fields: Any
) -> Reports:
    """Process one scene for each list of tracks, ``step_s`` apart. Return the times and happenings of the reports."""
    found: Reports = []
    for n, tracks in enumerate(frames):
        at_s = round(n * step_s, 6)
        found += [(at_s, one) for one, _ in state.observe(scene(at_s, *tracks, **fields), ())]
    return found
