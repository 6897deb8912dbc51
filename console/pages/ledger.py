"""The ledger of each camera and hour, and the explanation of a frame."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from console.access.guard import Context, Viewer
from console.access.roles import Identity
from console.context import ConsoleContext
from console.exceptions import BadInput, NotFound
from console.pages.render import go, page
from ingest.contract.identity import FrameId

HOURS = {"24": "last day", "48": "last two days", "0": "all"}
HOUR_NS = 3_600_000_000_000
NUMBERS = (
    "captured", "spooled", "delivered", "classified", "empty", "dead", "unaccounted", "duplicates", "unclean",
)  # fmt: skip
"""Numbers of frames in one line of the ledger, besides the withheld and shed frames by reason."""
Text = Annotated[str, Query(max_length=200)]
router = APIRouter()


class LedgerLine(BaseModel):
    """The ledger of a camera in one hour, which begins at ``begin_ns``. ``examples`` names faulty frames."""

    camera: str
    begin_ns: int
    balanced: bool
    captured: int
    withheld: dict[str, int]
    spooled: int
    delivered: int
    classified: int
    empty: int
    shed: dict[str, int]
    dead: int
    unaccounted: int
    duplicates: int
    unclean: int
    examples: list[str]


class LedgerPage(BaseModel):
    """The last ledger that was computed, at ``computed_ns`` in Unix ns; 0 before the first ledger. ``running`` says
    that a new ledger is being computed."""

    computed_ns: int
    running: bool
    problem: str
    lines: list[LedgerLine]


@router.get("/ledger", include_in_schema=False)
async def ledger(
    request: Request, identity: Viewer, context: Context, camera: Text = "", hours: Text = "24"
) -> Response:
    """Show the last ledger, and compute a new one if it is old."""
    context.ledger.start()
    context.audit_view(request, identity, "ledger_viewed", camera)
    chosen = {"camera": camera, "hours": hours if hours in HOURS else "24"}
    found = lines_of(context, identity, camera, int(chosen["hours"]))
    deployment = context.feed.deployment
    cameras = {*context.ledger.hours, *(one.name for one in deployment.visible_cameras(identity))}
    return page(
        request,
        identity,
        "ledger.html",
        lines=found,
        total=_total(found),
        reading=context.ledger,
        chosen=chosen,
        hours=HOURS,
        cameras=[name for name in sorted(cameras) if deployment.sees_camera(identity, name)],
        notes=_notes(context, identity),
    )


@router.post("/ledger", include_in_schema=False)
async def compute(request: Request, identity: Viewer, context: Context) -> Response:
    """Compute the ledger again."""
    context.ledger.start(is_wanted=True)
    context.audit(request, identity, "ledger_computed")
    return go("/ledger")


@router.get("/api/ledger")
async def ledger_lines(
    request: Request,
    identity: Viewer,
    context: Context,
    camera: Text = "",
    hours: Annotated[int, Query(ge=0, le=10_000)] = 24,
) -> LedgerPage:
    """Return the ledger by camera and hour. If the last ledger is older than five minutes, compute a new one in the
    background."""
    context.ledger.start()
    context.audit_view(request, identity, "ledger_viewed", camera)
    reading, found = context.ledger, lines_of(context, identity, camera, hours)
    return LedgerPage(computed_ns=reading.at_ns, running=reading.running, problem=reading.problem, lines=found)


@router.get("/explain", include_in_schema=False)
async def explain(request: Request, identity: Viewer, context: Context, frame: Text) -> Response:
    """Explain a frame ``camera/epoch/seq``: its way through the log, and the verdicts of the rules."""
    try:
        wanted = FrameId.parse(frame)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if not context.feed.deployment.sees_camera(identity, wanted.camera):
        raise NotFound("there is no such frame, or you may not see it")
    context.audit_view(request, identity, "frame_explained", frame)
    found = await context.ledger.explain(str(wanted))
    events = [one for one in found["events"] if _is_visible(context, identity, one["id"])]
    return page(request, identity, "explain.html", frame=wanted, lines=found["lines"], events=events)


def lines_of(context: ConsoleContext, identity: Identity, camera: str = "", hours: int = 0) -> list[LedgerLine]:
    """Return the ledger lines of the cameras that the user may see, the newest hour first; with 0 ``hours``, the
    lines of all hours."""
    since = context.clock.now_ns() // HOUR_NS - hours if hours else -1
    found = []
    for name, by_hour in context.ledger.hours.items():
        if camera not in ("", name) or not context.feed.deployment.sees_camera(identity, name):
            continue
        found += [
            LedgerLine(camera=name, begin_ns=hour * HOUR_NS, **counts)
            for hour, counts in by_hour.items()
            if hour > since
        ]
    return sorted(found, key=lambda line: (-line.begin_ns, line.camera))


def _total(lines: list[LedgerLine]) -> LedgerLine:
    total: dict[str, Any] = {name: sum(getattr(line, name) for line in lines) for name in NUMBERS}
    withheld, shed = Counter[str](), Counter[str]()
    for line in lines:
        withheld.update(line.withheld)
        shed.update(line.shed)
    balanced = all(line.balanced for line in lines)
    return LedgerLine(camera="", begin_ns=0, balanced=balanced, withheld=withheld, shed=shed, examples=[], **total)


def _notes(context: ConsoleContext, identity: Identity) -> list[str]:
    """Return the facts about whole topics, for users without limits."""
    report = context.ledger.report if identity.limits.everywhere else {}
    return [
        *(f"retention has deleted earlier frames: {one}" for one in report.get("truncated", ())),
        *(f"left out, as retention may have deleted all its frames: {one}" for one in report.get("left_out", ())),
        *(f"killed capture: {one}" for one in report.get("unclean", ())),
        *(f"deleted before it was read: {one}" for one in report.get("expired_unread", ())),
    ]


def _is_visible(context: ConsoleContext, identity: Identity, event: str) -> bool:
    item = context.feed.happenings.event(event)
    return item is not None and context.feed.deployment.sees(identity, item.event)
