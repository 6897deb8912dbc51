"""From a row of the spool to what goes over the link. Pure."""

from __future__ import annotations

from edge_agent.send.link import OutboundRecord
from edge_agent.spool.schema import Row
from ingest.contract import headers as h
from ingest.contract.identity import LATE, FrameId
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS

OTHERS = "others"
"""What stands for the lane of readings and status records."""


def parcel(row: Row, lane: str) -> OutboundRecord:
    """Return what carries a row, on the lane that it was settled on."""
    if row.kind == "frame":
        headers = h.frame_headers([FrameId(row.name, row.epoch, row.seq)], lane, row.traceparent)
        if row.account:
            headers[h.ACCOUNT] = row.account.encode()
        late = lane == LATE
        return OutboundRecord(FRAMES_LATE if late else FRAMES, row.name, row.record, headers, row.id, late)
    return OutboundRecord(READINGS if row.kind == "readings" else STATUS, row.name, row.record, {}, row.id)
