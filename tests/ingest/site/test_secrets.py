"""Tests that error messages about a site contain no secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.exceptions import ConfigError
from ingest.site import load, parse_entry


def test_a_password_in_an_invalid_source_is_masked() -> None:
    entry = b'{"name": "a", "source": "rtsp://user:hunter2@host/x", "quantity": "q", "unit": "u"}'
    with pytest.raises(ConfigError) as caught:
        parse_entry("sensor/a", entry)
    assert "hunter2" not in str(caught.value)
    assert "mqtt:" in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "a", "source": "x", "stream": {"user": "u", "password": "hunter2"}},
        {"source": "http://host/shot?user=u&pwd=hunter2"},
        {"name": "a", "source": "x", "fps": "http://host/shot;token=hunter2"},
        {"name": "a", "source": {"API_TOKEN": "hunter2"}},
    ],
)
def test_the_value_of_a_password_like_key_is_masked(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_entry("camera/a", json.dumps(values).encode())
    assert "hunter2" not in str(caught.value)
    assert "…" in str(caught.value)


def test_a_password_among_a_sensors_options_is_masked(tmp_path: Path) -> None:
    sensor = '[[sensors]]\nname = "s"\nsource = "mqtt:a"\nquantity = "q"\nunit = "u"\n'
    file = tmp_path / "site.toml"
    file.write_text(f'{sensor}options = {{password = "hunter2"}}\n')
    with pytest.raises(ConfigError, match=r"options\.password") as caught:
        load(file)
    assert "hunter2" not in str(caught.value)
