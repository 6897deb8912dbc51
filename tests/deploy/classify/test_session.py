"""Tests of a run of `sightline classify` on the log in memory, with a stack that answers each frame at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.classify import session
from deploy.classify.session import Answer, ClassifyOutcome, classify
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.records import Frame, FrameRef, Result
from ingest.contract.topics import FRAMES, RESULTS, partition_for
from ingest.deadletter import parked
from ingest.exceptions import ConfigError
from ingest.kafka.log import LogRecord, Outgoing, Position
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from ingest.site.topic.store import publish

PIPELINE = PipelineConfig(name="products", model="m", width=16, height=16, cameras=("belt",))
Respond = Callable[[LogRecord], list[Outgoing]]


def result_of(record: LogRecord, **values: object) -> Outgoing:
    """Return the record of the result that an engine node would write for a frame."""
    (frame,) = h.frames_of(record.headers)
    body = decode(Frame, record.value)
    result = Result(
        camera=frame.camera,
        epoch=frame.epoch,
        seq=frame.seq,
        captured_ns=body.captured_ns,
        width=body.width,
        height=body.height,
        lane="live",
        source=FrameRef(record.topic, record.partition, record.offset),
        pipelines=("products",),
        pipeline="products",
        finished_ns=body.captured_ns + 5_000_000,
        **{"outcome": "classified", **values},
    )
    headers = h.frame_headers([frame], "live", pipeline="products")
    return Outgoing(RESULTS, record.partition, encode(result), key=frame.camera.encode(), headers=headers)


def classified(record: LogRecord) -> list[Outgoing]:
    return [result_of(record)]


class AnsweringLog(MemoryLog):
    """A log whose frames are answered as soon as they are written."""

    def __init__(self, respond: Respond) -> None:
        super().__init__(4)
        self.respond = respond
        self.frames: list[LogRecord] = []

    async def produce(self, record: Outgoing) -> Position:
        at = await super().produce(record)
        if record.topic == FRAMES:
            found = LogRecord(record.topic, *at, record.key, record.value, record.headers)
            self.frames.append(found)
            for answer in self.respond(found):
                await super().produce(answer)
        return at


class SteppingClock(ManualClock):
    """A clock that advances by a step each time somebody reads it, so that no test depends on the machine's speed."""

    def monotonic(self) -> float:
        self.advance(0.05)
        return super().monotonic()


class ClassifyBench:
    """A run over some picture files, with its answers."""

    def __init__(self, folder: Path, respond: Respond = classified) -> None:
        self.log = AnsweringLog(respond)
        self.answers: list[Answer] = []
        self._folder = folder

    def pictures(self, count: int) -> list[Path]:
        paths = [self._folder / f"{number:02}.png" for number in range(count)]
        for number, path in enumerate(paths):
            assert cv2.imwrite(str(path), np.full((8, 8, 3), number, np.uint8))
        return paths

    async def run(
        self, pictures: list[Path], timeout_s: float = 30.0, clock: ManualClock | None = None
    ) -> ClassifyOutcome:
        await publish(self.log, [PIPELINE])
        return await classify(
            self.log, pictures, "products", timeout_s=timeout_s, on_answer=self.answers.append, clock=clock
        )

    @property
    def outcomes(self) -> dict[str, str]:
        return {answer.picture.name: answer.outcome for answer in self.answers}


async def test_every_picture_of_a_classify_run_gets_one_answer_and_the_ledger_balances(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path)
    pictures = bench.pictures(5)
    outcome = await bench.run(pictures)
    assert [answer.picture for answer in bench.answers] == pictures
    assert set(bench.outcomes.values()) == {"classified"}
    assert outcome.complete
    assert outcome.balance.balanced
    totals = outcome.balance.totals
    assert (totals.captured, totals.delivered, totals.classified, totals.unaccounted) == (5, 5, 5, 0)


async def test_frames_of_a_classify_run_go_in_order_to_one_partition_and_name_their_pipeline(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path)
    outcome = await bench.run(bench.pictures(3))
    partition = partition_for(outcome.stream, 4)
    assert [(r.partition, r.headers[h.PIPELINE], r.key) for r in bench.log.frames] == [
        (partition, b"products", outcome.stream.encode())
    ] * 3
    assert [h.frames_of(record.headers)[0].seq for record in bench.log.frames] == [0, 1, 2]


async def test_the_audit_of_a_site_includes_a_classify_run_and_balances(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path)
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    outcome = await bench.run([*bench.pictures(2), bad])
    balance = await audit(bench.log, wait_s=0.0)
    assert balance.balanced
    assert balance.cameras[outcome.stream] == outcome.balance.cameras[outcome.stream]
    assert balance.totals.withheld == {"unusable": 1}


async def test_an_unreadable_picture_is_reported_and_the_other_pictures_are_classified(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path)
    first, second = bench.pictures(2)
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    outcome = await bench.run([first, bad, second])
    assert bench.outcomes == {"00.png": "classified", "bad.jpg": "unreadable", "01.png": "classified"}
    (reason,) = [answer.reason for answer in bench.answers if answer.outcome == "unreadable"]
    assert "not a picture" in reason
    assert outcome.balance.balanced
    assert not outcome.complete
    totals = outcome.balance.totals
    assert (totals.captured, totals.withheld, totals.delivered) == (3, {"unusable": 1}, 2)


async def test_the_ledger_of_a_run_with_only_unreadable_pictures_balances(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path)
    outcome = await bench.run([tmp_path / "none.png"])
    assert (outcome.complete, outcome.balance.balanced, outcome.balance.totals.captured) == (False, True, 1)


@pytest.mark.parametrize("batched", [False, True])
async def test_a_picture_that_becomes_a_dead_letter_is_reported_with_stage_and_error(
    tmp_path: Path, batched: bool
) -> None:
    def dead(record: LogRecord) -> list[Outgoing]:
        at = replace(record, topic="batches") if batched else record
        return [parked(at, "engine", ValueError("no such model"), "products" if batched else "")]

    bench = ClassifyBench(tmp_path, dead)
    outcome = await bench.run(bench.pictures(1))
    (answer,) = bench.answers
    assert (answer.outcome, answer.reason) == ("dead", "engine: ValueError: no such model")
    assert (outcome.complete, outcome.balance.balanced, outcome.balance.totals.dead) == (False, True, 1)


async def test_a_shed_picture_is_reported_and_makes_the_classify_run_incomplete(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path, lambda record: [result_of(record, outcome="shed", reason="stale")])
    outcome = await bench.run(bench.pictures(1))
    assert [(answer.outcome, answer.reason) for answer in bench.answers] == [("shed", "stale")]
    assert (outcome.complete, outcome.balance.balanced) == (False, True)


async def test_pictures_without_a_result_are_unaccounted_and_later_pictures_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "IN_FLIGHT", 2)
    bench = ClassifyBench(tmp_path, lambda _: [])
    outcome = await bench.run(bench.pictures(4), timeout_s=0.5, clock=SteppingClock())
    assert list(bench.outcomes.values()) == ["unanswered", "unanswered", "unsent", "unsent"]
    assert len(bench.log.frames) == 2
    assert (outcome.complete, outcome.balance.balanced, outcome.balance.totals.unaccounted) == (False, False, 2)


async def test_two_results_for_one_picture_count_as_a_duplicate(tmp_path: Path) -> None:
    bench = ClassifyBench(tmp_path, lambda record: [result_of(record), result_of(record)])
    outcome = await bench.run(bench.pictures(1))
    assert (len(bench.answers), outcome.balance.balanced, outcome.balance.totals.duplicates) == (1, False, 1)


async def test_a_classify_run_ignores_results_of_other_cameras(tmp_path: Path) -> None:
    def with_another(record: LogRecord) -> list[Outgoing]:
        mine = result_of(record)
        (frame,) = h.frames_of(record.headers)
        headers = h.frame_headers([replace(frame, camera="belt")], "live", pipeline="products")
        return [replace(mine, headers=headers), mine]

    bench = ClassifyBench(tmp_path, with_another)
    outcome = await bench.run(bench.pictures(2))
    assert len(bench.answers) == 2
    assert outcome.balance.balanced


async def test_a_pipeline_without_a_model_cannot_classify_pictures(tmp_path: Path) -> None:
    log = MemoryLog(1)
    await publish(log, [PIPELINE, PipelineConfig(name="moving", model="motion")])
    with pytest.raises(ConfigError, match=r"--pipeline = 'moving': expected one of products$"):
        await classify(log, [tmp_path / "a.png"], "moving", timeout_s=1.0)


@pytest.mark.parametrize(("known", "expected"), [(True, "one of products"), (False, "sightline config apply")])
async def test_the_error_for_an_unknown_pipeline_lists_the_pipelines_of_the_site(
    tmp_path: Path, known: bool, expected: str
) -> None:
    log = MemoryLog(1)
    if known:
        await publish(log, [PIPELINE])
    with pytest.raises(ConfigError, match=expected):
        await classify(log, [tmp_path / "a.png"], "x-rays", timeout_s=1.0)
    assert sum((await log.ends(FRAMES)).values()) == 0
