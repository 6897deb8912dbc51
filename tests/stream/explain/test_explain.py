"""Tests of the explanation of frames, events and alerts, on the log in memory."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deploy.cli.tools.explain import lines
from ingest.contract import headers as h
from ingest.contract.codec import encode, encode_json
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import (
    CameraStatus,
    Detection,
    Embedding,
    EpochEnd,
    FrameRef,
    Heartbeat,
    Waiting,
    WithheldInterval,
)
from ingest.contract.topics import ALERTS, DEADLETTER, EVENTS, FRAMES, RESULTS, STATUS
from ingest.deadletter import parked
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import AppearanceConfig, SecondModelConfig
from ingest.site.topic.view import Config
from stream.alerts.incidents import ID, end_alert
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.exceptions import FrameNotFound
from stream.explain import explanation
from stream.explain.explanation import Explanation, explain
from stream.explain.hops import hops
from stream.explain.picture import drawn
from stream.incidents.grouping import IncidentGrouper
from tests.stream.explain import history
from tests.stream.explain.history import BEGIN_NS, CROSSING, EPOCH, LINE, ZONE, config


def name(seq: int) -> str:
    return f"road/{EPOCH}/{seq}"


def new_log() -> MemoryLog:
    return MemoryLog(partitions=1, clock=ManualClock(started_ns=BEGIN_NS))


async def driven() -> MemoryLog:
    log = new_log()
    await history.write_drive(log)
    return log


def rule(found: Explanation, wanted: str) -> dict[str, object]:
    return next(one for one in found.to_dict()["pipelines"][0]["rules"] if one["rule"] == wanted)


def reasons(found: Explanation, wanted: str) -> list[str]:
    return [reason for track in rule(found, wanted)["tracks"] for reason in track["reasons"]]  # type: ignore[attr-defined]


async def test_the_processing_steps_of_a_frame_with_an_alert_lead_from_capture_to_the_last_receipt() -> None:
    log = await driven()
    events = await history.analyse(log, config())
    event = next(one for one in events if one.data.rule == "line")
    alert = await history.alert(log, event)
    found = await explain(log, f"road/{event.data.epoch}/{event.data.seq}", config())
    assert [hop.name for hop in hops(found.trail)] == [
        "captured",
        "frame record",
        "batched",
        "classified",
        "result record",
        "event",
        "evidence",
        "alert",
        "delivery",
        "delivery",
    ]
    captured, record, _, classified, *_ = hops(found.trail)
    assert (captured.clock, captured.error_ms) == ("agent's host", 12.0)
    assert (record.clock, record.error_ms) == ("broker", 1.0)
    assert classified.clock == "engine node"
    assert found.trail.alerts[0].value == alert
    assert [one.value.state for one in found.trail.deliveries] == ["retrying", "delivered"]


async def test_the_uncertainty_of_a_classification_time_follows_from_the_batch_and_result_timestamps() -> None:
    clock = ManualClock(started_ns=BEGIN_NS)
    log = MemoryLog(partitions=1, clock=clock)
    offset = await history.write_frame(log, history.frame(0))
    headers = h.frame_headers([FrameId("road", EPOCH, 0)], LIVE)
    clock.seconds = 2.0
    await log.produce(Outgoing("batches", 0, b"", headers=headers | {h.PIPELINE: b"p"}))
    clock.seconds = 3.0
    result = history.result(0, offset=offset).model_copy(update={"finished_ns": BEGIN_NS + 2_400_000_000})
    await log.produce(Outgoing(RESULTS, 0, encode(result), headers=headers))
    found = await explain(log, name(0), config())
    classified = next(hop for hop in hops(found.trail) if hop.name == "classified")
    assert classified.error_ms == 601.0  # the larger distance, to the result, and the resolution of the stamps


async def test_the_explanation_of_a_frame_names_the_fired_rule_and_why_another_rule_did_not_fire() -> None:
    log = await driven()
    events = await history.analyse(log, config())
    crossing = next(one for one in events if one.data.rule == "line")
    assert crossing.data.seq == CROSSING
    found = await explain(log, name(CROSSING), config())
    assert rule(found, "line")["fired"]
    assert rule(found, "line")["events"] == [{"id": crossing.id, "summary": crossing.data.summary}]
    assert reasons(found, "left") == ["outside of the polygon"]
    assert found.pipelines[0].missing == ()


async def test_a_line_rule_that_did_not_fire_states_the_distance_to_its_line_and_its_cooldown() -> None:
    log = await driven()
    before = reasons(await explain(log, name(CROSSING - 6), config()), "line")
    assert before == ["did not cross in this frame: 64 px to the left of the line"]
    after = reasons(await explain(log, name(CROSSING + 5), config()), "line")
    assert after == [
        "quiet: cooldown until 2026-05-28T20:27:43.600Z",
        "did not cross in this frame: 112 px to the right of the line; "
        f"it crossed forward in frame {EPOCH}-{CROSSING}",
    ]


async def test_explain_lists_written_events_that_the_current_rules_would_not_emit() -> None:
    log = await driven()
    events = await history.analyse(log, config())
    changed = config(LINE.model_copy(update={"min_score": 0.95}), ZONE)
    found = await explain(log, name(CROSSING), changed)
    assert reasons(found, "line")[0] == "score 0.9 below min_score 0.95"
    assert [one.id for one in found.pipelines[0].missing] == [one.id for one in events if one.data.rule == "line"]


async def test_the_event_of_a_rule_that_joins_a_sensor_is_explained_as_fired() -> None:
    log = await driven()
    line = next(one for one in await history.analyse(log, config()) if one.data.rule == "line")
    data = line.data.model_copy(update={"rule": "red", "sensor": "light"})
    red = line.model_copy(update={"id": "0" * 32, "data": data})
    await log.produce(
        Outgoing(EVENTS, 0, encode_json(red), headers=h.frame_headers([FrameId("road", EPOCH, CROSSING)], LIVE))
    )
    joined = RedLightRule(
        name="red", camera="road", pipeline="p", sensor="light", above=0.5, start=LINE.start, end=LINE.end
    )
    found = await explain(log, name(CROSSING), config(LINE, ZONE, joined))
    assert rule(found, "red")["events"] == [{"id": red.id, "summary": red.data.summary}]
    assert found.pipelines[0].missing == ()
    before = await explain(log, name(CROSSING - 1), config(LINE, ZONE, joined))
    assert not rule(before, "red")["fired"]


async def test_rules_ignore_a_detection_with_a_low_score_or_without_a_confirmed_track() -> None:
    log = new_log()
    offset = await history.write_frame(log, history.frame(0))
    result = history.result(0, history.car(100.0), history.car(400.0, 0.2), offset=offset)
    headers = h.frame_headers([FrameId("road", EPOCH, 0)], LIVE)
    await log.produce(Outgoing(RESULTS, 0, encode(result), headers=headers))
    found = await explain(log, name(0), config())
    assert [one.reason for one in found.pipelines[0].untracked] == [
        "has no track yet: a track needs 2 detections",
        "score 0.2 below 0.3, the score at which a track begins",
    ]
    assert rule(found, "line")["reasons"] == ["the frame has no confirmed track"]


async def test_explain_uses_the_lower_minimum_score_that_a_measure_of_the_site_file_gives_to_tracks() -> None:
    log = new_log()
    for seq in range(3):
        offset = await history.write_frame(log, history.frame(seq))
        headers = h.frame_headers([FrameId("road", EPOCH, seq)], LIVE)
        result = history.result(seq, history.car(400.0, 0.2), offset=offset)
        await log.produce(Outgoing(RESULTS, 0, encode(result), headers=headers))
    assert reasons(await explain(log, name(2), config(LINE)), "line") == []
    found = await explain(log, name(2), config(LINE, history.MEASURE))
    assert reasons(found, "line")[0] == "score 0.2 below min_score 0.3"


async def test_a_late_frame_is_explained_from_the_late_lane() -> None:
    log = await driven()
    offset = await history.write_frame(log, history.frame(40), LATE)
    headers = h.frame_headers([FrameId("road", EPOCH, 40)], LATE)
    await log.produce(Outgoing("batches.late", 0, b"", headers=headers | {h.PIPELINE: b"p"}))
    result = history.result(40, history.car(100.0)).model_copy(
        update={"lane": LATE, "source": FrameRef("frames.late", 0, offset)}
    )
    await log.produce(Outgoing(RESULTS, 0, encode(result), headers=headers))
    for expired in (False, True):
        if expired:
            log.forget(TopicPartition("frames.late", 0), 1)
        found = await explain(log, name(40), config())
        assert found.trail.lane == LATE
        assert [one.value.lane for one in found.trail.results] == [LATE]
        assert found.trail.batches.keys() == {"p"}


async def test_no_rule_sees_a_shed_frame() -> None:
    log = await driven()
    found = await explain(log, name(20), config())
    assert found.pipelines[0].unseen == "the frame is shed: overload"
    assert found.pipelines[0].rules == ()


async def test_the_reason_of_a_withheld_frame_is_read_from_the_counts_in_the_next_frame() -> None:
    log = await driven()
    found = await explain(log, name(5), config())
    assert found.trail.absence is not None
    assert found.trail.absence.state == "withheld"
    assert "still 1" in found.trail.absence.reason
    next_frame = await explain(log, name(6), config())
    assert next_frame.to_dict()["gate"]["withheld_before"] == {"first": 5, "last": 5, "counts": {"still": 1}}


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (
            {"accounts": (WithheldInterval(camera="road", epoch=EPOCH, first=30, last=99, counts={"rate": 70}),)},
            "withheld",
        ),
        ({"waiting": (Waiting(camera="road", epoch=EPOCH, first=30, last=99),)}, "spooled"),
        ({"ended": (EpochEnd(camera="road", epoch=EPOCH, last=29, clean=False, reported=60),)}, "unclean"),
        ({"cameras": (CameraStatus(camera="road", epoch=EPOCH, state="running", captured=100),)}, "unreported"),
    ],
    ids=["withheld", "spooled", "unclean", "unreported"],
)
async def test_a_frame_that_no_record_names_has_the_state_that_the_heartbeats_imply(
    facts: dict[str, object], state: str
) -> None:
    log = await driven()
    await log.produce(heartbeat(**facts))
    found = await explain(log, name(50), config())
    assert found.trail.absence is not None
    assert found.trail.absence.state == state


def heartbeat(**facts: object) -> Outgoing:
    beat = Heartbeat.model_validate({"service": "agent", "instance": "agent-1", "at_ns": BEGIN_NS, **facts})
    return Outgoing(STATUS, 0, encode(beat))


async def test_only_the_newest_heartbeat_determines_which_frames_wait_in_the_spool() -> None:
    log = await driven()
    running = (CameraStatus(camera="road", epoch=EPOCH, state="running", captured=100),)
    held = (Waiting(camera="road", epoch=EPOCH, first=30, last=99),)
    await log.produce(heartbeat(cameras=running, waiting=held))
    await log.produce(heartbeat(cameras=running, waiting=()))
    found = await explain(log, name(50), config())
    assert found.trail.absence is not None
    assert found.trail.absence.state == "unreported"


async def test_a_frame_deleted_from_kafka_by_retention_is_explained_as_expired() -> None:
    log = await driven()
    await log.produce(heartbeat(cameras=(CameraStatus(camera="road", epoch=EPOCH, state="running", captured=30),)))
    log.forget(TopicPartition(FRAMES, 0), 10)
    log.forget(TopicPartition(RESULTS, 0), 10)
    with pytest.raises(FrameNotFound, match="has expired"):
        await explain(log, name(3), config())


async def test_a_frame_without_a_record_that_no_agent_has_reported_is_an_error() -> None:
    log = await driven()
    with pytest.raises(FrameNotFound, match="no record, and no agent has reported it"):
        await explain(log, name(5000), config())


async def test_an_unknown_camera_is_an_error_that_names_the_camera() -> None:
    with pytest.raises(FrameNotFound, match="camera nowhere: neither the log nor the configuration has this camera"):
        await explain(await driven(), "nowhere/1/2", config())


async def test_an_unknown_id_is_an_error() -> None:
    with pytest.raises(FrameNotFound, match="no event or alert has the id"):
        await explain(await driven(), "0" * 32, config())


async def test_the_error_for_an_expired_frame_without_results_states_the_retention() -> None:
    log = await driven()
    log.forget(TopicPartition(FRAMES, 0), 10)
    log.forget(TopicPartition(RESULTS, 0), 10)
    with pytest.raises(
        FrameNotFound, match=f"has expired: the topic frames keeps 24 hours, and begins with {name(11)}"
    ):
        await explain(log, name(3), config())


async def test_an_expired_frame_is_explained_from_its_results() -> None:
    log = await driven()
    await history.analyse(log, config())
    log.forget(TopicPartition(FRAMES, 0), 25)
    found = await explain(log, name(CROSSING), config())
    assert found.trail.absence is not None
    assert found.trail.absence.state == "expired"
    assert rule(found, "line")["fired"]


async def test_explain_finds_a_frame_by_the_id_of_its_event_its_alert_or_the_end_alert_of_its_incident() -> None:
    log = await driven()
    event = next(one for one in await history.analyse(log, config()) if one.data.rule == "line")
    alert = await history.alert(log, event)
    by_frame = await explain(log, name(CROSSING), config())
    grouper = IncidentGrouper()
    grouper.add(event, event.data.captured_ns, 0.0)
    (incident,) = grouper.ends_due(3600.0)
    ended = end_alert(incident)
    await log.produce(Outgoing(ALERTS, 0, encode_json(ended), headers={ID: ended.id.encode()}))
    for wanted in (event.id, alert.id, ended.id):
        assert (await explain(log, wanted, config())).to_dict() == by_frame.to_dict()


async def test_a_dead_letter_of_the_frame_is_one_of_its_processing_steps() -> None:
    log = new_log()
    offset = await history.write_frame(log, history.frame(0))
    headers = h.frame_headers([FrameId("road", EPOCH, 0)], LIVE)
    letter = parked(LogRecord(FRAMES, 0, offset, b"road", b"", headers), "prepare", ValueError("no picture"))
    await log.produce(letter)
    assert letter.topic == DEADLETTER
    found = await explain(log, name(0), config())
    assert [hop.about for hop in hops(found.trail) if hop.name == "dead letter"] == [
        "stage prepare: ValueError: no picture"
    ]


async def test_the_picture_of_an_explained_frame_shows_the_line_and_the_car_and_a_caption() -> None:
    found = await explain(await driven(), name(CROSSING), config())
    image = cv2.imdecode(np.frombuffer(drawn(found), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (404, 640, 3)
    assert np.ptp(image[160:200, 320 - 4 : 320 + 4]) > 100  # the line
    assert np.ptp(image[:360, 600:]) < 40  # the empty road


async def test_the_text_of_an_explanation_names_processing_steps_detections_and_reasons_of_rules() -> None:
    log = await driven()
    await history.analyse(log, config())
    text = "\n".join(lines((await explain(log, name(CROSSING), config())).to_dict()))
    assert f"frame {name(CROSSING)} (live)" in text
    assert "captured" in text
    assert "±12 ms" in text
    assert "motion: (10, 10, 60, 60)" in text
    assert "found car 0.90 at (322, 160, 382, 200)" in text
    assert "rule line (line) fired" in text
    assert "rule left (zone) did not fire" in text
    assert "outside of the polygon" in text


async def crossed_while_waiting() -> tuple[MemoryLog, Config]:
    """Return the log and the configuration of a car that waits for re-identification while it crosses the line."""
    log, look = new_log(), SecondModelConfig(name="look", model="look@1")
    pipeline = history.PIPELINE.model_copy(
        update={"then": (look,), "appearance": AppearanceConfig(second_model="look", min_similarity=0.9)}
    )
    used = Config({**config().entries, pipeline.key: pipeline})

    def car(x: float, *values: int) -> Detection:
        embedding = Embedding(name="look", model="look@1", values=np.array(values, np.int8).tobytes())
        return history.car(x).model_copy(update={"embeddings": (embedding,)})

    lost = [(car(100.0, 127, 0),)] * 8 + [()] * 20
    passes = [(car(280.0 + 20.0 * n, 90, 90),) for n in range(12)]
    for seq, found in enumerate([*lost, *passes]):
        offset = await history.write_frame(log, history.frame(seq))
        own = history.result(seq, *found, offset=offset)
        alike = own.model_copy(update={"detections": tuple(car(one.box.centre[0], 127, 0) for one in found)})
        others = [alike.model_copy(update=of) for of in ({"camera": "yard"}, {"pipeline": "q", "pipelines": ("q",)})]
        # in the results of the others for the frame after the crossing, the lost car would return
        for one in (*others, own) if seq == len(lost) + 5 else (own,):
            headers = h.frame_headers([FrameId(one.camera, EPOCH, seq)], LIVE)
            await log.produce(Outgoing(RESULTS, 0, encode(one), headers=headers))
    return log, used


async def test_a_crossing_while_a_track_waits_for_reidentification_is_explained_in_its_own_frame() -> None:
    log, used = await crossed_while_waiting()
    event = next(one for one in await history.analyse(log, used) if one.data.rule == "line")
    explained = await explain(log, name(event.data.seq), used)
    assert [one.value.id for one in explained.trail.events] == [event.id]
    assert rule(explained, "line")["events"] == [{"id": event.id, "summary": event.data.summary}]
    assert explained.pipelines[0].missing == ()
    assert explained.pipelines[0].untracked[0].reason.startswith("may be a lost track")
    after = await explain(log, name(event.data.seq + 2), used)
    assert rule(after, "line")["events"] == []


async def test_the_search_for_the_end_of_a_wait_reads_a_bounded_number_of_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, used = await crossed_while_waiting()
    event = next(one for one in await history.analyse(log, used) if one.data.rule == "line")
    monkeypatch.setattr(explanation, "MAX_RECORDS", 2)
    explained = await explain(log, name(event.data.seq), used)
    assert rule(explained, "line")["events"] == []
    assert [one.id for one in explained.pipelines[0].missing] == [event.id]
