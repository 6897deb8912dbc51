"""Tests of the attributes and embeddings that second-stage models give to detected objects."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engines import backends
from engines.backends.fake import FakeEngine
from engines.engine import Images
from engines.exceptions import DeviceLost, ManifestError, ModelLoadFailed
from engines.node import cascade as cascade_module
from engines.node import serving
from engines.node.cascade import FAILED, NO_FRAME, NO_MODEL, SMALL, UNSURE
from engines.node.jobs import results
from engines.node.serving import SecondModel, ServedModel
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract.codec import decode
from ingest.contract.records import Attribute, Batch
from ingest.contract.topics import DEADLETTER
from ingest.site import PipelineConfig, SecondModelConfig
from tests.engines.node.batches import carrying
from tests.engines.node.cascade.bench import BUS, CAR, TYPE, Rig, jpeg, merged, second_model, with_frames
from tests.paths import MODELS


class CountingEngine(FakeEngine):
    """Engine that records the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def _infer_impl(self, images: Images) -> dict[str, np.ndarray]:
        self.sizes.append(len(images))
        return dict(super()._infer_impl(images))


class TestAttributes:
    def test_the_attribute_of_an_object_has_label_and_score_and_names_the_second_stage_model(self) -> None:
        rig = Rig((TYPE, second_model()))
        (car,) = rig.classify(with_frames(jpeg(BUS)))
        assert car.label == "car"
        (given,) = car.attributes
        assert (given.name, given.label, given.model, given.missing) == ("type", "bus", "regions@1", "")
        assert given.score == pytest.approx(0.9)
        assert rig.count("labelled") == 1

    def test_all_crops_of_a_merged_batch_reach_the_second_stage_model_in_full_batches(self) -> None:
        engine = CountingEngine()
        second = second_model(engine)
        engine._batch_size = 4  # the fastest size of the warm-up depends on the machine
        rig = Rig((TYPE, second))
        engine.sizes.clear()
        rig.classify(*(with_frames(jpeg(), jpeg(), jpeg(), offset=n, first_seq=3 * n) for n in range(3)))
        assert engine.sizes == [4, 4, 1]

    def test_each_of_several_second_stage_models_adds_its_attribute(self) -> None:
        plate = SecondModelConfig(name="plate", model="regions", on=("truck",))
        face = SecondModelConfig(name="face", model="regions", on=("car", "person"))
        rig = Rig((TYPE, second_model()), (plate, second_model()), (face, None))
        (car,) = rig.classify(with_frames(jpeg(BUS)))
        assert [(one.name, one.label, one.missing) for one in car.attributes] == [
            ("type", "bus", ""),
            ("face", "", NO_MODEL),
        ]

    @pytest.mark.parametrize(
        ("frame", "change", "reason"),
        [
            (jpeg(), {"min_pixels": 65}, SMALL),
            (jpeg(), {"min_score": 0.95}, UNSURE),
            (jpeg(0), {}, UNSURE),  # the label background
            (b"", {}, NO_FRAME),
            (jpeg()[:100], {}, NO_FRAME),
        ],
        ids=["small", "score", "background", "without-frame", "damaged-frame"],
    )
    def test_an_object_that_gets_no_label_from_a_second_stage_model_has_the_reason(
        self, frame: bytes, change: dict[str, object], reason: str
    ) -> None:
        config = TYPE.model_copy(update=change)
        rig = Rig((config, second_model(config=config)))
        (car,) = rig.classify(with_frames(frame))
        assert car.attributes == (Attribute(name="type", model="regions@1", missing=reason),)
        assert (rig.count(reason), rig.count("labelled")) == (1, 0)

    def test_an_error_of_a_second_stage_model_on_one_crop_loses_no_detection_and_no_other_label(self) -> None:
        bad = 77
        rig = Rig((TYPE, second_model(FakeEngine(fails=lambda image: bool(image[0, 0, 0] == bad)))))
        frames = [jpeg(bad if n == 2 else BUS) for n in range(5)]
        cars = rig.classify(with_frames(*frames))
        assert [car.label for car in cars] == ["car"] * 5
        assert [car.attributes[0].missing for car in cars] == ["", "", FAILED, "", ""]
        assert (rig.count("labelled"), rig.count(FAILED)) == (4, 1)

    def test_a_lost_device_of_a_second_stage_model_ends_the_process(self) -> None:
        class LostEngine(FakeEngine):
            lost = False

            def _infer_impl(self, images: Images) -> dict[str, np.ndarray]:
                if self.lost:
                    raise DeviceLost("gone")
                return dict(super()._infer_impl(images))

        engine = LostEngine()
        rig = Rig((TYPE, second_model(engine)))
        engine.lost = True
        with pytest.raises(DeviceLost):
            rig.classify(with_frames(jpeg()))

    def test_the_time_of_second_stage_models_counts_as_device_time_of_the_batch(self) -> None:
        batch, _ = merged(with_frames(jpeg()))
        Rig((TYPE, second_model())).cascade.classify(batch)
        assert batch.took.cascade > 0.0
        assert batch.took.device_s == batch.took.compute + batch.took.cascade

    def test_crops_that_do_not_fit_into_memory_together_are_classified_in_parts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cascade_module, "MAX_CROPS", 2)
        engine = CountingEngine()
        rig = Rig((TYPE, second_model(engine)))
        engine._batch_size = 4
        engine.sizes.clear()
        cars = rig.classify(with_frames(*(jpeg(BUS if n % 2 else CAR) for n in range(5))))
        assert engine.sizes == [2, 2, 1]
        assert [car.attributes[0].label for car in cars] == ["car", "bus", "car", "bus", "car"]

    @pytest.mark.parametrize(("most_bytes", "decodings"), [(2 * 64 * 64 * 3, 2), (2 * 64 * 64 * 3 - 1, 4)])
    def test_an_encoded_frame_in_a_batch_is_decoded_once_for_both_models_while_memory_allows(
        self, most_bytes: int, decodings: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []
        real = cv2.imdecode
        monkeypatch.setattr(serving, "MAX_KEPT_BYTES", most_bytes)
        monkeypatch.setattr(cv2, "imdecode", lambda *args: calls.append(args) or real(*args))
        cars = Rig((TYPE, second_model())).classify(carrying([jpeg(CAR), jpeg(BUS)]))
        assert [car.attributes[0].label for car in cars] == ["car", "bus"]
        assert len(calls) == decodings

    def test_the_attribute_of_an_object_is_missing_if_the_encoded_frame_of_its_batch_is_unreadable(self) -> None:
        (car,) = Rig((TYPE, second_model())).classify(with_frames(jpeg(width=32)))
        assert car.attributes[0].missing == NO_FRAME

    def test_a_dead_letter_of_a_batch_keeps_the_encoded_frame_for_a_replay(self) -> None:
        batch, (job,) = merged(with_frames(jpeg(), jpeg(BUS)))
        for task in batch.tasks:
            task.error = ModelLoadFailed("broken")
        letters = results(job, 0)
        assert [letter.topic for letter in letters] == [DEADLETTER] * 2
        replayed = decode(Batch, letters[1].value)
        assert replayed.frames == jpeg(BUS)
        assert replayed.attached_frames() == [jpeg(BUS)]

    def test_a_detector_is_refused_as_second_stage_model(self) -> None:
        model = Repository(MODELS).open("regions")
        manifest = model.manifest.model_copy(update={"decoder": "yolox"})
        with pytest.raises(ManifestError, match="expected a classifier or a model of embeddings"):
            SecondModel(TYPE, Model(manifest, model.folder), FakeEngine())

    def test_a_model_of_embeddings_is_refused_as_model_of_a_pipeline(self) -> None:
        pipeline = PipelineConfig(name="p", model="appearance", width=64, height=128)
        with pytest.raises(ManifestError, match="Name a model of embeddings in the pipeline's then"):
            ServedModel(pipeline, Repository(MODELS).open("appearance"), FakeEngine())


class TestEmbeddings:
    LOOK = SecondModelConfig(name="type", model="appearance")

    def rig(self, config: SecondModelConfig = LOOK) -> Rig:
        second = SecondModel(config, Repository(MODELS).open("appearance"), backends.make("onnxruntime"))
        second.open(quickly=True)
        return Rig((config, second))

    def test_objects_get_an_embedding_and_no_attribute(self) -> None:
        rig = self.rig()
        cars = rig.classify(with_frames(jpeg(30), jpeg(220)))
        assert [car.attributes for car in cars] == [(), ()]
        dark, bright = (car.embeddings for car in cars)
        assert [(one.name, one.model) for one in (*dark, *bright)] == [("type", "appearance@1")] * 2
        assert dark[0].values != bright[0].values
        assert rig.count("embedded") == 2.0
        assert rig.count("labelled") == 0.0

    def test_an_object_that_is_too_small_has_a_reason_instead_of_an_embedding(self) -> None:
        config = self.LOOK.model_copy(update={"min_pixels": 500})
        (car,) = self.rig(config).classify(with_frames(jpeg()))
        assert car.embeddings == ()
        assert [(one.name, one.missing) for one in car.attributes] == [("type", SMALL)]
