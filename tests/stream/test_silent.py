"""Tests of the search for rules that can never fire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.site import CameraConfig, PipelineConfig, SecondModelConfig, SensorConfig, Site
from stream.analyse.rules.count import CountRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.rules import Rule
from stream.sense.rules.threshold import ThresholdRule
from stream.silent import silent_rules

LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
SMALL = ((0.1, 0.1), (0.3, 0.1), (0.3, 0.3), (0.1, 0.3))
LABELS = {"m": ("car", "person"), "vehicle": ("sedan", "van")}
TYPE = SecondModelConfig(name="type", model="vehicle", on=("car",))


def zone(**values: Any) -> ZoneRule:
    return ZoneRule(**{"name": "r", "camera": "c", "pipeline": "p", "polygon": SMALL, **values})


def line(**values: Any) -> LineRule:
    return LineRule(**{"name": "r", "camera": "c", "pipeline": "p", "start": (0.1, 0.1), "end": (0.3, 0.2), **values})


def hot(**values: Any) -> ThresholdRule:
    return ThresholdRule(**{"name": "r", "sensor": "s", "above": 60.0, **values})


def keys(rule: Rule, *, camera: Any = None, pipeline: Any = None, sensor: Any = None) -> list[str]:
    """Return the keys that keep a rule of a site with these settings from firing."""
    reading = {"source": "simulated:temperature", "quantity": "temperature", "unit": "Cel"}
    site = Site(
        name="test",
        cameras=(CameraConfig(name="c", **{"source": "rtsp://10.0.0.1/", **(camera or {})}),),
        pipelines=(PipelineConfig(name="p", model="m", width=64, height=64, **(pipeline or {})),),
        sensors=(SensorConfig(name="s", **{**reading, **(sensor or {})}),),
        rules=(rule,),
    )
    return [one.key for one in silent_rules(site, LABELS)]


@pytest.mark.parametrize(
    ("rule", "site", "found"),
    [
        (hot(), {"sensor": {"rate_hz": 0.2}}, ["min_readings"]),
        (hot(min_readings=1), {"sensor": {"rate_hz": 0.2}}, []),
        (hot(), {"sensor": {"rate_hz": 0.41}}, []),  # two or three readings per window
        (hot(), {"sensor": {"source": "mqtt:a/b"}}, []),  # at its own rate
        (hot(), {"sensor": {"source": "mqtt:a/b", "rate_hz": 0.01}}, ["min_readings"]),
        (hot(), {"sensor": {"high": 60.0}}, ["above"]),
        (hot(above=None, below=-40.0), {"sensor": {"low": -40.0}}, ["below"]),
        (zone(), {}, []),
        (zone(), {"pipeline": {"cameras": ("other",)}}, ["camera"]),
        (zone(min_score=0.2), {}, ["min_score"]),
        (zone(attributes={"type": "van"}), {"pipeline": {"then": (TYPE,)}}, []),
        (zone(attributes={"type": ["van", "unicorn"]}), {"pipeline": {"then": (TYPE,)}}, ["attributes"]),
        (zone(attributes={"colour": "red"}), {"pipeline": {"then": (TYPE,)}}, ["attributes"]),
        (zone(attributes={"type": "van"}, labels=("person",)), {"pipeline": {"then": (TYPE,)}}, ["attributes"]),
        (zone(attributes={"type": "van"}), {}, ["attributes"]),
        (zone(min_score=0.2), {"pipeline": {"min_score": 0.2}}, []),
        (zone(labels=("car", "dog")), {}, ["labels"]),
        (zone(labels=("car",)), {}, []),
        (zone(polygon=((0.1, 0.1), (0.2, 0.2), (0.3, 0.3))), {}, ["polygon"]),
        (zone(), {"camera": {"gate": {"masks": (LEFT,)}}}, ["polygon"]),
        (zone(), {"camera": {"gate": {"masks": (LEFT,), "motion": False}}}, []),
        (zone(), {"camera": {"redact": {"masks": (LEFT,)}, "gate": {"motion": False}}}, ["polygon"]),
        (zone(polygon=((0.4, 0.1), (0.6, 0.1), (0.6, 0.3))), {"camera": {"redact": {"masks": (LEFT,)}}}, []),
        (line(), {"camera": {"redact": {"masks": (LEFT,)}}}, ["start"]),
        (line(end=(0.9, 0.2)), {"camera": {"redact": {"masks": (LEFT,)}}}, []),
        (line(), {"camera": {"gate": {"max_fps": 0.5}}}, ["camera"]),
        (line(), {"camera": {"fps": 0.5}}, []),  # a stream has its own rate
        (line(), {"camera": {"source": "images:folder", "fps": 0.5}}, ["camera"]),
        (zone(dwell_s=300.0), {}, []),
        (zone(dwell_s=300.0), {"camera": {"gate": {"keep_alive_s": 0.0}}}, ["dwell_s"]),
        (zone(dwell_s=300.0), {"camera": {"gate": {"keep_alive_s": 0.0, "motion": False}}}, []),
    ],
)
def test_config_check_finds_a_rule_that_cannot_fire_because_of_another_setting(
    rule: Rule, site: dict[str, Any], found: list[str]
) -> None:
    assert keys(rule, **site) == found


def test_config_check_finds_a_count_rule_that_needs_more_time_than_tracks_last() -> None:
    rule = CountRule(name="r", camera="c", pipeline="p", polygon=SMALL, at_least=1, for_s=600.0)
    assert keys(rule, camera={"gate": {"keep_alive_s": 200.0}}) == ["for_s"]


def test_the_built_in_demo_site_has_no_rule_that_cannot_fire(tmp_path: Path) -> None:
    from deploy.local.demo.site import simulated_site
    from engines.repository.store import Repository
    from ingest.site import ReceiverConfig
    from tests.paths import MODELS

    manifest = Repository(MODELS).open("regions").manifest
    receiver = ReceiverConfig(name="r", url="http://127.0.0.1:9/", secret_file=tmp_path / "s")
    assert silent_rules(simulated_site(manifest, receiver), {manifest.name: manifest.labels}) == []
