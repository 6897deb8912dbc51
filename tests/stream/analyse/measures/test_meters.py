"""Tests of the measures of lines, zones and flows per minute."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.records.base import MAX_KEYS
from ingest.contract.records.measure import MinuteTally
from ingest.site.ground import GroundConfig
from ingest.site.measure import MeasureConfig
from stream.analyse.ground import GroundPlane
from stream.analyse.measures.meters import make_meter, values
from stream.analyse.measures.minute import MAX_SUMS, ClosedMinute
from tests.stream.analyse.rules.scenes import EPOCH_NS, SceneTrack, scene, track

COMMON: dict[str, Any] = {"name": "m", "camera": "c", "pipeline": "p"}
LINE = MeasureConfig(**COMMON, type="line", start=(0.5, 1.0), end=(0.5, 0.0))
ZONE = MeasureConfig(**COMMON, type="zone", polygon=((0.25, 0.0), (0.75, 0.0), (0.75, 1.0), (0.25, 1.0)))
GROUND = GroundPlane.of(
    GroundConfig(corners=((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)), width_m=64.0, length_m=36.0), 640, 360
)
STEP_S = 0.2


def passing(n: int, first: int, label: str = "car") -> list[SceneTrack]:
    """Return a track that drives through the picture at 50 px/s (5 m/s), beginning with frame ``first``."""
    x = 20.0 + 10.0 * (n - first)
    return [track(x, 180.0, f"t{first}", label)] if n - first >= 0 and x < 640 else []


def collect(config: MeasureConfig, seconds: float, *starts: int, **fields: Any) -> list[ClosedMinute]:
    meter = make_meter(config, 640, 360)
    found = []
    for n in range(round(seconds / STEP_S) + 1):
        tracks = [one for first in starts for one in passing(n, first)]
        found += meter.step(scene(n * STEP_S, *tracks, gap_s=STEP_S, **fields))
        for first in starts:
            if n - first == 150:
                meter.forget(f"t{first}")
    return [*found, *meter.clock.close("last")]


def test_line_measure_counts_crossings_per_minute_label_and_direction() -> None:
    first, second = collect(LINE, 100.0, 0, 10, 330)
    assert (first.start_ns, second.start_ns) == (EPOCH_NS, EPOCH_NS + 60 * 10**9)
    assert values(first.tally, LINE) == {"car.forward": 2.0, "headway_s.forward.mean": 2.0}
    assert values(second.tally, LINE)["car.forward"] == 1.0


def test_line_measure_has_mean_speed_and_histogram_with_a_ground_plane() -> None:
    first, _ = collect(LINE, 70.0, 0, 20, ground=GROUND)
    assert values(first.tally, LINE)["speed_km_h.forward.mean"] == pytest.approx(18.0, abs=0.1)
    assert first.tally.histograms == {"speed_km_h.forward": {"10": 2}}


def test_zone_measure_has_occupancy_entries_exits_and_dwell() -> None:
    first, _ = collect(ZONE, 70.0, 0, 20)
    found = values(first.tally, ZONE)
    assert (found["car.entries"], found["car.exits"], found["occupancy.max"]) == (2.0, 2.0, 2.0)
    assert found["dwell_s.mean"] == pytest.approx(6.2, abs=0.3)
    assert found["occupancy.mean"] == pytest.approx(2 * 6.4 / 60, abs=0.01)
    assert first.tally.histograms["dwell_s"] == {"5": 2}


def test_zone_measure_with_a_length_has_density_and_level_of_service() -> None:
    road = ZONE.model_copy(update={"length_m": 32.0, "lanes": 1})
    sums = {"occupied_s": 60.0}
    found = values(MinuteTally(sums=sums, observed_s=60.0), road)
    assert (found["density.per_km_lane"], found["level_of_service"]) == (31.25, 6.0)
    two_lanes = values(MinuteTally(sums=sums, observed_s=60.0), road.model_copy(update={"lanes": 2}))
    assert (two_lanes["density.per_km_lane"], two_lanes["level_of_service"]) == (15.62, 3.0)


def test_flow_measure_counts_movements_by_origin_and_destination() -> None:
    flow = MeasureConfig(
        **COMMON, type="flow", lines={"west": ((0.2, 0.0), (0.2, 1.0)), "east": ((0.8, 0.0), (0.8, 1.0))}
    )
    first, _ = collect(flow, 70.0, 0, 20)
    assert values(first.tally, flow) == {"car.west-east": 2.0}


def test_the_observed_time_of_a_minute_includes_frames_without_motion_and_leaves_out_gaps() -> None:
    meter = make_meter(LINE, 640, 360)
    times = [(0.0, 0.0), (10.0, 0.2), (20.0, 10.0), (40.0, 0.2), (59.0, 0.2), (61.0, 0.2)]
    closed = [one for at_s, gap_s in times for one in meter.step(scene(at_s, gap_s=gap_s))]
    assert [one.tally.observed_s for one in closed] == [50.0]


def test_low_score_in_a_few_frames_does_not_end_a_stay_in_a_zone() -> None:
    meter = make_meter(ZONE, 640, 360)
    for n in range(20):
        meter.step(scene(n * STEP_S, track(320.0, 180.0, score=0.1 if 5 <= n < 12 else 0.9)))
    (minute,) = meter.clock.close("last")
    assert values(minute.tally, ZONE)["car.entries"] == 1.0
    assert "car.exits" not in values(minute.tally, ZONE)


def test_the_memory_for_an_object_in_a_zone_does_not_grow_with_its_dwell_time() -> None:
    meter = make_meter(ZONE, 640, 360)
    sizes = []
    for n in range(600):
        meter.step(scene(n * STEP_S, track(320.0, 180.0, at_rest=True), gap_s=STEP_S, ground=GROUND))
        sizes.append(len(pickle.dumps(meter)))
    assert sizes[-1] <= sizes[99] + 200


def test_a_label_with_the_name_of_an_internal_total_such_as_dwell_s_is_counted_like_other_labels() -> None:
    sums = {"dwell_s.entries": 2.0, "dwell_s": 6.0, "dwells": 2.0}
    assert values(MinuteTally(sums=sums, observed_s=60.0), ZONE) == {"dwell_s.entries": 2.0, "dwell_s.mean": 3.0}


def test_minute_closes_after_the_clock_of_the_camera_was_set_back() -> None:
    meter = make_meter(LINE, 640, 360)
    ahead, right = EPOCH_NS + 3600 * 10**9, EPOCH_NS
    times = [ahead, ahead + 10**9, right, right + 10**9, right + 2 * 10**9, right + 61 * 10**9]
    closed = [
        one for n, captured_ns in enumerate(times) for one in meter.step(scene(float(n), captured_ns=captured_ns))
    ]
    assert [one.start_ns for one in closed] == [ahead, right]


def test_results_that_alternate_between_two_clocks_do_not_close_a_minute_at_each_change() -> None:
    meter = make_meter(LINE, 640, 360)
    clocks = [EPOCH_NS + 3600 * 10**9, EPOCH_NS]
    assert [one for n in range(20) for one in meter.step(scene(float(n), captured_ns=clocks[n % 2] + n))] == []


def test_the_number_of_counts_in_a_minute_is_limited_even_if_every_object_has_a_different_label() -> None:
    meter = make_meter(ZONE, 640, 360)
    meter.step(scene(0.0, *(track(320.0, 180.0, f"t{n}", f"label-{n}") for n in range(MAX_KEYS + 1))))
    (closed,) = meter.step(scene(60.0))
    assert len(closed.tally.sums) == MAX_SUMS


def test_minutes_without_any_frame_have_records_if_nothing_moved() -> None:
    meter, parked = make_meter(ZONE, 640, 360), track(320.0, 180.0, at_rest=True)
    closed = [one for at_s in (0.0, 300.0) for one in meter.step(scene(at_s, parked, gap_s=0.2))]
    assert [(one.start_ns - EPOCH_NS) // (60 * 10**9) for one in closed] == [0, 1, 2, 3, 4]
    for one in closed:
        found = values(one.tally, ZONE)
        assert (one.tally.observed_s, found["occupancy.mean"], found["occupancy.max"]) == (60.0, 1.0, 1.0)


@pytest.mark.parametrize(("at_s", "gap_s"), [(300.0, 300.0), (10.0**8, 0.2)])
def test_minutes_skipped_by_a_gap_or_by_a_clock_step_have_no_records(at_s: float, gap_s: float) -> None:
    meter = make_meter(ZONE, 640, 360)
    assert len([one for s in (0.0, at_s) for one in meter.step(scene(s, gap_s=gap_s))]) == 1


@given(st.lists(st.floats(0.05, 90.0), min_size=1, max_size=40))
def test_the_observed_times_of_all_minutes_add_up_to_the_observed_time_of_all_frames(steps: list[float]) -> None:
    meter, at_s, closed = make_meter(ZONE, 640, 360), 0.0, []
    closed += meter.step(scene(0.0))
    for step in steps:
        at_s += step
        closed += meter.step(scene(at_s, gap_s=min(step, 1.0)))
    closed += meter.clock.close("last")
    inside = sum(one.tally.observed_s for one in closed)
    assert all(one.tally.observed_s <= 60.0 + 1e-5 for one in closed)
    assert inside == pytest.approx(sum(steps), abs=1e-4)


@given(st.lists(st.integers(0, 600), min_size=1, max_size=12, unique=True))
def test_the_crossings_of_all_minutes_add_up_to_the_true_number_of_crossings(starts: list[int]) -> None:
    closed = collect(LINE, 200.0, *starts)
    assert sum(one.tally.sums.get("car.forward", 0.0) for one in closed) == len(starts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "line", "start": (0.1, 0.1)}, "expected end in a measure of the type line"),
        ({"type": "zone"}, "expected polygon"),
        ({"type": "line", "start": (0.1, 0.1), "end": (0.1, 0.1)}, "two different points as start and end"),
        ({"type": "flow", "lines": {"a": ((0.0, 0.0), (1.0, 1.0))}}, "at least two lines"),
        ({"type": "flow", "lines": {"a": ((0.0, 0.0), (1.0, 1.0)), "b": ((0.5, 0.5), (0.5, 0.5))}}, "two different"),
        ({"type": "zone", "polygon": ZONE.polygon, "start": (0.1, 0.1)}, "expected no start"),
    ],
)
def test_measure_refuses_keys_that_do_not_fit_its_type(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MeasureConfig(**COMMON, **settings)
