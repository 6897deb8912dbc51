"""Tests of parking, listing and replaying dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract import headers as h
from ingest.contract.codec import MAX_RECORD_BYTES, encode
from ingest.contract.identity import FrameId
from ingest.contract.records import FrameRef, Result
from ingest.contract.topics import BATCHES, DEADLETTER, FRAMES, FRAMES_LATE, RESULTS
from ingest.deadletter import DeadLetter, ReplayReport, letter_at, letters, parked, replay
from ingest.deadletter.plan import Candidate, ReplayPlan, ReplayReceipt, Send, Skip
from ingest.exceptions import LogUnavailable, Truncated, WrongType
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit

EPOCH = 1_700_000_000
TOPICS = (FRAMES, FRAMES_LATE, BATCHES)


def frame(seq: int, camera: str = "gate") -> FrameId:
    return FrameId(camera, EPOCH, seq)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(2)


async def deliver(
    log: MemoryLog, *seqs: int, topic: str = FRAMES, pipeline: str = "", lane: str = "live"
) -> LogRecord:
    headers = h.frame_headers(map(frame, seqs), lane, "00-trace-01", pipeline)
    value = b"\x00 ruined " + bytes(seqs)
    position = await log.produce(Outgoing(topic, 1, value, key=b"gate", headers=headers))
    return LogRecord(topic, *position, b"gate", value, headers)


async def park(log: MemoryLog, record: LogRecord, error: Exception | None = None, pipeline: str = "") -> None:
    await log.produce(parked(record, "prepare-live", error or Truncated("ends early"), pipeline))


async def finish(log: MemoryLog, seq: int, lane: str, pipeline: str = "cars") -> None:
    result = Result(
        camera="gate",
        epoch=EPOCH,
        seq=seq,
        lane=lane,
        pipeline=pipeline,
        pipelines=(pipeline,),
        captured_ns=1,
        finished_ns=2,
        width=2,
        height=2,
        source=FrameRef(FRAMES, 1, 0),
        outcome="classified",
    )
    await log.produce(Outgoing(RESULTS, 1, encode(result)))


async def sent(log: MemoryLog, topic: str) -> list[LogRecord]:
    """Return the records that a replay wrote to a topic."""
    end = (await log.ends(topic))[1]
    return [r async for r in log.read(topic, 1, 0, end) if r.headers[h.LANE].startswith(b"replay-")]


async def test_a_dead_letter_holds_the_original_record_and_the_failure(log: MemoryLog) -> None:
    record = await deliver(log, 3, topic=FRAMES_LATE, lane="late")
    await park(log, record, WrongType("frame", "seq: missing"))
    [letter] = [x async for x in letters(log)]
    assert (letter.record.value, letter.record.key) == (record.value, b"gate")
    assert record.headers.items() <= letter.record.headers.items()
    assert letter.frames == (frame(3),)
    assert (letter.lane, letter.pipeline, letter.offset) == ("late", "", 0)
    assert letter.position == "frames.late[1]@0"
    assert letter.failure == h.Failure(FRAMES_LATE, 1, 0, "prepare-live", "wrongtype", "frame: seq: missing")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Truncated("x"), "truncated"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UnicodeDecodeError"),
        (ValueError("lone \ud800 surrogate"), "ValueError"),
        (KeyError("x" * 5000), "KeyError"),
    ],
)
async def test_a_dead_letter_stores_any_error_with_a_bounded_message(
    log: MemoryLog, error: Exception, reason: str
) -> None:
    await park(log, await deliver(log, 1), error)
    [letter] = [x async for x in letters(log)]
    assert letter.failure.error == reason
    assert len(letter.failure.message) <= 1000


async def test_an_oversize_record_is_truncated_in_its_dead_letter_and_not_replayed(log: MemoryLog) -> None:
    headers = {
        "junk": bytes(60_000),
        **{f"more-{n}": bytes(5_000) for n in range(20)},
        **h.frame_headers([frame(3)], "live"),
    }
    huge = LogRecord(FRAMES, 1, 9, b"k" * 5000, bytes(MAX_RECORD_BYTES + 100), headers)
    letter = parked(huge, "prepare-live", Truncated("x" * 100_000), "p" * 5000)
    assert len(letter.value) == MAX_RECORD_BYTES
    assert sum(len(name) + len(value) for name, value in letter.headers.items()) < 60 * 1024
    await log.produce(letter)
    (found,) = [one async for one in letters(log)]
    assert (found.frames, found.lane, found.whole) == ((frame(3),), "live", False)
    report = await replay(log, "again")
    assert (report.sent, report.skipped) == (0, {"was too large to be parked whole": 1})


async def test_a_replayed_record_and_its_receipt_are_written_in_one_transaction(log: MemoryLog) -> None:
    await park(log, await deliver(log, 1))
    plain = log.writer

    async def failing(transactional_id: str) -> object:
        writer = await plain(transactional_id)

        async def write(*_: object) -> None:
            raise LogUnavailable("cut")

        writer.write = write  # type: ignore[method-assign, assignment]
        return writer

    log.writer = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(LogUnavailable):
        await replay(log, "monday")
    log.writer = plain  # type: ignore[method-assign]
    assert (await replay(log, "tuesday")).sent == 1
    assert (await replay(log, "wednesday")).sent == 0
    assert (await log.ends(FRAMES))[1] == 2


async def test_a_record_without_error_headers_is_not_listed_as_a_dead_letter(log: MemoryLog) -> None:
    await log.produce(Outgoing(DEADLETTER, 0, b"a stray", headers={h.FRAMES: b"gate/1/2"}))
    assert [x async for x in letters(log)] == []


async def test_a_replay_sends_the_original_bytes_on_the_lane_of_its_replay_run(log: MemoryLog) -> None:
    record = await deliver(log, 1, 2, topic=BATCHES, pipeline="cars")
    await park(log, record, pipeline="cars")
    report = await replay(log, "tuesday")
    assert report == ReplayReport("tuesday", sent=1)
    [back] = await sent(log, BATCHES)
    assert (back.value, back.key, back.partition) == (record.value, b"gate", 1)
    assert back.headers == {**record.headers, h.LANE: b"replay-tuesday"}
    assert back.headers[h.PIPELINE] == b"cars"


@pytest.mark.parametrize("second", ["tuesday", "wednesday"])
async def test_a_repeated_replay_skips_dead_letters_whose_frames_are_still_in_processing(
    log: MemoryLog, second: str
) -> None:
    await park(log, await deliver(log, 1))
    await replay(log, "tuesday")
    assert await replay(log, second) == ReplayReport(second, 0, {"replayed already": 1})
    await finish(log, 1, "replay-tuesday")
    assert await replay(log, second) == ReplayReport(second, 0, {"replayed already": 1})
    assert len(await sent(log, FRAMES)) == 1


async def test_replay_receipts_are_neither_listed_nor_audited_as_dead_letters(log: MemoryLog) -> None:
    await park(log, await deliver(log, 1))
    await replay(log, "tuesday")
    assert len([x async for x in letters(log)]) == 1
    found = await audit(log, wait_s=0.0)
    assert (found.totals.dead, found.unidentified) == (1, 0)


async def test_a_record_that_fails_again_after_a_replay_is_replayed_again(log: MemoryLog) -> None:
    await park(log, await deliver(log, 1))
    await replay(log, "tuesday")
    [back] = await sent(log, FRAMES)
    await park(log, back)
    report = await replay(log, "wednesday")
    assert (report.sent, report.skipped) == (1, {"replayed already": 1})
    lanes = [r.headers[h.LANE] for r in await sent(log, FRAMES)]
    assert lanes == [b"replay-tuesday", b"replay-wednesday"]


async def test_a_second_replay_under_the_same_name_uses_a_new_lane_for_the_same_frame(log: MemoryLog) -> None:
    await park(log, await deliver(log, 1))
    await replay(log, "tuesday")
    [back] = await sent(log, FRAMES)
    await park(log, back)
    assert (await replay(log, "tuesday")).sent == 1
    lanes = [r.headers[h.LANE] for r in await sent(log, FRAMES)]
    assert lanes == [b"replay-tuesday", b"replay-tuesday.2"]


async def test_a_dead_letter_of_a_frame_with_a_result_in_its_pipeline_is_not_replayed(log: MemoryLog) -> None:
    await park(log, await deliver(log, 1))
    await park(log, await deliver(log, 2, topic=BATCHES, pipeline="cars"), pipeline="cars")
    await finish(log, 1, "live")
    await finish(log, 2, "live", "people")
    assert await replay(log, "a") == ReplayReport("a", 1, {"already has a result": 1})
    assert len(await sent(log, BATCHES)) == 1


async def test_a_record_with_two_dead_letters_is_replayed_once(log: MemoryLog) -> None:
    record = await deliver(log, 1)
    await park(log, record)
    await park(log, record)
    assert await replay(log, "a") == ReplayReport("a", 1, {"parked twice": 1})


async def test_a_dead_letter_without_a_frame_id_is_replayed_once(log: MemoryLog) -> None:
    position = await log.produce(Outgoing(FRAMES, 1, b"who am I"))
    await park(log, LogRecord(FRAMES, *position, None, b"who am I"))
    assert (await replay(log, "a")).sent == 1
    assert await replay(log, "b") == ReplayReport("b", 0, {"replayed already": 1})


async def test_a_replay_sends_only_the_selected_dead_letters(log: MemoryLog) -> None:
    await park(log, await deliver(log, 1), Truncated("x"))
    await park(log, await deliver(log, 2), WrongType("frame", "x"))

    def wanted(letter: DeadLetter) -> bool:
        return letter.failure.error == "wrongtype"

    assert await replay(log, "a", wanted) == ReplayReport("a", 1)
    assert [h.frames_of(r.headers) for r in await sent(log, FRAMES)] == [(frame(2),)]


async def test_a_replay_lane_carries_the_frames_of_a_camera_in_rising_order(log: MemoryLog) -> None:
    for seq in (5, 3, 7, 4):
        await park(log, await deliver(log, seq))
    await replay(log, "a")
    lanes = [(r.headers[h.LANE], h.frames_of(r.headers)[0].seq) for r in await sent(log, FRAMES)]
    assert lanes == [(b"replay-a", 5), (b"replay-a.2", 3), (b"replay-a", 7), (b"replay-a.2", 4)]


@pytest.mark.parametrize("run", ["", "With Capitals", "a.2", "x" * 60, "a\n"])
async def test_an_invalid_name_of_a_replay_run_is_refused(log: MemoryLog, run: str) -> None:
    with pytest.raises(ValueError, match="replay run"):
        await replay(log, run)


async def test_the_ledger_balances_after_a_replay(log: MemoryLog) -> None:
    for seq in range(4):
        await park(log, await deliver(log, seq))
    await replay(log, "a")
    for back in await sent(log, FRAMES):
        await finish(log, h.frames_of(back.headers)[0].seq, back.headers[h.LANE].decode())
    found = await audit(log, wait_s=0.0)
    assert found.balanced, found.totals.examples
    assert (found.totals.dead, found.totals.classified) == (0, 4)


# Replays are checked against a model of the engine node, which drops frames at or below the mark of their lane.


@st.composite
def parked_letters(draw: st.DrawFn) -> list[Candidate]:
    """Draw dead letters of single frames that failed at any stage, in any order, with no frame twice."""
    order = draw(st.permutations([(camera, seq) for camera in ("gate", "yard") for seq in range(8)]))
    found: list[Candidate] = []
    for offset, (camera, seq) in enumerate(order):
        topic = draw(st.sampled_from(TOPICS))
        pipeline = "cars" if topic == BATCHES else ""
        found.append(Candidate(offset, topic, pipeline, (frame(seq, camera),), f"{topic}[0]@{offset}"))
    return found


def engine(sent: Sequence[tuple[str, Candidate]]) -> Counter[FrameId]:
    """Return the number of results of each frame."""
    marks: dict[tuple[str, str], int] = {}
    done: Counter[FrameId] = Counter()
    for lane, letter in sent:
        for each in letter.frames:
            if each.seq > marks.get((each.camera, lane), -1):
                marks[each.camera, lane] = each.seq
                done[each] += 1
    return done


@given(parked_letters(), st.permutations(TOPICS), st.integers(0, 16))
def test_every_replayed_frame_is_classified_once_in_whichever_order_topics_are_read(
    found: list[Candidate], order: list[str], first_call: int
) -> None:
    """The same replay runs twice, the first time for some letters only. Topics are processed one after the other."""
    arrived: list[tuple[str, Candidate]] = []
    receipts: list[ReplayReceipt] = []
    for call, wanted in enumerate((found[:first_call], found)):
        plan, sent = ReplayPlan("a", receipts, {}), []
        for letter in wanted:
            decision = plan.decide(letter)
            if isinstance(decision, Send):
                sent.append((decision.lane, letter))
        receipts += [ReplayReceipt(100 * (call + 1) + i, lane, letter) for i, (lane, letter) in enumerate(sent)]
        arrived += [each for topic in order for each in sent if each[1].topic == topic]
    assert engine(arrived) == Counter(letter.frames[0] for letter in found)


def batch(offset: int, *seqs: int) -> Candidate:
    return Candidate(offset, BATCHES, "cars", tuple(map(frame, seqs)), f"batches[0]@{offset}")


def test_replayed_batches_that_share_frames_are_sent_on_one_lane_in_order() -> None:
    plan = ReplayPlan("a", [], {})
    first, second = batch(0, 1, 2, 3), batch(1, 3, 4)
    assert [plan.decide(first), plan.decide(second)] == [Send("replay-a"), Send("replay-a")]
    assert engine([("replay-a", first), ("replay-a", second)]) == Counter(map(frame, (1, 2, 3, 4)))


def test_out_of_order_batches_that_share_frames_are_not_replayed_twice() -> None:
    plan = ReplayPlan("a", [], {})
    assert plan.decide(batch(0, 3, 4)) == Send("replay-a")
    assert plan.decide(batch(1, 1, 2, 3)) == Skip("some of its frames have been replayed or have a result")
    assert plan.decide(batch(2, 3)) == Skip("parked twice")


def test_a_replay_skips_a_batch_in_which_some_frames_are_already_classified() -> None:
    plan = ReplayPlan("a", [], {(frame(1), "cars"): False})
    assert plan.decide(batch(0, 1, 2)) == Skip("some of its frames have been replayed or have a result")
    assert plan.decide(batch(1, 1)) == Skip("already has a result")


@pytest.mark.parametrize(("topic", "partition"), [("unheard-of", 0), (FRAMES, 10_000), (FRAMES, -1)])
async def test_a_replay_skips_a_dead_letter_without_a_source_topic_and_sends_all_other_dead_letters(
    log: MemoryLog, topic: str, partition: int
) -> None:
    failure = h.Failure(topic, partition, 0, "foreign", "garbage", "written by another producer")
    await log.produce(Outgoing(DEADLETTER, 0, b"x", headers=h.failure_headers(failure)))
    await park(log, await deliver(log, 3), Truncated("x"))
    report = await replay(log, "mixed")
    assert (report.sent, report.skipped) == (1, {"names a topic or partition that does not exist": 1})


async def test_a_dead_letter_can_be_read_by_its_offset(log: MemoryLog) -> None:
    await park(log, await deliver(log, 3), Truncated("x"))
    assert (await letter_at(log, 0)) in [x async for x in letters(log)]
    assert await letter_at(log, 1) is None
