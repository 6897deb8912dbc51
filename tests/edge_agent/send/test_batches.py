"""Tests of the batches of one request to a gateway."""

from __future__ import annotations

from edge_agent.send.batches import MAX_BATCH_BYTES, MIN_BATCH_BYTES, MORE_BATCH_BYTES, BatchSize


def test_the_size_of_https_batches_shrinks_without_responses_and_grows_with_responses() -> None:
    size = BatchSize()
    for _ in range(1000):
        size.unanswered(1000)  # an unstable link that fails with small batches too
        size.begin()
    assert size.bytes == MAX_BATCH_BYTES
    for _ in range(2):
        size.unanswered(200_000)
        size.begin()
    assert size.bytes == 100_000
    for _ in range(1000):
        size.answered(1000)
    assert size.bytes == 100_000
    size.answered(100_000)
    size.unanswered(size.bytes)
    size.begin()
    assert size.bytes == 100_000 + MORE_BATCH_BYTES  # the first repeat keeps its size
    for _ in range(20):
        size.unanswered(size.bytes)
        size.begin()
    assert size.bytes == MIN_BATCH_BYTES
