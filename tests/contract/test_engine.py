"""Contract tests of all engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.engine import Engine, best_batch_size, warm_up_sizes
from engines.exceptions import BadBatch, EngineStateError, ModelLoadFailed
from engines.repository.manifest import Model
from engines.repository.store import Repository
from tests.paths import MODELS


class EngineContract:
    """Tests that every backend inherits."""

    name: str

    @pytest.fixture
    def model(self) -> Model:
        return Repository(MODELS).open("regions")

    @pytest.fixture
    def engine(self, model: Model) -> Engine:
        engine = backends.make(self.name)
        engine.load(model)
        return engine

    def images(self, count: int) -> np.ndarray:
        return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), np.uint8)

    def test_every_batch_size_gives_one_output_row_per_image(self, engine: Engine) -> None:
        for count in (1, 2, 7, 32):
            for array in engine.infer(self.images(count)).values():
                assert array.shape[0] == count
                assert array.dtype == np.float32

    def test_a_batch_over_the_batch_size_gives_the_outputs_of_its_chunks(self, engine: Engine) -> None:
        whole = engine.infer(self.images(70))
        chunks = [engine.infer(self.images(70)[i : i + 10]) for i in range(0, 70, 10)]
        for name, array in whole.items():
            np.testing.assert_allclose(array, np.concatenate([chunk[name] for chunk in chunks]), atol=1e-5)

    def test_an_image_gives_the_same_outputs_alone_and_in_a_batch(self, engine: Engine) -> None:
        images = self.images(9)
        for name, array in engine.infer(images).items():
            np.testing.assert_allclose(engine.infer(images[4:5])[name][0], array[4], atol=1e-5)

    def test_later_calls_do_not_change_returned_outputs(self, engine: Engine) -> None:
        kept = engine.infer(self.images(3))
        first = {name: array.copy() for name, array in kept.items()}
        engine.infer(self.images(4))
        for name, array in kept.items():
            np.testing.assert_array_equal(array, first[name])

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros((1, 64, 64, 3), np.float32),
            np.zeros((1, 32, 64, 3), np.uint8),
            np.zeros((64, 64, 3), np.uint8),
            np.zeros((0, 64, 64, 3), np.uint8),
        ],
        ids=["float", "size", "no batch", "empty"],
    )
    def test_a_batch_of_another_shape_or_type_is_refused(self, engine: Engine, bad: np.ndarray) -> None:
        with pytest.raises(BadBatch, match="expected uint8"):
            engine.infer(bad)

    def test_calls_out_of_order_are_refused(self, engine: Engine, model: Model) -> None:
        with pytest.raises(EngineStateError, match="close it first"):
            engine.load(model)
        engine.warm_up()
        engine.close()
        engine.close()
        with pytest.raises(EngineStateError, match="call load first"):
            engine.infer(self.images(1))
        engine.load(model)
        engine.infer(self.images(1))


class TestOnnxRuntime(EngineContract):
    name = "onnxruntime"

    def test_the_error_for_an_unreadable_model_names_the_file(self, model: Model, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"no model")
        with pytest.raises(ModelLoadFailed, match=r"model\.onnx"):
            backends.make(self.name).load(Model(model.manifest, tmp_path))


class TestFake(EngineContract):
    name = "fake"


class TestSizes:
    def test_warm_up_sizes_double_up_to_the_largest(self) -> None:
        assert [warm_up_sizes(n) for n in (1, 2, 3, 8, 20)] == [
            [1],
            [1, 2],
            [1, 2, 3],
            [1, 2, 4, 8],
            [1, 2, 4, 8, 16, 20],
        ]

    def test_the_largest_of_equally_fast_batch_sizes_is_best(self) -> None:
        assert best_batch_size({1: 0.0102, 2: 0.0100, 4: 0.0101, 8: 0.0128}) == 4
        assert best_batch_size({1: 0.004, 2: 0.003, 4: 0.002}) == 4
        assert best_batch_size({1: 0.0100, 2: 0.0104}) == 1
