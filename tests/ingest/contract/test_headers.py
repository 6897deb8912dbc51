"""Tests of the Kafka headers of records and dead letters."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract import headers as h
from ingest.contract.identity import FrameId
from ingest.contract.records import WITHHELD_REASONS, WithheldInterval

NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
FRAMES = st.builds(FrameId, NAMES, st.integers(0, 2**40), st.integers(0, 2**40))


@st.composite
def accounts(draw: st.DrawFn) -> WithheldInterval:
    counts = draw(st.dictionaries(st.sampled_from(WITHHELD_REASONS), st.integers(1, 1000), min_size=1))
    first = draw(st.integers(0, 2**40))
    last = first + sum(counts.values()) - 1
    return WithheldInterval(
        camera=draw(NAMES), epoch=draw(st.integers(0, 2**40)), first=first, last=last, counts=counts
    )


@given(st.lists(FRAMES, min_size=1), st.sampled_from(["live", "late", "replay-a.2"]))
def test_frame_ids_and_lane_survive_a_round_trip_through_record_headers(frames: list[FrameId], lane: str) -> None:
    headers = h.frame_headers(frames, lane, "00-trace-01", "cars")
    assert h.frames_of(headers) == tuple(frames)
    assert h.lane_of(headers, "frames") == lane
    assert (headers[h.TRACEPARENT], headers[h.PIPELINE]) == (b"00-trace-01", b"cars")


@given(accounts())
def test_withheld_counts_survive_a_round_trip_through_their_header(account: WithheldInterval) -> None:
    frame = FrameId(account.camera, account.epoch, account.last + 1)
    headers = {**h.frame_headers([frame], "live"), h.ACCOUNT: h.account_text(account).encode()}
    assert h.account_of(headers, frame) == account


@given(accounts(), st.integers(0, 2**41))
def test_withheld_counts_of_a_header_are_ignored_unless_their_interval_ends_just_before_the_frame(
    account: WithheldInterval, seq: int
) -> None:
    frame = FrameId(account.camera, account.epoch, seq)
    found = h.account_of({h.ACCOUNT: h.account_text(account).encode()}, frame)
    assert found == (account if seq == account.last + 1 else None)


@given(st.binary(max_size=60))
def test_corrupt_headers_raise_no_error(value: bytes) -> None:
    headers = {h.FRAMES: value, h.ACCOUNT: value, h.LANE: value}
    assert isinstance(h.frames_of(headers), tuple)
    h.account_of(headers, FrameId("gate", 1, 1))
    h.lane_of(headers, "frames")
    assert h.read_failure(headers) is None


@pytest.mark.parametrize(
    "text",
    [
        b"gate",
        b"gate/1",
        b"gate/1/x",
        b"gate/-1/2",
        b"gate/1/-2",
        b"Gate/1/2",
        b"a/b/1/2",
        b"gate/1/1_0",
        b"gate/1/2 ",
        b"\xff",
    ],
)
def test_a_header_with_one_malformed_frame_id_gives_no_frame_ids(text: bytes) -> None:
    assert h.frames_of({h.FRAMES: text}) == ()
    assert h.frames_of({h.FRAMES: b"gate/1/2\n" + text}) == ()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"4",
        b"0-4",
        b"0-4 still=4",
        b"4-0 still=5",
        b"-1-3 still=5",
        b"0-4 still",
        b"0-4 still=x",
        b"0-4 a=6 b=-1",
    ],
)
def test_a_malformed_header_of_withheld_counts_is_ignored(text: bytes) -> None:
    assert h.account_of({h.ACCOUNT: text}, FrameId("gate", 1, 5)) is None


def test_a_record_without_headers_has_no_frame_ids_and_no_withheld_counts() -> None:
    assert h.frames_of({}) == ()
    assert h.account_of({}, FrameId("gate", 1, 5)) is None
    assert set(h.frame_headers([FrameId("gate", 1, 2)], "live")) == {h.FRAMES, h.LANE}


@pytest.mark.parametrize(
    ("topic", "lane"), [("frames", "live"), ("frames.late", "late"), ("batches", "live"), ("batches.late", "late")]
)
def test_without_a_lane_header_the_topic_determines_the_lane(topic: str, lane: str) -> None:
    assert h.lane_of({}, topic) == lane


FAILURES = st.builds(
    h.Failure,
    topic=st.sampled_from(["frames", "batches.late"]),
    partition=st.integers(0, 1000),
    offset=st.integers(0, 2**60),
    stage=st.text(st.characters(codec="utf-8"), max_size=20),
    error=st.sampled_from(["truncated", "WrongSize"]),
    message=st.text(st.characters(codec="utf-8"), max_size=200),
)


@given(FAILURES)
def test_the_failure_of_a_dead_letter_survives_a_round_trip_through_its_headers(failure: h.Failure) -> None:
    headers = h.failure_headers(failure)
    assert h.read_failure(headers) == failure
    assert all(name.startswith("__connect.errors.") for name in headers)


@given(FAILURES, st.data())
def test_a_record_that_lacks_any_failure_header_is_not_a_dead_letter(failure: h.Failure, data: st.DataObject) -> None:
    headers = h.failure_headers(failure)
    del headers[data.draw(st.sampled_from(sorted(headers)))]
    assert h.read_failure(headers) is None


def test_a_long_or_unencodable_failure_message_is_shortened() -> None:
    headers = h.failure_headers(h.Failure("frames", 0, 0, "s", "e", "\ud800" + "x" * 5000))
    failure = h.read_failure(headers)
    assert failure
    assert len(failure.message) == 1000


def test_new_traceparents_are_valid_and_distinct() -> None:
    found = {h.new_traceparent() for _ in range(10)}
    assert len(found) == 10
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", each) for each in found)


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def test_a_valid_traceparent_is_passed_on() -> None:
    assert h.traceparent_of({h.TRACEPARENT: TRACE.encode()}) == TRACE


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        TRACE.encode() + b"\n",
        TRACE.upper().encode(),
        b"x" * 1_000_000,
        b"\xff" * 55,
        TRACE.replace("00-", "ff-").encode(),
        TRACE.replace("a", "0").encode(),
        TRACE.replace("b", "0").encode(),
    ],
)
def test_a_malformed_traceparent_is_replaced_by_a_new_one(malformed: bytes) -> None:
    found = h.traceparent_of({h.TRACEPARENT: malformed})
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", found)
    assert found.encode() != malformed
    assert len(h.traceparent_of({})) == len(found)


def test_events_have_the_content_type_of_structured_cloudevents() -> None:
    assert h.CLOUD_EVENT == {"content-type": b"application/cloudevents+json; charset=UTF-8"}
