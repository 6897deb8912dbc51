"""Tests of the settings that all camera rules have: hours, minimum move, cooldown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.exceptions import ConfigError
from ingest.site import load
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.rules import validated_site
from tests.stream.analyse.rules.scenes import scene, track

SQUARE = tuple((x / 640, y / 360) for x, y in ((100, 100), (200, 100), (200, 200), (100, 200)))
ZONE = ZoneRule(name="yard", camera="c", pipeline="p", polygon=SQUARE)
LINE = LineRule(name="gate", camera="c", pipeline="p", start=(0.5, 0.0), end=(0.5, 1.0))
FROM_8_01 = ({"start": "08:01", "end": "18:00"},)  # the epoch of the scenes begins at 08:00 UTC


def test_zone_rule_reports_an_object_that_is_still_inside_when_the_active_hours_of_the_rule_begin() -> None:
    state = ZoneRule.model_validate({**ZONE.model_dump(), "hours": FROM_8_01}).watch(640, 360)
    found = [n for n in range(100) if state.observe(scene(float(n), track(150.0, 150.0)), ())]
    assert found == [60]


def test_line_rule_reports_no_crossing_outside_of_its_hours() -> None:
    state = LineRule.model_validate({**LINE.model_dump(), "hours": FROM_8_01}).watch(640, 360)
    path = [300.0, 310.0, 330.0, 340.0, 350.0, 340.0, 310.0, 300.0, 290.0]
    before = [state.observe(scene(float(n), track(x, 150.0)), ()) for n, x in enumerate(path)]
    after = [state.observe(scene(60.0 + n, track(x, 150.0)), ()) for n, x in enumerate(path)]
    assert (sum(map(len, before)), sum(map(len, after))) == (0, 2)


def test_rule_uses_the_time_zone_of_its_site_for_its_hours(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(SITE.format(ground=""))
    (rule,) = validated_site(load(file), file).rules
    assert isinstance(rule, ZoneRule)
    at_8_utc = 1_800_000_000 * 10**9
    assert rule.time_zone == "America/New_York"
    assert not rule.in_force(at_8_utc)
    assert rule.in_force(at_8_utc + 5 * 3600 * 10**9)


def test_object_that_has_moved_less_than_min_move_causes_no_event() -> None:
    state = ZoneRule.model_validate({**ZONE.model_dump(), "min_move": 0.1}).watch(640, 360)
    assert not state.observe(scene(0.0, track(150.0, 150.0, moved=0.09)), ())
    assert state.observe(scene(1.0, track(150.0, 150.0, moved=0.1)), ())


def test_camera_refuses_a_ground_plane_with_unknown_keys(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(SITE.format(ground="ground = { corners = [[0.1, 0.9]], width_m = 7 }"))
    with pytest.raises(ConfigError, match="ground"):
        load(file)


SITE = """
name = "yard"
time_zone = "America/New_York"

[[cameras]]
name = "c"
source = "simulated:road"
{ground}

[[pipelines]]
name = "p"
model = "regions"
width = 64
height = 64

[[rules]]
type = "zone"
name = "yard"
camera = "c"
pipeline = "p"
polygon = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]
hours = [{{ start = "08:00", end = "18:00" }}]
"""
