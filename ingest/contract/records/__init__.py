"""One module per record; this is the list of them all."""

from ingest.contract.records.base import Box, FrameRef, Point, Record
from ingest.contract.records.batch import Batch, BatchItem, Canvas, Fit, Inner, Pixels, Region, lay
from ingest.contract.records.event import Alert, AlertData, CloudEvent, Delivery, Event, EventData, Evidence, Overlay
from ingest.contract.records.frame import MAX_RESTING, WITHHELD_REASONS, Account, Frame, Redacted
from ingest.contract.records.reading import (
    BY_HOST,
    BY_HOST_INSTEAD,
    BY_SOURCE,
    GOOD,
    OUT_OF_RANGE,
    STALE,
    SUSPECT,
    WITHHELD_READING_REASONS,
    Readings,
)
from ingest.contract.records.result import Detection, Result
from ingest.contract.records.status import (
    CameraState,
    CameraStatus,
    EpochEnd,
    Heartbeat,
    SensorLedger,
    SensorStatus,
    Waiting,
)

__all__ = [
    "BY_HOST",
    "BY_HOST_INSTEAD",
    "BY_SOURCE",
    "GOOD",
    "MAX_RESTING",
    "OUT_OF_RANGE",
    "STALE",
    "SUSPECT",
    "WITHHELD_READING_REASONS",
    "WITHHELD_REASONS",
    "Account",
    "Alert",
    "AlertData",
    "Batch",
    "BatchItem",
    "Box",
    "CameraState",
    "CameraStatus",
    "Canvas",
    "CloudEvent",
    "Delivery",
    "Detection",
    "EpochEnd",
    "Event",
    "EventData",
    "Evidence",
    "Fit",
    "Frame",
    "FrameRef",
    "Heartbeat",
    "Inner",
    "Overlay",
    "Pixels",
    "Point",
    "Readings",
    "Record",
    "Redacted",
    "Region",
    "Result",
    "SensorLedger",
    "SensorStatus",
    "Waiting",
    "lay",
]
