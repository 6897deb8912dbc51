"""The check of every request: session or token, role, and the origin of requests that change something.

A route declares the role that it needs by the type of a parameter: ``identity: Viewer``, ``Operator``, ``Admin`` or
``Manager``. A route without a role parameter is public.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.requests import HTTPConnection

from console.access.forms import require_same_origin, require_token
from console.access.roles import Identity, Role
from console.context import ConsoleContext, context_of
from console.exceptions import Forbidden, NotSignedIn, PasswordExpired
from console.state.sessions import LONGEST_S

SESSION = "sightline-session"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_BEARER = "bearer "

Context = Annotated[ConsoleContext, Depends(context_of)]


async def signed_in(connection: HTTPConnection) -> Identity:
    """Return the user of a request, even if the user has signed in with a one-time password. Raise NotSignedIn or
    ForgedRequest.

    A request with a bearer token uses the token, and never the session of a browser. Another kind of
    ``Authorization`` header is ignored, because it belongs to a proxy in front of the console.
    """
    context = context_of(connection)
    authorization = connection.headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        found = context.tokens.identity(authorization[len(_BEARER) :].strip())
        if found is None:
            raise NotSignedIn
        return found
    identity = context.sessions.identity(cookie_of(connection, SESSION))
    if identity is None:
        raise NotSignedIn
    if not isinstance(connection, Request):
        require_same_origin(connection)  # a WebSocket of another site's page carries the cookies as well
    elif connection.method not in _SAFE:
        require_same_origin(connection)
        await require_token(connection, identity.csrf)
    return identity


SignedIn = Annotated[Identity, Depends(signed_in)]


async def viewer(identity: SignedIn) -> Identity:
    """Return a user with any role. Raise PasswordExpired for a one-time password."""
    if identity.must_change:
        raise PasswordExpired
    return identity


async def operator(identity: Annotated[Identity, Depends(viewer)]) -> Identity:
    """Return a user with the role operator or admin. Raise Forbidden."""
    return _with_role(identity, Role.OPERATOR)


async def admin(identity: Annotated[Identity, Depends(viewer)]) -> Identity:
    """Return a user with the role admin, who may be limited to some sites and cameras. Raise Forbidden."""
    return _with_role(identity, Role.ADMIN)


async def manager(identity: Annotated[Identity, Depends(viewer)]) -> Identity:
    """Return a user with the role admin and without limits, who may manage users and read the audit trail. Raise
    Forbidden."""
    if not identity.manages_users:
        raise Forbidden(f"{identity.name} may not see this page: expected the role admin without limits to sites")
    return identity


Viewer = Annotated[Identity, Depends(viewer)]
Operator = Annotated[Identity, Depends(operator)]
Admin = Annotated[Identity, Depends(admin)]
Manager = Annotated[Identity, Depends(manager)]


def _with_role(identity: Identity, role: Role) -> Identity:
    if not identity.role.includes(role):
        raise Forbidden(f"{identity.name} has the role {identity.role}: expected the role {role}")
    return identity


def cookie_of(connection: HTTPConnection, name: str) -> str:
    """Return the value of one of the console's cookies, empty without the cookie."""
    return connection.cookies.get(_cookie_name(name, https=context_of(connection).options.https), "")


def set_cookie(
    connection: HTTPConnection, response: Response, name: str, value: str, max_age_s: float = LONGEST_S
) -> None:
    """Set a cookie that scripts cannot read. An empty value removes the cookie."""
    https = context_of(connection).options.https
    response.set_cookie(
        _cookie_name(name, https=https),
        value,
        max_age=round(max_age_s) if value else 0,
        path="/",
        secure=https,
        httponly=True,
        samesite="lax",
    )


def _cookie_name(name: str, *, https: bool) -> str:
    """Return the full name of a cookie. Browsers accept a cookie with the prefix ``__Host-`` only from this host over
    HTTPS."""
    return f"__Host-{name}" if https else name
