"""Tests of the cost estimate of a site."""

from __future__ import annotations

import math
from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.tools.plan import Assumptions, armed_share, bits_per_pixel, cost_of
from ingest.site import CameraConfig, Site, WeeklyHours

DAY_S = 86_400


def camera(name: str = "a", **settings: object) -> CameraConfig:
    return CameraConfig.model_validate(
        {"name": name, "source": "rtsp://camera", "fps": 5.0, "width": 640, "height": 360, **settings}
    )


def mean_fps(moving: float, **settings: object) -> float:
    return cost_of(Site(cameras=(camera(**settings),)), Assumptions(moving_share=moving)).cameras[0].mean_fps


def test_a_camera_without_a_gate_sends_all_captured_frames() -> None:
    assert mean_fps(0.0, gate={"motion": False}) == 5.0


def test_a_camera_without_motion_sends_only_keep_alives_and_samples() -> None:
    assert mean_fps(0.0, gate={"keep_alive_s": 10, "sample": 0.02}) == pytest.approx(0.1 + 0.1)
    assert mean_fps(0.0, gate={"keep_alive_s": 0, "sample": 0.0}) == 0.0


def test_the_plan_assumes_that_a_busy_camera_sends_at_least_half_of_its_examined_frames() -> None:
    assert mean_fps(1.0, gate={"open_fps": 4.0}) == 4.0
    assert mean_fps(1.0, gate={"open_fps": 1.0}) == 2.5
    assert mean_fps(1.0, gate={"max_fps": 2.0, "open_fps": 0.0}) == 2.0


def test_overlapping_armed_hours_count_once_in_the_cost_plan() -> None:
    night = WeeklyHours(start=time(22), end=time(6))
    assert armed_share([night]) == pytest.approx(8 / 24)
    assert armed_share([night, WeeklyHours(start=time(23), end=time(1))]) == pytest.approx(8 / 24)
    assert armed_share([WeeklyHours(days=("sun",), start=time(12), end=time(12))]) == pytest.approx(1 / 7)
    assert armed_share([]) == 1.0


def test_a_byte_budget_limits_the_planned_cost_of_a_camera() -> None:
    site = Site(cameras=(camera(encode={"bytes_per_s": 10_000, "bytes_per_day": 50_000_000}),))
    (found,) = cost_of(site, Assumptions(moving_share=1.0)).cameras
    assert found.peak_bytes_per_s <= 10_000
    assert found.bytes_per_day == pytest.approx(50_000_000)


def test_the_planned_time_until_a_spool_is_full_follows_from_the_mean_rate() -> None:
    (found,) = cost_of(Site(cameras=(camera(),)), Assumptions()).cameras
    assert found.outage_bytes(found.spool_lasts_s, busy=False) == pytest.approx(found.spool_bytes)
    assert found.outage_bytes(60, busy=True) >= found.outage_bytes(60, busy=False)
    (idle,) = cost_of(
        Site(cameras=(camera(gate={"keep_alive_s": 0, "sample": 0}),)), Assumptions(moving_share=0)
    ).cameras
    assert idle.spool_lasts_s == math.inf


def test_the_planned_number_of_partitions_follows_the_peak_frame_rate() -> None:
    cameras = tuple(camera(f"c{n}", fps=25.0, gate={"motion": False, "max_fps": 0.0}) for n in range(40))
    assert cost_of(Site(cameras=cameras), Assumptions()).partitions == 20
    assert cost_of(Site(), Assumptions()).partitions == 6
    assert cost_of(Site(), Assumptions()).card_years == math.inf


@given(st.sampled_from(["jpeg", "webp"]), st.integers(1, 99))
def test_the_estimated_size_of_a_picture_never_falls_with_a_higher_quality(encoding: str, quality: int) -> None:
    assert 0 < bits_per_pixel(encoding, quality) <= bits_per_pixel(encoding, quality + 1)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_estimated_cost_never_falls_with_more_motion(less: float, more: float) -> None:
    less, more = sorted((less, more))
    assert mean_fps(less) <= mean_fps(more) + 1e-12


def test_the_estimated_picture_size_is_within_its_stated_error_for_real_footage(shared_data: object) -> None:
    from pathlib import Path

    import cv2

    from edge_agent.tools.plan import SPREAD

    for name in ("car-detection.mp4", "one-by-one-person-detection.mp4", "highway.avi"):
        video = cv2.VideoCapture(str(Path(str(shared_data)) / name))
        found, image = video.read()
        video.release()
        assert found
        bits = 8 * cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].size / image[..., 0].size
        assert 1 / (SPREAD + 0.5) <= bits / bits_per_pixel("jpeg", 85) <= SPREAD + 0.5
