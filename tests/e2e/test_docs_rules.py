"""Tests that the reference of rules matches the code."""

from __future__ import annotations

import re

import pytest

from ingest.site import ForecastConfig, MeasureConfig
from stream.analyse.rule import CameraRule
from stream.join.rule import JoinRule
from stream.rules import Rule, plug_ins, rule_type
from stream.sense.rule import SensorRule, WindowRule
from tests.e2e.test_docs_sensors import cells, quoted, section

RULES = {name: cls for name, cls in plug_ins().items() if cls.__module__.startswith("stream.")}
TABLE = section("configuration.md", "### `[[rules]]`")


def row(name: str) -> tuple[str, str]:
    """Return the cells "Keys" and "Event" of a rule."""
    (line,) = (line for line in TABLE.splitlines() if line.startswith(f"| `{name}` |") and line.count("|") == 6)
    _, _, _, keys, event, _, _ = line.split("|")
    return keys, event.strip(" `")


def own_keys(name: str) -> set[str]:
    """Return the keys that a rule adds to those of all rules, or whose default it changes."""
    base = next(
        base for base in (JoinRule, CameraRule, WindowRule, SensorRule, Rule) if issubclass(RULES[name], base)
    )
    common = {key: field.default for key, field in base.model_fields.items()}
    return {
        key
        for key, field in RULES[name].model_fields.items()
        if key != "type" and (key not in common or field.default != common[key])
    }


@pytest.mark.parametrize("name", RULES)
def test_the_reference_lists_every_key_and_the_event_of_each_rule(name: str) -> None:
    keys, event = row(name)
    assert own_keys(name) <= quoted(keys)
    assert event == RULES[name].EVENT_TYPE
    assert rule_type(RULES[name]) == name


@pytest.mark.parametrize("name", RULES)
def test_the_reference_states_the_default_of_each_number_of_a_rule(name: str) -> None:
    keys, _ = row(name)
    stated = {}
    for before, value in re.findall(r"([^;]*?)\(default:? ([\d.]+)°?\)", keys):
        key = [one for one in re.findall(r"`(\w+)`", before) if one in own_keys(name)][-1]
        stated[key] = float(value)
    fields = RULES[name].model_fields
    defaults = {key: fields[key].default for key in own_keys(name)}
    assert stated == {key: value for key, value in defaults.items() if isinstance(value, int | float)}


def test_the_reference_lists_every_key_of_a_measure() -> None:
    text = section("measures.md", "# Measures")
    assert set(MeasureConfig.model_fields) - {"sites"} <= quoted(" ".join(cells(text, 0)))


def test_the_reference_lists_every_key_of_a_forecast() -> None:
    text = section("configuration.md", "### `[[forecasts]]`")
    assert set(ForecastConfig.model_fields) - {"sites"} <= quoted(" ".join(cells(text, 0)))
