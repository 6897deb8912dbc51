"""Sign-in, sign-out and the choice of colours."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from console.access.attempts import network
from console.access.forms import read_form, require_same_origin, require_token
from console.access.guard import SESSION, Context, SignedIn, cookie_of, set_cookie
from console.access.oidc import PENDING_S
from console.context import ConsoleContext, address_of, context_of
from console.exceptions import BadInput, Forbidden, NotFound, TooManyAttempts, Unavailable
from console.pages.render import THEME, THEMES, go, local_path, page
from console.state.database import digest
from console.state.users import User, plain_name

START = "sightline-start"
"""Cookie of a browser that has loaded the form for sign-in, from which the form's token is computed."""
STATE = "sightline-oidc"
"""Name of the cookie of a browser that is signing in at the OpenID Connect provider. The cookie proves that the
browser which ends a sign-in has begun it."""
_START_S = 3600.0
_WRONG = "The name or the password is wrong."
router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
async def sign_in_form(request: Request, next: str = "/") -> Response:  # noqa: A002  (the name in the address)
    """Show the form for sign-in."""
    return _form(request, local_path(next))


@router.post("/sign-in")
async def sign_in(request: Request, context: Context) -> Response:
    """Check name and password, and begin a new session.

    If the browser already had a session, this session ends, so that nobody can prepare a session for another user.
    """
    require_same_origin(request)
    await require_token(request, _token(cookie_of(request, START)))
    form = await read_form(request)
    name, target = plain_name(form.text("name"))[:64], local_path(form.text("next"))
    address = address_of(request)
    wait_s = context.limiter.begin(name, address)
    if wait_s > 0.0:
        context.audit_limited(request, name)
        return _limited(request, target, TooManyAttempts(wait_s))
    user = context.users.named(name)
    try:
        matches = await context.passwords.verify(user.password if user else None, form.text("password"))
    except TooManyAttempts as error:
        return _limited(request, target, error)
    if user is None or not matches or not user.enabled:
        context.trail.add("sign_in_failed", name, "", address)
        return _form(request, target, 401, _WRONG)
    context.limiter.succeeded(name, address)
    context.trail.add("signed_in", user.name, "session", address)
    return begin_session(request, context, user, "/account" if user.must_change else target)


@router.get("/sign-in/oidc")
async def sign_in_at_provider(request: Request, context: Context, next: str = "/") -> Response:  # noqa: A002
    """Send the browser to the OpenID Connect provider."""
    if context.oidc is None:
        raise NotFound("this console has no sign-in provider: start it with --oidc-issuer")
    try:
        address, state = await context.oidc.begin(local_path(next), network(address_of(request)))
    except Unavailable as error:
        return _form(request, local_path(next), error.status, f"{error}.")
    response = RedirectResponse(address, 303)
    set_cookie(request, response, STATE, state, PENDING_S)
    return response


@router.get("/sign-in/oidc/done")
async def signed_in_at_provider(
    request: Request, context: Context, state: str = "", code: str = "", error: str = ""
) -> Response:
    """Begin a session for a person whom the provider has authenticated."""
    if context.oidc is None:
        raise NotFound("this console has no sign-in provider: start it with --oidc-issuer")
    address = address_of(request)
    try:
        if error:
            raise Forbidden(f"the provider refused the sign-in: {error[:200]}")
        person, target = await context.oidc.finish(state, cookie_of(request, STATE), code)
        user = context.users.of_provider(person.subject, person.name, person.role, person.limits)
        if not user.enabled:
            raise Forbidden(f"the user {user.name} is switched off")
    except (Forbidden, Unavailable, BadInput) as problem:
        if context.audit_due("sign_in_failed", address):
            context.trail.add("sign_in_failed", "", "oidc", address, detail=str(problem))
        response = _form(request, "/", problem.status, f"{problem}.")
        set_cookie(request, response, STATE, "")
        return response
    context.trail.add("signed_in", user.name, "oidc", address)
    response = begin_session(request, context, user, target)
    set_cookie(request, response, STATE, "")
    return response


@router.post("/sign-out")
async def sign_out(request: Request, identity: SignedIn, context: Context) -> Response:
    """End the session of this browser."""
    context.sessions.close(cookie_of(request, SESSION))
    context.audit(request, identity, "signed_out")
    return _leave(request, "signed_out")


@router.post("/sign-out-everywhere")
async def sign_out_everywhere(request: Request, identity: SignedIn, context: Context) -> Response:
    """End all sessions of the user."""
    context.sessions.close_all(identity.user_id)
    context.audit(request, identity, "signed_out_everywhere")
    return _leave(request, "signed_out_everywhere")


@router.post("/theme")
async def choose_theme(request: Request) -> Response:
    """Remember the colours that the user chose."""
    require_same_origin(request)
    form = await read_form(request)
    response = go(local_path(form.text("next")))
    chosen = form.text("theme")
    response.set_cookie(THEME, chosen if chosen in THEMES else THEMES[0], max_age=31_536_000, samesite="lax")
    return response


def begin_session(request: Request, context: ConsoleContext, user: User, target: str) -> Response:
    """Begin a session with a new id in place of the browser's session, and redirect to ``target``."""
    context.sessions.close(cookie_of(request, SESSION))
    secret = context.sessions.open(user.id, address_of(request), request.headers.get("user-agent", ""))
    response = go(target)
    set_cookie(request, response, SESSION, secret)
    set_cookie(request, response, START, "")
    return response


def _form(request: Request, target: str, status: int = 200, problem: str = "") -> Response:
    start = cookie_of(request, START) or secrets.token_urlsafe(32)
    provider = urlsplit(oidc.options.issuer).hostname if (oidc := context_of(request).oidc) else ""
    values = {"csrf": _token(start), "next": target, "problem": problem, "provider": provider}
    response = page(request, None, "signin.html", status, **values)
    set_cookie(request, response, START, start, _START_S)
    return response


def _limited(request: Request, target: str, error: TooManyAttempts) -> Response:
    response = _form(request, target, error.status, f"{error}.")
    response.headers["Retry-After"] = str(max(1, round(error.wait_s)))
    return response


def _token(start: str) -> str:
    return digest(f"csrf {start}") if start else ""


def _leave(request: Request, done: str) -> Response:
    response = go("/sign-in", done)
    set_cookie(request, response, SESSION, "")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response
