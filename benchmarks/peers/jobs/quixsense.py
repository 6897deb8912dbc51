"""Quix Streams: the mean of a sensor in windows, and an event for each window whose mean is above the limit.

``--how single`` reads a JSON message per reading. ``--how columns`` reads a JSON message per column, and first sums
the readings of each window in the column. With one sum per window, Quix Streams writes its state only once or twice
per message.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from quixstreams import Application

from benchmarks.peers.jobs import LINGER_MS, MAX_FETCH_WAIT_MS
from benchmarks.peers.series import LATENESS_S, LIMIT, WINDOW_S

Sums = dict[str, float]


def sums(column: Mapping[str, Sequence[float]]) -> list[Sums]:
    """Return time, count and sum of the readings of a column, for each window of the column."""
    found: dict[int, Sums] = {}
    for time_ms, value in zip(column["t"], column["v"], strict=True):
        part = found.setdefault(int(time_ms) // (WINDOW_S * 1000), {"t": time_ms, "n": 0, "s": 0.0})
        part["n"] += 1
        part["s"] += value
    return list(found.values())


def add(total: list[float], part: Sums) -> list[float]:
    """Add a column's count and sum of readings to the count and sum of their window."""
    return [total[0] + part["n"], total[1] + part["s"]]


if __name__ == "__main__":
    parser = ArgumentParser()
    for name in ("bootstrap", "source", "target", "group", "how"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    single = options.how == "single"

    def time_of(value: Any, _headers: Any, _timestamp: Any, _kind: Any) -> int:
        """Return the time of a message's first reading, in ms."""
        return int(value["t"] if single else value["t"][0])

    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=options.bootstrap,
            consumer_group=options.group,
            auto_offset_reset="earliest",
            commit_interval=1.0,
            consumer_poll_timeout=0.1,
            consumer_extra_config={"fetch.wait.max.ms": MAX_FETCH_WAIT_MS, "isolation.level": "read_committed"},
            producer_extra_config={"acks": "all", "enable.idempotence": True, "linger.ms": LINGER_MS},
            state_dir=state,
            loglevel="WARNING",
        )
        source = app.topic(
            options.source, value_deserializer="json", key_deserializer="str", timestamp_extractor=time_of
        )
        target = app.topic(options.target, value_serializer="json", key_serializer="str")
        frame = app.dataframe(source)
        if single:
            frame = frame.apply(lambda value: {"t": value["t"], "n": 1, "s": value["v"]})
        else:
            frame = frame.apply(sums, expand=True).set_timestamp(lambda part, *_: int(part["t"]))
        windows = frame.tumbling_window(timedelta(seconds=WINDOW_S), grace_ms=timedelta(seconds=LATENESS_S))
        closed = windows.reduce(initializer=lambda part: [part["n"], part["s"]], reducer=add)
        means = closed.final(closing_strategy="key").apply(
            lambda window: {"start": window["start"], "mean": window["value"][1] / window["value"][0]}
        )
        means.filter(lambda window: window["mean"] > LIMIT).to_topic(target)
        app.run()
