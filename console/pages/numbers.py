"""Numbers: plots of measures and forecasts, latencies by stage, and the state of all agents and services."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from console.access.guard import Context, Viewer
from console.access.roles import Identity
from console.context import ConsoleContext
from console.exceptions import NotFound, Unavailable
from console.live.statuses import SILENT_S
from console.numbers.forecasts import ForecastSeries
from console.numbers.latency import StageLatency, stage_latencies
from console.numbers.measures import MeasureSeries
from console.pages.render import page
from ingest.exceptions import LogUnavailable

LATENCIES_S = 3.0
"""Time limit for reading the records from which latencies are computed, in seconds. Reading takes less than 1 s. The
limit lets the page of the system answer while Kafka does not."""
HOURS = {"1": "last hour", "6": "last 6 hours", "24": "last day"}
router = APIRouter()


class MeasureItem(BaseModel):
    """A measure and the names of its values."""

    name: str
    type: str
    site: str
    camera: str
    keys: list[str]


class MeasureColumns(BaseModel):
    """The minutes of a measure in columns of equal length.

    ``start_s`` has the starts of the minutes in Unix seconds, ``observed`` the observed share of each minute. A value
    is null in a minute in which it could not be measured.
    """

    name: str
    start_s: list[int]
    observed: list[float]
    values: dict[str, list[float | None]]


class ForecastItem(BaseModel):
    """A forecast and its skill. ``mae_ratio`` is the forecast's error one step ahead divided by the error of the
    seasonal naive forecast (the value of the day before). ``covered`` is the share of the values within the
    prediction intervals. Both are taken over the last day, and are null before the first comparison. ``reason`` says
    why the newest forecast has no values."""

    name: str
    measure: str
    value: str
    site: str
    camera: str
    model: str
    made_ns: int
    step_s: int
    level: float
    reason: str
    mae_ratio: float | None
    covered: float | None
    drifting: bool


class ForecastSteps(ForecastItem):
    """A forecast with its steps in columns of equal length. ``start_s`` has the starts of the forecast steps in Unix
    seconds. A past step has in ``value``, ``lower`` and ``upper`` the forecast that was made one step before it, and
    a future step the newest forecast. ``measured`` is null for a step that was not measured."""

    start_s: list[int]
    measured: list[float | None]
    forecast: list[float | None]
    lower: list[float | None]
    upper: list[float | None]


class LatencyItem(BaseModel):
    """Latencies of the newest records, from the capture to one stage, in ms."""

    stage: str
    records: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    error_ms: float | None


@router.get("/numbers", include_in_schema=False)
async def numbers(
    request: Request, identity: Viewer, context: Context, hours: Annotated[str, Query(max_length=4)] = "6"
) -> Response:
    """Show the plots of all measures and forecasts that the user may see."""
    context.audit(request, identity, "numbers_viewed")
    chosen = hours if hours in HOURS else "6"
    found = _visible(context, identity)
    forecasts = [one.newest for one in _visible_forecasts(context, identity)]
    return page(request, identity, "numbers.html", measures=found, forecasts=forecasts, hours=HOURS, chosen=chosen)


@router.get("/system", include_in_schema=False)
async def system(request: Request, identity: Viewer, context: Context) -> Response:
    """Show latencies, services, and the counters of cameras and sensors."""
    feed, now_ns = context.feed, context.clock.now_ns()
    services = [
        {
            "instance": name,
            "service": one.service,
            "state": one.state if now_ns - one.at_ns <= SILENT_S * 1e9 else "silent",
            "reason": one.reason,
            "at_ns": one.at_ns,
        }
        for name, one in sorted(feed.statuses.instances.items())
    ]
    cameras = [
        {"name": one.name, "state": feed.statuses.state_of(one), "report": feed.statuses.cameras.get(one.name)}
        for one in feed.deployment.visible_cameras(identity)
    ]
    sensors = [
        {"name": one.name, "report": feed.statuses.sensors.get(one.name)}
        for one in feed.deployment.visible_sensors(identity)
    ]
    values: dict[str, Any] = {"services": services if identity.limits.everywhere else []}
    values |= {"cameras": cameras, "sensors": sensors, "silent_ns": now_ns - round(SILENT_S * 1e9)}
    values["refused"] = feed.deployment.refused if identity.limits.everywhere else {}
    try:
        latencies = await _latencies(context, identity)
    except Unavailable as error:
        return page(request, identity, "system.html", **values, latencies=[], problem=str(error))
    return page(request, identity, "system.html", **values, latencies=latencies)


@router.get("/api/measures")
async def measures(identity: Viewer, context: Context) -> list[MeasureItem]:
    """Return the measures that the user may see."""
    return [
        MeasureItem(name=one.name, type=one.type, site=one.site, camera=one.camera, keys=one.keys())
        for one in _visible(context, identity)
    ]


@router.get("/api/measures/{name}")
async def measure(
    name: Annotated[str, Path(max_length=200)],
    identity: Viewer,
    context: Context,
    hours: Annotated[int, Query(ge=1, le=24)] = 6,
) -> MeasureColumns:
    """Return the values of a measure, by minute."""
    found = context.feed.measures.series(name)
    if found is None or not context.feed.deployment.sees_camera(identity, found.camera, found.site):
        raise NotFound("there is no such measure, or you may not see it")
    since_s = context.clock.now_ns() // 1_000_000_000 - hours * 3600
    start_s, observed, values = found.columns(since_s)
    return MeasureColumns(name=name, start_s=start_s, observed=observed, values=values)


@router.get("/api/forecasts")
async def forecasts(identity: Viewer, context: Context) -> list[ForecastItem]:
    """Return the forecasts that the user may see."""
    return [ForecastItem(**_item(one)) for one in _visible_forecasts(context, identity)]


@router.get("/api/forecasts/{name}")
async def forecast(
    name: Annotated[str, Path(max_length=200)],
    identity: Viewer,
    context: Context,
    hours: Annotated[int, Query(ge=1, le=24)] = 6,
) -> ForecastSteps:
    """Return the forecast steps of a series, beside the measured values."""
    found = next((one for one in _visible_forecasts(context, identity) if one.newest.name == name), None)
    if found is None:
        raise NotFound("there is no such forecast, or you may not see it")
    since_s = context.clock.now_ns() // 1_000_000_000 - hours * 3600
    columns = found.columns(context.feed.measures.series(found.newest.measure), since_s)
    return ForecastSteps(
        **_item(found),
        start_s=columns.start_s,
        measured=columns.measured,
        forecast=columns.value,
        lower=columns.lower,
        upper=columns.upper,
    )


@router.get("/api/latencies")
async def latencies(identity: Viewer, context: Context) -> list[LatencyItem]:
    """Return the latencies from capture to each stage, of the newest records of the cameras that the user may see."""
    return [LatencyItem(**stage._asdict()) for stage in await _latencies(context, identity)]


async def _latencies(context: ConsoleContext, identity: Identity) -> list[StageLatency]:
    """Return the latencies of the cameras that the user may see. Raise Unavailable if Kafka cannot be read, or if the
    records are not read within ``LATENCIES_S``."""
    feed = context.feed
    if feed.outage:
        raise Unavailable("there are no latencies while Kafka cannot be read")
    try:
        async with asyncio.timeout(LATENCIES_S):
            return await stage_latencies(feed.log(), lambda name: feed.deployment.sees_camera(identity, name))
    except LogUnavailable as error:
        raise Unavailable(str(error)) from None
    except TimeoutError:
        # A busy machine takes as long as a broker that does not answer. ``feed.outage`` names an outage after 5 s.
        raise Unavailable(
            f"the latencies are missing: their records were not read within {LATENCIES_S:.0f} s"
        ) from None


def _visible(context: ConsoleContext, identity: Identity) -> list[MeasureSeries]:
    sees = context.feed.deployment.sees_camera
    return [one for one in context.feed.measures if sees(identity, one.camera, one.site)]


def _visible_forecasts(context: ConsoleContext, identity: Identity) -> list[ForecastSeries]:
    sees = context.feed.deployment.sees_camera
    return [one for one in context.feed.forecasts if sees(identity, one.newest.camera, one.newest.site)]


def _item(series: ForecastSeries) -> dict[str, Any]:
    one = series.newest
    skill = one.skill[0] if one.skill else None
    fields = ("name", "measure", "value", "site", "camera", "model", "made_ns", "step_s", "level", "reason")
    return {
        **{field: getattr(one, field) for field in fields},
        "mae_ratio": skill.ratio if skill else None,
        "covered": skill.covered if skill else None,
        "drifting": one.drifting,
    }
