"""Requests and reports of trials, which run a draft of rules over stored results. A trial of a draft runs in another
process, because it imports large packages and takes long."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, SerializeAsAny

from ingest.site import CameraConfig, MeasureConfig, PipelineConfig, RuleEntry


class TrialRequest(BaseModel):
    """The rules to try on the results of one camera, within a period in Unix ms by the broker's clock."""

    camera: CameraConfig
    pipelines: tuple[PipelineConfig, ...]
    measures: tuple[MeasureConfig, ...]
    rules: tuple[SerializeAsAny[RuleEntry], ...]
    since_ms: int
    until_ms: int
    folder: Path


class TriedEvent(BaseModel):
    """An event that the draft gains or loses. ``picture`` is the number of the event's picture; None if it has no
    picture."""

    id: str
    time: str
    summary: str
    picture: int | None


class TriedRule(BaseModel):
    """Events of one rule: equal in draft and log, in another frame (moved), only in the draft (gained), or only in
    the log (lost)."""

    rule: str
    equal: int
    moved: int
    gained: int
    lost: int
    gained_events: list[TriedEvent]
    lost_events: list[TriedEvent]


class DraftReport(BaseModel):
    """The result of running a draft of rules over stored results. ``warnings`` name rules that can never fire, and
    the reason."""

    results: int
    failed: int
    rules: list[TriedRule]
    warnings: list[str]
