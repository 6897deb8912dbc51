"""Contract tests of all engines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.backends.fake import FakeEngine
from engines.engine import ComputeClock, Engine, Images, best_batch_size, warm_up_sizes
from engines.exceptions import BadBatch, DeviceLost, EngineStateError, ModelLoadFailed
from engines.repository.manifest import Model
from engines.repository.store import Repository
from tests.engines.backends.tensorrt.rig import make_rig
from tests.paths import MODELS


class EngineContract:
    """Tests that every backend inherits."""

    name: str

    @pytest.fixture
    def model(self) -> Model:
        return Repository(MODELS).open("regions")

    @pytest.fixture
    def engine(self, model: Model) -> Engine:
        engine = backends.make(self.name, workers=2)
        engine.load(model)
        return engine

    def images(self, count: int) -> np.ndarray:
        return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), np.uint8)

    def test_a_batch_of_any_size_gives_one_output_row_per_image(self, engine: Engine) -> None:
        for count in (1, 2, 7, 32):
            for array in engine.infer(self.images(count)).values():
                assert array.shape[0] == count
                assert array.dtype == np.float32

    def test_more_images_than_the_maximum_batch_size_give_the_same_outputs_as_small_batches(
        self, engine: Engine
    ) -> None:
        whole = engine.infer(self.images(70))
        chunks = [engine.infer(self.images(70)[i : i + 10]) for i in range(0, 70, 10)]
        for name, array in whole.items():
            np.testing.assert_allclose(array, np.concatenate([chunk[name] for chunk in chunks]), atol=1e-5)

    def test_an_image_gives_the_same_outputs_alone_and_in_a_batch(self, engine: Engine) -> None:
        images = self.images(9)
        for name, array in engine.infer(images).items():
            np.testing.assert_allclose(engine.infer(images[4:5])[name][0], array[4], atol=1e-5)

    def test_later_engine_calls_do_not_change_returned_outputs(self, engine: Engine) -> None:
        kept = engine.infer(self.images(3))
        first = {name: array.copy() for name, array in kept.items()}
        engine.infer(self.images(4))
        for name, array in kept.items():
            np.testing.assert_array_equal(array, first[name])

    def test_batch_slots_filled_at_the_same_time_give_the_outputs_of_their_own_images(self, engine: Engine) -> None:
        alone = [engine.infer(self.images(count)) for count in range(1, engine.slot_count + 1)]
        slots = [engine.acquire() for _ in alone]
        for count, slot in enumerate(slots, 1):
            slot.pixels[:count] = self.images(count)
            engine.submit(slot, count)
        for slot, expected in zip(slots, alone, strict=True):
            for name, array in engine.collect(slot).items():
                np.testing.assert_allclose(array, expected[name], atol=1e-5)
            engine.release(slot)

    def test_a_reused_batch_slot_gives_only_the_outputs_of_its_new_batch(self, engine: Engine) -> None:
        expected = engine.infer(self.images(2))
        with engine.slot() as slot:
            slot.pixels[:9] = self.images(9)
            engine.run(slot, 9)
        for _ in range(engine.slot_count):
            with engine.slot() as slot:
                slot.pixels[:2] = self.images(2)
                for name, array in engine.run(slot, 2).items():
                    np.testing.assert_allclose(array, expected[name], atol=1e-5)

    def test_a_collected_batch_reports_its_computing_time(self, engine: Engine) -> None:
        assert 1 <= engine.parallel <= engine.slot_count
        with engine.slot() as slot:
            engine.run(slot, 3)
            assert slot.compute_s > 0.0
        engine.warm_up()
        assert engine.batch_size in engine.warm_up_s
        assert all(seconds > 0.0 for seconds in engine.warm_up_s.values())

    def test_the_batch_size_is_1_until_the_second_part_of_the_warm_up_is_finished(self, engine: Engine) -> None:
        engine.begin_warm_up()
        assert engine.batch_size == 1
        assert list(engine.warm_up_s) == [1]
        expected = engine.infer(self.images(9))
        engine.finish_warm_up()
        assert list(engine.warm_up_s)[:2] == [1, 2]
        for name, array in engine.infer(self.images(9)).items():
            np.testing.assert_allclose(array, expected[name], atol=1e-5)

    def test_acquire_waits_until_a_batch_slot_is_released(self, engine: Engine) -> None:
        slots = [engine.acquire() for _ in range(engine.slot_count)]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(engine.acquire)
            assert not waiting.done()
            engine.release(slots[0])
            assert waiting.result(30) is slots[0]

    def test_calls_on_a_batch_slot_in_a_wrong_order_are_refused(self, engine: Engine, model: Model) -> None:
        slot = engine.acquire()
        with pytest.raises(EngineStateError, match="slot is acquired: expected submitted"):
            engine.collect(slot)
        engine.submit(slot, 1)
        for call in (lambda: engine.submit(slot, 1), lambda: engine.release(slot)):
            with pytest.raises(EngineStateError, match="slot is submitted"):
                call()
        with pytest.raises(EngineStateError, match="has submitted batches"):
            engine.close()
        engine.collect(slot)
        engine.release(slot)
        with pytest.raises(EngineStateError, match="slot is free"):
            engine.release(slot)
        engine.close()
        engine.load(model)
        with pytest.raises(EngineStateError, match="belongs to another engine or model"):
            engine.submit(slot, 1)

    @pytest.mark.parametrize("rows", [0, 33])
    def test_a_submitted_batch_must_fit_into_its_batch_slot(self, engine: Engine, rows: int) -> None:
        with engine.slot() as slot, pytest.raises(BadBatch, match=f"has {rows} rows: expected 1 to 32"):
            engine.submit(slot, rows)

    def test_a_batch_slot_is_released_after_its_batch_if_the_caller_raises_an_error(self, engine: Engine) -> None:
        def submit_and_fail() -> None:
            with engine.slot() as slot:
                engine.submit(slot, 1)
                raise ZeroDivisionError

        for _ in range(engine.slot_count + 1):
            with pytest.raises(ZeroDivisionError):
                submit_and_fail()
        engine.close()

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
    def test_a_batch_with_a_wrong_shape_or_type_is_refused(self, engine: Engine, bad: np.ndarray) -> None:
        with pytest.raises(BadBatch, match="expected uint8"):
            engine.infer(bad)

    def test_engine_calls_in_a_wrong_order_are_refused(self, engine: Engine, model: Model) -> None:
        with pytest.raises(EngineStateError, match="call close first"):
            engine.load(model)
        engine.warm_up()
        engine.close()
        engine.close()
        with pytest.raises(EngineStateError, match="call load first"):
            engine.infer(self.images(1))
        engine.load(model)
        engine.infer(self.images(1))


def test_the_warm_up_measures_batch_sizes_by_computing_time_without_waiting_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = FakeEngine()
    engine.load(Repository(MODELS).open("regions"))
    monkeypatch.setattr(ComputeClock, "finished", lambda *_: 0.25)
    engine.warm_up()
    assert set(engine.warm_up_s.values()) == {0.25}
    assert engine.batch_size == 32


class FileEngineContract(EngineContract):
    """Tests that every backend with a model file inherits."""

    def test_the_error_for_an_unreadable_model_names_the_file(self, model: Model, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"no model")
        with pytest.raises(ModelLoadFailed, match=r"model\.onnx"):
            backends.make(self.name).load(Model(model.manifest, tmp_path))

    def test_a_model_whose_input_name_differs_from_its_manifest_is_refused(self, model: Model) -> None:
        spec = model.manifest.input.model_copy(update={"name": "pictures"})
        renamed = Model(model.manifest.model_copy(update={"input": spec}), model.folder)
        with pytest.raises(ModelLoadFailed, match="expected one uint8 input named pictures"):
            backends.make(self.name).load(renamed)


class TestOnnxRuntime(FileEngineContract):
    name = "onnxruntime"


class TestOpenVino(FileEngineContract):
    name = "openvino"


class TestTensorRt(EngineContract):
    """TensorRT on the fake CUDA device. The fake computes by ONNX Runtime; kernels of TensorRT are not tested."""

    name = "tensorrt"

    @pytest.fixture
    def engine(self, model: Model, tmp_path: Path) -> Iterator[Engine]:
        rig = make_rig(tmp_path / "plans")
        engine = rig.engine()
        engine.load(model)
        yield engine
        rig.thread.close()

    def test_engine_outputs_equal_those_of_onnx_runtime(self, engine: Engine, model: Model) -> None:
        other = backends.make("onnxruntime")
        other.load(model)
        expected = other.infer(self.images(9))
        for name, array in engine.infer(self.images(9)).items():
            np.testing.assert_allclose(array, expected[name], atol=1e-5)


class TestFake(EngineContract):
    name = "fake"


def test_device_lost_is_raised_even_if_the_caller_raises_another_error_first() -> None:
    def lost(_: Images) -> bool:
        raise DeviceLost("the GPU is gone")

    engine = FakeEngine(fails=lost)
    engine.load(Repository(MODELS).open("regions"))

    def submit_and_fail() -> None:
        with engine.slot() as slot:
            engine.submit(slot, 1)
            raise ZeroDivisionError

    with pytest.raises(DeviceLost, match="the GPU is gone"):
        submit_and_fail()
    engine.close()  # the slot was given back


class TestSizes:
    def test_the_batch_sizes_of_the_warm_up_double_up_to_the_maximum(self) -> None:
        assert [warm_up_sizes(n) for n in (1, 2, 3, 8, 20)] == [
            [1],
            [1, 2],
            [1, 2, 3],
            [1, 2, 4, 8],
            [1, 2, 4, 8, 16, 20],
        ]

    def test_the_warm_up_chooses_the_smallest_of_several_equally_fast_batch_sizes(self) -> None:
        assert best_batch_size({1: 0.0102, 2: 0.0100, 4: 0.0101, 8: 0.0128}) == 1
        assert best_batch_size({1: 0.0108, 2: 0.0100, 4: 0.0101, 8: 0.0128}) == 1
        assert best_batch_size({1: 0.0113, 2: 0.0100, 4: 0.0101, 8: 0.0128}) == 2
        assert best_batch_size({1: 0.004, 2: 0.003, 4: 0.002}) == 4
        assert best_batch_size({1: 0.0100, 2: 0.0104}) == 1

    def test_the_warm_up_chooses_a_large_batch_size_for_a_small_model_because_each_call_takes_time(self) -> None:
        assert best_batch_size({1: 0.0001, 2: 0.0001, 4: 0.0001, 8: 0.0001, 16: 0.0001}) == 16
