"""Tests of the model repository: checks, promotion, roll-back and adoption."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines import backends
from engines.exceptions import AdoptFailed, DecoderUnknown, ManifestError, ModelUnknown
from engines.repository.adopt import AdoptOptions, adopt
from engines.repository.store import Repository
from tests.paths import MODELS as SHIPPED

LABELS = ("nothing", "thing")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with two versions of the shipped model."""
    root = tmp_path / "models"
    for version in (1, 2):
        folder = root / "regions" / str(version)
        shutil.copytree(SHIPPED / "regions" / "1", folder)
        text = (folder / "model.toml").read_text()
        (folder / "model.toml").write_text(text.replace("version = 1\n", f"version = {version}\n", 1))
    return Repository(root)


def floats_model(path: Path, shape: tuple[object, ...] = (1, 3, 8, 8)) -> Path:
    """Write a typical foreign model: NCHW floats in, softmax over the mean of each colour plane out."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (shape[0], 3))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_the_newest_model_version_is_served_until_a_version_is_promoted(repository: Repository) -> None:
    assert repository.versions("regions") == [1, 2]
    assert repository.promoted("regions") == 2
    assert repository.promote("regions", 1) == 2
    assert repository.open("regions").manifest.version == 1
    repository.promote("regions", 2)
    assert repository.roll_back("regions") == 1
    with pytest.raises(ModelUnknown, match="no version before version 1"):
        repository.roll_back("regions")


def test_the_error_for_an_unknown_model_lists_models_and_versions(repository: Repository) -> None:
    with pytest.raises(ModelUnknown, match="expected one of its models: regions"):
        repository.promoted("cars")
    with pytest.raises(ModelUnknown, match=r"no version 9: expected one of \[1, 2\]"):
        repository.open("regions", 9)


def test_a_model_file_that_contradicts_its_manifest_is_neither_opened_nor_promoted(repository: Repository) -> None:
    file = repository.root / "regions" / "2" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ManifestError, match="SHA-256"):
        repository.promote("regions", 2)
    file.unlink()
    with pytest.raises(ManifestError, match="no file"):
        repository.open("regions", 2)


def test_a_promoted_model_version_that_does_not_exist_is_an_error(repository: Repository) -> None:
    (repository.root / "regions" / "promoted").write_text("7\n")
    with pytest.raises(ManifestError, match=r"expected one of \[1, 2\]"):
        repository.promoted("regions")


@pytest.mark.parametrize(
    ("line", "word"),
    [("version = 1", 'version = "x"'), ("decoder = ", "decode = "), ('name = "regions"', "name = 3")],
    ids=["version", "decoder", "name"],
)
def test_the_error_for_an_invalid_manifest_names_the_file(repository: Repository, line: str, word: str) -> None:
    manifest = repository.root / "regions" / "1" / "model.toml"
    manifest.write_text(manifest.read_text().replace(line, word, 1))
    with pytest.raises(ManifestError, match=r"model\.toml"):
        repository.open("regions", 1)


def test_an_adopted_model_takes_uint8_pixels_and_returns_the_outputs_of_the_original(tmp_path: Path) -> None:
    options = AdoptOptions("means", "softmax", ("b", "g", "r"), mean=(10.0, 20.0, 30.0), scale=(0.5, 0.25, 0.125))
    model = adopt(floats_model(tmp_path / "m.onnx"), Repository(tmp_path / "models"), options)
    assert (model.manifest.id, model.manifest.max_batch) == ("means@1", 8)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8)
    engine = backends.make("onnxruntime")
    engine.load(model)
    (found,) = engine.infer(pixels).values()
    means = ((pixels.astype(np.float64) - options.mean) * options.scale).mean(axis=(1, 2))
    wanted = np.exp(means - means.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-4)
    assert adopt(tmp_path / "m.onnx", Repository(tmp_path / "models"), options).manifest.version == 2


def test_a_failed_adoption_leaves_no_model_in_the_repository(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(AdoptFailed, match="expected an ONNX model"):
        adopt(tmp_path / "bad.onnx", repository, AdoptOptions("bad", "softmax", LABELS))
    grey = floats_model(tmp_path / "grey.onnx", (1, 1, 8, 8))
    with pytest.raises(AdoptFailed, match="height, width"):
        adopt(grey, repository, AdoptOptions("grey", "softmax", LABELS))
    planes = floats_model(tmp_path / "m.onnx")
    with pytest.raises(DecoderUnknown, match="none-such"):
        adopt(planes, repository, AdoptOptions("m", "none-such", LABELS))
    assert repository.names() == []
