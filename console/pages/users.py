"""Users with their roles and limits, for admins without limits."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from fastapi.responses import Response

from console.access.forms import Form, read_form
from console.access.guard import Context, Manager
from console.access.passwords import one_time_password
from console.access.roles import Identity, Limits, Role
from console.context import ConsoleContext
from console.exceptions import BadInput, TooManyAttempts
from console.pages.account import RowId, role_of
from console.pages.render import go, page

_SEPARATORS = re.compile(r"[,\s]+")
MAX_NAMES = 1000
router = APIRouter(include_in_schema=False)


@router.get("/users")
async def users(request: Request, identity: Manager, context: Context) -> Response:
    """Show all users."""
    return _page(request, identity, context)


@router.post("/users")
async def add_user(request: Request, identity: Manager, context: Context) -> Response:
    """Add a user, and show the one-time password once."""
    form = await read_form(request)
    password = one_time_password()
    try:
        role, limits = role_of(form.text("role")), _limits(form)
        hashed = await context.passwords.hash(password)
        user = context.users.add(form.text("name"), hashed, role, limits, must_change=True)
    except (BadInput, TooManyAttempts) as error:
        return _page(request, identity, context, error.status, problem=f"Not added: {error}.")
    context.audit(request, identity, "user_added", user.name, _described(role, limits))
    return _page(request, identity, context, issued=(user.name, password))


@router.post("/users/{number}")
async def change_user(request: Request, number: RowId, identity: Manager, context: Context) -> Response:
    """Change the rights of a user."""
    form = await read_form(request)
    user, enabled = context.users.get(number), form.ticked("enabled")
    try:
        role, limits = role_of(form.text("role")), _limits(form)
        context.users.set_rights(number, role, limits, enabled=enabled)
    except BadInput as error:
        return _page(request, identity, context, error.status, problem=f"Not saved: {error}.")
    detail = _described(role, limits) + ("" if enabled else ", switched off")
    context.audit(request, identity, "user_changed", user.name, detail)
    return go("/users", "saved")


@router.post("/users/{number}/reset")
async def reset_user(request: Request, number: RowId, identity: Manager, context: Context) -> Response:
    """Give a user a new one-time password and show it once. End the sessions of the user."""
    user, password = context.users.get(number), one_time_password()
    try:
        if user.at_provider:  # with a password, the person would get another account at the next sign-in there
            raise BadInput(f"{user.name} signs in at the OpenID Connect provider: change the password there")
        hashed = await context.passwords.hash(password)
    except (BadInput, TooManyAttempts) as error:
        return _page(request, identity, context, error.status, problem=f"Not reset: {error}.")
    context.users.set_password(number, hashed, must_change=True)
    context.audit(request, identity, "password_reset", user.name)
    return _page(request, identity, context, issued=(user.name, password))


@router.post("/users/{number}/remove")
async def remove_user(request: Request, number: RowId, identity: Manager, context: Context) -> Response:
    """Remove a user. The user's entries in the audit trail stay."""
    user = context.users.get(number)
    try:
        context.users.remove(number)
    except BadInput as error:
        return _page(request, identity, context, error.status, problem=f"Not removed: {error}.")
    context.audit(request, identity, "user_removed", user.name)
    return go("/users", "user_removed")


def _page(
    request: Request,
    identity: Identity,
    context: ConsoleContext,
    status: int = 200,
    problem: str = "",
    issued: tuple[str, str] | None = None,
) -> Response:
    found = context.users.all()
    return page(
        request, identity, "users.html", status, problem=problem, issued=issued, users=found, roles=list(Role)
    )


def _limits(form: Form) -> Limits:
    if form.ticked("everywhere"):
        return Limits(everywhere=True)
    sites, cameras = (_names(form.text(field)) for field in ("sites", "cameras"))
    return Limits(sites=sites, cameras=cameras)


def _names(text: str) -> frozenset[str]:
    names = [name for name in _SEPARATORS.split(text) if name]
    if len(names) > MAX_NAMES or any(len(name) > 200 for name in names):
        raise BadInput(f"too many or too long names: expected at most {MAX_NAMES} names of sites or cameras")
    return frozenset(names)


def _described(role: Role, limits: Limits) -> str:
    if limits.everywhere:
        return f"{role}, everywhere"
    return f"{role}, sites {sorted(limits.sites)}, cameras {sorted(limits.cameras)}"
