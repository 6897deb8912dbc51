"""Quix Streams: the mean of a sensor in windows with an event for each window above the limit, an event for each
sensor that exceeds the limit, or an event for each object that crosses a line.

``--how window`` and ``--how threshold`` read a JSON message per reading. ``--how columns`` reads a JSON message per
column of readings, and first sums the readings of each window in the column. With one sum per window, Quix Streams
writes its state only once or twice per message. ``--how line`` reads a JSON message per frame, and keeps its trackers
in memory.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import timedelta
from typing import Any

from quixstreams import State

from benchmarks.peers.jobs.operations import ByteTrackCounter, add, exceeds, read_arguments, single, sums
from benchmarks.peers.jobs.quixclient import make_application
from benchmarks.peers.series import LATENESS_S, LIMIT, WINDOW_S

OUTSIDE = "outside"


def time_of(value: Any, _headers: Any, _timestamp: Any, _kind: Any) -> int:
    """Return the time of a message's first reading, in ms."""
    times_ns = value.get("times_ns") or [value["captured_ns"]]
    return int(times_ns[0]) // 1_000_000


def begun(value: Any, state: State) -> bool:
    """Return whether a reading begins to exceed the limit. The state is written only if it changes."""
    was_above = state.get(OUTSIDE, default=False)
    is_above = exceeds(value["values"][0], was_above=was_above)
    if is_above != was_above:
        state.set(OUTSIDE, is_above)
    return is_above and not was_above


def windowed(frame: Any, *, columns: bool) -> Any:
    """Return the windows of readings whose mean exceeds the limit."""
    if columns:
        frame = frame.apply(sums, expand=True).set_timestamp(lambda part, *_: int(part["t"]))
    else:
        frame = frame.apply(single)
    windows = frame.tumbling_window(timedelta(seconds=WINDOW_S), grace_ms=timedelta(seconds=LATENESS_S))
    closed = windows.reduce(initializer=lambda part: [part["n"], part["s"]], reducer=add)
    means = closed.final(closing_strategy="key").apply(
        lambda window: {"start": window["start"], "mean": window["value"][1] / window["value"][0]}
    )
    return means.filter(lambda window: window["mean"] > LIMIT)


def applied(frame: Any, how: str) -> Any:
    """Return the events of an operator."""
    match how:
        case "line":
            counters: defaultdict[str, ByteTrackCounter] = defaultdict(ByteTrackCounter)
            return frame.apply(lambda value: counters[value["camera"]].step(value), expand=True)
        case "threshold":
            return frame.filter(begun, stateful=True)
        case _:
            return windowed(frame, columns=how == "columns")


if __name__ == "__main__":
    options = read_arguments()
    with tempfile.TemporaryDirectory() as state:
        app = make_application(options, state, commit_interval=1.0)
        source = app.topic(
            options.source, value_deserializer="json", key_deserializer="str", timestamp_extractor=time_of
        )
        target = app.topic(options.target, value_serializer="json", key_serializer="str")
        applied(app.dataframe(source), options.how).to_topic(target)
        app.run()
