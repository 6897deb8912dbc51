"""Tests of the addresses in a site file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.exceptions import ConfigError
from ingest.site import load

RECEIVER = '[[receivers]]\nname = "r"\nurl = "{}"\nsecret_file = "s"\n'
CAMERA = '[[cameras]]\nname = "c"\nsource = "{}"\n'
GATEWAY = '[link]\nkind = "https"\nurl = "{}"\n'

PORT = "port from 1 to 65535"


def loaded(folder: Path, text: str) -> None:
    file = folder / "site.toml"
    file.write_text(text)
    load(file)


@pytest.mark.parametrize(
    "url",
    [
        "http://receiver/",
        "https://hooks.example.org:8443/a/b?c=d&e=%20",
        "http://127.0.0.1:1",
        "http://[::1]:65535/",
        "http://[fe80::1]",
        "https://bücher.example./",
        "http://alert_sink.internal:8080/",
    ],
)
def test_a_complete_receiver_address_is_accepted(url: str, tmp_path: Path) -> None:
    loaded(tmp_path, RECEIVER.format(url))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:80800/", PORT),
        ("http://host:0/", PORT),
        ("http://host:/", PORT),
        ("http://host:-1/", PORT),
        ("http://host:٣/", PORT),
        ("http://host:http/", PORT),
        ("http://[::1]:80800/", PORT),
        ("host:8080/", "http:// or https://"),
        ("ftp://host/", "http:// or https://"),
        ("http:///path", "http:// or https://"),
        ("http://", "http:// or https://"),
        ("http://user:pass@host/", "without a user or password"),
        ("http://user@host/", "without a user or password"),
        ("http://ho st/", "without spaces"),
        ("http://host/\\u0007", "without spaces"),
        ("http://[::1/", "http:// or https://"),
        ("http://[::zz]/", ""),
        ("http://300.1.1.1/", ""),
        ("http://-host/", "valid host name"),
        ("http://a..b/", "valid host name"),
        ("http://host/#part", "fragment"),
    ],
)
def test_an_invalid_receiver_address_is_refused(url: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, RECEIVER.format(url))
    assert caught.value.key == "receivers.0.url"
    assert expected in caught.value.expected
    assert "pass@" not in str(caught.value)


def test_the_error_for_an_invalid_address_names_file_key_value_and_expected_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, RECEIVER.format("http://host:80800/"))
    text = f"{tmp_path / 'site.toml'}: receivers.0.url = 'http://host:80800/': expected a port from 1 to 65535"
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "text",
    [
        CAMERA.format("rtsp://camera:80800/stream"),
        CAMERA.format("http://user:${PASSWORD}@camera:0/stream"),
        GATEWAY.format("https://gateway:80800"),
        GATEWAY.format("http://gateway"),
    ],
)
def test_invalid_addresses_of_cameras_and_gateways_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        loaded(tmp_path, text)


@pytest.mark.parametrize("source", ["rtsp://camera:554/a?b=c:d", "rtsp://u:${P}@[::1]:554/x", "http://camera/?t=1:2"])
def test_valid_camera_addresses_are_accepted(source: str, tmp_path: Path) -> None:
    loaded(tmp_path, CAMERA.format(source))
