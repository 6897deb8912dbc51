"""Tests of camera addresses: credentials are filled into the URL and never shown in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.exceptions import SourceUnusable
from edge_agent.sources.address import Address, resolve
from edge_agent.sources.factory import SourceContext, make_source
from ingest.exceptions import ConfigError
from ingest.runtime.clock import SystemClock
from ingest.site import CameraConfig, StreamConfig, load, mask_secrets

SECRET = "p@ss/w:o rd%"


def test_a_camera_password_is_read_from_its_file_and_percent_encoded(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nan older one\n")
    address = resolve("rtsp://10.0.0.5:554/a?b=c", StreamConfig(user="ad min", password_file=file))
    assert address == Address("rtsp://10.0.0.5:554/a?b=c", "rtsp://10.0.0.5:554/a?b=c", "ad min", SECRET)
    assert address.with_user == "rtsp://ad%20min:p%40ss%2Fw%3Ao%20rd%25@10.0.0.5:554/a?b=c"
    assert SECRET not in repr(address)


def test_environment_variables_in_a_camera_address_are_replaced_by_their_values() -> None:
    environment = {"CAM_PASSWORD": SECRET, "CAM_HOST": "cam.example"}
    address = resolve("rtsp://admin:${CAM_PASSWORD}@${CAM_HOST}/live", StreamConfig(), environment)
    assert (address.url, address.user, address.password) == ("rtsp://cam.example/live", "admin", SECRET)
    with pytest.raises(SourceUnusable, match="environment variables CAM_PASSWORD"):
        resolve("rtsp://admin:${CAM_PASSWORD}@cam.example/live", StreamConfig(), {})


@pytest.mark.parametrize("source", ["rtsp:///nowhere", "http://", "rtsp://host:port/x", "rtsp://[::1/x"])
def test_an_invalid_camera_address_is_refused(source: str) -> None:
    with pytest.raises(SourceUnusable, match="address cannot be read"):
        resolve(source, StreamConfig(), {})


@pytest.mark.parametrize(
    "source",
    ["rtsp://a:hun/ter2@cam/x", "rtsp://a:hun#ter2@cam/x", "rtsp://a:hun\u2100ter2@cam/x", "rtsp://a:b@[hun/x"],
)
def test_the_error_for_an_unreadable_address_does_not_show_the_address(source: str) -> None:
    with pytest.raises(SourceUnusable, match="address cannot be read") as caught:
        resolve(source, StreamConfig(), {})
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://cam/user=admin&password=${P}&channel=1", "rtsp://cam/user=…&password=…&channel=1"),
        ("rtsp://cam/${P}/live?channel=1&subtype=0", "rtsp://cam/${P}/live?channel=1&subtype=0"),
        ("http://cam/snap.cgi?usr=admin&pwd=hunter2&n=${P}", "http://cam/snap.cgi?usr=…&pwd=…&n=${P}"),
    ],
)
def test_a_secret_in_the_path_or_query_of_a_url_is_masked_in_log_texts(source: str, shown: str) -> None:
    address = resolve(source, StreamConfig(), {"P": "hunter2"})
    assert (address.url, address.shown) == (source.replace("${P}", "hunter2"), shown)
    assert "hunter2" not in address.hide(f"{address.url}: hunter2 is wrong, and {address.with_user}") + repr(address)


def test_the_error_of_an_unreachable_camera_contains_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "hunter2")
    for source in ("http://127.0.0.1:9/snap?pwd=${P}&u=${P}", "rtsp://127.0.0.1:9/user=a&password=${P}"):
        with pytest.raises(SourceUnusable, match=r"127\.0\.0\.1:9/.*refused") as caught:
            make_source(CameraConfig(name="a", source=source), SourceContext(SystemClock(), 0)).open()
        assert "hunter2" not in str(caught.value)


def test_a_camera_address_with_an_unknown_scheme_is_not_read_as_a_file_name() -> None:
    with pytest.raises(SourceUnusable, match=r"unknown scheme rtmp: expected one of .*rtsp") as caught:
        make_source(CameraConfig(name="a", source="rtmp://u:${P}@cam/x"), SourceContext(SystemClock(), 0))
    assert "${P}" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", "\nsecond line"])
def test_an_empty_password_file_of_a_camera_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "empty").write_text(content)
    with pytest.raises(SourceUnusable, match="empty is empty: expected the password in its first line"):
        resolve("rtsp://cam/x", StreamConfig(user="a", password_file=tmp_path / "empty"), {})


def test_the_error_for_a_missing_password_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="password_file"):
        resolve("rtsp://cam/x", StreamConfig(user="a", password_file=tmp_path / "none"), {})


def test_the_camera_password_is_masked_in_messages_of_libraries() -> None:
    address = Address("rtsp://cam/x", "rtsp://cam/x", "admin", SECRET)
    text = f"cannot open {address.with_user}: {SECRET} is wrong"
    assert address.hide(text) == "cannot open rtsp://cam/x: … is wrong"


@pytest.mark.parametrize("source", ["rtsp://admin:hunter2@cam/x", "https://u:a${B}c@cam/x"])
def test_a_password_in_the_site_file_is_refused_and_masked_in_the_error(source: str, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'[[cameras]]\nname = "a"\nsource = "{source}"\n')
    with pytest.raises(ConfigError, match=r"password_file, or write \$\{NAME\}") as caught:
        load(file)
    assert "hunter2" not in str(caught.value)
    assert "a${B}c" not in str(caught.value)
    assert "://…@cam/x" in str(caught.value)


def test_an_error_in_the_stream_options_does_not_show_the_address(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('[[cameras]]\nname = "a"\nsource = "rtsp://u:${P}@cam/x"\nstream = {password_file = "p"}\n')
    with pytest.raises(ConfigError, match="expected user as well, because password_file is set"):
        load(file)


def test_passwords_in_urls_in_nested_settings_are_masked() -> None:
    assert CameraConfig(name="a", source="rtsp://admin:${PASSWORD}@cam/x").source
    shown = mask_secrets({"a": ["rtsp://u:p@h/x", ("http://u@h", 7)], "b": "p@q"})
    assert shown == {"a": ["rtsp://…@h/x", ("http://…@h", 7)], "b": "p@q"}
