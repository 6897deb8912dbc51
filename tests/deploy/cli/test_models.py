"""Tests of `sightline models`: add, check, show, test, benchmark, compare, pull."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from deploy.cli.models import compare
from engines import backends
from engines.backends.fake import FakeEngine
from engines.exceptions import EngineStateError
from engines.repository import guard
from engines.repository.proposal import examined
from ingest.contract.codec import encode
from ingest.contract.records import Box, ShadowDifference, ShadowRecord
from ingest.contract.topics import SHADOW
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from tests.engines.repository.foreign import classifier, table

DETECTOR = {"scores": np.tile([[0.9, 0.1], [0.9, 0.1]], (600, 1)), "boxes": np.tile([0.1, 0.1, 0.2, 0.2], (1200, 1))}
DETECTOR["scores"][7], DETECTOR["boxes"][7] = (0.1, 0.9), (0.25, 0.5, 0.5, 1.0)


BOX = Box(0.0, 0.0, 9.0, 9.0)


def comparison(seq: int, **values: Any) -> ShadowRecord:
    frame = {"camera": "gate", "epoch": 1, "seq": seq}
    return ShadowRecord(pipeline="cars", served="m@1", candidate="m@2", written_ns=seq, **frame, **values)


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Name a repository, and inspect models in this process, which is faster than a child process."""
    if "child" not in request.fixturenames:
        monkeypatch.setattr(
            guard, "examine", lambda file, name, options, root, _: examined(file, name, options, root)
        )
    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def child() -> None:
    """Inspect models in a child process, as users do."""


def models(*words: str | Path) -> str:
    """Return the output of a command that succeeds."""
    result = CliRunner().invoke(app, ["models", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str | Path) -> str:
    """Return the only line of output of a command that fails with a usage error."""
    result = CliRunner().invoke(app, ["models", *map(str, words)])
    assert result.exit_code == USAGE_EXIT, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    return line


def parsed(*words: str | Path) -> Any:
    return json.loads(models(*words, "--json"))


@pytest.mark.usefixtures("child")
def test_models_add_prints_the_settings_that_the_model_file_does_not_state(tmp_path: Path) -> None:
    output = models("add", classifier(tmp_path / "Mean Colours.onnx"))
    assert "softmax" in output
    assert "The file does not show: labels, colour, fit, mean, scale." in output
    assert "mean-colours@1 added" in output
    assert "sightline models test mean-colours PICTURE" in output
    assert [row["name"] for row in parsed("list")] == ["mean-colours"]


def test_options_of_models_add_are_written_to_the_manifest(tmp_path: Path) -> None:
    file = table(tmp_path / "m.onnx", DETECTOR)
    fixed = ("--colour", "bgr", "--fit", "letterbox", "--mean", "1", "2", "3", "--scale", "1", "1", "0.5")
    report = parsed("add", file, "faces", "--labels", "background,face", "--decoder", "corners", *fixed)
    assert (report["model"], report["assumed"]) == ("faces@1", [])
    manifest = parsed("show", "faces")
    assert manifest["labels"] == ["background", "face"]
    assert (manifest["input"]["colour"], manifest["input"]["fit"]) == ("bgr", "letterbox")
    assert (manifest["origin"]["mean"], manifest["origin"]["scale"]) == ([1, 2, 3], [1, 1, 0.5])
    assert (manifest["versions"], manifest["served"]) == ([1], 1)


def test_models_add_accepts_decoder_settings_as_options(tmp_path: Path) -> None:
    scaled = {"scores": DETECTOR["scores"], "boxes": DETECTOR["boxes"] * 64}
    file = table(tmp_path / "m.onnx", scaled)
    parsed("add", file, "px", "--decoder", "corners", "--set", "unit=px")
    assert parsed("show", "px")["decoding"]["settings"] == {"unit": "px"}
    assert "setting max_overlap = 7: " in refused("check", file, "--set", "max_overlap=7")
    report = parsed("check", file, "--set", "max_overlap=0.3", "--set", "across_classes=true")
    (decoding,) = (setting for setting in report["settings"] if setting["key"] == "decoding")
    assert decoding["value"] == {"max_overlap": 0.3, "across_classes": True, "settings": {"unit": "px"}}
    assert decoding["source"] == "option"
    assert "unit = 'mm'" in refused("add", file, "px", "--decoder", "corners", "--set", "unit=mm")
    assert parsed("show", "px")["versions"] == [1]


def test_models_check_stores_no_model(tmp_path: Path) -> None:
    report = parsed("check", classifier(tmp_path / "m.onnx", ("N", 8, 8, 3)))
    assert (report["layout"], report["model"], report["max_batch"]) == ("nhwc", "", 8)
    assert not (tmp_path / "models").exists()


def test_models_show_prints_a_pipeline_to_copy_into_the_site_file(tmp_path: Path) -> None:
    models("add", classifier(tmp_path / "m.onnx"), "colours")
    output = models("show", "colours")
    assert "origin.assumed" in output
    assert '[[pipelines]]\nname = "colours"\nmodel = "colours"\nwidth = 8\nheight = 8\n' in output
    assert "has no model 'cars'" in refused("show", "cars")


@pytest.mark.parametrize(
    ("fit", "box"),
    [("stretch", [50, 50, 100, 100]), ("letterbox", [50, 50, 100, 100]), ("crop", [75, 50, 100, 100])],
)
def test_models_test_draws_detected_boxes_into_the_picture(tmp_path: Path, fit: str, box: list[float]) -> None:
    models("add", table(tmp_path / "m.onnx", DETECTOR), "faces", "--labels", "background,face", "--fit", fit)
    picture = tmp_path / "frame.png"
    cv2.imwrite(str(picture), np.full((100, 200, 3), 60, np.uint8))
    result = parsed("test", "faces", picture, "--out", tmp_path / "out")
    assert result["picture"] == str(picture)
    (found,) = result["detections"]
    assert (found["label"], found["score"], found["box"]) == ("face", 0.9, pytest.approx(box, abs=1))
    drawn = cv2.imread(result["drawn"])
    assert drawn.shape == (100, 200, 3)
    assert (np.abs(drawn.astype(int) - (80, 220, 80)).max(axis=2) < 40).any()


def test_models_test_writes_two_pictures_of_the_same_name_from_different_folders(tmp_path: Path) -> None:
    models("add", classifier(tmp_path / "m.onnx"), "colours")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "x.png"), np.zeros((9, 9, 3), np.uint8))
    models("test", "colours", tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", "--out", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x-2-colours.jpg", "x-colours.jpg"]


def test_models_benchmark_measures_each_batch_size(tmp_path: Path) -> None:
    models("add", classifier(tmp_path / "m.onnx"), "colours")
    result = CliRunner().invoke(
        app, ["models", "benchmark", "colours", "--seconds", "0", "--backend", "onnxruntime", "--json"]
    )
    rows = json.loads(result.stdout)
    assert [(row["backend"], row["batch"], row["runs"]) for row in rows] == [
        ("onnxruntime", n, 5) for n in (1, 2, 4, 8)
    ]
    assert all(row["images_per_s"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in rows)


def test_models_benchmark_closes_an_engine_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models("add", classifier(tmp_path / "m.onnx"), "colours")
    engine = FakeEngine(fails=lambda _: True)
    monkeypatch.setattr(backends, "make", lambda _: engine)
    result = CliRunner().invoke(app, ["models", "benchmark", "colours", "--backend", "fake", "--json"])
    assert result.exit_code == 1
    assert "configured to fail" in json.loads(result.stdout)[0]["error"]
    with pytest.raises(EngineStateError, match="no model"):
        engine.model  # noqa: B018  (raises without a model)


def test_models_compare_prints_the_agreement_of_a_candidate_model(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    monkeypatch.setattr(compare, "on_log", lambda _client, _kafka, _prefix, work: asyncio.run(work(log)))
    written: list[bytes] = [b"no record"]
    for seq, difference in enumerate([None, ShadowDifference(form="missed", box=BOX, label="car", score=0.8)]):
        differences = (difference,) if difference else ()
        written.append(encode(comparison(seq, agreed={"bus": 2}, differences=differences)))
    for value in written:
        asyncio.run(log.produce(Outgoing(SHADOW, 0, value)))
    text = models("compare", "cars")
    assert "cars: m@2 beside m@1" in text
    assert "frames 2, agreement 50.0 %, scores that differ 0" in text
    assert re.search(r"car +│ +1 +│ +0 +│ +1 +│ +0 +│ +0", text)
    assert "gate/1/1 0.80: missed car 0.80" in text
    result = CliRunner().invoke(app, ["models", "compare", "cars", "--json"])
    assert "shadow[0]@0 cannot be read" in result.stderr
    assert json.loads(result.stdout)["labels"]["bus"] == {"found": 4, "missed": 0, "relabelled": 0, "extra": 0}
    log.forget(TopicPartition(SHADOW, 0), 1)
    end = ShadowRecord(pipeline="cars", candidate="m@3", written_ns=9, off="out of memory")
    asyncio.run(log.produce(Outgoing(SHADOW, 0, encode(end))))
    assert models("compare", "cars").splitlines() == ["cars: m@3", "switched off: out of memory"]
    assert "PIPELINE = 'people': expected a pipeline whose `shadow` model has classified frames" in refused(
        "compare", "people"
    )
    assert "--candidate = 'm@9': expected one of m@2, m@3" in refused("compare", "cars", "--candidate", "m@9")


def test_the_error_for_an_unusable_argument_of_a_models_command_names_the_option(tmp_path: Path) -> None:
    file = classifier(tmp_path / "m.onnx")
    (tmp_path / "note.txt").write_text("no picture")
    assert "--size = 'large': expected WIDTHxHEIGHT" in refused("add", file, "--size", "large")
    assert "--set = 'unit': expected KEY=VALUE" in refused("add", file, "--set", "unit")
    assert "each once" in refused("add", file, "--labels", "a,b,a")
    assert "expected a text file" in refused("add", file, "--labels", tmp_path / "none.txt")
    assert "NAME = 'Über'" in refused("add", file, "Über")
    assert "no layout has 2 classes" in refused("add", file, "--labels", "a,b")
    assert "decoder 'magic' does not exist" in refused("add", file, "--decoder", "magic")
    assert "expected an ONNX model" in refused("add", tmp_path / "note.txt")
    models("add", file, "colours")
    assert "expected a JPEG" in refused("test", "colours", tmp_path / "note.txt")
    assert "--backend = 'abacus'" in refused("test", "colours", tmp_path / "note.txt", "--backend", "abacus")
    assert "--backend = 'abacus'" in refused("benchmark", "colours", "--backend", "abacus")


def test_models_pull_refuses_plain_http_and_an_invalid_hash(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/m.onnx"
    assert "not HTTPS: expected an address that begins with https://" in refused("pull", url, "--sha256", "0" * 64)
    assert "expected 64 hexadecimal digits" in refused("pull", url, "--sha256", "abc")
    assert "download of https://127.0.0.1:9/m.onnx" in refused(
        "pull", "https://127.0.0.1:9/m.onnx", "--sha256", "0" * 64
    )
