"""The last good configuration on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.lastgood import LastGood, SavedConfiguration
from ingest.site import CameraConfig, ConfigEntry, PinConfig, SensorConfig

GATE = CameraConfig(name="gate", source="device:0")
HEAT = SensorConfig(name="heat", source="simulated:temperature", quantity="temperature", unit="Cel")
PIN = PinConfig(name="gate", partition=3)


def test_it_comes_back(tmp_path: Path) -> None:
    kept = LastGood(tmp_path / "config.json")
    assert kept.load() == SavedConfiguration()
    for said in (
        SavedConfiguration({GATE.key: GATE, HEAT.key: HEAT}, topic_holds=True),
        SavedConfiguration({}, topic_holds=True),
        SavedConfiguration(),
    ):
        kept.save(said)
        assert kept.load() == said


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '"x"', "\x00", "{}", '{"entries": []}', '{"entries": {}}', "[" * 10**5, '{"camera/gate": {}}'],
    ids=lambda text: repr(text[:20]),  # one of them is long
)
def test_a_ruined_file_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    assert LastGood(path).load() == SavedConfiguration()


def test_what_another_version_wrote_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    kept = SavedConfiguration({GATE.key: GATE}, topic_holds=True)
    LastGood(path).save(kept)
    path.write_text(path.read_text().replace('s": {', 's": {"camera/new": {"name": "new", "shape": 3},', 1))
    assert LastGood(path).load() == kept


@pytest.mark.parametrize(("entries", "topic_holds"), [((GATE, PIN), True), ((PIN,), False)])
def test_what_a_version_before_wrote_holds(
    tmp_path: Path, entries: tuple[ConfigEntry, ...], topic_holds: bool
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({entry.key: entry.model_dump(mode="json") for entry in entries}))
    assert LastGood(path).load() == SavedConfiguration({entry.key: entry for entry in entries}, topic_holds)


def test_where_nothing_can_be_read_the_file_is_in_charge_again(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"topic_holds": true, "entries": {"camera/new": {"name": "new", "shape": 3}}}')
    assert LastGood(path).load() == SavedConfiguration()


def test_a_write_that_is_cut_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    LastGood(path).save(SavedConfiguration({GATE.key: GATE}))
    path.with_suffix(".new").write_text('{"camera/ga')  # a power cut in the middle of the next
    assert LastGood(path).load().entries == {GATE.key: GATE}


def test_a_disk_that_does_not_take_it_stops_nothing(tmp_path: Path) -> None:
    LastGood(tmp_path / "missing" / "config.json").save(SavedConfiguration({GATE.key: GATE}))
