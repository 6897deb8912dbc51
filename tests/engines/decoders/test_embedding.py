"""Tests of the decoder of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from deploy.cli.models.report import print_manifest, print_report
from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.exceptions import InferenceFailed
from engines.repository.proposal import examined
from engines.repository.report import Overrides
from engines.repository.store import Repository
from ingest.contract.records import MAX_EMBEDDING
from tests.paths import MODELS

DECODER = decoders.make("embedding", DecoderOptions(("embedding",), 64, 128))
ROW = FrameRegion.whole(64, 128)


def decoded(vectors: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float64]]:
    found = DECODER.decode({"v": vectors}, [ROW] * len(vectors))
    return [np.frombuffer(one.embeddings[0].values, np.int8).astype(np.float64) for each in found for one in each]


@pytest.mark.parametrize("size", [1, 3, 128, MAX_EMBEDDING])
def test_an_embedding_keeps_the_direction_of_the_vector_in_one_byte_per_number(size: int) -> None:
    vectors = np.random.default_rng(size).normal(size=(20, size)).astype(np.float32) * np.float32(1e-3)
    for vector, values in zip(vectors.astype(np.float64), decoded(vectors), strict=True):
        assert np.abs(values).max() == 127
        assert len(values) == size
        cosine = (vector * values).sum() / np.linalg.norm(vector) / np.linalg.norm(values)
        assert cosine > 0.9999


def test_an_embedding_does_not_depend_on_the_length_of_the_vector_or_on_other_rows() -> None:
    one = np.array([[0.5, -1.0, 0.25]], np.float32)
    other = np.array([[9.0, 9.0, 1.0]], np.float32)
    assert decoded(one)[0].tolist() == decoded(np.concatenate([1000 * one, other]))[0].tolist() == [64, -127, 32]


@pytest.mark.parametrize("value", [0.0, 1e-31, 1e-40])
def test_a_vector_of_zeros_or_of_tiny_numbers_gives_no_embedding(value: float) -> None:
    assert DECODER.decode({"v": np.full((2, 4), value, np.float32)}, [ROW] * 2) == [[], []]


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (np.ones((1, MAX_EMBEDDING + 1), np.float32), "expected 1 to 512 with the decoder embedding"),
        (np.ones((1, 0), np.float32), "gives 0 numbers per image"),
        (np.ones((1, 4, 4), np.float32), r"expected \(1, D\)"),
        (np.full((1, 4), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_outputs_that_are_no_embeddings_are_refused(vectors: npt.NDArray[np.float32], reason: str) -> None:
    with pytest.raises(InferenceFailed, match=reason):
        DECODER.decode({"v": vectors}, [ROW])


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ([[1.0, 2.0], [2.0, 4.0]], "same embedding"),
        ([[0.0, 0.0], [0.0, 0.0]], "all vectors are zero"),
        ([[1.0, 2.0], [2.0, 1.0]], ""),
    ],
)
def test_a_model_that_does_not_distinguish_images_is_refused(vectors: list[list[float]], reason: str) -> None:
    assert reason in decoders.refusal(DECODER, {"v": np.array(vectors, np.float32)}, [ROW] * 2)
    assert bool(decoders.refusal(DECODER, {"v": np.array(vectors, np.float32)}, [ROW] * 2)) == bool(reason)


def test_a_model_of_embeddings_needs_no_labels_when_it_is_added(tmp_path: Path) -> None:
    file = MODELS / "appearance" / "1" / "model.onnx"
    report = examined(file, "look", Overrides(decoder="embedding", fit="stretch"), tmp_path)
    manifest = Repository(tmp_path).open("look").manifest
    assert (manifest.decoder, manifest.labels) == ("embedding", ("embedding",))
    assert (manifest.input.width, manifest.input.height) == (64, 128)
    assert "labels" not in [one.key for one in report.assumed()]


def test_the_report_of_a_model_of_embeddings_names_its_settings_in_a_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = MODELS / "appearance" / "1" / "model.onnx"
    print_report(examined(file, "look", Overrides(decoder="embedding", fit="stretch"), tmp_path), tmp_path, False)
    assert f"Next: sightline models show look --models {tmp_path}" in " ".join(capsys.readouterr().out.split())
    print_manifest(Repository(tmp_path).open("look"), [1], 1, [], False)
    said = capsys.readouterr().out
    assert '[[pipelines.then]]\nname = "look"\nmodel = "look"' in said
    assert '[pipelines.appearance]\nsecond_model = "look"' in said
