"""Tests of the demo's options: lines, and a user's own site file."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.demo.run import SHIPPED_MODELS, DemoOptions, _site
from deploy.local.demo.site import MIDDLE, parse_line, video_site
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.site import LinkConfig, ReceiverConfig
from stream.analyse.rules.line import LineRule

SITE = """
name = "north"
cameras = [{ name = "gate", source = "simulated:road" }]
pipelines = [{ name = "p", model = "regions", width = 64, height = 64 }]
rules = [{ type = "line", name = "in", camera = "gate", pipeline = "p", start = [0, 0], end = [1, 1] }]
receivers = [{ name = "receiver", url = "https://example.com/hook", secret_file = "secret" }]
link = { kind = "https", url = "https://example.com" }
"""


@pytest.fixture
def receiver(tmp_path: Path) -> ReceiverConfig:
    return ReceiverConfig(name="receiver", url="http://127.0.0.1:9/", secret_file=tmp_path / "demo.secret")


def options(folder: Path, **values: object) -> DemoOptions:
    return DemoOptions(1.0, folder, **values)  # type: ignore[arg-type]


def test_a_demo_with_a_site_file_adds_its_own_webhook_receiver_to_the_entries_of_the_file(
    tmp_path: Path, receiver: ReceiverConfig
) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    make_site, models = _site(options(tmp_path, site=tmp_path / "site.toml"))
    found = make_site(receiver)
    assert models == SHIPPED_MODELS
    assert [entry.key for entry in found.entries()] == [
        "camera/gate",
        "pipeline/p",
        "rule/in",
        "receiver/demo-receiver",
        "receiver/receiver",
    ]
    assert isinstance(found.rules[0], LineRule)
    assert found.receivers[0].url == receiver.url
    assert found.link == LinkConfig()  # the demo has no gateway


def test_a_pipeline_without_a_model_needs_no_entry_in_the_model_repository(
    tmp_path: Path, receiver: ReceiverConfig
) -> None:
    (tmp_path / "site.toml").write_text(SITE.replace('"regions", width = 64, height = 64', '"motion"'))
    make_site, _ = _site(options(tmp_path, site=tmp_path / "site.toml", models=tmp_path))
    assert not make_site(receiver).pipelines[0].has_model


def test_a_site_whose_model_is_missing_or_finds_no_objects_is_refused_with_the_next_step(tmp_path: Path) -> None:
    for model in ("cars", "behaviour", "appearance"):
        (tmp_path / "site.toml").write_text(SITE.replace("regions", model))
        expected = rf"pipelines\.p\.model = '{model}': expected one of regions in .*--models"
        with pytest.raises(ConfigError, match=expected):
            _site(options(tmp_path, site=tmp_path / "site.toml"))
    with pytest.raises(ConfigError, match="--video"):
        _site(options(tmp_path, site=tmp_path / "site.toml", videos=(tmp_path / "v.mp4",)))


@pytest.mark.parametrize("text", ["", "0,0,1", "0,0,1,2", "0.5,0.5,0.5,0.5", "a,b,c,d", "nan,0,1,1"])
def test_a_malformed_line_option_of_the_demo_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="x1,y1,x2,y2"):
        parse_line(text)


def test_the_line_option_of_the_demo_is_refused_without_a_video(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected --video as well"):
        _site(options(tmp_path, line="0,0.6,1,0.6"))
    (tmp_path / "site.toml").write_text(SITE)
    with pytest.raises(ConfigError, match="expected --video as well"):
        _site(options(tmp_path, line="0,0.6,1,0.6", site=tmp_path / "site.toml"))


def test_objects_in_a_demo_video_cross_the_line_of_the_line_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: ReceiverConfig
) -> None:
    monkeypatch.setattr("deploy.local.demo.site._frame_rate", lambda _: 25.0)
    manifest = Repository(SHIPPED_MODELS).open("regions").manifest
    for line in (MIDDLE, parse_line("0.1,0.6,0.9,0.7")):
        site = video_site([tmp_path / "clip.mp4"], manifest, receiver=receiver, regions=True, line=line)
        (rule,) = site.rules
        assert isinstance(rule, LineRule)
        assert (rule.start, rule.end) == line
