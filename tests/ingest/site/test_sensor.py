"""Tests of a sensor's source and options."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.site import SensorConfig

BUS = {"address": 0}
ARGV = {"argv": ["read-it"]}


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("simulated:temperature", {"seed": 3}),
        ("host:cpu", {}),
        ("host:disk", {"path": "/srv"}),
        ("mqtt:plant/+/temp/#", {"tls": True, "username": "agent", "password_file": "/run/secrets/mqtt"}),
        ("mqtt:#", {}),
        ("mqtt:$SYS/broker/load", {}),
        ("command:gpio", ARGV | {"format": "csv"}),
        ("command:gpio", ARGV | {"format": "csv", "header": '"a, b";"c"'}),
        ("command:gpio", {}),
        ("serial:/dev/ttyUSB0", {"baud": 115200}),
        ("modbus:10.0.0.5", BUS),
        ("modbus:plc.example:1502", BUS | {"type": "float32", "word_order": "little"}),
        ("modbus:[::1]:1502", BUS),
        ("modbus:/dev/ttyUSB0", BUS | {"parity": "E"}),
    ],
)
def test_a_valid_sensor_source_and_its_options_are_accepted(source: str, options: dict[str, Any]) -> None:
    sensor = SensorConfig(name="s", source=source, quantity="q", unit="1", options=options)
    assert set(options) <= set(type(sensor.parsed).model_fields)
    assert SensorConfig.model_validate_json(sensor.model_dump_json()) == sensor


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("thermometer", {}, "begins with one of simulated:, host:, mqtt:"),
        ("opcua:plc", {}, "begins with one of simulated:, host:, mqtt:"),
        ("host:fan", {}, "host: and one of cpu, memory, load, temperature, disk"),
        ("mqtt:", {}, "expected mqtt:TOPIC"),
        ("mqtt:a/b+/c", {}, "expected mqtt:TOPIC"),
        ("mqtt:a/#/c", {}, "expected mqtt:TOPIC"),
        ("mqtt:a", {"password": "x"}, "options.password: a known key (extra keys are not permitted)"),
        ("mqtt:a", {"ca_file": "/ca.pem"}, "options: tls = true, because ca_file or cert_file is set"),
        ("mqtt:a", {"password_file": "/secret"}, "options: username as well, because password_file is set"),
        ("command:gpio", {"argv": []}, "options.argv"),
        ("command:gpio", ARGV | {"header": 'time,"Hall'}, "options.header: a header of one line of CSV"),
        ("serial:ttyUSB0", {}, "expected serial:/dev/"),
        ("serial:/dev/ttyUSB0", {"baud": 1}, "options.baud"),
        ("modbus:10.0.0.5:port", BUS, "expected modbus:HOST"),
        ("modbus:10.0.0.5", {}, "options.address: a value, as this key is required"),
        ("modbus:10.0.0.5", BUS | {"type": "int8"}, "options.type"),
        ("simulated:x", {"sead": 1}, "options.sead: a known key (extra keys are not permitted)"),
    ],
)
def test_the_error_for_an_invalid_sensor_source_or_option_names_the_expected_value(
    source: str, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(expected)):
        SensorConfig(name="s", source=source, quantity="q", unit="1", options=options)


def test_a_sensor_whose_low_limit_is_above_its_high_limit_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected low <= high, not low = 5 and high = 1"):
        SensorConfig(name="s", source="simulated:x", quantity="q", unit="1", low=5, high=1)
