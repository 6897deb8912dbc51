"""Tests of the last good configuration on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.lastgood import LastGood, SavedConfiguration
from ingest.site import CameraConfig, PinConfig, SensorConfig

GATE = CameraConfig(name="gate", source="device:0")
HEAT = SensorConfig(name="heat", source="simulated:temperature", quantity="temperature", unit="Cel")
PIN = PinConfig(name="gate", partition=3)


def test_a_saved_last_good_configuration_is_loaded_again(tmp_path: Path) -> None:
    kept = LastGood(tmp_path / "config.json")
    assert kept.load() == SavedConfiguration()
    for saved in (
        SavedConfiguration({GATE.key: GATE, HEAT.key: HEAT}, topic_holds=True),
        SavedConfiguration({}, topic_holds=True),
        SavedConfiguration(),
    ):
        kept.save(saved)
        assert kept.load() == saved


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '"x"',
        "\x00",
        "{}",
        '{"entries": []}',
        '{"entries": {}}',
        "[" * 10**5,
        '{"camera/gate": {}}',
        '{"topic_holds": true}',
    ],
    ids=lambda text: repr(text[:20]),
)
def test_an_unreadable_last_good_configuration_file_gives_an_empty_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    assert LastGood(path).load() == SavedConfiguration()


def test_saved_config_entries_of_another_version_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    kept = SavedConfiguration({GATE.key: GATE}, topic_holds=True)
    LastGood(path).save(kept)
    path.write_text(path.read_text().replace('s": {', 's": {"camera/new": {"name": "new", "shape": 3},', 1))
    assert LastGood(path).load() == kept


def test_the_site_file_is_used_if_no_saved_config_entry_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"topic_holds": true, "entries": {"camera/new": {"name": "new", "shape": 3}}}')
    assert LastGood(path).load() == SavedConfiguration()


def test_an_interrupted_save_leaves_the_old_last_good_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    LastGood(path).save(SavedConfiguration({GATE.key: GATE}))
    path.with_suffix(".new").write_text('{"camera/ga')  # a power cut during the next save
    assert LastGood(path).load().entries == {GATE.key: GATE}


def test_a_failure_to_save_the_last_good_configuration_is_only_logged(tmp_path: Path) -> None:
    LastGood(tmp_path / "missing" / "config.json").save(SavedConfiguration({GATE.key: GATE}))
