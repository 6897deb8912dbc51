"""The account of the user: password, sessions and API tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from console.access.forms import read_form
from console.access.guard import Context, SignedIn, Viewer
from console.access.passwords import MIN_CHARS, require_good
from console.access.roles import Identity, Role
from console.context import ConsoleContext, address_of
from console.exceptions import BadInput, TooManyAttempts
from console.pages.render import go, page
from console.pages.signin import begin_session

RowId = Annotated[int, Path(ge=1, le=2**63 - 1)]
router = APIRouter(include_in_schema=False)


@router.get("/account")
async def account(request: Request, identity: SignedIn, context: Context) -> Response:
    """Show the account. A user with a one-time password sees only the form for a new password."""
    return _page(request, identity, context)


@router.post("/account/password")
async def change_password(request: Request, identity: SignedIn, context: Context) -> Response:
    """Replace the password, end all other sessions, and begin a new session."""
    form = await read_form(request)
    user, address = context.users.get(identity.user_id), address_of(request)
    new = form.text("new")
    try:
        wait_s = context.limiter.begin(user.name, address)
        if wait_s > 0.0:
            raise TooManyAttempts(wait_s)
        if not await context.passwords.verify(user.password, form.text("old")):
            raise BadInput("the present password is wrong")
        context.limiter.succeeded(user.name, address)
        require_good(new, user.name)
        if new != form.text("again"):
            raise BadInput("the two new passwords differ")
        if new == form.text("old"):
            raise BadInput("the new password is the present password: choose another one")
        hashed = await context.passwords.hash(new)
    except (BadInput, TooManyAttempts) as error:
        return _page(request, identity, context, error.status, problem=f"Not changed: {error}.")
    context.users.set_password(user.id, hashed, must_change=False)
    context.audit(request, identity, "password_changed")
    return begin_session(request, context, user, "/" if identity.must_change else "/account?done=password_changed")


@router.post("/account/tokens")
async def add_token(request: Request, identity: Viewer, context: Context) -> Response:
    """Add an API token, and show the token once."""
    form = await read_form(request)
    try:
        role = role_of(form.text("role"))
        token = context.tokens.add(identity, form.text("name"), role, form.number("days"))
    except BadInput as error:
        return _page(request, identity, context, error.status, problem=f"Not added: {error}.")
    context.audit(request, identity, "token_added", form.text("name"), role.value)
    return _page(request, identity, context, new_token=token)


@router.post("/account/tokens/{number}/remove")
async def remove_token(request: Request, number: RowId, identity: Viewer, context: Context) -> Response:
    """Remove an API token."""
    if context.tokens.remove(identity.user_id, number):
        context.audit(request, identity, "token_removed", str(number))
    return go("/account", "token_removed")


def _page(
    request: Request,
    identity: Identity,
    context: ConsoleContext,
    status: int = 200,
    problem: str = "",
    new_token: str = "",
) -> Response:
    return page(
        request,
        identity,
        "account.html",
        status,
        problem=problem,
        new_token=new_token,
        sessions=context.sessions.of_user(identity.user_id),
        tokens=context.tokens.of_user(identity.user_id),
        roles=[role for role in Role if identity.role.includes(role)],
        min_chars=MIN_CHARS,
    )


def role_of(text: str) -> Role:
    """Return the role with the name ``text``. Raise BadInput."""
    try:
        return Role(text)
    except ValueError:
        raise BadInput(f"role {text[:40]!r}: expected one of {', '.join(Role)}") from None
