"""Tests of the changes that applying one site makes to the config topic."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ingest.site import CameraConfig, ConfigEntry, PinConfig, PipelineConfig, ReceiverConfig, SensorConfig, Site
from ingest.site.topic.changes import ConfigChanges, site_changes
from stream.analyse.rules.line import LineRule

CARS = PipelineConfig(name="cars", model="m", width=4, height=4)
GATE = CameraConfig(name="gate", source="device:0")
HEAT = SensorConfig(name="heat", source="simulated:x", quantity="q", unit="u")
LINE = LineRule(name="in", camera="gate", pipeline="cars", start=(0, 0), end=(1, 1))
PAGER = ReceiverConfig(name="pager", url="http://x", secret_file=Path("s"))
NORTH = Site(name="north", cameras=(GATE,), sensors=(HEAT,), pipelines=(CARS,), rules=(LINE,), receivers=(PAGER,))
YARD = CameraConfig(name="yard", source="device:1")
SOUTH = Site(name="south", cameras=(YARD,), pipelines=(CARS,), receivers=(PAGER,))

Topic = dict[str, ConfigEntry]


def applied(topic: Topic, site: Site, *, take_over: bool = False) -> Topic:
    return after(topic, site_changes(site, topic, take_over=take_over))


def after(topic: Topic, found: ConfigChanges) -> Topic:
    assert not found.conflicts
    written = {entry.key: entry for entry in found.written}
    return {key: entry for key, entry in (topic | written).items() if key not in found.removed}


def test_applying_a_site_twice_changes_nothing_the_second_time() -> None:
    topic = applied({}, NORTH)
    assert set(topic) == {"camera/gate", "sensor/heat", "pipeline/cars", "rule/in", "receiver/pager"}
    assert site_changes(NORTH, topic) == ConfigChanges()


def test_applying_a_site_leaves_the_entries_of_another_site_unchanged() -> None:
    north = applied({}, NORTH)
    both = applied(north, SOUTH)
    assert set(both) == {*north, "camera/yard"}
    assert (both["camera/gate"], both["rule/in"]) == (north["camera/gate"], north["rule/in"])
    without = applied(both, Site(name="south"))
    assert without == north


def test_a_config_entry_of_several_sites_is_removed_with_its_last_site() -> None:
    topic = applied(applied({}, NORTH), SOUTH)
    assert topic["pipeline/cars"].model_dump()["sites"] == ("north", "south")
    topic = applied(topic, Site(name="north"))
    assert set(topic) == {"camera/yard", "pipeline/cars", "receiver/pager"}
    assert applied(topic, Site(name="south")) == {}


def test_the_changed_fields_of_a_config_entry_are_listed() -> None:
    topic = applied({}, NORTH)
    faster = NORTH.model_copy(update={"cameras": (NORTH.cameras[0].model_copy(update={"fps": 3.0}),)})
    found = site_changes(faster, topic)
    assert found.fields == {"camera/gate": ["fps"]}
    assert not found.added
    assert not found.removed


def test_a_camera_moves_to_another_site_only_with_take_over_and_stays_there() -> None:
    topic = applied({}, NORTH)
    moved = Site(name="south", cameras=(GATE,))
    assert site_changes(moved, topic).conflicts == {"camera/gate": ["north"]}
    topic = applied(topic, moved, take_over=True)
    assert topic["camera/gate"] == moved.cameras[0]
    assert site_changes(NORTH, topic).conflicts == {"camera/gate": ["south"]}
    assert applied(topic, Site(name="north")) == {"camera/gate": moved.cameras[0]}


def test_a_site_is_renamed_by_the_two_steps_of_the_guide() -> None:
    topic = applied({}, NORTH)
    west = Site(name="west", cameras=(GATE,), sensors=(HEAT,), pipelines=(CARS,), rules=(LINE,), receivers=(PAGER,))
    assert applied(applied(topic, west, take_over=True), Site(name="north")) == applied({}, west)


def test_a_shared_pipeline_changes_for_both_sites_only_with_take_over() -> None:
    topic = applied(applied({}, NORTH), SOUTH)
    other = SOUTH.model_copy(update={"pipelines": (CARS.model_copy(update={"model": "n"}),)})
    assert site_changes(other, topic).conflicts == {"pipeline/cars": ["north"]}
    found = site_changes(other, topic, take_over=True)
    assert set(found.taken_over) == {"pipeline/cars"}
    assert after(topic, found)["pipeline/cars"].model_dump()["sites"] == ("north", "south")


def test_applying_a_site_keeps_partition_pins_and_reports_entries_that_no_site_owns() -> None:
    pin = PinConfig(name="gate", partition=3)
    old = LINE.model_copy(update={"name": "old"})
    topic: Topic = {pin.key: pin, old.key: old, CARS.key: CARS}
    found = site_changes(NORTH, topic)
    assert found.unclaimed == ["rule/old"]
    assert found.fields == {"pipeline/cars": ["sites"]}  # the site now owns the entries of its file
    assert set(after(topic, found)) >= {pin.key, old.key}


def test_applying_a_site_replaces_an_invalid_config_entry_even_if_the_valid_entry_before_it_was_equal() -> None:
    topic = applied({}, NORTH)
    assert set(site_changes(NORTH, topic, refused=["camera/gate"]).changed) == {"camera/gate"}
    assert set(site_changes(NORTH, {}, refused=["camera/gate"]).changed) == {"camera/gate"}


def test_an_unnamed_site_owns_the_entries_that_name_no_site() -> None:
    topic = applied(applied({}, NORTH), Site(cameras=(YARD,), pipelines=(CARS,)))
    assert topic["pipeline/cars"].model_dump()["sites"] == ("north", "site")
    assert set(applied(topic, Site())) == set(applied({}, NORTH))


_sites = st.builds(
    lambda name, cameras, pipelines: Site(
        name=name,
        cameras=tuple(CameraConfig(name=f"{name}-{c}", source="x") for c in sorted(cameras)),
        pipelines=tuple(CARS.model_copy(update={"name": p}) for p in sorted(pipelines)),
    ),
    st.sampled_from(["north", "south", "site"]),
    st.sets(st.sampled_from("abc")),
    st.sets(st.sampled_from("pqr")),
)


@given(st.lists(_sites, max_size=8))
def test_the_config_topic_has_the_union_of_the_last_version_of_each_site(applications: list[Site]) -> None:
    topic: Topic = {}
    for site in applications:
        topic = applied(topic, site)
    last = {site.name: site for site in applications}
    assert set(topic) == {entry.key for site in last.values() for entry in site.entries()}
