"""Rendering of the templates."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.requests import HTTPConnection
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from console.access.roles import Identity
from console.context import context_of
from console.pages.navigation import links_of

HOME = Path(__file__).resolve().parents[1]
STATIC = HOME / "static"
THEME = "sightline-theme"
THEMES = ("auto", "light", "dark")
NOTICES = {
    "saved": "Saved.",
    "configured": "Saved. Services follow the change within about five seconds.",
    "user_removed": "The user was removed.",
    "token_removed": "The token was removed.",
    "password_changed": "The password was changed. All other sessions have ended.",
    "signed_out": "You are signed out.",
    "signed_out_everywhere": "All your sessions have ended.",
}
"""Texts of the notices that a page shows after an action, by the value of the parameter ``done``."""


@functools.cache
def environment() -> Environment:
    """Return the environment of all templates. Values are escaped, and a missing value is an error."""
    found = Environment(
        loader=FileSystemLoader(HOME / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["static"] = static_url
    found.filters |= {"time": time_tag, "query": urlencode}
    return found


@functools.cache
def static_url(name: str) -> str:
    """Return the address of a static file. The address changes with the file, so that browsers may keep the file."""
    version = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"


def time_tag(at_ns: int) -> Markup:
    """Return a time in UTC as HTML, which a script shows in the time zone of the browser."""
    at = datetime.fromtimestamp(at_ns / 1e9, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"), at.strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def page(
    request: Request, identity: Identity | None, template: str, status: int = 200, **values: Any
) -> HTMLResponse:
    """Render a template. Without an ``identity``, the page has no navigation."""
    html = (
        environment()
        .get_template(template)
        .render(
            identity=identity,
            links=links_of(identity) if identity else [],
            path=request.url.path,
            theme=theme_of(request),
            outage=context_of(request).feed.outage if identity else "",
            store_outage=context_of(request).evidence.outage if identity else "",
            notice=NOTICES.get(request.query_params.get("done", ""), ""),
            **{"problem": "", **values},
        )
    )
    return HTMLResponse(html, status)


def go(path: str, done: str = "") -> Response:
    """Return a redirect after an action. ``done`` is a key of ``NOTICES``."""
    return RedirectResponse(f"{path}?{urlencode({'done': done})}" if done else path, 303)


def theme_of(connection: HTTPConnection) -> str:
    """Return the colours that the user chose: ``light``, ``dark``, or ``auto`` for those of the system."""
    found = connection.cookies.get(THEME, "")
    return found if found in THEMES else THEMES[0]


def local_path(path: str, default: str = "/") -> str:
    """Return a path of this console, or ``default`` for an address that leads elsewhere."""
    is_local = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() and "\\" not in path
    return path if is_local else default
