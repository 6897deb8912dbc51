"""Tests of the candidates for labels: identity, disagreements, misses of the gate, and the limit of a pool."""

from __future__ import annotations

from typing import Any

from ingest.contract.records import Box, Detection, FrameRef, Result, ShadowDifference, ShadowRecord
from ingest.ledger.missrate import MissCounter
from stream.labels.candidates import CandidateExample, CandidateFrame, CandidatePool, Disagreements, frame_of
from stream.labels.decisions import DecisionView

CAR = Detection(box=Box(10.0, 10.0, 50.0, 40.0), label="car", class_id=0, score=0.8)
DOG = Detection(box=Box(100.0, 10.0, 130.0, 40.0), label="dog", class_id=1, score=0.7)


def result(seq: int, *found: Detection, **fields: Any) -> Result:
    values: dict[str, Any] = {
        "camera": "gate",
        "epoch": 1,
        "seq": seq,
        "captured_ns": seq * 10**9,
        "width": 160,
        "height": 90,
        "lane": "live",
        "source": FrameRef("frames", 0, seq),
        "pipelines": ("p",),
        "pipeline": "p",
        "finished_ns": 0,
        "outcome": "classified",
        "model": "m@1",
        "detections": found,
    }
    return Result(**{**values, **fields})


def comparison(seq: int, *differences: ShadowDifference) -> ShadowRecord:
    return ShadowRecord(
        pipeline="p",
        served="m@1",
        candidate="m@2",
        written_ns=0,
        camera="gate",
        epoch=1,
        seq=seq,
        differences=differences,
    )


def pool(disagreements: Disagreements | None = None, most: int = 100) -> CandidatePool:
    return CandidatePool(MissCounter(lambda *_: False), disagreements or Disagreements(), most)


def only(found: CandidatePool) -> CandidateFrame:
    (one,) = found
    return one


def test_an_object_with_two_model_labels_gets_the_disagreement_score_of_their_comparison() -> None:
    known, found = Disagreements(), None
    known.add(comparison(1, ShadowDifference(form="label", box=CAR.box, label="car", score=0.8, other_label="van")))
    found = pool(known)
    found.add(result(1, CAR, DOG))
    assert {one.label: one.disagreement for one in only(found).objects} == {"car": 0.8, "dog": 0.0}


def test_a_model_comparison_sets_the_disagreement_of_a_result_that_was_read_before_it() -> None:
    known = Disagreements()
    found = pool(known)
    found.add(result(1, CAR))
    known.add(comparison(1, ShadowDifference(form="missed", box=CAR.box, label="car", score=0.8)))
    assert only(found).disagreement == 0.8


def test_the_oldest_model_comparisons_are_forgotten_above_their_maximum_number() -> None:
    known = Disagreements(2)
    for seq in (1, 2, 3):
        known.add(comparison(seq, ShadowDifference(form="missed", box=CAR.box, label="car", score=0.8)))
    found = pool(known)
    for seq in (1, 2, 3):
        found.add(result(seq, CAR))
    assert {one.id.seq: one.disagreement for one in found} == {1: 0.0, 2: 0.8, 3: 0.8}


def test_an_object_that_only_the_candidate_model_found_is_no_object_of_the_served_model() -> None:
    known = Disagreements()
    known.add(comparison(1, ShadowDifference(form="extra", box=DOG.box, label="dog", score=0.6)))
    found = pool(known)
    found.add(result(1, CAR))
    frame = only(found)
    assert [(one.label, one.model, one.score) for one in frame.objects] == [("car", "m@1", 0.8), ("dog", "m@2", 0.6)]
    assert [one.label for one in frame.served] == ["car"]


def test_a_sampled_frame_with_a_new_object_counts_as_missed_by_the_motion_gate() -> None:
    found = pool()
    found.add(result(0, CAR))
    found.add(result(1, CAR, DOG, sampled=True))
    found.add(result(2, CAR, sampled=True))
    assert {one.id.seq: one.missed for one in found} == {0: False, 1: True, 2: False}


def test_a_full_pool_keeps_preferred_frames_and_a_random_sample_of_all_other_frames() -> None:
    known = Disagreements()
    for seq in range(0, 1000, 100):
        known.add(comparison(seq, ShadowDifference(form="missed", box=CAR.box, label="car", score=0.8)))
    found = pool(known, most=60)
    for seq in range(1000):
        found.add(result(seq, CAR))
    kept = {one.id.seq for one in found}
    assert set(range(0, 1000, 100)) <= kept
    assert 20 < len(kept) <= 60
    assert (found.seen, found.kept_share < 0.1) == (1000, True)
    again = pool(known, most=60)
    for seq in range(1000):
        again.add(result(seq, CAR))
    assert {one.id.seq for one in again} == kept


def test_repeated_and_replayed_results_add_no_frames_to_a_pool() -> None:
    found = pool()
    for one in (result(1, CAR), result(1, DOG), result(2, CAR, lane="replay-a"), result(3, outcome="empty")):
        found.add(one)
    assert [one.label for one in only(found).objects] == ["car"]


def test_two_detections_with_equal_boxes_are_one_object() -> None:
    twin = CAR.model_copy(update={"label": "truck", "score": 0.9, "box": Box(10.2, 10.0, 50.0, 40.0)})
    assert [one.label for one in frame_of(result(1, CAR, twin)).objects] == ["truck"]


def test_the_latest_label_decision_on_an_object_is_valid_until_it_is_undone() -> None:
    frame = frame_of(result(1, CAR, DOG))
    car, dog = (CandidateExample(frame, one) for one in frame.objects)
    view = DecisionView(most=10)
    view.add(car.decision("accept", "ada", 1))
    view.add(dog.decision("reject", "ada", 2))
    view.add(car.decision("correct", "otto", 3, "van"))
    assert [(one.decided, one.by) for one in view] == [("", "ada"), ("van", "otto")]
    view.add(dog.decision("undo", "otto", 4))
    assert (len(view), view.of(dog.key)) == (1, None)
