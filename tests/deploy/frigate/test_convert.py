"""Tests of the conversion of a Frigate configuration."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.frigate.convert import WHOLE_PICTURE, FrigateSite, PipelineChoice, convert
from ingest.exceptions import ConfigError
from ingest.site import Site
from stream.rules import validated_site

CHOICE = PipelineChoice("yolox-nano", 416, 416)
INPUTS = {"inputs": [{"path": "rtsp://10.0.0.5:554/sub", "roles": ["detect"]}]}
PORCH = "0.1,0.5,0.9,0.5,0.9,1,0.1,1"
STREET = {"coordinates": "0.2,0.9,0.8,0.9,0.6,0.4,0.4,0.4", "distances": "10,12,10,12"}


def converted(camera: dict[str, Any] | None = None, **top: Any) -> FrigateSite:
    """Convert a configuration with one camera. The result is a valid site."""
    values = {**top, "cameras": {"door": {"ffmpeg": INPUTS, **(camera or {})}}}
    found = convert(yaml.safe_dump(values), "home", CHOICE, "/secrets")
    validated_site(Site.model_validate(found.site), Path("site.toml"))
    return found


def camera_of(found: FrigateSite) -> dict[str, Any]:
    (camera,) = found.site["cameras"]
    return dict(camera)


def rules_of(found: FrigateSite) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in found.site.get("rules", ())}


def notes_of(found: FrigateSite) -> dict[str, str]:
    return dict(found.notes)


def test_a_camera_without_zones_gets_a_rule_over_the_whole_picture() -> None:
    found = converted()
    assert camera_of(found) == {"name": "door", "source": "rtsp://10.0.0.5:554/sub"}
    (rule,) = rules_of(found).values()
    assert (rule["name"], rule["labels"], rule["severity"]) == ("door-alert", ["person"], "warning")
    assert rule["polygon"] == WHOLE_PICTURE
    assert found.notes == []


def test_tracked_labels_without_alerts_become_a_rule_of_severity_info() -> None:
    rules = rules_of(converted(objects={"track": ["person", "dog"]}))
    assert {name: (rule["labels"], rule["severity"]) for name, rule in rules.items()} == {
        "door-alert": (["person"], "warning"),
        "door-detection": (["dog"], "info"),
    }


def test_a_zone_that_frigate_requires_for_alerts_becomes_a_warning_rule_in_place_of_a_whole_picture_rule() -> None:
    zones = {
        "Front Porch": {"coordinates": PORCH, "objects": ["person"], "loitering_time": 4},
        "lawn": {"coordinates": [*PORCH.split(",")], "objects": "dog"},
    }
    review = {"alerts": {"required_zones": ["Front Porch"]}, "detections": {"required_zones": ["lawn"]}}
    rules = rules_of(converted({"zones": zones, "review": review}, objects={"track": ["person", "dog"]}))
    assert {name: (rule["labels"], rule["severity"], rule.get("dwell_s")) for name, rule in rules.items()} == {
        "door-front-porch": (["person"], "warning", 4.0),
        "door-lawn": (["dog"], "info", None),
    }
    assert rules["door-lawn"]["polygon"] == rules["door-front-porch"]["polygon"]


def test_each_minimum_score_gets_a_rule_of_its_own() -> None:
    filters = {"person": {"threshold": 0.75}, "car": {"threshold": 0.6}}
    rules = rules_of(converted(objects={"track": ["person", "car"], "filters": filters}))
    assert {name: (rule["labels"], rule["min_score"]) for name, rule in rules.items()} == {
        "door-alert": (["person"], 0.75),
        "door-alert-car": (["car"], 0.6),
    }


def test_the_settings_of_a_camera_override_the_global_settings() -> None:
    found = converted({"detect": {"fps": 10}}, detect={"fps": 2, "width": 1280, "height": 720})
    camera = camera_of(found)
    assert (camera["gate"], camera["width"], camera["height"]) == ({"open_fps": 10.0}, 1280, 720)


@pytest.mark.parametrize(
    "mask",
    [
        "0,0,1280,0,1280,72,0,72",
        ["0,0,1,0,1,0.1,0,0.1"],
        {"clock": {"coordinates": "0,0,1,0,1,0.1,0,0.1"}, "tree": {"enabled": False, "coordinates": PORCH}},
    ],
)
def test_motion_masks_in_pixels_or_shares_become_masks_of_the_gate(mask: Any) -> None:
    found = converted({"motion": {"mask": mask}, "detect": {"width": 1280, "height": 720}})
    assert camera_of(found)["gate"]["masks"] == [[[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 0.1]]]


def test_a_literal_password_becomes_a_file_and_is_not_in_the_site() -> None:
    inputs = [{"path": "rtsp://admin:s3cret%21@10.0.0.7/live", "roles": ["detect"]}]
    found = converted({"ffmpeg": {"inputs": inputs}})
    assert found.passwords == {"door.password": "s3cret!"}
    assert "s3cret" not in str(found.site)
    assert camera_of(found)["source"] == "rtsp://10.0.0.7/live"
    assert camera_of(found)["stream"] == {"user": "admin", "password_file": "/secrets/door.password"}


@pytest.mark.parametrize("password", ["pa#ss", "p/w", "p?w=1", "p@ss", "[x", "ü+ %"])
def test_a_password_with_characters_that_are_special_in_urls_is_removed_from_the_source_address(
    password: str,
) -> None:
    address = f"rtsp://admin:{password}@10.0.0.7:554/live?a=1#b".replace(" ", "%20")
    found = converted({"ffmpeg": {"inputs": [{"path": address}]}})
    assert found.passwords == {"door.password": password}
    assert camera_of(found)["source"] == "rtsp://10.0.0.7:554/live?a=1#b"


def test_a_variable_within_a_password_is_noted_because_the_password_file_has_no_variables() -> None:
    found = converted({"ffmpeg": {"inputs": [{"path": "rtsp://admin:x{FRIGATE_PIN}@10.0.0.7/live"}]}})
    assert notes_of(found)["cameras.door.ffmpeg.inputs.path"].startswith("replace ${FRIGATE_PIN} in the file door.")


def test_a_password_from_the_environment_stays_a_variable() -> None:
    inputs = [{"path": "rtsp://{FRIGATE_USER}:{FRIGATE_PASSWORD}@10.0.0.7/live", "roles": ["detect"]}]
    found = converted({"ffmpeg": {"inputs": inputs}})
    assert camera_of(found)["source"] == "rtsp://${FRIGATE_USER}:${FRIGATE_PASSWORD}@10.0.0.7/live"
    assert found.passwords == {}
    assert [note.text for note in found.notes] == [
        "set FRIGATE_USER in the environment of the camera's agent",
        "set FRIGATE_PASSWORD in the environment of the camera's agent",
    ]


def test_a_stream_of_go2rtc_is_replaced_by_the_address_of_the_camera() -> None:
    inputs = [{"path": "rtsp://127.0.0.1:8554/yard", "input_args": "preset-rtsp-udp", "roles": ["detect", "record"]}]
    streams = {"yard": ["ffmpeg:rtsp://10.0.0.7/live#audio=opus", "ffmpeg:yard#audio=aac"]}
    found = converted({"ffmpeg": {"inputs": inputs}}, go2rtc={"streams": streams})
    assert camera_of(found)["source"] == "rtsp://10.0.0.7/live"
    assert camera_of(found)["stream"] == {"transport": "udp"}


def test_distances_of_a_frigate_zone_become_a_ground_plane_and_its_speed_threshold_a_rule() -> None:
    zones = {"street": {**STREET, "speed_threshold": 30, "objects": "car"}}
    found = converted({"zones": zones}, objects={"track": ["car"]}, ui={"unit_system": "imperial"})
    plane = camera_of(found)["ground"]
    assert plane["corners"] == [[0.2, 0.9], [0.8, 0.9], [0.6, 0.4], [0.4, 0.4]]
    assert (plane["width_m"], plane["length_m"]) == (3.048, 3.658)
    assert rules_of(found)["door-street-speed"]["above_km_h"] == 48.28


@pytest.mark.parametrize("turned", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_order_of_the_corners_does_not_change_the_ground_plane(turned: int, mirrored: bool) -> None:
    corners = [[0.2, 0.9], [0.8, 0.9], [0.6, 0.4], [0.4, 0.4]]
    edges = [10.0, 12.0, 9.0, 11.0]
    corners, edges = corners[turned:] + corners[:turned], edges[turned:] + edges[:turned]
    if mirrored:
        corners, edges = corners[::-1], [*edges[-2::-1], edges[-1]]
    zone = {
        "coordinates": ",".join(str(part) for corner in corners for part in corner),
        "distances": ",".join(map(str, edges)),
    }
    plane = camera_of(converted({"zones": {"street": zone}}))["ground"]
    assert plane["corners"] == [[0.2, 0.9], [0.8, 0.9], [0.6, 0.4], [0.4, 0.4]]
    assert (plane["width_m"], plane["length_m"]) == (10.0, 12.0)


def test_cameras_that_are_off_or_cannot_be_read_are_left_out_with_a_note() -> None:
    cameras = {
        "door": {"ffmpeg": INPUTS},
        "old": {"enabled": False, "ffmpeg": INPUTS, "onvif": {"host": "10.0.0.9"}},
        "flash": {"ffmpeg": {"inputs": [{"path": "rtmp://10.0.0.10/x", "roles": ["detect"]}]}},
    }
    found = convert(yaml.safe_dump({"cameras": cameras}), "home", CHOICE, "/secrets")
    assert [camera["name"] for camera in found.site["cameras"]] == ["door"]
    assert notes_of(found).keys() == {"cameras.old.enabled", "cameras.flash.ffmpeg.inputs.path"}


def test_each_key_without_an_equivalent_has_one_note() -> None:
    found = converted(
        {"onvif": {"host": "10.0.0.7", "port": 80}, "zones": {"porch": {"coordinates": PORCH, "inertia": 3}}},
        mqtt={"host": "mqtt.local"},
        objects={"track": ["person"], "filters": {"person": {"min_area": 5000}}},
        surprise=1,
    )
    assert notes_of(found).keys() == {
        "cameras.door.onvif",
        "cameras.door.zones.porch.inertia",
        "mqtt",
        "objects.filters",
        "surprise",
    }


def test_cameras_whose_names_differ_only_in_case_get_different_names() -> None:
    cameras = {"Door": {"ffmpeg": INPUTS}, "door": {"ffmpeg": INPUTS}}
    found = convert(yaml.safe_dump({"cameras": cameras}, sort_keys=False), "home", CHOICE, "/secrets")
    assert [camera["name"] for camera in found.site["cameras"]] == ["door", "door-2"]
    assert notes_of(found)["cameras.Door"] == "the camera is called door: names have lower-case letters"


def test_rules_whose_names_would_be_equal_get_different_names() -> None:
    zone = {"coordinates": PORCH}
    cameras = {
        "a": {"ffmpeg": INPUTS, "zones": {"alert": zone, "b-c": zone}},
        "a-b": {"ffmpeg": INPUTS, "zones": {"c": zone, "x" * 100: zone}},
        "y" * 100: {"ffmpeg": INPUTS},
    }
    found = convert(yaml.safe_dump({"cameras": cameras}), "home", CHOICE, "/secrets")
    validated_site(Site.model_validate(found.site), Path("site.toml"))
    assert {"a-alert", "a-alert-2", "a-b-c", "a-b-c-2"} <= rules_of(found).keys()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cameras: [", "valid YAML"),
        ("- 1", "a mapping with the key cameras"),
        ("cameras: {}", "at least one camera"),
        ("cameras: {a: {ffmpeg: {inputs: []}}}", "cameras.a.ffmpeg.inputs"),
        ("cameras: {a: {ffmpeg: {inputs: [{path: rtsp://h/x}]}, detect: {fps: fast}}}", "cameras.a.detect.fps"),
        ("cameras: {a: {ffmpeg: {inputs: [{path: rtsp://h/x}]}, motion: {mask: '1,2'}}}", "three corners"),
        ("cameras: {a: {ffmpeg: {inputs: [{path: rtsp://h/x}]}, motion: {mask: '0,0,9,0,9,9'}}}", "width and height"),
        ("cameras: {a: {ffmpeg: {inputs: [{path: 'rtsp://[h/x'}]}}}", r"path = '\(not shown"),
        ("cameras: {a: {ffmpeg: {inputs: [{path: rtsp://h/x, roles: 5}]}}}", "inputs.roles = '5': expected a list"),
        ("cameras: {a: {ffmpeg: {inputs: [{path: rtsp://h/x}]}, detect: {width: .nan, height: 1}}}", "detect.width"),
        ("cameras: &a {b: *a}", "valid YAML"),
        ("a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]", "more than 20000 keys"),
    ],
)  # fmt: skip
def test_an_error_says_which_key_is_wrong_and_which_value_is_expected(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        convert(text, "home", CHOICE, "/secrets")


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["cameras", "a", "ffmpeg", "inputs", "path", "detect", "zones", "objects", "track", "mask"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_a_malformed_frigate_configuration_raises_no_error_other_than_configerror(values: Any) -> None:
    camera = {"ffmpeg": INPUTS, "zones": values, "motion": values, "objects": values}
    for top in (values, {"cameras": values}, {"cameras": {"door": camera}}, {"cameras": {"d": {"ffmpeg": values}}}):
        with contextlib.suppress(ConfigError):
            convert(yaml.safe_dump(top), "home", CHOICE, "/secrets")


def test_the_command_writes_a_valid_site_file_and_private_password_files(tmp_path: Path) -> None:
    config, out, secrets = tmp_path / "config.yml", tmp_path / "site.toml", tmp_path / "secrets"
    inputs = [{"path": "rtsp://admin:pin@10.0.0.7/live", "roles": ["detect"]}]
    config.write_text(yaml.safe_dump({"mqtt": {"host": "x"}, "cameras": {"door": {"ffmpeg": {"inputs": inputs}}}}))
    argv = ["import", "frigate", str(config), "--out", str(out), "--secrets", str(secrets)]
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert "mqtt: add a [[receivers]] entry" in done.output
    assert "polygon = [\n    [0.0, 0.0],\n" in out.read_text()
    assert (secrets / "door.password").read_text() == "pin\n"
    assert (secrets / "door.password").stat().st_mode & 0o777 == 0o600
    assert CliRunner().invoke(app, ["config", "check", str(out)]).exit_code == 0
    again = CliRunner().invoke(app, argv)
    assert again.exit_code == 2
    assert f"file = '{out}': expected a file that does not exist yet" in again.output


def test_the_command_prints_site_and_notes_as_json_without_passwords(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    inputs = [{"path": "rtsp://admin:s3cret@10.0.0.7/live", "roles": ["detect"]}]
    config.write_text(yaml.safe_dump({"cameras": {"door": {"ffmpeg": {"inputs": inputs}}}}))
    done = CliRunner().invoke(app, ["import", "frigate", str(config), "--json"])
    assert '"password_files": [\n    "door.password"\n  ]' in done.output
    assert "s3cret" not in done.output
    printed = CliRunner().invoke(app, ["import", "frigate", str(config)])
    assert tomllib.loads(printed.stdout)["cameras"][0]["name"] == "door"
    assert "write the camera's password into /etc/sightline/secrets/door.password" in printed.stderr
