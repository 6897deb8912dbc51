"""Tests of chunks: which queued records form a chunk, and how their works are joined."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.topics import BATCHES, FRAMES
from ingest.kafka.log import LogRecord, Outgoing
from stream.runner import chunk
from stream.runner.processor import Work


@given(offsets=st.lists(st.integers(0, 400), min_size=1, max_size=40), max_gap=st.sampled_from([0, 256]))
def test_a_chunk_ends_before_a_gap_or_a_lower_offset(offsets: list[int], max_gap: int) -> None:
    queued = [LogRecord(FRAMES, 0, offset, None, b"") for offset in offsets]
    found = list(chunk.without_gap(queued, max_gap))
    assert found == queued[: len(found)]
    assert all(1 <= b.offset - a.offset <= 1 + max_gap for a, b in pairwise(found))
    if len(found) < len(queued):
        assert not 1 <= queued[len(found)].offset - found[-1].offset <= 1 + max_gap


def test_the_number_of_records_in_a_chunk_is_bounded() -> None:
    queued = [LogRecord(FRAMES, 0, offset, None, b"") for offset in range(chunk.CHUNK_RECORDS + 1)]
    assert chunk.first_of(queued) == queued[:-1]


works = st.builds(
    lambda sizes, done: Work(tuple(Outgoing(BATCHES, 0, bytes(size)) for size in sizes), tuple(done)),
    st.lists(st.integers(0, 12), max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
)


def output_bytes(work: Work) -> int:
    return sum(len(record.value) for record in work.records)


@given(found=st.lists(works, max_size=12))
def test_outputs_of_consecutive_records_are_joined_in_order_within_the_byte_limit(found: list[Work]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk, "CHUNK_BYTES", 20)
        joined = chunk.joined(found)
    assert [record for work in joined for record in work.records] == [r for work in found for r in work.records]
    assert [offset for work in joined for offset in work.done] == [o for work in found for o in work.done]
    most = max(map(output_bytes, found), default=0)
    assert all(output_bytes(work) <= max(20, most) for work in joined)
    assert all(output_bytes(a) + output_bytes(b) > 20 for a, b in pairwise(joined))
