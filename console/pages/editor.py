"""The editor: lines, zones, masks and the ground plane on the picture of a camera, with a trial before saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from console.access.guard import Context, Operator
from console.access.roles import Identity
from console.context import ConsoleContext
from console.editor.draft import CameraDraft, EntryChange, after_changes, camera_of, changes_of, rules_of, version_of
from console.editor.history import SavedChange, undo_of
from console.editor.kinds import RuleKind, rule_kinds
from console.editor.picture import newest_frame
from console.editor.request import DraftReport, TrialRequest
from console.editor.save import save
from console.editor.sitefile import site_values
from console.exceptions import NotFound, Unavailable
from console.pages.render import page
from ingest.exceptions import LogUnavailable
from ingest.site import CameraConfig, MeasureConfig, PipelineConfig
from ingest.site.file import UNNAMED
from ingest.site.topic.view import Config

HOUR_MS = 3_600_000
LONGEST_MS = 24 * HOUR_MS
RowId = Annotated[int, PathParameter(ge=1, le=2**53)]
router = APIRouter()


class EditedRule(BaseModel):
    """A rule of the camera with all its settings."""

    name: str
    version: str
    settings: dict[str, Any]


class EditedCamera(BaseModel):
    """Everything that the editor shows of a camera. Points are in shares of the picture's width and height."""

    camera: str
    version: str
    rules: list[EditedRule]
    gate_masks: list[list[tuple[float, float]]]
    redact_masks: list[list[tuple[float, float]]]
    ground: dict[str, Any] | None
    pipelines: list[str]
    kinds: list[RuleKind]


class TrialOrder(BaseModel):
    """A draft to try, and the length of the period before now."""

    draft: CameraDraft
    period_ms: Annotated[int, Field(ge=1000, le=LONGEST_MS)] = HOUR_MS


class TrialStatus(BaseModel):
    """The progress of a trial in results read, and its report once it has ended."""

    id: str
    read: int
    total: int
    state: Literal["running", "done", "failed"]
    problem: str = ""
    report: DraftReport | None = None


class SaveOrder(BaseModel):
    """A draft to save, and a comment for the history."""

    draft: CameraDraft
    comment: Annotated[str, Field(max_length=500)] = ""


class Saved(BaseModel):
    """Keys of the entries that were written or removed."""

    keys: list[str]


@router.get("/editor", include_in_schema=False)
async def cameras(request: Request, identity: Operator, context: Context) -> Response:
    """Show the cameras to choose from."""
    deployment = context.feed.deployment
    found = deployment.visible_cameras(identity)
    counts = {camera.name: len(deployment.rules_of(camera.name)) for camera in found}
    return page(request, identity, "cameras.html", cameras=found, counts=counts)


@router.get("/editor/{name}", include_in_schema=False)
async def editor(request: Request, name: str, identity: Operator, context: Context) -> Response:
    """Show the editor of one camera."""
    camera = _camera(context, identity, name)
    context.audit(request, identity, "editor_viewed", name)
    changes = context.history.of_camera(name)
    return page(request, identity, "editor.html", camera=camera, changes=changes)


@router.get("/api/cameras/{name}/configuration")
async def configuration(name: str, identity: Operator, context: Context) -> EditedCamera:
    """Return the rules, masks and ground plane of a camera, and the types of rules."""
    camera, config = _camera(context, identity, name), context.feed.deployment.config
    return EditedCamera(
        camera=name,
        version=version_of(camera),
        rules=[
            EditedRule(
                name=rule.name,
                version=version_of(config.entries[rule.key]),
                settings=rule.model_dump(mode="json", exclude={"sites", "name", "camera"}, exclude_defaults=True)
                | {"type": rule.type, "pipeline": rule.pipeline},
            )
            for rule in rules_of(config, name)
        ],
        gate_masks=[list(mask) for mask in camera.gate.masks],
        redact_masks=[list(mask) for mask in camera.redact.masks],
        ground=camera.ground.model_dump(mode="json") if camera.ground else None,
        pipelines=[one.name for one in config.of(PipelineConfig) if not one.cameras or name in one.cameras],
        kinds=rule_kinds(),
    )


@router.get("/api/cameras/{name}/picture", responses={200: {"content": {"image/jpeg": {}}}})
async def picture(request: Request, name: str, identity: Operator, context: Context) -> Response:
    """Return the newest picture of a camera."""
    _camera(context, identity, name)
    try:
        frame = await newest_frame(context.feed.log(), context.feed.deployment.config, name)
    except LogUnavailable as error:
        raise Unavailable(str(error)) from None
    if frame is None:
        raise NotFound(f"the log has no recent picture of camera {name!r}")
    context.audit(request, identity, "picture_viewed", name)
    return Response(frame.image, media_type=f"image/{frame.encoding}", headers={"Cache-Control": "no-store"})


@router.post("/api/cameras/{name}/trials", status_code=202)
async def start_trial(name: str, order: TrialOrder, identity: Operator, context: Context) -> TrialStatus:
    """Run a draft over the stored results of the latest period. Nothing is saved."""
    _camera(context, identity, name)
    config = context.feed.deployment.config
    after = after_changes(config, changes_of(config, name, order.draft))
    now_ms = context.clock.now_ns() // 1_000_000

    def request_in(folder: Path) -> TrialRequest:
        return TrialRequest(
            camera=camera_of(after, name),
            pipelines=after.of(PipelineConfig),
            measures=tuple(one for one in after.of(MeasureConfig) if one.camera == name),
            rules=tuple(rules_of(after, name)),
            since_ms=now_ms - order.period_ms,
            until_ms=now_ms,
            folder=folder,
        )

    return await trial(context.trials.start(identity.user_id, request_in).id, identity, context)


@router.get("/api/trials/{id_}")
async def trial(id_: str, identity: Operator, context: Context) -> TrialStatus:
    """Return the progress or the report of a trial that the user started."""
    found = context.trials.trial(id_, identity.user_id)
    state: Literal["running", "done", "failed"] = "running" if found.running else "done" if found.report else "failed"
    return TrialStatus(
        id=found.id, read=found.read, total=found.total, state=state, problem=found.problem or "", report=found.report
    )


@router.get("/api/trials/{id_}/pictures/{number}", responses={200: {"content": {"image/jpeg": {}}}})
async def trial_picture(
    id_: str, number: Annotated[int, PathParameter(ge=0, le=1000)], identity: Operator, context: Context
) -> Response:
    """Return the picture of a tried event."""
    file = context.trials.trial(id_, identity.user_id).folder / f"{number}.jpg"
    if not file.is_file():
        raise NotFound("this event has no picture")
    return FileResponse(file, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.put("/api/cameras/{name}/configuration")
async def save_draft(request: Request, name: str, order: SaveOrder, identity: Operator, context: Context) -> Saved:
    """Write the changes of a draft to the config topic. Services apply the changes within about five seconds."""
    _camera(context, identity, name)

    def changes(config: Config) -> list[EntryChange]:
        _allowed(identity, camera_of(config, name))
        return changes_of(config, name, order.draft)

    return await _save(request, context, identity, name, changes, order.comment)


@router.post("/api/changes/{id_}/undo")
async def undo(request: Request, id_: RowId, identity: Operator, context: Context) -> Saved:
    """Restore the entry as it was before a saved change."""
    change = context.history.change(id_)
    _camera(context, identity, change.camera)

    def changes(config: Config) -> list[EntryChange]:
        _allowed(identity, camera_of(config, change.camera))
        return [undo_of(change, config)]

    return await _save(request, context, identity, change.camera, changes, f"undo of change {id_}")


@router.get("/api/sites/{name}/file", responses={200: {"content": {"application/toml": {}}}})
async def site_file(
    request: Request, name: str, identity: Operator, context: Context, download: Annotated[bool, Query()] = True
) -> Response:
    """Return the entries of a site as a site file, so that the file can follow the changes of the console."""
    if not identity.limits.sees_site(name):
        raise NotFound("there is no such site, or you may not see it")
    text = tomli_w.dumps(site_values(context.feed.deployment.config, name))
    context.audit(request, identity, "site_file_read", name)
    headers = {"Content-Disposition": 'attachment; filename="site.toml"'} if download else {}
    return Response(text, media_type="application/toml", headers=headers)


@router.get("/api/cameras/{name}/changes")
async def changes_of_camera(name: str, identity: Operator, context: Context) -> list[SavedChange]:
    """Return the changes that users of the console saved for a camera, the newest first."""
    _camera(context, identity, name)
    return context.history.of_camera(name)


async def _save(
    request: Request,
    context: ConsoleContext,
    identity: Identity,
    camera: str,
    changes: Callable[[Config], list[EntryChange]],
    comment: str,
) -> Saved:
    try:
        saved = await save(context.feed.log(), changes, context.options.signer)
    except LogUnavailable as error:
        raise Unavailable(f"nothing was saved: {error}") from None
    for change in saved:
        context.history.add(identity.name, camera, change, comment)
        context.audit(request, identity, "configuration_changed", change.key, comment)
    return Saved(keys=[change.key for change in saved])


def _camera(context: ConsoleContext, identity: Identity, name: str) -> CameraConfig:
    """Return a camera that the user may see. Raise NotFound."""
    camera = context.feed.deployment.camera(name)
    if camera is None:
        raise NotFound("there is no such camera, or you may not see it")
    return _allowed(identity, camera)


def _allowed(identity: Identity, camera: CameraConfig) -> CameraConfig:
    if not identity.limits.sees_camera(camera.name, camera.site or UNNAMED):
        raise NotFound("there is no such camera, or you may not see it")
    return camera
