"""Tests that the documents of sensors match the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest import site
from ingest.contract.records import (
    BY_HOST,
    BY_HOST_INSTEAD,
    BY_SOURCE,
    OUT_OF_RANGE,
    STALE,
    SUSPECT,
    WITHHELD_READING_REASONS,
)
from ingest.site import SensorConfig
from ingest.site.entry import ConfigSection
from ingest.site.sensor import (
    HOST_QUANTITIES,
    CommandOptions,
    HostOptions,
    ModbusOptions,
    MqttOptions,
    SerialOptions,
    SimulatedOptions,
)
from tests.edge_agent.sensors.feedbench import fed
from tests.paths import ROOT

DOCS = ROOT / "docs"
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", (DOCS / "how-to.md").read_text(), re.DOTALL | re.MULTILINE)


def section(document: str, heading: str) -> str:
    """Return a section of the reference, from its heading to the next heading."""
    text = (DOCS / "reference" / document).read_text()
    return re.split(r"^#", text.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def cells(text: str, column: int) -> list[str]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [row[column].strip() for row in rows]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def loaded(example: str, folder: Path) -> SensorConfig:
    (folder / "site.toml").write_text(example)
    (sensor,) = site.load(folder / "site.toml").sensors
    return sensor


@pytest.mark.parametrize("example", [e for e in EXAMPLES if "[[sensors]]" in e])
def test_every_sensor_example_in_the_how_to_is_valid(example: str, tmp_path: Path) -> None:
    assert loaded(example, tmp_path).parsed


async def test_the_how_to_s_example_of_a_sensor_that_runs_a_command_gives_readings(tmp_path: Path) -> None:
    (example,) = [e for e in EXAMPLES if "command:" in e]
    async with fed(tmp_path, loaded(example, tmp_path)) as bench:
        await bench.until_kept("gateway-load", len)
        await bench.stop()
        assert bench.withheld("gateway-load") == {}


def test_the_reference_lists_every_key_of_a_sensor() -> None:
    keys = quoted(" ".join(cells(section("configuration.md", "### `[[sensors]]`"), 0)))
    assert set(SensorConfig.model_fields) - {"name", "site"} <= keys


OPTIONS: dict[str, tuple[type[ConfigSection], set[str]]] = {
    "simulated:": (SimulatedOptions, set()),
    "host:": (HostOptions, set()),
    "mqtt:": (MqttOptions, set()),
    "command:": (CommandOptions, set()),
    "serial:": (SerialOptions, set()),
    "modbus:HOST": (ModbusOptions, {"baud", "parity", "stopbits"}),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_reference_lists_every_option_of_a_sensor_source(kind: str) -> None:
    text = section("configuration.md", "### `[[sensors]]`")
    rows = zip(cells(text, 0), cells(text, -1), strict=True)
    said = {option for source, options in rows if source.startswith(f"`{kind}") for option in quoted(options)}
    options, of_a_serial_line = OPTIONS[kind]
    assert said == set(options.model_fields) - of_a_serial_line
    assert kind != "host:" or {f"host:{quantity}" for quantity in HOST_QUANTITIES} <= quoted(text)


def test_the_sensor_reference_lists_all_withheld_reasons_quality_flags_and_clocks() -> None:
    reasons = [cell.strip("`") for cell in cells(section("ledger.md", "## Readings"), 0)[2:]]
    assert reasons == list(WITHHELD_READING_REASONS)
    numbers = [int(cell) for cell in cells(section("topics.md", "### Readings"), 0) if cell.isdigit()]
    assert numbers == [SUSPECT, OUT_OF_RANGE, STALE, BY_HOST, BY_SOURCE, BY_HOST_INSTEAD]
