"""Quix Streams: a streaming dataframe with one step. Delivery is at least once, with a checkpoint every ``--batch``
messages."""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.peers.jobs.quixclient import make_application
from benchmarks.peers.jobs.work import PeerWork, read_options

if __name__ == "__main__":
    options = read_options()
    work = PeerWork(options)

    def classify(value: bytes, _key: Any, _timestamp: int, headers: Any) -> bytes:
        """Return the result of one frame."""
        return work(value, dict(headers))

    with tempfile.TemporaryDirectory() as state:
        app = make_application(
            options, state, auto_create_topics=False, use_changelog_topics=False, commit_every=options.batch
        )
        source = app.topic(options.source, value_deserializer="bytes", key_deserializer="bytes")
        target = app.topic(options.target, value_serializer="bytes", key_serializer="bytes")
        # The headers of a message, and so the frame's id, pass to the output.
        app.dataframe(source).apply(classify, metadata=True).to_topic(target)
        app.run()
