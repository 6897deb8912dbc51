"""Tests of the reasons why tracks end."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.contract.records import Box, Detection, Result
from ingest.site import MeasureConfig
from stream.analyse.analyser import Analyser
from stream.analyse.rules.line import LineRule
from stream.analyse.tracking.ends import TrackEnds
from stream.analyse.tracking.paths import TRACK_IDLE_S
from stream.analyse.tracking.tracker import LOST_S, ByteTracker
from tests.stream.analyse.results import result_at

LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))
WHOLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
ZONE = MeasureConfig(name="zone", type="zone", camera="c", pipeline="p", polygon=WHOLE)
STEP_S = 0.2


def frame(seq: int, x: float | None, *, at_s: float | None = None, withheld: dict[str, int] | None = None) -> Result:
    """Return the result of a frame with a car whose left edge is at ``x``, or with nothing."""
    box = Box(x, 100.0, x + 60.0, 130.0) if x is not None else None
    found = (Detection(box=box, label="car", class_id=1, score=0.9),) if box else ()
    return result_at(seq, seq * STEP_S if at_s is None else at_s, *found, withheld=withheld or {})


def ends(frames: Iterable[Result]) -> tuple[list[str], dict[str, float]]:
    """Return the reasons of all track ends, and the sums of the zone measure."""
    analyser = Analyser([LINE], None, ByteTracker, measures=[ZONE])
    reasons = []
    for one in frames:
        analyser.step(one)
        reasons += [end.reason for end in analyser.ended]
    (meter,) = analyser._meters
    return reasons, dict(meter.clock.sums.sums)


def silence(after: int) -> list[Result]:
    """Return empty frames for longer than rules keep a track."""
    return [frame(after + n, None) for n in range(1, round((TRACK_IDLE_S + 1.0) / STEP_S))]


def test_a_track_of_an_object_that_drives_out_of_the_picture_counts_as_an_exit_and_not_as_lost() -> None:
    way = [frame(n, 400.0 + 20.0 * n) for n in range(10)]
    reasons, sums = ends([*way, *silence(9)])
    assert reasons == ["left"]
    assert (sums["car.exits"], sums["dwells"]) == (1.0, 1.0)
    assert "car.lost" not in sums


def test_a_track_that_disappears_inside_the_picture_ends_as_lost_and_has_no_dwell_time() -> None:
    way = [frame(n, 200.0 + 20.0 * n) for n in range(10)]
    reasons, sums = ends([*way, *silence(9)])
    assert reasons == ["lost"]
    assert sums["car.lost"] == 1.0
    assert not {"car.exits", "dwells"} & sums.keys()


def test_a_track_at_the_edge_of_the_picture_before_an_outage_ends_as_lost() -> None:
    way = [frame(n, 400.0 + 20.0 * n) for n in range(10)]
    after = [frame(500 + n, None, at_s=100.0 + n * STEP_S) for n in range(60)]
    assert ends([*way, *after])[0] == ["lost"]


def test_tracks_end_in_an_outage_but_not_in_a_period_without_motion_of_the_same_length() -> None:
    way = [frame(n, 200.0 + 5.0 * n) for n in range(10)]
    gap_s = way[-1].seq * STEP_S + 8.0
    for withheld, names in (({"still": 39}, 1), ({}, 2)):
        analyser = Analyser([LINE], None, ByteTracker)
        seen = set()
        later = [frame(49 + n, 250.0 + 5.0 * n, at_s=gap_s + n * STEP_S) for n in range(5)]
        later[0] = later[0].model_copy(update={"withheld": withheld})
        for one in [*way, *later]:
            analyser.step(one)
            seen |= {track.name for track in analyser.scene.tracks} if analyser.scene else set()
        assert len(seen) == names


def test_a_track_at_the_edge_has_left_after_a_short_pause_without_frames_and_is_lost_after_a_long_pause() -> None:
    for gap_s, reason in ((LOST_S - 0.1, "left"), (LOST_S + 0.1, "lost")):
        found = TrackEnds()
        for n in range(3):
            found.scene([("t", Box(500.0 + 40 * n, 100.0, 560.0 + 40 * n, 130.0))], 0.2)
        found.scene([], gap_s)
        assert found.end("t", 640, 360) == ("t", reason)


def test_a_track_that_left_well_before_a_gap_without_frames_has_still_left() -> None:
    found = TrackEnds()
    found.scene([("t", Box(580.0, 100.0, 638.0, 130.0))], 0.2)
    for _ in range(10):
        found.scene([], 0.2)
    found.scene([], LOST_S + 0.1)
    assert found.end("t", 640, 360) == ("t", "left")


def test_a_track_that_is_seen_again_after_a_long_pause_without_frames_can_leave() -> None:
    found = TrackEnds()
    for gap_s in (0.2, LOST_S + 0.1):
        found.scene([("t", Box(580.0, 100.0, 638.0, 130.0))], gap_s)
    found.scene([("t", Box(580.0, 100.0, 638.0, 130.0))], 0.2)
    assert found.end("t", 640, 360) == ("t", "left")


def test_the_first_step_of_a_returning_track_is_not_the_way_from_its_last_place() -> None:
    found = TrackEnds()
    found.scene([("t", Box(100.0, 100.0, 160.0, 130.0))], 0.2)
    found.scene([], LOST_S)
    found.resume("t")
    found.scene([("t", Box(400.0, 100.0, 460.0, 130.0))], 0.2)
    assert found.end("t", 640, 360) == ("t", "lost")
