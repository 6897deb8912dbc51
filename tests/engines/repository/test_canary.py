"""Tests of canaries: the cameras of a share, the models of a node, and the results' model versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engines.exceptions import AdoptFailed, ManifestError, ModelUnknown
from engines.metrics import NodeMetrics
from engines.node.jobs import HighWaterMarks, accept, results
from engines.node.pipelines import REMOVED_S, LiveModels
from engines.node.scheduler import MergedBatch
from engines.repository.canary import Canary, end_canary, read_canary, start_canary, trail_of
from engines.repository.store import Repository
from ingest.contract.codec import decode
from ingest.contract.records import Result
from tests.engines.node.batches import item, record
from tests.engines.node.fakesource import CARS, FakeSource, configured
from tests.paths import MODELS

HALF = Canary(model="regions", version=2, share=0.5, since_ns=1)
CAMERAS = [f"cam{n}" for n in range(8)]


def copied(root: Path) -> Repository:
    """Return a repository with two versions of the shipped model."""
    model = Repository(MODELS).open("regions@1")
    manifest = model.manifest.model_dump(exclude={"name", "version", "sha256"}, exclude_none=True)
    repository = Repository(root)
    for _ in range(2):
        repository.write("regions", manifest, {"model.onnx": model.path.read_bytes()})
    repository.promote("regions", 1)
    return repository


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_canary_keeps_its_cameras_when_its_share_is_increased(one: float, other: float) -> None:
    small, large = sorted((one, other))
    shares = [HALF.model_copy(update={"share": share}) for share in (small, large)]
    chosen = [{camera for camera in map(str, range(200)) if canary.serves(camera)} for canary in shares]
    assert chosen[0] <= chosen[1]


def test_a_canary_serves_about_its_share_of_many_cameras() -> None:
    tenth = HALF.model_copy(update={"share": 0.1})
    assert 150 < sum(tenth.serves(f"camera-{n}") for n in range(2000)) < 250
    assert all(HALF.model_copy(update={"share": 1.0}).serves(camera) for camera in CAMERAS)


def test_begin_and_end_of_a_canary_are_in_the_audit_trail(tmp_path: Path) -> None:
    repository = copied(tmp_path)
    assert read_canary(repository, "regions") is None
    canary = start_canary(repository, "regions", 2, 0.5, 10)
    assert read_canary(repository, "regions") == canary
    end_canary(repository, canary, "rolled back", 20, "the agreement fell")
    assert read_canary(repository, "regions") is None
    trail = [(line.change, line.reason, line.at_ns) for line in trail_of(repository, "regions")]
    assert trail == [("began", "", 10), ("rolled back", "the agreement fell", 20)]
    assert repository.promoted("regions") == 1


def test_the_audit_trail_records_the_end_of_a_canary_that_another_canary_replaces(tmp_path: Path) -> None:
    repository = copied(tmp_path)
    start_canary(repository, "regions", 2, 0.2, 10)
    start_canary(repository, "regions", 2, 0.5, 20)
    trail = [(line.change, line.reason, line.share) for line in trail_of(repository, "regions")]
    replaced = "replaced by regions@2 with the share 0.5"
    assert trail == [("began", "", 0.2), ("stopped", replaced, 0.2), ("began", "", 0.5)]


def test_a_line_after_a_cut_off_line_of_the_audit_trail_is_readable(tmp_path: Path) -> None:
    repository = copied(tmp_path)
    canary = start_canary(repository, "regions", 2, 0.5, 10)
    with (tmp_path / "regions" / "canaries.jsonl").open("a") as trail:
        trail.write('{"model":"reg')
    end_canary(repository, canary, "stopped", 20)
    assert [line.change for line in trail_of(repository, "regions")] == ["began", "stopped"]


def test_a_canary_file_that_cannot_be_written_is_an_error_of_the_repository(tmp_path: Path) -> None:
    repository = copied(tmp_path)
    (tmp_path / "regions" / "canary.json").mkdir()
    with pytest.raises(AdoptFailed, match=r"canary\.json"):
        start_canary(repository, "regions", 2, 0.5, 10)
    with pytest.raises(AdoptFailed, match=r"canary\.json"):
        end_canary(repository, HALF, "stopped", 10)


def test_an_unknown_canary_version_is_refused_and_the_error_for_a_damaged_canary_file_names_the_file(
    tmp_path: Path,
) -> None:
    repository = copied(tmp_path)
    with pytest.raises(ModelUnknown):
        start_canary(repository, "regions", 9, 0.5, 10)
    (tmp_path / "regions" / "canary.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"canary\.json"):
        read_canary(repository, "regions")


class CanaryBench:
    """Live models of a fake source."""

    def __init__(self) -> None:
        self.source, self.now_s = FakeSource(), 0.0
        self.live = LiveModels(self.source, NodeMetrics(CollectorRegistry()), lambda: self.now_s)

    async def models_of(self, offset: int = 0) -> dict[str, str]:
        """Classify a frame of each camera in one batch, and return the model of each camera's result."""
        one = record([item(offset, camera=camera) for camera in CAMERAS], pipeline="cars")
        job = accept(one, HighWaterMarks(), self.live.names)
        async with self.live.use("cars") as cascade:
            cascade.classify(MergedBatch("cars", list(job.tasks.values()), [job]))
        found = [decode(Result, out.value) for out in results(job, 1)]
        return {result.camera: result.model for result in found}


async def test_a_canary_classifies_only_the_frames_of_its_cameras() -> None:
    bench = CanaryBench()
    await configured(bench.live, [CARS])
    bench.source.canaries["regions"] = HALF
    await bench.live.update()
    expected = {camera: "regions@2" if HALF.serves(camera) else "regions@1" for camera in CAMERAS}
    assert set(expected.values()) == {"regions@1", "regions@2"}
    assert await bench.models_of() == expected
    await configured(bench.live, [CARS.model_copy(update={"max_items": 2})])
    bench.now_s = 2 * REMOVED_S
    await bench.live.update()
    assert await bench.models_of(1) == expected
    await bench.live.close()


async def test_the_canary_of_a_pipeline_that_was_removed_and_configured_again_stays_loaded() -> None:
    bench = CanaryBench()
    bench.source.canaries["regions"] = HALF
    for pipelines in ([CARS], [], [CARS]):
        await configured(bench.live, pipelines)
    loaded = bench.live._serving["cars/canary"]
    bench.now_s = 2 * REMOVED_S
    await bench.live.update()
    assert bench.live._serving["cars/canary"] is loaded
    await bench.live.close()


async def test_all_cameras_return_to_the_promoted_version_when_the_canary_ends() -> None:
    bench = CanaryBench()
    bench.source.canaries["regions"] = HALF
    await configured(bench.live, [CARS])
    assert set((await bench.models_of()).values()) == {"regions@1", "regions@2"}
    bench.source.canaries.clear()
    await bench.live.update()
    assert set((await bench.models_of(1)).values()) == {"regions@1"}
    await bench.live.close()


async def test_a_canary_that_cannot_be_loaded_leaves_all_cameras_to_the_promoted_version() -> None:
    bench = CanaryBench()
    await configured(bench.live, [CARS])
    bench.source.canaries["regions"] = HALF
    bench.source.broken.add("regions@2")
    with pytest.raises(Exception, match="regions@2"):
        await bench.live.update()
    assert set((await bench.models_of()).values()) == {"regions@1"}
    await bench.live.close()


async def test_a_canary_with_all_cameras_classifies_every_frame() -> None:
    bench = CanaryBench()
    bench.source.canaries["regions"] = HALF.model_copy(update={"share": 1.0})
    await configured(bench.live, [CARS])
    assert set((await bench.models_of()).values()) == {"regions@2"}
    await bench.live.close()
