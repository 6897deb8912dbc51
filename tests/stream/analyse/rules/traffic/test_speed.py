"""Tests of the rules ``speed`` and ``section`` on a road seen through a ground plane."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ingest.exceptions import ConfigError
from ingest.site import load
from ingest.site.ground import GroundConfig
from stream.analyse.ground import GroundPlane
from stream.analyse.rules.traffic.section import SectionRule
from stream.analyse.rules.traffic.speed import SpeedRule
from stream.rules import validated_site
from tests.stream.analyse.rules.scenes import SceneTrack, play, scene, track

GROUND = GroundPlane.of(
    GroundConfig(corners=((0.0, 0.9), (1.0, 0.9), (1.0, 0.4), (0.0, 0.4)), width_m=64.0, length_m=18.0), 640, 360
)
"""A road seen from straight above: 10 pixels are a metre."""
RULE = SpeedRule(name="road", camera="c", pipeline="p", above_km_h=50.0)
SECTION = SectionRule(
    name="bridge",
    camera="c",
    pipeline="p",
    first=((0.25, 0.0), (0.25, 1.0)),
    second=((0.75, 0.0), (0.75, 1.0)),
    distance_m=32.0,
    above_km_h=50.0,
)


def drive(km_h: float, noise_px: float = 0.0, step_s: float = 0.2, seed: int = 1) -> list[list[SceneTrack]]:
    noise, per_frame = random.Random(seed), km_h / 3.6 * 10.0 * step_s
    count = int(600 / per_frame) + 1
    return [
        [track(30.0 + per_frame * n + noise.gauss(0, noise_px), 200.0 + noise.gauss(0, noise_px))]
        for n in range(count)
    ]


@pytest.mark.parametrize(("km_h", "reports"), [(40.0, 0), (49.0, 0), (60.0, 1), (90.0, 1)])
def test_a_speed_above_the_limit_is_reported_once_for_each_vehicle(km_h: float, reports: int) -> None:
    found = play(RULE.watch(640, 360), drive(km_h), ground=GROUND)
    assert len(found) == reports
    for _, one in found:
        assert one.details["speed_km_h"] == pytest.approx(km_h, rel=0.01)


def test_the_true_speed_is_within_three_times_the_reported_error_of_the_reported_speed() -> None:
    for seed in range(50):
        for _, one in play(RULE.watch(640, 360), drive(70.0, 1.5, seed=seed), ground=GROUND):
            assert abs(float(one.details["speed_km_h"]) - 70.0) <= 4 * float(one.details["error_km_h"])


def test_a_vehicle_just_below_the_speed_limit_is_seldom_reported_despite_noise() -> None:
    reported = sum(bool(play(RULE.watch(640, 360), drive(45.0, 1.5, seed=n), ground=GROUND)) for n in range(50))
    assert reported <= 2


def test_a_speed_rule_of_a_camera_without_a_ground_plane_reports_no_event() -> None:
    assert play(RULE.watch(640, 360), drive(90.0)) == []


def test_a_site_with_a_speed_rule_for_a_camera_without_a_ground_plane_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        '[[cameras]]\nname = "c"\nsource = "simulated:road"\n'
        '[[pipelines]]\nname = "p"\nmodel = "regions"\nwidth = 64\nheight = 64\n'
        '[[rules]]\ntype = "speed"\nname = "road"\ncamera = "c"\npipeline = "p"\nabove_km_h = 50\n'
    )
    with pytest.raises(ConfigError, match="a camera with the setting ground"):
        validated_site(load(file), file)


@pytest.mark.parametrize("step_s", [0.04, 0.2, 0.37])
@pytest.mark.parametrize("km_h", [40.0, 60.0, 75.0])
def test_the_average_speed_between_two_lines_is_right_at_every_frame_rate(km_h: float, step_s: float) -> None:
    found = play(SECTION.watch(640, 360), drive(km_h, step_s=step_s), step_s)
    assert len(found) == (km_h > 50.0)
    for _, one in found:
        assert one.details["speed_km_h"] == pytest.approx(km_h, rel=0.01)


def test_the_average_speed_of_a_vehicle_that_drives_the_section_backwards_is_not_measured() -> None:
    assert play(SECTION.watch(640, 360), drive(80.0)[::-1]) == []


def test_the_way_of_a_vehicle_while_it_was_hidden_is_not_measured() -> None:
    def reports(*, resumed: bool) -> int:
        watch, found = RULE.model_copy(update={"window_s": 3.0}).watch(640, 360), 0
        for n, tracks in enumerate(drive(60.0)[:19]):
            if n == 13 and resumed:
                watch.resume("t")
            if n < 5 or n >= 13:
                found += len(watch.observe(scene(0.2 * n, *tracks, ground=GROUND), ()))
        return found

    assert (reports(resumed=False), reports(resumed=True)) == (1, 0)
