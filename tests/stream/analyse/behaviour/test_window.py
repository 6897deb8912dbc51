"""Tests of the input of behaviour models, and of the boxes that are kept for it."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.contract.records import Box
from stream.analyse.behaviour.history import KEPT_NS, RecentBoxes
from stream.analyse.behaviour.window import AGES_S, SPAN_S, STEPS, Floats, windows


def walk(times: Floats, speed_px_s: float = 30.0, height: float = 60.0, scale: float = 1.0) -> Floats:
    left = speed_px_s * times
    edges = (left, np.full_like(times, 100.0), left + 0.4 * height, np.full_like(times, 100.0 + height))
    return np.column_stack([times, *(edge * scale for edge in edges)])


def test_a_window_of_boxes_does_not_depend_on_the_picture_size_or_the_start_time() -> None:
    times = np.arange(0.0, 30.0, 0.1)
    one = windows([walk(times)], 1280, 720)
    other = windows([walk(times, scale=2.0) + np.array([1000.0, 0.0, 0.0, 0.0, 0.0])], 2560, 1440)
    assert np.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("fps", [2.0, 25.0])
def test_a_window_of_boxes_of_a_steady_walk_does_not_depend_on_the_frame_rate(fps: float) -> None:
    (usual,) = windows([walk(np.arange(0.0, 30.001, 0.1))], 1280, 720)
    (found,) = windows([walk(np.arange(0.0, 30.001, 1 / fps))], 1280, 720)
    ages = [column for column in range(usual.shape[1]) if column != 7]  # 7 is the time to the nearest box
    assert np.allclose(found[:, ages], usual[:, ages], atol=1e-3)


def test_the_speed_in_a_window_is_in_box_heights_per_second() -> None:
    (found,) = windows([walk(np.arange(0.0, 30.0, 0.1), speed_px_s=90.0, height=60.0)], 4000, 720)
    assert found[1:, 5] == pytest.approx(np.full(STEPS - 1, 1.5), abs=1e-3)


def test_samples_of_a_window_before_the_track_began_are_zero() -> None:
    (found,) = windows([walk(np.arange(0.0, 2.05, 0.1))], 1280, 720)
    seen = AGES_S <= 2.0 + 1e-6
    assert found[seen, 0].all()
    assert not found[~seen].any()


def test_a_track_with_two_boxes_at_one_time_has_finite_features() -> None:
    assert np.isfinite(windows([walk(np.zeros(2))], 640, 360)).all()


def test_the_box_history_keeps_one_box_per_interval_and_no_more_than_a_window() -> None:
    recent, step_ns = RecentBoxes(), 40_000_000
    for number in range(3000):
        recent.add(number * step_ns / 1e9, Box(0.0, 0.0, 10.0, 20.0), number * step_ns // KEPT_NS)
    assert recent.array[-1, 0] == pytest.approx(2999 * 0.04)
    assert SPAN_S <= recent.lasted_s <= SPAN_S + 0.2
    assert np.diff(recent.array[:-1, 0]).min() >= 0.04


def test_a_capture_clock_that_stands_still_does_not_overflow_the_box_history() -> None:
    recent = RecentBoxes()
    for number in range(2000):
        recent.add(5.0, Box(float(number), 0.0, 10.0, 20.0), number)
    assert recent.array[-1, 1] == 1999.0
