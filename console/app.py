"""The ASGI application of the console."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket

from console.access.guard import Viewer
from console.access.headers import SecurityHeaders
from console.api import routes
from console.context import ConsoleContext
from console.exceptions import ConsoleError, NotSignedIn, PasswordExpired
from console.pages import (
    account,
    audit,
    editor,
    events,
    export,
    incidents,
    labels,
    ledger,
    numbers,
    signin,
    users,
    wall,
)
from console.pages.navigation import links_of
from console.pages.render import STATIC, page

API = "/api/"
VERSION = "1.0"
"""Version of the HTTP API."""
ROUTERS = (
    wall.router,
    events.router,
    incidents.router,
    export.router,
    numbers.router,
    ledger.router,
    editor.router,
    labels.router,
    routes.router,
    signin.router,
    account.router,
    users.router,
    audit.router,
)
"""Routers of all pages and of the HTTP API."""
_WEBSOCKET_REFUSED = 1008
"""Close code of a WebSocket that the guard refuses: policy violation (RFC 6455)."""


class VersionedFiles(StaticFiles):
    """Static files. Browsers may keep a file whose address has a version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the response for one file."""
        response = await super().get_response(path, scope)
        is_versioned = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_versioned else "no-cache"
        return response


def make_app(context: ConsoleContext) -> SecurityHeaders:
    """Return the application for a context."""
    app = FastAPI(title="Sightline console", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.console = context
    app.add_exception_handler(ConsoleError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.mount("/static", VersionedFiles(directory=STATIC), name="static")
    for router in ROUTERS:
        app.include_router(router)

    @app.get("/health", include_in_schema=False)
    async def health() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/", include_in_schema=False)
    async def start(identity: Viewer) -> Response:
        return RedirectResponse(links_of(identity)[0].path, 303)

    return SecurityHeaders(app, https=context.options.https)


async def _refused(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, ConsoleError)  # noqa: S101  (the class for which this handler is registered)
    if isinstance(connection, WebSocket):
        await connection.close(_WEBSOCKET_REFUSED)
        return Response()
    request = Request(connection.scope)
    if isinstance(error, NotSignedIn) and not request.url.path.startswith(API):
        return _elsewhere(request, f"/sign-in?{urlencode({'next': _page_of(request)})}")
    if isinstance(error, PasswordExpired) and not request.url.path.startswith(API):
        return _elsewhere(request, "/account")
    return _error(request, error.status, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (the class for which this handler is registered)
    detail = "this page does not exist" if error.status_code == 404 else error.detail
    return _error(request, error.status_code, detail)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  (the class for which this handler is registered)
    first: dict[str, Any] = error.errors()[0]
    return _error(request, 422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")


def _error(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith(API):
        return JSONResponse({"detail": message}, status)
    return page(request, None, "error.html", status, code=status, message=message)


def _elsewhere(request: Request, path: str) -> Response:
    """Redirect a browser. A request from HTMX gets a header that makes the whole page load the new address, not only
    a part of it."""
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": path})
    return RedirectResponse(path, 303)


def _page_of(request: Request) -> str:
    """Return the address to load again after the sign-in."""
    if request.method != "GET" or request.headers.get("hx-request"):
        return "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
