"""Tests of the comparison of two models on one frame, and of the summary of many comparisons."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engines.shadow.compare import MIN_IOU, compare, is_sampled
from engines.shadow.report import FRAMES_SHOWN, ShadowHistory
from ingest.contract.identity import FrameId
from ingest.contract.records import Box, Detection, ShadowRecord

SIDES = st.integers(0, 4)
BOXES = st.builds(
    lambda left, top, width, height: Box(left, top, left + width, top + height), SIDES, SIDES, SIDES, SIDES
)
DETECTIONS = st.lists(
    st.builds(
        lambda box, label, score: Detection(box=box, label=label, class_id=0, score=score),
        BOXES,
        st.sampled_from(["car", "truck", "bus"]),
        st.floats(0.0, 1.0),
    ),
    max_size=8,
)


def found(label: str, left: float = 0.0, score: float = 0.9) -> Detection:
    return Detection(box=Box(left, 0.0, left + 10.0, 10.0), label=label, class_id=0, score=score)


def compared(
    seq: int, served: list[Detection], candidate: list[Detection], names: tuple[str, str] = ("m@1", "m@2")
) -> ShadowRecord:
    agreed, differences = compare(served, candidate)
    return ShadowRecord(
        pipeline="cars",
        served=names[0],
        candidate=names[1],
        written_ns=seq,
        camera="gate",
        epoch=1,
        seq=seq,
        agreed=dict(agreed),
        differences=differences,
    )


@given(DETECTIONS)
def test_a_model_agrees_fully_with_itself(detections: list[Detection]) -> None:
    agreed, differences = compare(detections, detections)
    assert differences == ()
    assert agreed == Counter(detection.label for detection in detections)


@given(DETECTIONS, DETECTIONS)
def test_a_comparison_of_two_models_counts_each_detection_once(
    served: list[Detection], candidate: list[Detection]
) -> None:
    agreed, differences = compare(served, candidate)
    forms = Counter(difference.form for difference in differences)
    both = sum(agreed.values()) + forms["label"]
    assert both + forms["missed"] == len(served)
    assert both + forms["extra"] == len(candidate)
    assert forms["score"] <= sum(agreed.values())


@given(DETECTIONS, DETECTIONS)
def test_overlapping_detections_of_two_models_never_count_as_one_missed_and_one_extra(
    served: list[Detection], candidate: list[Detection]
) -> None:
    differences = compare(served, candidate).differences
    missed = [difference.box for difference in differences if difference.form == "missed"]
    extra = [difference.box for difference in differences if difference.form == "extra"]
    assert all(one.iou(other) < MIN_IOU for one in missed for other in extra)


def test_differences_between_two_models_are_changed_scores_changed_labels_and_unmatched_objects() -> None:
    served = [found("car"), found("car", 100, 0.9), found("bus", 200), found("person", 300, 0.4)]
    candidate = [found("car"), found("car", 101, 0.5), found("truck", 200, 0.7), found("person", 400, 0.6)]
    agreed, differences = compare(served, candidate)
    assert agreed == {"car": 2}
    assert [(d.form, d.label, d.other_label, round(d.weight, 2)) for d in differences] == [
        ("score", "car", "car", 0.4),
        ("label", "bus", "truck", 0.9),
        ("missed", "person", "", 0.4),
        ("extra", "person", "", 0.6),
    ]


def test_several_labels_of_one_region_are_matched_by_label() -> None:
    agreed, differences = compare([found("red"), found("round")], [found("round"), found("red")])
    assert (agreed, differences) == ({"red": 1, "round": 1}, ())


@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_the_share_of_frames_for_the_shadow_comparison_is_the_configured_share(share: float, epoch: int) -> None:
    chosen = sum(is_sampled(FrameId("gate", epoch, seq), share) for seq in range(1000))
    assert abs(chosen / 1000 - share) < 0.1
    assert not is_sampled(FrameId("gate", epoch, 0), 0.0)
    assert is_sampled(FrameId("gate", epoch, 0), 1.0)


def test_a_shadow_report_counts_each_frame_once_and_ranks_the_largest_differences() -> None:
    history = ShadowHistory("cars")
    for seq in range(FRAMES_SHOWN + 5):
        for _ in range(2):  # a node repeats a comparison after a crash
            history.add(compared(seq, [found("car", score=(seq + 1) / 20)], []))
    history.add(compared(99, [found("car")], [found("car")]))
    history.add(compared(0, [found("bus")], [], ("other@1", "m@2")).model_copy(update={"pipeline": "people"}))
    report = history.report("m@2")
    assert (report.frames, report.agreeing_frames) == (FRAMES_SHOWN + 6, 1)
    assert (report.labels["car"].found, report.labels["car"].missed) == (1, FRAMES_SHOWN + 5)
    assert [record.seq for _, record in report.largest()] == list(range(FRAMES_SHOWN + 4, 4, -1))
    assert report.as_json()["largest"][0]["frame"] == f"gate/1/{FRAMES_SHOWN + 4}"


def test_two_models_agree_on_a_frame_if_only_their_scores_differ() -> None:
    history = ShadowHistory("cars")
    history.add(compared(0, [found("car", score=0.9)], [found("car", score=0.5)]))
    report = history.report("m@2")
    assert (report.agreement, report.score_differences, len(report.largest())) == (1.0, 1, 1)


def test_a_shadow_report_counts_only_frames_of_its_candidate_and_of_the_present_served_model() -> None:
    history = ShadowHistory("cars")
    history.add(compared(0, [found("car")], [found("car")]))
    history.add(compared(1, [found("car")], [], ("m@2", "m@3")))
    history.add(compared(2, [found("car")], [], ("m@2", "m@2")))
    assert history.candidates() == ["m@3", "m@2"]
    assert (history.report("m@2").served, history.report("m@2").frames) == ("m@2", 1)
    off = ShadowRecord(pipeline="cars", candidate="m@3", written_ns=9, off="out of memory")
    history.add(off)
    assert (history.report("m@3").off, history.report("m@3").frames) == ("out of memory", 1)
    assert history.candidates()[-1] == "m@3"
    history.add(compared(3, [found("car")], [], ("m@2", "m@3")))
    assert history.report("m@3").off == ""
