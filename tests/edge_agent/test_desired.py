"""Tests that an agent runs the site file, the config topic, or the last good configuration, as appropriate."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.desired import DesiredConfiguration
from edge_agent.lastgood import LastGood
from ingest.site import CameraConfig, ConfigEntry, PinConfig, SensorConfig, Site
from ingest.site.topic.view import ConfigView

GATE = CameraConfig(name="gate", source="device:0", site="north")
YARD = CameraConfig(name="yard", source="device:1", site="north")
AWAY = CameraConfig(name="away", source="device:2", site="south")
HEAT = SensorConfig(name="heat", source="host:temperature", quantity="t", unit="Cel", site="north")
SITE = Site(name="north", cameras=(GATE,))


def view(*entries: ConfigEntry) -> ConfigView:
    return ConfigView({entry.key: entry for entry in entries})


@pytest.fixture
def last_good(tmp_path: Path) -> LastGood:
    return LastGood(tmp_path / "config.json")


def test_an_agent_starts_with_the_site_file(last_good: LastGood) -> None:
    assert DesiredConfiguration(SITE, last_good).running.cameras == (GATE,)


def test_the_config_topic_replaces_the_site_file_once_the_topic_has_an_entry_of_the_site(last_good: LastGood) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(AWAY))
    assert desired.running.cameras == (GATE,)
    desired.apply(view(AWAY, YARD, HEAT, PinConfig(name="yard", partition=3)))
    assert (desired.running.cameras, desired.running.sensors, desired.pins) == ((YARD,), (HEAT,), {"yard": 3})


def test_an_agent_starts_with_the_last_configuration_of_the_config_topic(last_good: LastGood) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(YARD, AWAY))
    desired.save()
    assert DesiredConfiguration(SITE, last_good).running.cameras == (YARD,)


def test_an_agent_starts_with_the_site_file_if_the_config_topic_had_no_entry_of_the_site(
    last_good: LastGood,
) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(AWAY))
    desired.save()
    edited = Site(name="north", cameras=(YARD,))
    assert DesiredConfiguration(edited, last_good).running.cameras == (YARD,)


def test_refused_config_entries_are_reported_and_the_agent_can_go_back_to_its_previous_sensors(
    last_good: LastGood,
) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(GATE, HEAT))
    before = desired.running
    seen = view(YARD, HEAT.model_copy(update={"name": "other"}))
    seen.apply("camera/gate", b"{}")
    desired.apply(seen)
    desired.restore_sensors(before, "sensors a and b share /dev/ttyS0")
    assert (desired.running.cameras, desired.running.sensors) == ((YARD,), (HEAT,))
    assert set(desired.entries) == {YARD.key, HEAT.key}
    assert desired.refused[0].startswith("config topic, camera/gate")
    assert desired.refused[1] == "sensors a and b share /dev/ttyS0"


def test_entries_removed_from_the_config_topic_stay_removed_after_a_restart(last_good: LastGood) -> None:
    desired, seen = DesiredConfiguration(SITE, last_good), view(GATE, YARD)
    desired.apply(seen)
    seen.apply(YARD.key, b"")
    seen.apply(GATE.key, b"")
    desired.apply(seen)
    assert desired.running.cameras == ()  # the camera of the site file does not come back
    desired.save()
    again = DesiredConfiguration(SITE, last_good)
    assert again.running.cameras == ()
    again.apply(view(AWAY))
    assert again.running.cameras == ()


def test_an_agent_of_a_renamed_site_starts_with_the_site_file_again(last_good: LastGood) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(YARD))
    desired.save()
    renamed = DesiredConfiguration(Site(name="west", cameras=(AWAY.model_copy(update={"site": "west"}),)), last_good)
    assert [camera.name for camera in renamed.running.cameras] == ["away"]
    renamed.apply(view(YARD))  # the topic has only entries of the old name
    assert [camera.name for camera in renamed.running.cameras] == ["away"]


def test_a_camera_moved_to_another_site_is_removed_from_the_agent(last_good: LastGood) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(GATE))
    desired.apply(view(GATE.model_copy(update={"site": "south"})))
    assert desired.running.cameras == ()


def test_a_recreated_config_topic_without_entries_of_the_site_removes_no_camera(last_good: LastGood) -> None:
    """The topic was deleted and created again, and another site's file was applied before this site's file."""
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(YARD))
    desired.apply(view(AWAY))
    assert desired.running.cameras == (YARD,)
    assert "no entries of site north" in desired.refused[0]
    desired.save()
    assert DesiredConfiguration(SITE, last_good).running.cameras == (YARD,)
    desired.apply(ConfigView())
    assert desired.running.cameras == (YARD,)
    desired.apply(view(AWAY, GATE))  # the site is back, with these cameras only
    assert (desired.running.cameras, desired.refused) == ((GATE,), [])


def test_a_sensor_that_was_removed_and_a_camera_that_moved_to_another_site_stop_but_partition_pins_stay(
    last_good: LastGood,
) -> None:
    """The topic deletes tombstones after a while, so an agent that was off for long sees only some removals."""
    pin = PinConfig(name="yard", partition=3)
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(GATE, YARD, HEAT, pin))
    seen = view(GATE.model_copy(update={"site": "south"}), HEAT)
    seen.apply(HEAT.key, b"")
    desired.apply(seen)
    assert (desired.running.cameras, desired.running.sensors, desired.pins) == ((YARD,), (), {"yard": 3})
    desired.save()
    assert DesiredConfiguration(SITE, last_good).pins == {"yard": 3}


def test_an_agent_that_follows_no_config_topic_uses_the_site_file_and_ignores_saved_entries(
    last_good: LastGood,
) -> None:
    desired = DesiredConfiguration(SITE, last_good)
    desired.apply(view(YARD))
    desired.save()
    assert DesiredConfiguration(SITE, None).running.cameras == (GATE,)


def test_an_agent_reports_a_limited_number_of_refused_camera_and_sensor_entries(
    last_good: LastGood,
) -> None:
    desired, seen = DesiredConfiguration(SITE, last_good), view(GATE)
    seen.apply("rule/bad", b"{}")
    for number in range(40):
        seen.apply(f"camera/c{number:02}", b"{}")
    desired.apply(seen)
    assert len(desired.refused) == 6
    assert desired.refused[-1] == "and 35 more"


def test_an_agent_may_run_only_some_cameras_of_its_site(last_good: LastGood) -> None:
    desired = DesiredConfiguration(SITE, last_good, only=["yard"])
    assert desired.running.cameras == ()
    desired.apply(view(GATE, YARD))
    assert desired.running.cameras == (YARD,)


def test_a_sensor_of_a_site_with_several_agents_is_read_by_one_agent(last_good: LastGood) -> None:
    site = Site(name="north", cameras=(GATE, YARD), sensors=(HEAT,))
    ours, theirs = (
        DesiredConfiguration(site, last_good, only=["gate"]),
        DesiredConfiguration(site, last_good, only=["yard", "heat"]),
    )
    assert (ours.running.cameras, ours.running.sensors) == ((GATE,), ())
    assert (theirs.running.cameras, theirs.running.sensors) == ((YARD,), (HEAT,))


def test_a_site_without_a_name_owns_the_entries_without_a_site_name(last_good: LastGood) -> None:
    desired = DesiredConfiguration(Site(), last_good)
    desired.apply(view(GATE, CameraConfig(name="plain", source="device:3")))
    assert [c.name for c in desired.running.cameras] == ["plain"]
