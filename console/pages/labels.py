"""Labelling page, on which people accept, correct or reject the labels of models, by keyboard or on a phone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from console.access.guard import Context, Operator
from console.access.roles import Identity
from console.context import ConsoleContext
from console.exceptions import BadInput, NotFound, Unavailable
from console.pages.render import page
from ingest.contract.records import LabelDecision
from ingest.contract.records.label import Verdict
from ingest.exceptions import LogUnavailable
from stream.labels.candidates import CandidateExample
from stream.labels.decisions import write_decision
from stream.labels.preference import Pick

OFFERED = 12
"""Number of objects to label that a browser gets at a time."""
MAX_LABELS = 30
"""Maximum number of labels that the labelling page offers. A person can type any other label."""
RECENT = 20
LABEL_CHARS = 100
Text = Annotated[str, Query(max_length=200)]
ObjectId = Annotated[str, Path(max_length=128)]
router = APIRouter()


class LabelOrder(BaseModel):
    """The verdict of a person about a detected object, and for a correction the right label."""

    verdict: Verdict
    corrected: Annotated[str, Field(max_length=LABEL_CHARS)] = ""


@router.get("/labels", include_in_schema=False)
async def labels(
    request: Request,
    identity: Operator,
    context: Context,
    camera: Text = "",
    pipeline: Text = "",
    label: Text = "",
) -> Response:
    """Show the labelling page, whose script asks for objects and sends the decisions."""
    context.feed.labelling.use()
    context.audit_view(request, identity, "labels_viewed", camera)
    labelling, sees = context.feed.labelling, _sight(context, identity)
    return page(
        request,
        identity,
        "labels.html",
        chosen={"camera": camera, "pipeline": pipeline, "label": label},
        cameras=[one.name for one in context.feed.deployment.visible_cameras(identity)],
        pipelines=sorted({frame.pipeline for frame in labelling.frames() if sees(frame.id.camera)}),
        labels=(await labelling.labels(pipeline, sees))[:MAX_LABELS],
        recent=_recent(context, identity),
        label_chars=LABEL_CHARS,
    )


@router.get("/api/labels/queue")
async def queue(
    identity: Operator,
    context: Context,
    camera: Text = "",
    pipeline: Text = "",
    label: Text = "",
    again: bool = False,
) -> dict[str, Any]:
    """Return the next objects to label, the most useful ones first, and the labels to choose from.

    With ``again``, objects that the user got before are returned as well, because the page was loaded again.
    """
    labelling, sees = context.feed.labelling, _sight(context, identity)
    labelling.use()

    def wanted(one: CandidateExample) -> bool:
        return (
            camera in ("", one.frame.id.camera)
            and pipeline in ("", one.frame.pipeline)
            and label in ("", one.object.label)
            and sees(one.frame.id.camera)
        )

    found = await labelling.offer(identity.user_id, wanted, OFFERED, again=again)
    return {
        "objects": [_item(pick) for pick in found],
        "labels": (await labelling.labels(pipeline, sees))[:MAX_LABELS],
        "outage": context.feed.labels_outage,
    }


@router.get("/api/labels/{id_}/picture", responses={200: {"content": {"image/jpeg": {}}}})
async def picture(request: Request, id_: ObjectId, identity: Operator, context: Context) -> Response:
    """Return the whole frame that shows an object, as its agent redacted and encoded the frame."""
    example = _example(context, identity, id_)
    frame = await context.feed.frame(example.frame.source, example.frame.id)
    context.audit_view(request, identity, "picture_viewed", str(frame.id))
    headers = {"Cache-Control": "private, max-age=3600", "Content-Disposition": "inline"}
    return Response(frame.image, media_type=f"image/{frame.encoding}", headers=headers)


@router.post("/api/labels/{id_}/decisions", status_code=201)
async def decide(
    request: Request, id_: ObjectId, order: LabelOrder, identity: Operator, context: Context
) -> dict[str, Any]:
    """Accept, correct or reject the label of an object, or undo earlier decisions about the object."""
    example = _example(context, identity, id_)
    corrected = order.corrected.strip() if order.verdict == "correct" else ""
    try:
        decision = example.decision(order.verdict, identity.name, context.clock.now_ns(), corrected)
    except ValidationError:
        raise BadInput("a correction needs the right label") from None
    try:
        await write_decision(context.feed.log(), decision)
    except LogUnavailable as error:
        raise Unavailable(f"nothing was saved: {error}") from None
    context.feed.labelling.use()
    context.feed.labelling.decisions.add(decision)
    detail = f"{example.object.label} → {decision.decided or order.verdict}, {example.frame.id}"
    context.audit(request, identity, f"label_{order.verdict}", id_, detail)
    return {"object": id_, "verdict": order.verdict, "label": decision.decided}


def _item(pick: Pick[CandidateExample]) -> dict[str, Any]:
    frame, found = pick.candidate.frame, pick.candidate.object
    return {
        "id": found.id,
        "camera": frame.id.camera,
        "frame": str(frame.id),
        "captured_ms": frame.captured_ns // 1_000_000,
        "width": frame.width,
        "height": frame.height,
        "box": [round(edge, 1) for edge in found.box],
        "label": found.label,
        "score": round(found.score, 3),
        "model": found.model,
        "reason": pick.reason,
    }


def _example(context: ConsoleContext, identity: Identity, id_: str) -> CandidateExample:
    """Return the object ``id_`` if the user may see its camera. Raise NotFound."""
    found = context.feed.labelling.example(id_)
    if found is None or not _sight(context, identity)(found.frame.id.camera):
        raise NotFound("there is no such object in the console's memory, or you may not see it")
    return found


def _sight(context: ConsoleContext, identity: Identity) -> Callable[[str], bool]:
    """Return a function that tells whether the user may see a camera."""
    return cache(lambda camera: context.feed.deployment.sees_camera(identity, camera))


def _recent(context: ConsoleContext, identity: Identity) -> list[LabelDecision]:
    """Return the newest decisions about objects of cameras that the user may see, the newest decision first."""
    decisions, sees = reversed(list(context.feed.labelling.decisions)), _sight(context, identity)
    return list(islice((one for one in decisions if sees(one.camera)), RECENT))
