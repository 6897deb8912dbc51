"""Pictures of an explained frame and of a tried event, with the shapes of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from ingest.contract.codec import decode
from ingest.contract.records import Event, Frame
from ingest.exceptions import CodecError
from ingest.kafka.log import Log
from ingest.site import to_pixels
from stream.alerts.pictures import annotated, captioned, decoded, draw_box, draw_shape, encoded
from stream.alerts.stage import record_at
from stream.events import rfc3339
from stream.exceptions import EvidenceMissing
from stream.explain.comparison import RuleDifference
from stream.explain.explanation import Explanation

_MOTION = (200, 120, 200)


def drawn(explanation: Explanation) -> bytes:
    """Return the frame as JPEG, with the regions of motion, all detections, and the shapes of all rules.

    Raise EvidenceMissing if the log has no picture of the frame.
    """
    trail = explanation.trail
    if trail.frame is None:
        reason = trail.absence.reason if trail.absence else "a sensor's alert has no frame"
        raise EvidenceMissing(f"no picture of {trail.frame_id or 'this alert'}: {reason}")
    frame = trail.frame.value
    image = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise EvidenceMissing(f"the frame {frame.id} cannot be decoded as a picture")
    canvas = np.asarray(image, np.uint8)
    for pipeline in explanation.pipelines:
        for verdict in pipeline.rules:
            draw_shape(canvas, to_pixels(verdict.rule.shape, frame.width, frame.height))
    for left, top, right, bottom in frame.motion or ():
        cv2.rectangle(canvas, (round(left), round(top)), (round(right), round(bottom)), _MOTION, 1)
    for pipeline in explanation.pipelines:
        for one in pipeline.result.detections:
            draw_box(canvas, one.box, f"{one.label} {one.score:.2f}")
    return encoded(captioned(canvas, _summary(explanation), _where(frame)))


async def event_picture(log: Log, event: Event) -> bytes | None:
    """Return the frame of a camera's event as JPEG, with the rule's shape and the object.

    Return None if the log no longer has the frame, or if the frame cannot be decoded. Raise LogUnavailable.
    """
    record = await record_at(log, event.data.frame) if event.data.frame else None
    try:
        return annotated(decoded(decode(Frame, record.value).image, event), event) if record else None
    except (CodecError, EvidenceMissing):
        return None


async def write_pictures(log: Log, rules: Mapping[str, RuleDifference], folder: Path) -> dict[str, str]:
    """Write the annotated pictures of gained and lost events to the folders ``gained`` and ``lost``.

    Return the path of each picture, relative to ``folder``, by the id of its event. Leave out events whose picture
    has expired. Raise LogUnavailable.
    """
    written = {}
    for rule, difference in rules.items():
        for kind, events in (("gained", difference.gained_events), ("lost", difference.lost_events)):
            for event in events:
                drawn = await event_picture(log, event)
                if drawn is None:
                    continue
                (folder / kind).mkdir(parents=True, exist_ok=True)
                written[event.id] = f"{kind}/{rule}-{event.time.replace(':', '')}-{event.id[:8]}.jpg"
                (folder / written[event.id]).write_bytes(drawn)
    return written


def _summary(explanation: Explanation) -> str:
    fired = sorted({verdict.rule.name for one in explanation.pipelines for verdict in one.rules if verdict.events})
    return f"fired: {', '.join(fired)}" if fired else "no rule fired"


def _where(frame: Frame) -> str:
    return f"{frame.id}  {rfc3339(frame.captured_ns)}"
