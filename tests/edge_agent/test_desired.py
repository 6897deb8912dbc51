"""What an agent runs: its site's file, the topic, or the last good of it."""

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
HEAT = SensorConfig(name="heat", source="simulated:temperature", quantity="t", unit="Cel", site="north")
SITE = Site(name="north", cameras=(GATE,))


def view(*entries: ConfigEntry) -> ConfigView:
    return ConfigView({entry.key: entry for entry in entries})


@pytest.fixture
def last_good(tmp_path: Path) -> LastGood:
    return LastGood(tmp_path / "config.json")


def test_it_begins_with_the_file(last_good: LastGood) -> None:
    assert DesiredConfiguration(SITE, last_good).cameras == (GATE,)


def test_the_topic_holds_once_it_has_anything_of_the_site(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(AWAY))
    assert charge.cameras == (GATE,)
    charge.take(view(AWAY, YARD, HEAT, PinConfig(name="yard", partition=3)))
    assert (charge.cameras, charge.sensors, charge.pins) == ((YARD,), (HEAT,), {"yard": 3})


def test_the_next_start_begins_with_what_the_topic_said_last(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(YARD, AWAY))
    charge.keep()
    assert DesiredConfiguration(SITE, last_good).cameras == (YARD,)


def test_a_topic_that_has_nothing_of_the_site_leaves_the_file_in_charge_at_the_next_start_too(
    last_good: LastGood,
) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(AWAY))
    charge.keep()
    edited = Site(name="north", cameras=(YARD,))
    assert DesiredConfiguration(edited, last_good).cameras == (YARD,)


def test_what_was_refused_is_told_and_sensors_that_could_not_be_run_are_taken_back_alone(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(GATE, HEAT))
    before = charge.now
    seen = view(YARD, HEAT.model_copy(update={"name": "other"}))
    seen.apply("camera/gate", b"{}")
    charge.take(seen)
    charge.back(before, "sensors a and b share /dev/ttyS0")
    assert (charge.cameras, charge.sensors) == ((YARD,), (HEAT,))
    assert set(charge.entries) == {YARD.key, HEAT.key}
    assert charge.refused[0].startswith("config topic, camera/gate")
    assert charge.refused[1] == "sensors a and b share /dev/ttyS0"


def test_what_is_taken_out_stays_out_also_after_a_restart(last_good: LastGood) -> None:
    charge, seen = DesiredConfiguration(SITE, last_good), view(GATE, YARD)
    charge.take(seen)
    seen.apply(YARD.key, b"")
    seen.apply(GATE.key, b"")
    charge.take(seen)
    assert charge.cameras == ()  # and not the file's gate
    charge.keep()
    again = DesiredConfiguration(SITE, last_good)
    assert again.cameras == ()
    again.take(view(AWAY))
    assert again.cameras == ()


def test_a_site_with_a_new_name_begins_with_its_file_again(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(YARD))
    charge.keep()
    renamed = DesiredConfiguration(Site(name="west", cameras=(AWAY.model_copy(update={"site": "west"}),)), last_good)
    assert [camera.name for camera in renamed.cameras] == ["away"]
    renamed.take(view(YARD))  # as long as the topic has the old name only
    assert [camera.name for camera in renamed.cameras] == ["away"]


def test_a_camera_that_another_site_has_now_is_gone(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(GATE))
    charge.take(view(GATE.model_copy(update={"site": "south"})))
    assert charge.cameras == ()


def test_a_topic_that_has_lost_the_site_takes_nothing_away(last_good: LastGood) -> None:
    """It was deleted and made anew, and another site was applied first."""
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(YARD))
    charge.take(view(AWAY))
    assert charge.cameras == (YARD,)
    assert "nothing of site north" in charge.refused[0]
    charge.keep()
    assert DesiredConfiguration(SITE, last_good).cameras == (YARD,)
    charge.take(ConfigView())
    assert charge.cameras == (YARD,)
    charge.take(view(AWAY, GATE))  # and then it has the site again: as it says now, and no more
    assert (charge.cameras, charge.refused) == ((GATE,), [])


def test_of_a_site_that_was_lost_nothing_runs_that_is_said_to_be_elsewhere_or_gone_and_pins_stay(
    last_good: LastGood,
) -> None:
    """An agent that was off for longer than the topic keeps a tombstone comes back to a part of the story."""
    pin = PinConfig(name="yard", partition=3)
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(GATE, YARD, HEAT, pin))
    seen = view(GATE.model_copy(update={"site": "south"}), HEAT)
    seen.apply(HEAT.key, b"")
    charge.take(seen)
    assert (charge.cameras, charge.sensors, charge.pins) == ((YARD,), (), {"yard": 3})
    charge.keep()
    assert DesiredConfiguration(SITE, last_good).pins == {"yard": 3}


def test_where_no_topic_is_followed_the_file_is_in_charge_whatever_was_kept(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good)
    charge.take(view(YARD))
    charge.keep()
    assert DesiredConfiguration(SITE, None).cameras == (GATE,)


def test_only_refusals_of_what_an_agent_reads_are_told_and_not_too_many(last_good: LastGood) -> None:
    charge, seen = DesiredConfiguration(SITE, last_good), view(GATE)
    seen.apply("rule/bad", b"{}")
    for number in range(40):
        seen.apply(f"camera/c{number:02}", b"{}")
    charge.take(seen)
    assert len(charge.refused) == 6
    assert charge.refused[-1] == "and 35 more"


def test_an_agent_may_have_a_part_of_the_cameras(last_good: LastGood) -> None:
    charge = DesiredConfiguration(SITE, last_good, only=["yard"])
    assert charge.cameras == ()
    charge.take(view(GATE, YARD))
    assert charge.cameras == (YARD,)


def test_agents_that_share_a_site_do_not_both_read_its_sensors(last_good: LastGood) -> None:
    site = Site(name="north", cameras=(GATE, YARD), sensors=(HEAT,))
    ours, theirs = (
        DesiredConfiguration(site, last_good, only=["gate"]),
        DesiredConfiguration(site, last_good, only=["yard", "heat"]),
    )
    assert (ours.cameras, ours.sensors) == ((GATE,), ())
    assert (theirs.cameras, theirs.sensors) == ((YARD,), (HEAT,))


def test_a_site_without_a_name_owns_what_names_none(last_good: LastGood) -> None:
    charge = DesiredConfiguration(Site(), last_good)
    charge.take(view(GATE, CameraConfig(name="plain", source="device:3")))
    assert [c.name for c in charge.cameras] == ["plain"]
