"""Tests of repeated kills of an agent. ``python -m benchmarks.kills`` kills an agent a hundred times."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.kills.__main__ import KillOptions, footage, plan, run
from benchmarks.kills.evidence import Epoch, Numbers, Opened, SpoolCopy, SpooledRow, Topics
from benchmarks.kills.judge import Kill, KillEvidence, judge
from deploy.local.kafka.broker import Broker
from edge_agent.spool.schema import WAITS
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import EpochEnd, Readings, WithheldInterval
from ingest.ledger.balance import Balance, compute_balance
from ingest.ledger.states import Ledger
from tests.peers.rtsp import RtspServer

SECOND = 1_000_000_000
ROAD: Epoch = ("road", 5)


@pytest.mark.chaos
@pytest.mark.kafka
@pytest.mark.timeout(480)
async def test_a_restarted_agent_delivers_exactly_once_each_frame_that_its_spool_held_at_the_kill(
    own_broker: Broker, rtsp_server: Callable[..., RtspServer], tmp_path: Path
) -> None:
    server = rtsp_server({"road": footage(tmp_path)})
    options = KillOptions(kills=4, cycle=6, seed=238, within_s=1.0, settle_s=0.5, stored=15)
    report = await run(options, tmp_path, own_broker, server.url("road"), lambda _: None)
    assert report["faults"] == []
    assert report["spool"]["whole"] == 4
    assert report["spool"]["rows_sealed"] > 0
    assert (report["kills"]["agent"], report["kills"]["capture"], report["kills"]["without_broker"]) == (2, 1, 1)
    assert report["promised"]["frames"] > 50  # the agent is started four times
    assert report["promised"]["lost"] == 0
    assert report["ledger"]["readings"]["delivered"] > 100


def test_the_same_seed_plans_the_same_kills_of_an_agent() -> None:
    steps = plan(KillOptions())
    assert steps == plan(KillOptions())
    assert [step.broker for step in steps[:12]] == [""] * 4 + ["kill"] + [""] * 2 + ["start"] + [""] * 4
    assert {step.target for step in steps} == {"agent", "capture", "stopping"}
    assert 5 < sum(step.early for step in steps) < 30


def frames(*seqs: int, lane: str = LIVE) -> list[tuple[FrameId, str, int]]:
    return [(FrameId(*ROAD, seq), lane, seq) for seq in seqs]


def numbers() -> Numbers:
    """Return the record of six frames: two committed, one withheld, one only encoded, and two only numbered."""
    return Numbers([seq * SECOND for seq in range(6)], {2}, {0: 90, 1: 90, 3: 80}, {0, 1})


def ending(**fields: object) -> EpochEnd:
    known = {"camera": "road", "epoch": 5, "last": 1, "clean": False, "reported": 2}
    return EpochEnd.model_validate(known | fields)


def topics(found: list[tuple[FrameId, str, int]], end: EpochEnd | None = None) -> Topics:
    said = Topics(found)
    said.ends[ROAD].append(end or ending())
    return said


def balanced(said: Topics) -> Balance:
    ledger = Ledger()
    for frame, lane, _ in said.frames:
        ledger.add_frame(frame, lane, None)
    for ends in said.ends.values():
        ledger.add_epoch_end(ends[0])
    for accounts in said.accounts.values():
        for account in accounts:
            ledger.add_account(account)
    return compute_balance(ledger)


def judged(said: Topics, copy: SpoolCopy | None = None) -> dict[str, object]:
    copy = copy or SpoolCopy("ok", [SpooledRow("frame", *ROAD, 1, 1, LIVE)], {ROAD: Opened("frame", 1, 2, False)})
    kill = Kill(0, "agent", 6 * SECOND, False, copy, [ROAD])
    return judge(
        KillEvidence([kill], {ROAD: numbers()}, said, SpoolCopy("ok"), balanced(said), frozenset(["cabinet"]))
    )


def test_frames_lost_from_the_memory_of_a_killed_agent_are_counted() -> None:
    report = judged(topics(frames(0, 1)))
    assert report["faults"] == []
    memory = report["in_memory_only"]
    assert isinstance(memory, dict)
    assert memory["agent"]["frames"]["max"] == 3
    assert memory["agent"]["bytes_encoded"]["max"] == 80
    assert memory["agent"]["not_encoded_yet"]["max"] == 2
    assert memory["agent"]["withheld_and_not_accounted"]["max"] == 1
    assert (memory["numbers"], memory["numbers_reported"]) == (4, 1)
    assert (memory["oldest_s"]["max"], memory["unreported_s"]["max"]) == (3.0, 3.0)


def test_a_frame_committed_to_the_spool_but_missing_in_kafka_is_a_fault() -> None:
    report = judged(topics(frames(1)))
    assert "road/5/0 was committed to the spool, but is neither in Kafka nor expired" in str(report["faults"])
    assert "1 frames are unaccounted for" in str(report["faults"])


def test_a_missing_frame_that_expired_in_the_spool_is_no_fault() -> None:
    said = topics(frames(1))
    said.accounts[ROAD].append(WithheldInterval(camera="road", epoch=5, first=0, last=0, counts={"expired": 1}))
    assert judged(said)["faults"] == []


def test_a_frame_delivered_with_changed_bytes_is_a_fault() -> None:
    said = topics([*frames(0), (FrameId(*ROAD, 1), LIVE, 77)])
    assert "arrived with other bytes, or did not arrive" in str(judged(said)["faults"])


def test_a_missing_status_record_of_an_agent_is_a_fault() -> None:
    copy = SpoolCopy("ok", [SpooledRow("status", "agent", 0, 0, zlib.crc32(b"end"), WAITS)])
    assert "arrived with other bytes, or did not arrive" in str(judged(topics(frames(0, 1)), copy)["faults"])


@pytest.mark.parametrize(("lane", "sending", "backlog"), [(WAITS, 0, 1), (LIVE, 1, 0), (LATE, 1, 0)])
def test_agent_kills_with_a_backlog_and_with_unacknowledged_rows_are_counted_separately(
    lane: str, sending: int, backlog: int
) -> None:
    copy = SpoolCopy("ok", [SpooledRow("frame", *ROAD, 1, 1, lane)] * 100, {ROAD: Opened("frame", 1, 2, False)})
    kills = judged(topics(frames(0, 1)), copy)["kills"]
    assert isinstance(kills, dict)
    assert (kills["while_sending"], kills["with_a_backlog_of_100"]) == (sending, backlog)


def test_a_frame_repeated_on_its_lane_is_no_fault_but_a_frame_on_two_lanes_is_a_fault() -> None:
    assert judged(topics(frames(0, 1, 0, 1)))["faults"] == []
    report = judged(topics([*frames(0, 1), *frames(1, lane=LATE)]))
    assert "frame road/5/1 would be classified twice" in str(report["faults"])


def test_a_frame_delivered_after_a_later_frame_is_a_fault() -> None:
    assert "frame road/5/0 is dropped as a repeat, but arrived only once" in str(
        judged(topics(frames(1, 0)))["faults"]
    )


def test_repeated_readings_are_no_fault_unless_they_are_out_of_order() -> None:
    said = topics(frames(0, 1))
    run = {"sensor": "cabinet", "epoch": 5, "quantity": "t", "unit": "Cel", "times_ns": (1, 2), "quality": (0, 0)}
    first, second = (Readings.model_validate({**run, "seq": seq, "values": (1.0, 2.0)}) for seq in (0, 2))
    said.readings = [(first, 0), (second, 0), (first, 0), (second, 0)]
    report = judged(said)
    assert report["faults"] == []
    assert report["repeats"]["readings"] == {"records": 8, "repeats": 4, "dropped": 4}  # type: ignore[index]
    said.readings = [(second, 0), (first, 0)]
    assert "2 readings are dropped as repeats: expected 0" in str(judged(said)["faults"])


def test_a_damaged_row_in_a_copy_of_the_spool_is_a_fault() -> None:
    assert "kill 0: the spool is damaged: row 7 is damaged" in str(
        judged(topics(frames(0, 1)), SpoolCopy("row 7 is damaged"))["faults"]
    )


def test_an_end_record_of_a_capture_run_that_contradicts_the_recorded_frame_numbers_is_a_fault() -> None:
    clean = judged(topics(frames(0, 1), ending(clean=True)))
    assert "road/5 ended at 1: expected 5, the last sequence number captured" in str(clean["faults"])
    assert "expected sequence numbers below 6" in str(judged(topics(frames(0, 1), ending(reported=9)))["faults"])
    early = judged(topics(frames(0, 1), ending(last=0)), SpoolCopy("ok", epochs={ROAD: Opened("frame", 0, 2, False)}))
    assert "road/5 was closed at 0: expected 1, the last number in the spool" in str(early["faults"])


def test_a_capture_run_without_an_end_record_is_a_fault() -> None:
    assert "epoch road/5 has no end record" in str(judged(Topics(frames(0, 1)))["faults"])
