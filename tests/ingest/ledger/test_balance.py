"""Tests of the ledger and its balance."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identity import LIVE, FrameId
from ingest.contract.records import EpochEnd, Waiting, WithheldInterval
from ingest.ledger.balance import Balance, compute_balance
from ingest.ledger.states import ALL_PIPELINES, DEAD, FrameEnd, Ledger

CAMERA, EPOCH = "gate", 1_700_000_000
REASONS = ("still", "rate", "overload")
OUTCOMES = ("classified", "empty", "shed", DEAD)
Entry = Callable[[Ledger], None]


def account(first: int, last: int, reason: str = "still", epoch: int = EPOCH) -> WithheldInterval:
    return WithheldInterval(camera=CAMERA, epoch=epoch, first=first, last=last, counts={reason: last - first + 1})


def frame(seq: int, epoch: int = EPOCH) -> FrameId:
    return FrameId(CAMERA, epoch, seq)


def deliver(seq: int, before: WithheldInterval | None = None, lane: str = "live") -> Entry:
    return lambda ledger: ledger.add_frame(frame(seq), lane, before)


def result(
    seq: int,
    outcome: str = "classified",
    pipeline: str = "cars",
    lane: str = "live",
    routed: tuple[str, ...] = ("cars",),
) -> Entry:
    reason = "stale" if outcome == "shed" else "wrongtype" if outcome == DEAD else ""
    routes = frozenset() if outcome == DEAD else frozenset(routed)
    return lambda ledger: ledger.add_frame_end(frame(seq), FrameEnd(outcome, pipeline, lane, reason), routes)


def dead(seq: int, pipeline: str = ALL_PIPELINES, lane: str = "live") -> Entry:
    return result(seq, DEAD, pipeline, lane)


def ended(last: int, *, clean: bool = True, reported: int = -1) -> Entry:
    end = EpochEnd(camera=CAMERA, epoch=EPOCH, last=last, clean=clean, reported=reported)
    return lambda ledger: ledger.add_epoch_end(end)


def balance(*entries: Entry) -> Balance:
    ledger = Ledger()
    for enter in entries:
        enter(ledger)
    return compute_balance(ledger)


@dataclass
class History:
    """The records of one epoch, and the counts that its balance must have."""

    entries: list[Entry] = field(default_factory=list)
    withheld: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    captured: int = 0


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw the history of an epoch without faults: withheld frames, delivered frames with their outcomes, and expired
    frames."""
    history = History()
    pipelines = draw(st.sampled_from([("cars",), ("cars", "people")]))
    for _ in range(draw(st.integers(0, 12))):
        run = draw(st.integers(0, 4))
        before = None
        if run:
            reason = draw(st.sampled_from(REASONS))
            before = account(history.captured, history.captured + run - 1, reason)
            history.withheld[reason] += run
        seq = history.captured + run
        history.captured = seq + 1
        if draw(st.booleans()):
            lane = draw(st.sampled_from(["live", "late"]))
            history.entries += _delivered(draw, history, seq, before, lane, pipelines)
            continue
        accounts = [account(seq, seq, "expired")] + ([before] if before else [])
        history.entries += [lambda ledger, a=a: ledger.add_account(a) for a in accounts]
        history.withheld["expired"] += 1
    return history


def _delivered(
    draw: st.DrawFn,
    history: History,
    seq: int,
    before: WithheldInterval | None,
    lane: str,
    pipelines: tuple[str, ...],
) -> list[Entry]:
    history.delivered += 1
    entries = [deliver(seq, before, lane)] * draw(st.integers(1, 2))
    if draw(st.booleans()):
        for pipeline in pipelines:
            outcome = draw(st.sampled_from(OUTCOMES))
            history.outcomes[outcome] += 1
            entries.append(result(seq, outcome, pipeline, lane, pipelines))
    else:  # unreadable: parked once or twice, and in some cases replayed
        entries += [dead(seq, lane=lane)] * draw(st.integers(1, 2))
        if draw(st.booleans()):
            history.outcomes["classified"] += len(pipelines)
            entries += [deliver(seq, before, "replay-a")]
            entries += [result(seq, "classified", p, "replay-a", pipelines) for p in pipelines]
        else:
            history.outcomes[DEAD] += 1
    return entries


@given(histories(), st.randoms())
def test_a_faultless_capture_run_balances_in_any_order_of_records(history: History, shuffled: random.Random) -> None:
    entries = [*history.entries, ended(history.captured - 1)]
    shuffled.shuffle(entries)
    found = balance(*entries)
    line = found.totals
    assert found.balanced, line.examples
    assert (line.captured, line.delivered) == (history.captured, history.delivered)
    assert line.withheld == history.withheld
    assert line.captured == line.withheld.total() + line.delivered
    ends = {"classified": line.classified, "empty": line.empty, "shed": line.shed.total(), DEAD: line.dead}
    assert ends == {outcome: history.outcomes[outcome] for outcome in OUTCOMES}
    assert line.examples == []


@given(histories().filter(lambda h: h.delivered > 0), st.data())
def test_a_frame_without_an_outcome_is_unaccounted(history: History, data: st.DataObject) -> None:
    ledger = Ledger()
    for enter in history.entries:
        enter(ledger)
    book = ledger.epochs[CAMERA, EPOCH]
    victim = data.draw(st.sampled_from(sorted(s for s, state in book.frames.items() if state.lanes)))
    without = Ledger()
    for enter in history.entries:
        probe = Ledger()
        enter(probe)
        if not any(state.ends and seq == victim for b in probe.epochs.values() for seq, state in b.frames.items()):
            enter(without)
    found = compute_balance(without)
    assert (found.totals.unaccounted, found.totals.duplicates, found.balanced) == (1, 0, False)
    assert f"/{victim} has no end" in found.totals.examples[0]


def test_an_empty_ledger_balances() -> None:
    found = balance()
    assert found.balanced
    assert (found.cameras, found.totals.captured) == ({}, 0)


def test_a_frame_number_that_is_neither_delivered_nor_withheld_is_unaccounted() -> None:
    found = balance(deliver(0), result(0), deliver(5, account(2, 4)), result(5))
    assert found.totals.unaccounted == 1
    assert found.totals.examples == [f"gate/{EPOCH}/1..1 is missing"]
    assert found.totals.captured == 6 == found.totals.withheld.total() + found.totals.delivered + 1


def test_frames_missing_before_the_end_of_the_capture_run_are_unaccounted() -> None:
    found = balance(deliver(0), result(0), ended(3))
    assert (found.totals.captured, found.totals.unaccounted) == (4, 3)


def test_a_frame_that_two_frame_records_report_as_withheld_is_a_duplicate() -> None:
    found = balance(deliver(3, account(0, 2)), result(3), lambda ledger: ledger.add_account(account(1, 1, "rate")))
    assert (found.totals.duplicates, found.balanced) == (1, False)
    assert found.totals.examples == [f"gate/{EPOCH}/1..1 is accounted twice"]


def test_withheld_frames_that_the_topic_status_reports_again_count_once() -> None:
    entry: Entry = lambda ledger: ledger.add_account(account(0, 4, "expired"))  # noqa: E731
    assert balance(entry, entry).totals.withheld == {"expired": 5}
    assert balance(entry, entry).balanced


def test_a_frame_sent_again_on_its_lane_is_a_repeat() -> None:
    found = balance(deliver(2, account(0, 1)), deliver(2, account(0, 1)), result(2))
    assert (found.balanced, found.totals.repeats, found.totals.delivered) == (True, 1, 1)


def test_a_frame_delivered_on_two_lanes_is_a_duplicate() -> None:
    found = balance(deliver(0), deliver(0, lane="late"), result(0))
    assert (found.totals.duplicates, found.totals.repeats, found.totals.delivered) == (1, 0, 1)


def test_a_second_result_in_a_pipeline_is_a_duplicate() -> None:
    found = balance(deliver(0), result(0), result(0))
    assert (found.totals.duplicates, found.totals.classified) == (1, 1)
    assert found.totals.examples == [f"gate/{EPOCH}/0 has 2 ends in cars"]
    assert balance(deliver(0), result(0), result(0, "empty"), result(0, lane="late")).totals.duplicates == 2


def test_a_frame_without_a_result_in_one_of_its_pipelines_is_unaccounted() -> None:
    found = balance(deliver(0), result(0, pipeline="cars", routed=("cars", "people")))
    assert (found.totals.unaccounted, found.totals.classified) == (1, 1)
    assert found.totals.examples == [f"gate/{EPOCH}/0 has no end in people"]


def test_a_frame_may_be_dead_in_one_pipeline_and_classified_in_another() -> None:
    found = balance(deliver(0), result(0, routed=("cars", "people")), dead(0, "people"))
    assert (found.balanced, found.totals.classified, found.totals.dead) == (True, 1, 1)


@pytest.mark.parametrize("pipeline", ["cars", ALL_PIPELINES])
def test_a_dead_letter_and_a_result_on_the_same_lane_are_a_duplicate(pipeline: str) -> None:
    assert balance(deliver(0), dead(0, pipeline), result(0)).totals.duplicates == 1
    again = (deliver(0), dead(0), dead(0, pipeline, "replay-a"), result(0, lane="replay-a"))
    assert balance(*again).totals.duplicates == 1


def test_two_dead_letters_of_a_frame_count_once() -> None:
    found = balance(deliver(0), dead(0), dead(0))
    assert (found.balanced, found.totals.dead) == (True, 1)


def test_only_the_new_outcome_of_a_replayed_frame_counts() -> None:
    died = (deliver(0), dead(0))
    assert balance(*died).totals.dead == 1
    again = (*died, deliver(0, lane="replay-a"), dead(0, lane="replay-a"))
    assert (balance(*again).totals.dead, balance(*again).balanced) == (1, True)
    back = (*again, deliver(0, lane="replay-b"), result(0, "shed", lane="replay-b"))
    assert balance(*back).balanced
    assert (balance(*back).totals.dead, balance(*back).totals.shed) == (0, {"stale": 1})


def test_results_of_two_replays_of_a_frame_are_a_duplicate() -> None:
    found = balance(deliver(0), dead(0), result(0, lane="replay-a"), result(0, lane="replay-b"))
    assert found.totals.duplicates == 1


def test_a_replayed_result_of_a_classified_frame_is_a_duplicate() -> None:
    assert balance(deliver(0), result(0), result(0, lane="replay-a")).totals.duplicates == 1


def test_outcomes_of_frames_deleted_by_retention_are_ignored() -> None:
    found = balance(result(7), dead(8))
    assert (found.balanced, found.totals.captured, found.totals.classified) == (True, 0, 0)


def test_frames_in_the_memory_of_a_killed_process_are_counted_as_unclean() -> None:
    found = balance(deliver(4, account(0, 3)), result(4), ended(4, clean=False, reported=9))
    assert found.balanced
    assert (found.totals.captured, found.totals.unclean) == (5, 5)
    assert found.to_dict()["unclean"] == [f"{CAMERA}/{EPOCH}: kept to 4, reported to 9"]


def test_the_ledger_balances_for_a_process_killed_before_its_first_kept_frame() -> None:
    found = balance(ended(-1, clean=False, reported=2))
    assert (found.balanced, found.totals.captured, found.totals.unclean) == (True, 0, 3)


def test_withheld_frames_with_the_reason_unclean_do_not_count_as_captured() -> None:
    found = balance(deliver(0), result(0), lambda ledger: ledger.add_account(account(1, 3, "unclean")))
    assert (found.balanced, found.totals.captured, found.totals.unclean) == (True, 1, 3)
    assert found.totals.withheld == {}


@given(st.permutations([ended(4, clean=False, reported=9), ended(4, reported=4), ended(2, clean=False, reported=3)]))
def test_a_clean_end_record_overrides_unclean_end_records_in_any_order(ends: list[Entry]) -> None:
    found = balance(deliver(4, account(0, 3)), result(4), *ends)
    assert (found.balanced, found.totals.captured, found.totals.unclean) == (True, 5, 0)
    assert found.unclean == [], "the clean end wins"


def test_a_capture_run_without_an_end_record_is_audited_up_to_its_last_frame() -> None:
    found = balance(deliver(4, account(0, 3)), result(4))
    assert (found.balanced, found.totals.captured) == (True, 5)


def test_dead_letters_without_a_frame_are_counted_once_as_unidentified() -> None:
    places: list[Entry] = [lambda ledger, n=n: ledger.add_unidentified(("frames", 0, n)) for n in (3, 3, 4)]  # type: ignore[misc]
    found = balance(*places)
    assert (found.balanced, found.unidentified, found.totals.captured) == (True, 2, 0)


def test_an_audit_uses_records_after_its_end_position_only_for_frames_captured_before_that_position() -> None:
    ledger = Ledger()
    for enter in (deliver(0), result(0), deliver(4, account(3, 3)), result(4)):
        enter(ledger)
    ledger.cut()
    assert compute_balance(ledger).totals.unaccounted == 2
    for enter in (
        deliver(2, account(1, 1), "late"),  # fills the hole
        deliver(5),  # captured after the cut: left to the next audit
        lambda b: b.add_frame(FrameId(CAMERA, EPOCH + 1, 0), "live", None),
        lambda b: b.add_account(account(6, 9)),
        result(5),
        ended(9),
    ):
        enter(ledger)
    found = compute_balance(ledger)
    assert (found.totals.captured, found.totals.unaccounted) == (5, 1)
    assert found.totals.examples == [f"gate/{EPOCH}/2 has no end in any pipeline"]
    result(2, lane="late")(ledger)
    assert compute_balance(ledger).balanced


def test_a_camera_truncated_by_retention_is_audited_from_its_first_retained_frame() -> None:
    ledger = Ledger()
    ledger.start_at(CAMERA, EPOCH, 10)
    ledger.add_frame(frame(99, EPOCH - 1), "late", None)
    ledger.add_account(account(0, 4, "expired"))
    for enter in (deliver(8, lane="late"), deliver(12, account(10, 11)), result(12), ended(12)):
        enter(ledger)
    found = compute_balance(ledger)
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.withheld) == (3, {"still": 2})
    assert found.truncated == [f"gate/{EPOCH} from 10"]


def test_missing_frames_that_an_agent_reports_in_its_spool_do_not_count_as_lost() -> None:
    ledger = Ledger()
    for seq in (0, 9):  # after an outage the newest frame comes first
        ledger.add_frame(FrameId(CAMERA, EPOCH, seq), LIVE, None)
        ledger.add_frame_end(FrameId(CAMERA, EPOCH, seq), FrameEnd("classified", "", LIVE))
    ledger.set_spooled("agent", 5, [Waiting(camera=CAMERA, epoch=EPOCH, first=2, last=12)])
    ledger.cut()
    found = compute_balance(ledger)
    assert (found.totals.captured, found.totals.spooled, found.totals.unaccounted) == (10, 7, 1)
    ledger.add_frame(FrameId(CAMERA, EPOCH, 1), "late", None)
    ledger.add_frame_end(FrameId(CAMERA, EPOCH, 1), FrameEnd("classified", "", "late"))
    found = compute_balance(ledger)
    assert (found.balanced, found.settled) == (True, False)
    ledger.set_spooled("agent", 4, [])  # an older report of the agent, read later
    assert compute_balance(ledger).totals.spooled == 7
    ledger.set_spooled("agent", 6, [])  # the spool is empty, and the frames never arrived
    assert (compute_balance(ledger).totals.spooled, compute_balance(ledger).totals.unaccounted) == (0, 7)


def test_a_capture_run_without_an_end_record_before_a_newer_capture_run_is_a_lost_spool() -> None:
    ledger = Ledger()
    for seq in range(5):
        ledger.add_frame(FrameId(CAMERA, EPOCH, seq), LIVE, None)
        ledger.add_frame_end(FrameId(CAMERA, EPOCH, seq), FrameEnd("classified", "", LIVE))
    ledger.add_progress(CAMERA, EPOCH, 999, 0)
    assert compute_balance(ledger).balanced, "the epoch may still be running, as no newer one has started"
    ledger.add_progress(CAMERA, EPOCH + 1, -1, 1)
    found = compute_balance(ledger)
    assert not found.balanced
    assert found.totals.unaccounted == 995
    assert any("never ended" in example for example in found.totals.examples)
    ledger.add_epoch_end(EpochEnd(camera=CAMERA, epoch=EPOCH, last=4, clean=False, reported=999))
    found = compute_balance(ledger)
    assert found.balanced, "the agent itself reports that these were in memory only"
    assert found.totals.unclean == 995


def test_of_two_capture_runs_of_a_camera_without_end_records_the_earlier_one_is_a_lost_spool() -> None:
    """A new SD card, or a corrected clock with a new spool, gives a camera a lower epoch than before."""
    ledger = Ledger()
    ledger.add_progress(CAMERA, EPOCH, 9, 0)
    ledger.add_progress(CAMERA, EPOCH - 5, -1, 1)
    ledger.add_progress(CAMERA, EPOCH - 5, -1, 2)
    found = compute_balance(ledger)
    assert [example.split(":")[0] for example in found.totals.examples] == [f"{CAMERA}/{EPOCH} was never ended"]
    ledger.add_epoch_end(EpochEnd(camera=CAMERA, epoch=EPOCH, last=-1, clean=False, reported=9))
    assert compute_balance(ledger).balanced


def test_capture_runs_of_two_agents_that_report_in_turn_both_count_as_running() -> None:
    ledger = Ledger()
    for offset in range(6):
        ledger.add_progress(CAMERA, EPOCH + offset % 2, offset, offset)
    assert compute_balance(ledger).balanced


def test_a_run_without_an_end_record_is_a_lost_spool_even_if_later_runs_have_ended_or_still_run() -> None:
    ledger = Ledger()
    for offset, epoch in enumerate((EPOCH, EPOCH + 1, EPOCH - 5)):
        ledger.add_progress(CAMERA, epoch, -1, offset)
    ledger.add_epoch_end(EpochEnd(camera=CAMERA, epoch=EPOCH + 1, last=-1, clean=True, reported=-1))
    assert compute_balance(ledger).totals.unaccounted == 1


def test_an_end_record_after_the_end_position_of_an_audit_still_closes_its_capture_run() -> None:
    ledger = Ledger()
    for epoch in (EPOCH, EPOCH + 1):
        ledger.add_frame(FrameId(CAMERA, epoch, 0), LIVE, None)
        ledger.add_frame_end(FrameId(CAMERA, epoch, 0), FrameEnd("classified", "", LIVE))
    ledger.cut()
    assert not compute_balance(ledger).balanced
    ledger.add_epoch_end(EpochEnd(camera=CAMERA, epoch=EPOCH, last=70, clean=True))
    assert compute_balance(ledger).balanced, "frames after the cut are left to the next audit"


def test_a_camera_left_out_of_the_audit_is_listed_and_not_counted() -> None:
    ledger = Ledger()
    ledger.leave_out(CAMERA)
    for enter in (deliver(3), ended(9)):
        enter(ledger)
    assert compute_balance(ledger).cameras == {}
    assert compute_balance(ledger).to_dict()["left_out"] == [CAMERA], "a camera that is not balanced must be listed"


def test_ledger_totals_are_sums_over_cameras_and_capture_runs() -> None:
    ledger = Ledger()
    for camera, epoch, seq in (("gate", 1, 0), ("gate", 2, 0), ("yard", 1, 0), ("yard", 1, 1)):
        ledger.add_frame(FrameId(camera, epoch, seq), "live", None)
        ledger.add_frame_end(FrameId(camera, epoch, seq), FrameEnd("classified", "cars", "live"), frozenset({"cars"}))
    found = compute_balance(ledger)
    assert {name: line.captured for name, line in found.cameras.items()} == {"gate": 2, "yard": 2}
    assert (found.totals.captured, found.totals.classified) == (4, 4)


def test_the_audit_counts_all_missing_frames_and_lists_some_as_examples() -> None:
    found = balance(*[deliver(seq) for seq in range(100)])
    assert found.totals.unaccounted == 100
    assert len(found.totals.examples) == len(found.cameras[CAMERA].examples) == 10


def test_the_result_of_an_audit_can_be_written_as_json() -> None:
    found = balance(deliver(2, account(0, 1)), result(2, "shed"), deliver(3))
    values = json.loads(json.dumps(found.to_dict()))
    assert values["balanced"] is False
    assert values["totals"]["withheld"] == {"still": 2}
    assert values["totals"]["shed"] == {"stale": 1}
    assert values["cameras"][CAMERA] == values["totals"]
    assert (values["unidentified"], values["truncated"]) == (0, [])


def test_frames_with_equal_outcomes_share_one_state_object_in_memory() -> None:
    ledger = Ledger()
    for seq in range(1000):
        deliver(seq)(ledger)
        result(seq)(ledger)
    assert len({id(state) for state in ledger.epochs[CAMERA, EPOCH].frames.values()}) == 1
