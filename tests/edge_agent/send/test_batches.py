"""What goes into one request to a gateway."""

from __future__ import annotations

from edge_agent.send.batches import MAX_BATCH_BYTES, MIN_BATCH_BYTES, MORE_BATCH_BYTES, BatchSize


def test_a_batch_s_size_follows_what_was_tried_and_what_was_answered() -> None:
    portion = BatchSize()
    for _ in range(1000):
        portion.unanswered(1000)  # a link that comes and goes, and not for a batch's sake
        portion.begin()
    assert portion.bytes == MAX_BATCH_BYTES
    for _ in range(2):
        portion.unanswered(200_000)
        portion.begin()
    assert portion.bytes == 100_000
    for _ in range(1000):
        portion.answered(1000)
    assert portion.bytes == 100_000
    portion.answered(100_000)
    portion.unanswered(portion.bytes)
    portion.begin()
    assert portion.bytes == 100_000 + MORE_BATCH_BYTES  # the first repeat is whole
    for _ in range(20):
        portion.unanswered(portion.bytes)
        portion.begin()
    assert portion.bytes == MIN_BATCH_BYTES
