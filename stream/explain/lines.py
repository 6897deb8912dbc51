"""The lines of an explanation, for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an explanation as text for people. ``found`` is the dict of ``Explanation.to_dict``."""
    yield f"frame {found['frame']} ({found['lane']})" if found["frame"] else "an alert of a sensor"
    if found["absence"]:
        yield f"  {found['absence']['state']}: {found['absence']['reason']}"
    for hop in found["hops"]:
        error = "error unknown" if hop["error_ms"] is None else f"±{hop['error_ms']:.0f} ms"
        yield f"  {hop['time']}  {hop['name']:<13} {hop['about']}".rstrip() + f"  [{hop['clock']}, {error}]"
    if found["gate"]:
        yield from _gate_lines(found["gate"])
    for pipeline in found["pipelines"]:
        yield from _pipeline_lines(pipeline)
    configured = {rule["rule"] for pipeline in found["pipelines"] for rule in pipeline["rules"]}
    for event in found["events"]:
        rule = event["data"]["rule"]
        if found["frame"] and rule not in configured:
            yield f"rule {rule}: emitted the event {event['id']}, but is not configured for this camera any more"


def _gate_lines(gate: dict[str, Any]) -> Iterator[str]:
    yield "gate"
    motion = gate["motion"]
    if motion is None:
        yield "  motion: not examined"
    else:
        yield f"  motion: {_boxes(motion) or 'none'}"
    if gate["resting"]:
        yield f"  stationary objects: {_boxes(gate['resting'])}"
    if gate["sampled"]:
        yield "  sampled: the gate would have withheld this frame, and sent it to measure its own misses"
    if before := gate["withheld_before"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(before["counts"].items()))
        yield f"  withheld before this frame: {before['first']} to {before['last']} ({counts})"


def _pipeline_lines(one: dict[str, Any]) -> Iterator[str]:
    by = f" by {one['model']}" if one["model"] else ""
    reason = f", {one['reason']}" if one["reason"] else ""
    yield f"pipeline {one['pipeline']}: {one['outcome']}{by}{reason}"
    for each in one["detections"]:
        given = "".join(
            f", {a['name']}: " + (a["missing"] or f"{a['label']} {a['score']:.2f}") for a in each["attributes"]
        )
        yield f"  found {each['label']} {each['score']:.2f} at {_boxes([each['box']])}{given}"
    for each in one["untracked"]:
        yield f"  {each['label']} {each['score']:.2f} is invisible to rules: {each['reason']}"
    if one["unseen"]:
        yield f"  no rule saw this frame: {one['unseen']}"
    for rule in one["rules"]:
        yield from _rule_lines(rule)
    for event in one["not_emitted_now"]:
        yield f"  the log has the event {event}, but the present rules do not emit it: they or their past differ"


def _rule_lines(rule: dict[str, Any]) -> Iterator[str]:
    reasons = f": {'; '.join(rule['reasons'])}" if rule["reasons"] else ""
    yield f"  rule {rule['rule']} ({rule['type']}) {'fired' if rule['fired'] else 'did not fire'}{reasons}"
    for event in rule["events"]:
        yield f"    event {event['id']}: {event['summary']}"
    for each in rule["tracks"]:
        verdict = "fired" if each["fired"] else "; ".join(each["reasons"])
        yield f"    {each['label']} {each['score']:.2f} (track {each['track']}): {verdict}"


def _boxes(boxes: list[list[float]]) -> str:
    return ", ".join("(" + ", ".join(f"{edge:.0f}" for edge in box) + ")" for box in boxes)
