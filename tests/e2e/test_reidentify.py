"""Re-identification on a real clip: a woman is hidden by a painted screen for four seconds, and a man comes later.

The frames pass through prepare, a detector and the shipped model of appearance in an engine node, and analyse, on a
log in memory.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from benchmarks.analytics.chain import analysed, classified
from deploy.cli.app import app
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.manifest import sha256_of
from engines.repository.store import Repository
from ingest.contract.codec import encode_json
from ingest.contract.records import Event, Pixels
from ingest.kafka.memorylog import MemoryLog
from ingest.site import AppearanceConfig, CameraConfig, PipelineConfig, SecondModelConfig
from ingest.site.topic.store import read
from ingest.site.topic.view import Config
from stream.rules import validated
from tests.e2e.visits import ANYONE, CLIP, WOMAN, frames_of, people_pipeline
from tests.paths import MODELS, ROOT

HIDDEN = range(124, 164)
SCREEN = (350, 0), (560, 432)
"""Corners of a painted grey screen, which covers the woman."""
PEOPLE = people_pipeline(SecondModelConfig(name="look", model="appearance", on=("person",), margin=0.0))


def with_screen(index: int, image: Pixels) -> None:
    """Paint the screen into the frames ``HIDDEN``."""
    if index in HIDDEN:
        cv2.rectangle(image, *SCREEN, (120, 120, 120), cv2.FILLED)


def config(pipeline: PipelineConfig) -> Config:
    return Config({one.key: one for one in (pipeline, CameraConfig(name="c", source="device:0"), ANYONE)})


def visits(events: list[Event]) -> list[tuple[str, bool]]:
    """Return the track of each event, and whether the event concerns the woman."""
    return [(one.data.track, one.data.seq in WOMAN) for one in events]


@pytest.mark.e2e
async def test_a_hidden_woman_is_reported_once_with_reidentification_and_twice_without_and_a_man_is_another_track(
    shared_data: Path, tmp_path: Path
) -> None:
    adopt(shared_data / "yolox-nano.onnx", Repository(tmp_path), AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    shutil.copytree(MODELS / "appearance", tmp_path / "appearance")
    found = await classified(list(frames_of(shared_data / CLIP, with_screen)), config(PEOPLE), tmp_path)

    people = [one for result in found for one in result.detections if one.label == "person"]
    assert {(each.name, each.model, len(each.values)) for one in people for each in one.embeddings} == {
        ("look", "appearance@1", 126)
    }
    assert [one for one in people if not one.embeddings] == []

    without = visits((await analysed(found, config(PEOPLE))).events)
    assert [woman for _, woman in without] == [True, True, False]
    assert len({track for track, _ in without}) == 3

    appearance = AppearanceConfig(second_model="look")
    events = (await analysed(found, config(PEOPLE.model_copy(update={"appearance": appearance})))).events
    assert visits(events) == [without[0], without[2]]
    assert all(b"look" not in encode_json(one) for one in events)


PAGE = ROOT / "docs" / "how-to" / "re-identify.md"


def test_the_commands_and_the_site_file_of_the_how_to_work(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = MemoryLog(1)
    monkeypatch.setattr("deploy.cli.tools.config.on_log", lambda _, __, ___, work: asyncio.run(work(log)))
    adopt(
        shared_data / "yolox-nano.onnx", Repository(Path("models")), AdoptOptions("yolox-nano", "yolox", COCO_LABELS)
    )
    (site,) = re.findall(r"^```toml site.toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    Path("site.toml").write_text(site)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    commands = [line.removeprefix("sightline ").split() for block in blocks for line in block.splitlines()]
    assert len(commands) == 4
    for words in commands:
        ran = CliRunner().invoke(app, words)
        assert ran.exit_code == 0, ran.output
    (pipeline,) = asyncio.run(read(log, validate=validated)).of(PipelineConfig)
    assert pipeline.appearance == AppearanceConfig(second_model="look")
    assert sha256_of(Path("models/appearance/1/model.onnx")) == sha256_of(MODELS / "appearance/1/model.onnx")


def test_the_configuration_reference_lists_every_key_of_the_reidentification() -> None:
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    section = text.split("#### `[pipelines.appearance]`")[1].split("\n####")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) ?\|$", section, re.MULTILINE)
    said = {key: default.strip("`") for key, default in rows}
    assert said.keys() == AppearanceConfig.model_fields.keys()
    usual = AppearanceConfig(second_model="x").model_dump(mode="json", exclude={"second_model"})
    assert {key: json.loads(said[key]) for key in usual} == usual
