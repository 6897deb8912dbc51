"""Tests of reading a site file and the entries of the config topic."""

from __future__ import annotations

import contextlib
import json
import re
import textwrap
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from ingest.exceptions import ConfigError
from ingest.site import (
    CameraConfig,
    PinConfig,
    PipelineConfig,
    ReceiverConfig,
    SensorConfig,
    Site,
    load,
    parse_entry,
    to_pixels,
)
from tests.paths import ROOT

WHOLE = """
name = "north"

[[cameras]]
name = "gate"
source = "simulated:road"
gate = { max_fps = 5.0, motion = false }
redact = { masks = [[[0.0, 0.0], [1.0, 0.0], [1.0, 0.2]]], faces = { model = "faces.onnx" }, method = "fill" }
encode = { encoding = "webp", bytes_per_day = 50_000_000 }

[[sensors]]
name = "t-1"
source = "simulated:temperature"
quantity = "temperature"
unit = "Cel"

[[pipelines]]
name = "cars"
model = "yolox"
width = 416
height = 416
cameras = ["gate"]

[[rules]]
type = "line"
name = "in"
camera = "gate"
pipeline = "cars"
start = [0.5, 0.0]
end = [0.5, 1.0]

[[rules]]
type = "zone"
name = "yard"
camera = "gate"
pipeline = "cars"
labels = ["person"]
polygon = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]

[[rules]]
type = "threshold"
name = "hot"
sensor = "t-1"
above = 30.0

[[receivers]]
name = "pager"
url = "https://example.org/hook"
secret_file = "/run/secrets/pager"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "site.toml"


def problem(file: Path, text: str) -> ConfigError:
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert str(file) in str(raised.value)
    return raised.value


def test_a_site_file_with_every_kind_of_entry_is_read(file: Path) -> None:
    file.write_text(WHOLE)
    site = load(file)
    assert [entry.key for entry in site.entries()] == [
        "camera/gate",
        "sensor/t-1",
        "pipeline/cars",
        "rule/in",
        "rule/yard",
        "rule/hot",
        "receiver/pager",
    ]
    assert [rule.type for rule in site.rules] == ["line", "zone", "threshold"]
    assert site.cameras[0].gate.max_fps == 5.0


def test_every_site_entry_written_as_json_is_read_back_equal(file: Path) -> None:
    file.write_text(WHOLE)
    for entry in (*load(file).entries(), PinConfig(name="gate", partition=3)):
        assert parse_entry(entry.key, entry.model_dump_json().encode()) == entry


def test_a_site_written_as_toml_file_is_read_back_equal(file: Path) -> None:
    file.write_text(WHOLE)
    site = load(file)
    file.write_text(tomli_w.dumps(site.model_dump(mode="json", exclude_none=True)))
    assert load(file) == site


@pytest.mark.parametrize(
    ("before", "after", "key", "value", "expected"),
    [
        ("width = 416", "width = 0", "pipelines.0.width", 0, "greater than 0"),
        ('name = "gate"', 'name = "The Gate"', "cameras.0.name", "The Gate", "a value that matches pattern"),
        ("max_fps = 5.0", "max_fsp = 5.0", "cameras.0.gate.max_fsp", 5.0, "not permitted"),
        ('type = "zone"', "", "rules.1.type", None, "required"),
        ('model = "yolox"', "", "pipelines.0.model", None, "required"),
    ],
)
def test_the_error_for_an_invalid_site_file_names_key_value_and_expected_value(
    file: Path, before: str, after: str, key: str, value: object, expected: str
) -> None:
    assert before in WHOLE
    error = problem(file, WHOLE.replace(before, after, 1))
    assert error.key == key
    assert expected in str(error)
    assert not any(word in str(error) for word in ("expected expected", "expected Input should", "Value error"))
    if value is not None:
        assert error.value == value
        assert repr(value) in str(error)


def test_a_site_file_that_uses_a_name_twice_is_refused(file: Path) -> None:
    error = problem(file, WHOLE + '\n[[receivers]]\nname = "pager"\nurl = "http://u/"\nsecret_file = "f"\n')
    assert "expected each name once per kind of entry, but receiver/pager is defined twice" in str(error)


@pytest.mark.parametrize(("text", "expected"), [("cameras = [", "valid TOML"), ("a = 1\na = 2", "valid TOML")])
def test_a_site_file_with_invalid_toml_is_refused(file: Path, text: str, expected: str) -> None:
    assert expected in str(problem(file, text))


def test_a_binary_file_is_refused_as_site_file(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="expected valid TOML"):
        load(file)


def test_a_missing_site_file_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file or directory.*expected a readable TOML file"):
        load(file)


@pytest.mark.parametrize(
    ("key", "data", "text"),
    [
        ("camra/gate", b"{}", "expected one of camera, forecast, measure, pin, pipeline, receiver, rule, sensor"),
        ("camera/gate", b"{", "expected valid JSON"),
        ("camera/gate", b'{"name": "gate"}', "source"),
        ("pin/gate", b'{"name": "gate", "partition": -1}', "greater than or equal to 0"),
        ("", b"{}", "expected one of"),
    ],
)
def test_an_invalid_entry_of_the_config_topic_is_refused(key: str, data: bytes, text: str) -> None:
    with pytest.raises(ConfigError, match="config topic") as raised:
        parse_entry(key, data)
    assert text in str(raised.value)


def test_an_empty_site_file_gives_a_site_with_default_settings(file: Path) -> None:
    file.write_text("")
    assert load(file) == Site()


@given(
    st.lists(st.text(st.sampled_from("abc"), min_size=1, max_size=2), max_size=3), st.sampled_from(["a", "b", "zz"])
)
def test_a_pipeline_processes_its_named_cameras_or_all_cameras_if_it_names_none(
    named: list[str], camera: str
) -> None:
    pipeline = PipelineConfig(name="p", model="m", width=1, height=1, cameras=tuple(named))
    assert pipeline.wants(camera) == (not named or camera in named)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("redact = { masks = [[[0.1, 0.1], [0.9, 0.9]]] }", "cameras.0.redact.masks.0"),
        ("redact = { masks = [[[0.1, 0.1], [0.9, 0.9], [1.5, 0.2]]] }", "cameras.0.redact.masks.0.2.0"),
        ('redact = { faces = { model = "" } }', "cameras.0.redact.faces"),
        ('redact = { faces = { model = "f.onnx", width = 100 } }', "cameras.0.redact.faces.width"),
        ('redact = { method = "smudge" }', "cameras.0.redact.method"),
        ('encode = { encoding = "gif" }', "cameras.0.encode.encoding"),
        ("encode = { quality = 30, bytes_per_day = 1000 }", "cameras.0.encode"),
    ],
)
def test_invalid_settings_of_redaction_and_encoding_are_refused(file: Path, wrong: str, key: str) -> None:
    assert problem(file, f'[[cameras]]\nname = "a"\nsource = "device:0"\n{wrong}\n').key == key


HOW_TO = ROOT / "docs" / "how-to.md"


@pytest.mark.parametrize("block", re.findall(r"(?:^    .*\n|^\n(?=    ))+", HOW_TO.read_text(), re.MULTILINE))
def test_camera_examples_in_the_how_to_guide_are_valid(file: Path, block: str) -> None:
    if "[[cameras]]" not in block:
        return
    file.write_text(textwrap.dedent(block))
    assert load(file).cameras


def test_the_pipeline_in_the_guide_to_shadow_mode_is_valid(file: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "shadow.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    file.write_text(block)
    (pipeline,) = load(file).pipelines
    assert (pipeline.shadow, pipeline.shadow_share) == ("regions@2", 0.1)


@pytest.mark.parametrize("shadow", ["regions", "regions@", "@2", "regions@new", "regions@02"])
def test_a_shadow_candidate_without_a_version_is_refused(file: Path, shadow: str) -> None:
    pipeline = f'[[pipelines]]\nname = "p"\nmodel = "m"\nwidth = 64\nheight = 64\nshadow = "{shadow}"\n'
    refused = problem(file, pipeline)
    assert refused.key == "pipelines.0.shadow"
    assert "expected a model as NAME@VERSION, such as regions@2" in str(refused)


@pytest.mark.parametrize(
    ("settings", "valid"),
    [
        ({"overload": "lighter", "lighter": "small"}, True),
        ({"overload": "lighter"}, False),
        ({"overload": "every-nth", "lighter": "small"}, False),
        ({"overload": "every-nth"}, True),
    ],
)
def test_the_overload_policy_lighter_and_a_lighter_model_are_refused_without_each_other(
    settings: dict[str, str], valid: bool
) -> None:
    with contextlib.nullcontext() if valid else pytest.raises(ValueError, match="a model in lighter, or neither"):
        PipelineConfig.model_validate({"name": "p", "model": "m", "width": 1, "height": 1, **settings})


@pytest.mark.parametrize(
    ("settings", "goal_s"),
    [({}, 1.0), ({"freshness_s": 2.0}, 2.0), ({"freshness_s": 2.0, "latency_goal_s": 0.5}, 0.5)],
)
def test_the_latency_goal_of_a_pipeline_defaults_to_its_freshness_or_to_one_second(
    settings: dict[str, float], goal_s: float
) -> None:
    assert (
        PipelineConfig.model_validate({"name": "p", "model": "m", "width": 1, "height": 1, **settings}).goal_s
        == goal_s
    )


def test_relative_points_of_zones_and_lines_are_converted_to_pixels() -> None:
    assert to_pixels(((0.0, 0.5), (1.0, 1.0)), 640, 360) == ((0.0, 180.0), (640.0, 360.0))


def test_missing_settings_in_a_site_file_get_their_defaults() -> None:
    camera = CameraConfig(name="c", source="device:0")
    assert (camera.gate.motion, camera.spool.late_after_s, camera.encode.quality) == (True, 5.0, 85)
    receiver = ReceiverConfig(name="r", url="http://x", secret_file=Path("s"))
    assert (len(receiver.retry_s), sum(receiver.retry_s) // 3600) == (10, 75)
    assert SensorConfig(name="s", source="simulated:x", quantity="q", unit="u").column_rows == 100
    assert json.loads(camera.model_dump_json())["name"] == "c"


def test_cameras_and_sensors_get_the_site_name_of_their_site_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        'name = "north"\n[[cameras]]\nname = "a"\nsource = "x"\n'
        '[[cameras]]\nname = "b"\nsource = "x"\nsite = "north"\n'
        '[[sensors]]\nname = "t"\nsource = "simulated:temperature"\nquantity = "q"\nunit = "u"\n'
    )
    site = load(file)
    assert [c.site for c in site.cameras] == ["north", "north"]
    assert [s.site for s in site.sensors] == ["north"]


ARMED = """
time_zone = "Europe/Berlin"

[[cameras]]
name = "yard"
source = "device:0"

[[cameras.gate.armed]]
days = ["mon", "fri"]
start = "22:00"
end = "06:00"

[[cameras]]
name = "abroad"
source = "device:1"
gate = { time_zone = "America/Havana", armed = [{ start = 08:00:00, end = 17:30:00 }] }
"""


def test_armed_hours_use_the_sites_time_zone_unless_the_camera_sets_one(file: Path) -> None:
    file.write_text(ARMED)
    yard, abroad = load(file).cameras
    assert (yard.gate.time_zone, abroad.gate.time_zone) == ("Europe/Berlin", "America/Havana")
    assert (yard.gate.armed[0].days, yard.gate.armed[0].start.hour) == (("mon", "fri"), 22)
    assert parse_entry(yard.key, yard.model_dump_json().encode()) == yard


def test_a_pre_roll_as_long_as_the_time_after_which_frames_are_late_is_refused(file: Path) -> None:
    camera = '[[cameras]]\nname = "a"\nsource = "device:0"\ngate.pre_roll_s = 2.0\n'
    assert "gate.pre_roll_s below spool.late_after_s" in problem(file, f"{camera}spool.late_after_s = 2.0\n").expected
    for fine in (
        "spool.late_after_s = 2.1",
        "spool.late_after_s = 0.0",
        "spool.late_after_s = 2.0\ngate.motion = false",
    ):
        file.write_text(f"{camera}{fine}\n")
        assert load(file).cameras


@pytest.mark.parametrize("setting", ["gate.keep_alive_s = inf", "fps = inf", "spool.late_after_s = inf"])
def test_an_infinite_number_in_a_site_file_is_refused(file: Path, setting: str) -> None:
    found = problem(file, f'[[cameras]]\nname = "a"\nsource = "device:0"\n{setting}\n')
    assert found.key == f"cameras.0.{setting.split(' ')[0]}"
    assert "finite" in found.expected


@pytest.mark.parametrize("name", ["Mars/Base", "Europe", "../zone", ""])
def test_an_unknown_time_zone_in_a_site_file_is_refused(file: Path, name: str) -> None:
    file.write_text(ARMED.replace("Europe/Berlin", name))
    with pytest.raises(ConfigError, match="expected a time zone by its IANA name"):
        load(file)


@pytest.mark.parametrize(
    "gate",
    [
        {"masks": [[[0.0, 0.0], [1.0, 1.0]]]},
        {"masks": [[[0.0, 0.0], [1.0, 1.0], [1.5, 0.0]]]},
        {"armed": [{"start": "22:00", "end": "25:00"}]},
        {"armed": [{"start": "22:00Z", "end": "23:00"}]},
        {"armed": [{"days": [], "start": "22:00", "end": "23:00"}]},
        {"armed": [{"days": ["monday"], "start": "22:00", "end": "23:00"}]},
        {"pre_roll_s": 60.0},
        {"sample": 1.1},
    ],
)
def test_invalid_gate_settings_are_refused(gate: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="gate"):
        CameraConfig.model_validate({"name": "a", "source": "device:0", "gate": gate})


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_number_in_a_site_file_that_json_cannot_represent_is_refused(value: str, tmp_path: Path) -> None:
    """All services would refuse the entry after it was applied."""
    file = tmp_path / "site.toml"
    file.write_text(f'[[cameras]]\nname = "a"\nsource = "x"\n[cameras.spool]\nmax_age_s = {value}\n')
    with pytest.raises(ConfigError, match=r"cameras\.0\.spool\.max_age_s.*finite"):
        load(file)


def test_a_camera_that_names_another_site_than_its_file_is_refused(file: Path) -> None:
    """Applying the other site's file would remove the camera, and applying this file could never remove it."""
    camera = '[[cameras]]\nname = "a"\nsource = "device:0"\nsite = "south"\n'
    assert (
        "camera/a to have site = 'north' or no site, not site = 'south'"
        in problem(file, f'name = "north"\n{camera}').expected
    )
    assert "camera/a to have site = 'site' or no site, not site = 'south'" in problem(file, camera).expected


def test_an_unknown_key_in_a_site_file_is_reported_as_misspelt_or_of_a_newer_version() -> None:
    with pytest.raises(ConfigError, match="this one is misspelt, or needs a newer version of sightline"):
        parse_entry("camera/a", b'{"name": "a", "source": "x", "lense": 3}')


def test_a_site_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b'name = "north"\n')
    assert load(file).name == "north"


def test_a_huge_value_in_a_site_file_is_shortened_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_entry("camera/a", b'{"name": "a", "source": "x", "fps": "' + b"y" * 10**6 + b'"}')
    assert len(str(caught.value)) < 1000
    assert "1000002 characters" in str(caught.value)


@pytest.mark.timeout(60)  # searching it for addresses once took three minutes
@pytest.mark.parametrize("text", ["y", "a/", "a://", "://", "@", "a.", "?a", "&pass", "?", "pass", "?pass="])
@pytest.mark.parametrize("key", ["fps", "time_zone", "source"])
def test_a_huge_value_in_a_site_file_is_refused_or_read_within_seconds(text: str, key: str) -> None:
    value = text * (10**6 // len(text))
    gate = {"gate": {"time_zone": value + "a"}} if key == "time_zone" else {key: value}
    entry = json.dumps({"name": "a", "source": "x"} | gate).encode()
    with contextlib.suppress(ConfigError):
        parse_entry("camera/a", entry)


def test_a_config_entry_over_the_size_limit_is_refused_without_parsing() -> None:
    with pytest.raises(ConfigError, match="at most 1048576 bytes"):
        parse_entry("camera/a", b"[" * 10**7)


@pytest.mark.parametrize("seconds", [1e300, 4e9])
def test_times_of_more_than_a_hundred_years_are_refused(file: Path, seconds: float) -> None:
    spool = f"spool = {{ late_after_s = {seconds} }}"
    file.write_text(f'[[cameras]]\nname = "gate"\nsource = "simulated:road"\n{spool}\n')
    with pytest.raises(ConfigError, match="late_after_s"):
        load(file)


def test_camera_rules_without_a_clip_get_the_clip_of_the_site(tmp_path: Path) -> None:
    rule = {"type": "line", "camera": "gate", "pipeline": "cars", "start": [0.5, 0.0], "end": [0.5, 1.0]}
    own = {"before_s": 0.0, "after_s": 0.0}
    values = {
        "clip": {"before_s": 2.0, "boxes": True},
        "rules": [
            {**rule, "name": "in"},
            {**rule, "name": "out", "clip": own},
            {"type": "threshold", "name": "hot", "sensor": "t-1", "above": 60.0},
        ],
    }
    file = tmp_path / "site.toml"
    file.write_text(tomli_w.dumps(values))
    written = [parse_entry(one.key, one.model_dump_json().encode()) for one in load(file).rules]
    clips = [one.model_dump().get("clip") for one in written]
    assert clips == [{"before_s": 2.0, "after_s": 10.0, "boxes": True}, own, None]
