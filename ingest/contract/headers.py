"""Names and values of Kafka headers.

Headers hold facts that must be readable even when the record's value is corrupt. Dead letters carry the
``__connect.errors.*`` headers of Kafka Connect, so that existing tools can show why a record failed
(https://docs.confluent.io/platform/current/connect/).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import WithheldInterval

Headers = Mapping[str, bytes]

FRAMES = "sightline-frames"
"""Header with the ids of the frames in a record, one id per line."""
ACCOUNT = "sightline-account"
"""Header with the interval of frames that the agent withheld just before this record's frame, counted by reason. The
header repeats the counts from the record's value, so that the ledger can read the counts even when the value is
corrupt."""
LANE = "sightline-lane"
PIPELINE = "sightline-pipeline"
"""Header with the name of the only pipeline that a batch, its dead letter or a picture of `sightline classify`
concerns. A frame or dead letter without this header concerns all pipelines."""
TRACEPARENT = "traceparent"
CLOUD_EVENT = {"content-type": b"application/cloudevents+json; charset=UTF-8"}
"""Headers of a CloudEvent in structured JSON mode (CloudEvents Kafka binding 1.0, §3.3)."""

_ERRORS = "__connect.errors."
_TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def new_traceparent() -> str:
    """Return a new ``traceparent`` value with the sampled flag set (https://www.w3.org/TR/trace-context/)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def traceparent_of(headers: Headers) -> str:
    """Return a record's W3C trace context, or a new context when the ``traceparent`` header is missing or malformed.

    A ``traceparent`` longer than the standard's 55 characters counts as malformed, because every derived record
    repeats this header.
    """
    found = headers.get(TRACEPARENT)
    return found.decode() if found and _TRACE.fullmatch(found) else new_traceparent()


def frame_headers(
    frames: Iterable[FrameId], lane: str, traceparent: str = "", pipeline: str = ""
) -> dict[str, bytes]:
    """Return the headers of a frame or a batch."""
    headers = {FRAMES: "\n".join(map(str, frames)).encode(), LANE: lane.encode()}
    if traceparent:
        headers[TRACEPARENT] = traceparent.encode()
    if pipeline:
        headers[PIPELINE] = pipeline.encode()
    return headers


def frames_of(headers: Headers) -> tuple[FrameId, ...]:
    """Return the frames named in a record's ``sightline-frames`` header; no frames if the header is missing or
    malformed."""
    try:
        return tuple(FrameId.parse(line) for line in headers.get(FRAMES, b"").decode().splitlines())
    except ValueError:
        return ()


def lane_of(headers: Headers, topic: str) -> str:
    """Return a record's lane (``live``, ``late`` or a replay lane) from the lane header, else from the topic's
    name."""
    fallback = LATE if topic.endswith(".late") else LIVE
    return headers.get(LANE, b"").decode(errors="replace") or fallback


def pipeline_of(headers: Headers) -> str:
    """Return the pipeline of a batch or result; "" for a record without a pipeline."""
    return headers.get(PIPELINE, b"").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Failure:
    """The position of a record that could not be processed, the failed stage, and the error.

    ``topic`` is the topic's name without the deployment's prefix.
    """

    topic: str
    partition: int
    offset: int
    stage: str
    error: str
    message: str


def failure_headers(failure: Failure) -> dict[str, bytes]:
    """Return the headers that a dead letter has in addition to the original record's headers."""
    return {
        _ERRORS + "topic": failure.topic.encode(),
        _ERRORS + "partition": str(failure.partition).encode(),
        _ERRORS + "offset": str(failure.offset).encode(),
        _ERRORS + "stage": failure.stage.encode(),
        _ERRORS + "exception.class.name": failure.error.encode(),
        _ERRORS + "exception.message": failure.message[:1000].encode(errors="replace"),
    }


def read_failure(headers: Headers) -> Failure | None:
    """Return the failure that a dead letter's headers describe, None if the record is not a dead letter."""
    try:
        return Failure(
            topic=headers[_ERRORS + "topic"].decode(),
            partition=int(headers[_ERRORS + "partition"]),
            offset=int(headers[_ERRORS + "offset"]),
            stage=headers[_ERRORS + "stage"].decode(),
            error=headers[_ERRORS + "exception.class.name"].decode(),
            message=headers[_ERRORS + "exception.message"].decode(errors="replace"),
        )
    except (KeyError, ValueError):
        return None


def account_text(account: WithheldInterval) -> str:
    """Return an interval of withheld frames as a header value: ``first-last reason=count reason=count``."""
    counts = " ".join(f"{reason}={count}" for reason, count in sorted(account.counts.items()))
    return f"{account.first}-{account.last} {counts}"


def account_of(headers: Headers, frame: FrameId) -> WithheldInterval | None:
    """Return the interval of the frames withheld just before ``frame``, from the ``sightline-account`` header.

    Return None when the header is missing or malformed, or when the interval does not end just before the frame.
    """
    try:
        interval, *counts = headers[ACCOUNT].decode().split()
        first, last = interval.split("-")
        account = WithheldInterval(
            camera=frame.camera,
            epoch=frame.epoch,
            first=int(first),
            last=int(last),
            counts={reason: int(count) for reason, count in (c.split("=") for c in counts)},
        )
    except (KeyError, ValueError):
        return None
    return account if account.last + 1 == frame.seq else None
