"""The hops (processing steps) of one frame, each with its time and the error bound of the time. Pure.

The broker sets the timestamp of each record when it appends the record to the log. All broker timestamps are from one
clock, which is the reference for all processing steps. The capture time is from the clock of the camera or agent; the
agent measures the clock's error. Engine nodes and the dispatcher write the time of their work by their own clocks.
The error of a time from another clock is bounded: the work happened after the broker appended the input record, and
before the broker appended the output record.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream.explain.trail import Trail

BROKER = "broker"
_STAMP_MS = 1.0
"""Resolution of the broker's timestamps in ms."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One processing step of a frame: its time in Unix ns, and the clock that measured the time.

    ``error_ms`` is the maximum error against the broker's clock; for a capture time, against the clock of the agent's
    host. ``error_ms`` is None if the error is unknown.
    """

    name: str
    at_ns: int
    clock: str
    error_ms: float | None
    about: str = ""


def hops(trail: Trail) -> list[Hop]:
    """Return the processing steps of a frame, from the records of its trail, in the order of the pipeline."""
    found = [*_delivery(trail), *_pipelines(trail)]
    found += [
        _stamped("dead letter", one.at_ms, f"stage {one.value.stage}: {one.value.error}: {one.value.message}")
        for one in trail.letters
    ]
    for event in trail.events:
        data = event.value.data
        found.append(_stamped("event", event.at_ms, f"{event.value.id} of rule {data.rule}: {data.summary}"))
    for alert in trail.alerts:
        caused = next((one.at_ms for one in trail.events if one.value.id == alert.value.data.event), None)
        if alert.value.data.evidence:
            names = ", ".join(one.name for one in alert.value.data.evidence)
            error_ms = None if caused is None else alert.at_ms - caused + _STAMP_MS
            found.append(
                Hop("evidence", alert.at_ms * 10**6, "alerts", error_ms, f"stored before the alert: {names}")
            )
        found.append(_stamped("alert", alert.at_ms, f"{alert.value.id} of event {alert.value.data.event}"))
        for receipt in trail.deliveries:
            if receipt.value.alert == alert.value.id:
                one = receipt.value
                status = f", status {one.status}" if one.status is not None else ""
                reason = f", {one.reason}" if one.reason else ""
                about = f"attempt {one.attempt} to {one.receiver}: {one.state}{status}{reason}"
                found.append(_worked("delivery", one.attempted_ns, "dispatcher", alert.at_ms, receipt.at_ms, about))
    return found


def _delivery(trail: Trail) -> list[Hop]:
    frame = trail.frame
    if frame is None:
        captured = [one.value.captured_ns for one in trail.results] + [
            one.value.data.captured_ns for one in trail.events if one.value.data.camera
        ]
        return [Hop("captured", captured[0], "camera or agent", None)] if captured else []
    meta = frame.value
    clock = "camera's stream" if meta.captured_by == "stream" else "agent's host"
    took_ms = frame.at_ms - meta.captured_ns / 1e6
    about = f"{frame.position}, {len(meta.image)} bytes, lane {trail.lane}, {took_ms:.0f} ms after the capture"
    if took_ms < 0.0:
        about = f"{frame.position}: the clock of the capture is ahead of the broker by at least {-took_ms:.0f} ms"
    return [
        Hop("captured", meta.captured_ns, clock, meta.captured_error_ms, f"{meta.width}×{meta.height} pixels"),
        _stamped("frame record", frame.at_ms, about),
    ]


def _pipelines(trail: Trail) -> list[Hop]:
    found = []
    for pipeline, sent in trail.batches.items():
        if pipeline not in {one.value.pipeline for one in trail.results}:
            found.append(_stamped("batched", sent.at_ms, f"{pipeline}: {sent.position}, no result"))
    for result in trail.results:
        own, begin_ms = result.value, trail.frame.at_ms if trail.frame else None
        if batch := trail.batches.get(own.pipeline):
            begin_ms = batch.at_ms
            found.append(_stamped("batched", batch.at_ms, f"{own.pipeline}: {batch.position}"))
        reason = f", {own.reason}" if own.reason else ""
        by = f" by {own.model}" if own.model else ""
        about = f"{own.pipeline}: {own.outcome}{by}{reason}"
        found.append(_worked("classified", own.finished_ns, "engine node", begin_ms, result.at_ms, about))
        found.append(_stamped("result record", result.at_ms, f"{own.pipeline}: {result.position}"))
    return found


def _stamped(name: str, at_ms: int, about: str) -> Hop:
    return Hop(name, at_ms * 10**6, BROKER, _STAMP_MS, about)


def _worked(name: str, at_ns: int, clock: str, after_ms: int | None, before_ms: int, about: str) -> Hop:
    """Return a processing step whose true time is between the timestamps of its input record and its output
    record."""
    error_ms = None if after_ms is None else max(abs(at_ns / 1e6 - stamp) for stamp in (after_ms, before_ms))
    return Hop(name, at_ns, clock, None if error_ms is None else error_ms + _STAMP_MS, about)
