"""The audit trail, for admins without limits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from console.access.guard import Context, Manager
from console.pages.render import page
from console.state.audit import PAGE

Filter = Annotated[str, Query(max_length=200)]
router = APIRouter(include_in_schema=False)


@router.get("/audit")
async def audit(
    request: Request,
    identity: Manager,
    context: Context,
    user: Filter = "",
    action: Filter = "",
    before: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
) -> Response:
    """Show a page of the audit trail, the newest entries first."""
    entries = context.trail.page(user.strip(), action, before)
    context.audit(request, identity, "audit_viewed")
    return page(
        request,
        identity,
        "audit.html",
        entries=entries,
        actions=context.trail.actions(),
        user=user,
        action=action,
        older=entries[-1].id if len(entries) == PAGE else 0,
    )
