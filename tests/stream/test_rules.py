"""Tests of the rule plug-ins: how they are found, and how their settings are validated."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from structlog.testing import capture_logs

from ingest.contract.topics import CONFIG
from ingest.exceptions import ConfigError
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.metrics import ConfigMetrics
from ingest.site import load
from ingest.site.topic.store import publish, read
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.rules import PACKAGES, plug_ins, validated, validated_site
from tests.paths import ROOT
from tests.stream.analyse.rules.scenes import scene, track

SITE = """
[[cameras]]
name = "gate"
source = "simulated:road"

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
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "site.toml"


def problem(file: Path, before: str, after: str) -> ConfigError:
    assert before in SITE
    file.write_text(SITE.replace(before, after, 1))
    with pytest.raises(ConfigError) as raised:
        validated_site(load(file), file)
    assert str(file) in str(raised.value)
    return raised.value


def test_each_module_of_the_rule_packages_defines_one_rule_with_the_name_of_its_type() -> None:
    modules = [
        name.rpartition(".")[2]
        for package in PACKAGES
        for _, name, is_folder in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        if not is_folder
    ]
    assert {"line", "zone", "threshold"} <= set(modules)
    assert sorted(plug_ins()) == sorted(modules)


def test_the_rules_of_a_site_file_become_models_of_their_plug_ins(file: Path) -> None:
    file.write_text(SITE)
    rules = validated_site(load(file), file).rules
    assert [type(rule) for rule in rules] == [plug_ins()[name] for name in ("line", "zone", "threshold")]


@pytest.mark.parametrize(
    ("before", "after", "key", "value", "expected"),
    [
        ("start = [0.5, 0.0]", "start = [0.5, 1.5]", "rules.0.start.1", 1.5, "less than or equal to 1"),
        ("start = [0.5, 0.0]", "strat = [0.5, 0.0]", "rules.0.start", None, "required"),
        ("above = 30.0", "above = 30.0\nabvoe = 3", "rules.2.abvoe", 3, "not permitted"),
        ("above = 30.0", "above = inf", "rules.2.above", float("inf"), "finite"),
        ('type = "zone"', 'type = "zoen"', "rules.1.type", "zoen", "expected one of"),
        ("above = 30.0", "", "rules.2", None, "expected a limit in above, in below, or in both"),
        ("end = [0.5, 1.0]", "end = [0.5, 0.0]", "rules.0", None, "two different points as start and end"),
        ("polygon = [[0.0, 0.0], ", "polygon = [", "rules.1.polygon", None, "at least 3 items"),
    ],
)
def test_the_error_for_a_wrong_rule_setting_names_key_value_and_expected_value(
    file: Path, before: str, after: str, key: str, value: object, expected: str
) -> None:
    error = problem(file, before, after)
    assert error.key == key
    assert expected in str(error)
    assert not any(said in str(error) for said in ("expected expected", "expected Input should", "Value error"))
    if value is not None:
        assert error.value == value
        assert repr(value) in str(error)


@pytest.mark.parametrize(
    ("before", "after", "key", "value"),
    [
        (
            'camera = "gate"\npipeline = "cars"\nstart',
            'camera = "gtae"\npipeline = "cars"\nstart',
            "rules.0.camera",
            "gtae",
        ),
        ('pipeline = "cars"\nstart', 'pipeline = "people"\nstart', "rules.0.pipeline", "people"),
        ('sensor = "t-1"', 'sensor = "t-2"', "rules.2.sensor", "t-2"),
    ],
)
def test_a_rule_that_refers_to_an_entry_that_the_site_lacks_is_refused(
    file: Path, before: str, after: str, key: str, value: str
) -> None:
    error = problem(file, before, after)
    assert (error.key, error.value) == (key, value)
    assert f"the name of a {key.rpartition('.')[2]} in this file" in error.expected


@pytest.mark.parametrize(
    ("labels", "label", "score", "applies"),
    [((), "car", 0.5, True), ((), "car", 0.2, False), (("car",), "car", 0.3, True), (("car",), "dog", 0.9, False)],
)
def test_a_rule_applies_to_tracks_with_its_labels_and_a_high_enough_score(
    labels: tuple[str, ...], label: str, score: float, applies: bool
) -> None:
    rule = LineRule(name="r", camera="c", pipeline="p", labels=labels, start=(0, 0), end=(1, 1))
    assert rule.applies_to(track(0.0, 0.0, label=label, score=score)) is applies


LINE = LineRule(name="in", camera="gate", pipeline="cars", start=(0, 0), end=(1, 1))


async def test_services_that_run_rules_refuse_a_wrong_rule_and_keep_the_last_good_rule() -> None:
    log, registry = MemoryLog(), CollectorRegistry()
    await publish(log, [LINE])
    await log.produce(Outgoing(CONFIG, 0, LINE.model_dump_json().replace('"end"', '"edn"').encode(), key=b"rule/in"))
    await log.produce(Outgoing(CONFIG, 0, b'{"name": "odd", "type": "unheard-of"}', key=b"rule/odd"))
    with capture_logs() as said:
        config = await read(log, ConfigMetrics(registry), validated)
    assert config.of(CameraRule) == (LINE,)
    assert "config topic: rule/in.end" in config.refused["rule/in"]
    assert "rule/odd.type = 'unheard-of': expected one of" in config.refused["rule/odd"]
    assert [(line["key"], line["kept"]) for line in said] == [("rule/in", True), ("rule/odd", False)]
    assert registry.get_sample_value("sightline_config_refused_entries") == 2


async def test_services_that_run_no_rules_keep_a_rule_entry_as_it_was_written() -> None:
    log = MemoryLog()
    await log.produce(Outgoing(CONFIG, 0, b'{"name": "odd", "type": "unheard-of", "x": [1, 2]}', key=b"rule/odd"))
    config = await read(log)
    assert config.refused == {}
    assert config.entries["rule/odd"].model_dump() == {"name": "odd", "type": "unheard-of", "sites": (), "x": [1, 2]}


def test_rules_are_immutable_and_refuse_unknown_settings() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LINE.start = (0.5, 0.5)
    with pytest.raises(ValidationError, match="not permitted"):
        LineRule(**LINE.model_dump(), colour="red")


EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "docs/reference/rules.md").read_text(), re.DOTALL)


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package with the rule that the documentation shows, and three entry points that are wrong."""
    assert EXAMPLE
    (tmp_path / "acme_rules.py").write_text(EXAMPLE[1])
    (tmp_path / "acme_line.py").write_text(
        "from stream.analyse.rules.line import LineRule as L\nclass Line(L): pass\n"
    )
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    points = """
        [sightline.rules]
        parked = acme_rules:ParkedRule
        broken = acme_rules:Missing
        wrong = acme_rules:ParkedWatch
        taken = acme_line:Line
    """
    (info / "entry_points.txt").write_text(textwrap.dedent(points))
    monkeypatch.syspath_prepend(str(tmp_path))
    plug_ins.cache_clear()
    yield
    plug_ins.cache_clear()
    sys.modules.pop("acme_rules", None)
    sys.modules.pop("acme_line", None)


@pytest.mark.usefixtures("third_party")
def test_another_package_can_add_a_rule_by_an_entry_point(file: Path) -> None:
    with capture_logs() as said:
        names = set(plug_ins())
    assert {"parked", "line"} <= names
    assert {line["entry_point"] for line in said} == {"broken", "wrong", "taken"}
    assert {line["event"] for line in said} == {"rule_plug_in_not_loaded"}
    assert plug_ins()["line"] is LineRule
    extra = '[[rules]]\ntype = "parked"\nname = "stop"\ncamera = "gate"\npipeline = "cars"\nmin_area_px = "large"\n'
    assert problem(file, "[[rules]]", f"{extra}[[rules]]").key == "rules.0.min_area_px"
    file.write_text(SITE + extra.replace('"large"', "2"))
    assert validated_site(load(file), file).rules[-1].model_dump()["min_area_px"] == 2.0


@pytest.mark.usefixtures("third_party")
def test_the_example_rule_of_the_documentation_reports_each_stop_once() -> None:
    rule = plug_ins()["parked"].model_validate({"name": "stop", "camera": "c", "pipeline": "p", "labels": ("car",)})
    state = rule.watch(640, 360)  # type: ignore[attr-defined]
    stops = [False, True, True, False, True]
    found = [state.observe(scene(n, track(100.0, 100.0, at_rest=at_rest)), ()) for n, at_rest in enumerate(stops)]
    assert [[(one.summary, number) for one, number in happenings] for happenings in found] == [
        [],
        [("car has parked, says stop", 1)],
        [],
        [],
        [("car has parked, says stop", 2)],
    ]
    assert state.observe(scene(9, track(100.0, 100.0, "other", at_rest=True)), ["other"]) == []
    state.forget("other")
