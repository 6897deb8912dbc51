"""Results of a camera ``c`` and a pipeline ``p``, for tests of tracks and rules."""

from __future__ import annotations

from typing import Any

from ingest.contract.identity import LIVE
from ingest.contract.records import Detection, FrameRef, Result


def result_at(seq: int, at_s: float, *found: Detection, **fields: Any) -> Result:
    """Return the result of a classified frame of 640 × 360 px that was captured after ``at_s``, with other fields as
    given."""
    values: dict[str, Any] = {
        "epoch": 1,
        "lane": LIVE,
        "source": FrameRef("frames", 0, seq),
        "width": 640,
        "height": 360,
        "outcome": "classified",
        **fields,
    }
    return Result(
        camera="c",
        seq=seq,
        pipeline="p",
        pipelines=("p",),
        captured_ns=10**18 + round(at_s * 1e9),
        finished_ns=10**18,
        detections=found,
        **values,
    )
